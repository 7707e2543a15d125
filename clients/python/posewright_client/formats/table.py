"""The tidy table: one row a keypoint. CSV and Parquet share its columns."""

from __future__ import annotations

from collections.abc import Iterator

from posewright_client.formats.recording import RecordedFrame, Recording

Row = tuple[int, float | None, int | None, int | None, str | None, float | None, float | None, float | None]
COLUMNS = ("frame", "time_s", "track", "person", "keypoint", "x_px", "y_px", "score")
"""``person`` is the number of the person in its frame, which tells people apart where nobody is tracked."""
FILE = "file"
"""One more column, the last, for photos."""


def rows(recording: Recording, frame: RecordedFrame) -> Iterator[Row]:
    """Yield a frame's rows. A frame without people is one row whose columns after the time are empty."""
    for i, person in enumerate(frame.people):
        for name, (x, y, score) in zip(recording.skeleton.keypoints, person.keypoints, strict=True):
            yield frame.index, frame.time_s, person.track, i, name, x, y, score
    if not frame.people:
        yield frame.index, frame.time_s, None, None, None, None, None, None
