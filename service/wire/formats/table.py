"""A picture's people as a tidy CSV table: one row a keypoint, in the columns of ``posewright-client convert --to csv``.

``frame`` is 0, ``time_s`` and ``track`` are empty: a picture has no time, and nobody is followed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from service.wire.formats.record import PoseRecord

MEDIA_TYPE = "text/csv"
COLUMNS = ("frame", "time_s", "track", "person", "keypoint", "x_px", "y_px", "score")
"""Units are in the names; ``person`` is the number of the person in the picture."""


def write_table(people: Sequence[PoseRecord]) -> bytes:
    """Write the table. A picture without people has one row whose columns after the frame are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, person in enumerate(people):
        writer.writerows(
            (0, None, None, i, name, *point) for name, point in zip(person.names, person.keypoints, strict=True)
        )
    if not people:
        writer.writerow((0, *[None] * (len(COLUMNS) - 1)))
    return text.getvalue().encode()
