"""Reads videos with exact frame times, and writes videos that appear under their name only when complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import PosewrightError
from posewright_client._pictures import require_cv2
from posewright_client.cli.containers import is_truncated

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".avi")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
MAX_FPS = 60.0
EVEN_WITHIN_MS = 1.0
"""Tolerance for a constant frame rate; containers such as Matroska round times to a millisecond."""


@dataclass(frozen=True, slots=True)
class MovieFrame:
    """One frame of a video.

    Attributes:
        index: From 0.
        time_us: Timestamp in the container, µs from the beginning of the video.
        bgr: Pixels, uint8 (H, W, 3) BGR.
    """

    index: int
    time_us: int
    bgr: NDArray[np.uint8]


class Movie:
    """A video file.

    Attributes:
        frames: Number of frames that the container declares; an estimate, 0 if it declares none.
        fps: Frame rate that the container declares.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and read its properties.

        Raises:
            FileNotFoundError: The file does not exist.
            PosewrightError: It is a folder, or OpenCV cannot read it.
            MissingExtra: OpenCV is not installed.
        """
        self._cv2 = require_cv2("reading videos")
        if path.is_dir():
            raise PosewrightError(f"{path}: expected a video file, got a folder")
        if not path.is_file():
            hint = "; for the address of a camera, use `webcam --device`" if ADDRESS.match(str(path)) else ""
            raise FileNotFoundError(f"{path}: there is no such file{hint}")
        self.path = path
        capture = self._open()
        self.frames = max(0, int(capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))
        self.fps = float(capture.get(self._cv2.CAP_PROP_FPS))
        capture.release()

    def _open(self) -> Any:
        capture = self._cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise PosewrightError(f"{self.path}: expected a video that OpenCV can read, e.g. MP4, MKV, AVI or WebM")
        return capture

    def missing(self, read: int) -> int:
        """Return the number of frames that a truncated file lacks; 0 if the file is complete.

        The declared count alone is no proof, because containers also count frames that were trimmed from the video.

        Args:
            read: Number of frames that could be read.
        """
        return max(0, self.frames - read) if is_truncated(self.path) else 0

    def read(self, start: int = 0) -> Iterator[MovieFrame]:
        """Yield the frames from index ``start`` on.

        Earlier frames are decoded and skipped, because seeking is inexact in most containers.
        """
        cv2, capture = self._cv2, self._open()
        try:
            index, time_us = 0, -1
            while capture.grab():
                # The timestamp of the grabbed frame. Without timestamps it is constant, and the rate is used.
                stamp_us = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1000)
                time_us = stamp_us if stamp_us > time_us else time_us + round(1e6 / (self.fps or 25))
                if index >= start:
                    ok, bgr = capture.retrieve()
                    if not ok:
                        raise PosewrightError(f"{self.path}: frame {index} cannot be decoded")
                    yield MovieFrame(index, time_us, bgr)
                index += 1
        finally:
            capture.release()


def even_fps(times_us: Sequence[int], fps: float) -> float:
    """Return a constant rate at which every frame can be shown: the video's own, or that of its shortest interval.

    Args:
        times_us: Times of the frames, µs.
        fps: Rate that the container declares.
    """
    intervals_ms = np.diff(np.asarray(times_us, np.float64)) / 1000
    if len(intervals_ms) == 0 or intervals_ms.min() <= 0:
        return fps or 25.0
    if np.ptp(intervals_ms) <= 2 * EVEN_WITHIN_MS:
        return fps or float(1000 / intervals_ms.mean())
    return float(min(MAX_FPS, 1000 / intervals_ms.min()))


class MovieWriter:
    """Writes pictures at a constant rate; each is shown from its own time on, to within half a period.

    OpenCV leaves out pictures of another size than the video's, so these are fitted into it, with bars.
    """

    def __init__(self, writer: Any, fps: float, size: tuple[int, int]) -> None:
        self._writer, self._fps, self._size = writer, fps, size
        self._written = 0
        self._last: NDArray[np.uint8] | None = None

    def write(self, bgr: NDArray[np.uint8], time_us: int) -> None:
        """Show a picture from a time on, µs."""
        if self._last is not None:
            self._show_until(round(time_us * self._fps / 1e6))
        self._last = _fitted(bgr, self._size)

    def finish(self) -> None:
        """Show the last picture, for one period."""
        self._show_until(self._written + 1)

    def _show_until(self, slot: int) -> None:
        while self._written < slot and self._last is not None:
            self._writer.write(self._last)
            self._written += 1


def _fitted(bgr: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the picture with bars around it where it is not of ``size`` (width, height)."""
    (width, height), (h, w) = size, bgr.shape[:2]
    if (w, h) == size:
        return bgr
    cv2 = require_cv2("writing videos")
    scale = min(width / w, height / h)
    w, h = max(1, round(scale * w)), max(1, round(scale * h))
    left, top = (width - w) // 2, (height - h) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + h, left : left + w] = cv2.resize(bgr, (w, h), interpolation=cv2.INTER_AREA)
    return fitted


def require_writable(path: Path) -> None:
    """Check the suffix of a video to write.

    Raises:
        PosewrightError: OpenCV cannot write such a container.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise PosewrightError(f"{path}: expected one of the suffixes {', '.join(CONTAINERS)}, got {path.suffix!r}")


@contextmanager
def writing(path: Path, fps: float, size: tuple[int, int]) -> Iterator[MovieWriter]:
    """Write a video that appears under its name only when it is complete.

    Args:
        path: The file; its suffix selects the container.
        fps: Pictures per second.
        size: Width and height, px.

    Raises:
        PosewrightError: OpenCV cannot write such a video.
    """
    cv2 = require_cv2("writing videos")
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    fourcc = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix.lower() == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(part), fourcc, fps, size)
    if not writer.isOpened():
        raise PosewrightError(f"{path}: OpenCV cannot write this video of {size[0]} x {size[1]} px")
    movie = MovieWriter(writer, fps, size)
    try:
        yield movie
        movie.finish()
    except BaseException:
        writer.release()
        part.unlink(missing_ok=True)
        raise
    writer.release()
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
