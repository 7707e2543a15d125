"""How long a job's video may be, and which of its frames are answered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

from service.jobs.errors import VideoTooLarge
from service.settings import Settings
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import VideoUnreadable
from service.video.frames import Video, VideoFrame, VideoInfo, VideoLimits
from service.wire.job import JobOptions

TIME_TOLERANCE_S = 1e-6


@contextmanager
def opened(path: Path, max_pixels: int) -> Iterator[tuple[VideoInfo, Iterator[VideoFrame]]]:
    """Open a video file; yields what it says of itself, and its frames, of which there is at least one.

    Raises:
        VideoNotInstalled: PyAV is missing.
        VideoUnreadable: It is no video, or no frame can be decoded.
        TooLarge: A frame has too many pixels.
    """
    # Of the folder alone: the file cannot make FFmpeg open another one.
    allowed = AllowedUrls((f"file:{path.parent}",))
    video = Video(VideoUrl(path.as_uri(), "file", path=str(path)), allowed, VideoLimits(max_pixels=max_pixels))
    info = video.open()
    with closing(video.frames()) as frames:
        first = next(frames, None)  # a generator frees the file only if it was begun
        if first is None:
            raise VideoUnreadable("expected a video with at least one frame, got none that can be decoded")
        yield info, chain([first], frames)


def check_video(path: Path, settings: Settings) -> VideoInfo:
    """Check that a file is a video within the limits, by its own account and its first frame.

    Raises:
        ServiceError: As `opened`.
        VideoTooLarge: It has too many frames or seconds.
    """
    with opened(path, settings.max_pixels) as (info, _):
        require_length(info.frame_count, settings)
        if info.fps:
            require_seconds(info.frame_count / info.fps, settings)
    return info


def require_length(frames: int, settings: Settings) -> None:
    """Check the number of frames.

    Raises:
        VideoTooLarge: There are too many.
    """
    if frames > settings.job_max_frames:
        raise VideoTooLarge(
            f"expected a video of at most {settings.job_max_frames} frames, got {frames}; cut it into parts",
            limit="frames",
            maximum=settings.job_max_frames,
            got=frames,
        )


def require_seconds(duration_s: float, settings: Settings) -> None:
    """Check the length in time.

    Raises:
        VideoTooLarge: It is too long.
    """
    if duration_s > settings.job_max_duration_s:
        raise VideoTooLarge(
            f"expected a video of at most {settings.job_max_duration_s:g} s, got {duration_s:.1f} s; cut it into parts",
            limit="seconds",
            maximum=settings.job_max_duration_s,
            got=round(duration_s, 3),
        )


class FrameSelection:
    """Says which frames are answered: a function of their numbers and times, so that a restarted job chooses alike."""

    def __init__(self, options: JobOptions) -> None:
        """Begin with the first frame, which is always answered."""
        self._every = options.every
        self._period_s = 1 / options.max_fps if options.max_fps else 0.0
        self._due_s = 0.0

    def takes(self, frame: VideoFrame) -> bool:
        """Return whether the next frame is answered; to be asked for every frame, in order."""
        if frame.index % self._every:
            return False
        if self._period_s:
            late_s = frame.time_s + TIME_TOLERANCE_S - self._due_s
            if late_s < 0:
                return False
            self._due_s += self._period_s * (math.floor(late_s / self._period_s) + 1)
        return True
