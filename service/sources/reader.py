"""The thread that reads a source: opens it, decodes its frames, and connects again when it breaks off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.errors import BadParameter, ServiceError, TooLarge, internal_error
from service.inference.image import DecodedImage
from service.sources.backoff import backoff_s
from service.sources.history import Gap, SourceHistory
from service.streaming.frame_queue import FrameQueue
from service.streaming.frames import StreamFrame
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import VideoNotInstalled, VideoUnreadable
from service.video.frames import Video, VideoFrame, VideoLimits

log = logging.getLogger(__name__)

State = Literal["connecting", "running", "paused", "reconnecting", "ended", "failed"]
MAX_BACKOFF_S = 10.0
STEADY_S = 3.0
"""A connection that lasted so long was a good one: the next attempt begins with the shortest wait."""


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """A decoded frame of a source as a stream's picture; colours are converted on the inference thread."""

    video_frame: VideoFrame

    @property
    def pixel_count(self) -> int:
        """Number of its pixels."""
        return self.video_frame.pixel_count

    def decode(self) -> DecodedImage:
        """Convert it to RGB."""
        return DecodedImage(self.video_frame.pixels(), 1)


@dataclass(frozen=True, slots=True)
class ReaderEvents:
    """What a reader tells, from its own thread.

    Attributes:
        frame: A frame was put into the queue.
        state: The state has changed.
        gap: A gap has ended.
    """

    frame: Callable[[], None]
    state: Callable[[SourceReader, State], None]
    gap: Callable[[Gap], None]


class SourceReader:
    """Reads one source until it is stopped, or until a file ends.

    Frames of cameras and devices come when they come, and a newer one replaces the one that waits. A file is read at
    its own pace in the same way; or, with ``every_frame``, as fast as its frames are answered.
    """

    def __init__(
        self,
        url: VideoUrl,
        allowed: AllowedUrls,
        limits: VideoLimits,
        queue: FrameQueue,
        history: SourceHistory,
        events: ReaderEvents,
        *,
        every_frame: bool,
    ) -> None:
        """Prepare; `start` starts the thread."""
        self._url, self._allowed, self._limits = url, allowed, limits
        self._queue, self._history, self._events = queue, history, events
        self._every_frame = every_frame
        self._stopped = threading.Event()
        self._going = threading.Event()  # cleared while a file is held
        self._going.set()
        self.room = threading.Event()
        """Set by whoever takes a frame from the queue."""
        self.live: bool | None = None
        """Whether it is a camera or device; None until it was open once."""
        self._video: Video | None = None
        self._origin_s: float | None = None  # when it was open for the first time
        self._connected_s: float | None = None  # since when it is open now
        self._warned: str | None = None  # what was logged last, since frames came
        self._thread = threading.Thread(target=self._run, name=f"source-{url.scheme}", daemon=True)

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end and to free the camera; does not wait."""
        self._stopped.set()
        self._going.set()
        self.room.set()
        if self._video is not None:
            self._video.close()

    def hold(self) -> None:
        """Stop a file where it is."""
        self._going.clear()

    def release(self) -> None:
        """Read a held file on."""
        self._going.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            end = self._read_and_reconnect()
        except Exception:
            log.exception("source %s failed", self._url.redacted)
            self._history.interrupted(internal_error().detail)
            end = "failed"
        if not self._stopped.is_set():
            self._events.state(self, end)

    def _read_and_reconnect(self) -> State:
        attempt = 0
        while not self._stopped.is_set():
            self._connected_s = None
            try:
                self._read()
                if not self.live:
                    return "ended"
                raise VideoUnreadable("the camera ended the stream")
            except ServiceError as error:
                if self._stopped.is_set():
                    break
                self._history.interrupted(error.detail)
                if self._is_permanent(error):
                    return "failed"
                self._warn(error.detail)
            if self._connected_s is not None and time.monotonic() - self._connected_s > STEADY_S:
                attempt = 0
            self._events.state(self, "reconnecting")
            self._stopped.wait(backoff_s(attempt, MAX_BACKOFF_S))
            attempt += 1
        return "ended"

    def _warn(self, reason: str) -> None:
        """Log why the source broke off; the same reason only once until frames come again."""
        if reason != self._warned:
            log.warning("source %s: %s; the server tries to connect again", self._url.redacted, reason)
        self._warned = reason

    def _is_permanent(self, error: ServiceError) -> bool:
        """Whether another attempt is useless: files do not recover by themselves, cameras do."""
        is_file = self._url.scheme == "file" or self.live is False
        return is_file or isinstance(error, TooLarge | VideoNotInstalled | BadParameter)

    def _read(self) -> None:
        """Read the source once, until it ends or breaks off.

        Raises:
            ServiceError: It cannot be opened, or broke off.
        """
        video = self._video = Video(self._url, self._allowed, self._limits)
        if self._stopped.is_set():
            return
        info = video.open()
        self.live = info.live
        if info.live and self._every_frame:
            video.close()
            raise BadParameter("options.policy: expected latest for a camera, got all; `all` is for files")
        self._connected_s = time.monotonic()
        if self._origin_s is None:
            self._origin_s = self._connected_s
        base_s = self._connected_s - self._origin_s if info.live else 0.0
        pace = _Pace(self._stopped, self._going)
        frames = video.frames()
        any_frame = False
        try:
            for frame in frames:
                if not info.live and not (self._wait_for_room() if self._every_frame else pace.wait(frame.time_s)):
                    return
                if self._stopped.is_set():
                    return
                self._deliver(frame, base_s + frame.time_s)
                any_frame = True
        finally:
            frames.close()
        if not info.live and not any_frame:
            raise VideoUnreadable("expected a video with at least one frame, got none that can be decoded")

    def _wait_for_room(self) -> bool:
        """Wait until the queue takes another frame and the file is not held; False if the reader has to end."""
        self._going.wait()
        while self._queue.full and not self._stopped.is_set():
            self.room.clear()
            if self._queue.full:
                self.room.wait()
        return not self._stopped.is_set()

    def _deliver(self, frame: VideoFrame, time_s: float) -> None:
        gap = self._history.frame_arrived()
        if self._warned is not None:
            log.info("source %s: frames come again", self._url.redacted)
            self._warned = None
        if gap is not None:
            self._events.gap(gap)
        if self._history.frames == 1 or gap is not None or frame.index == 0:
            self._events.state(self, "running")
        seq = (self._history.frames - 1) % 2**32
        item = StreamFrame(seq, int(time.time() * 1e6), SourcePicture(frame), time.perf_counter(), time_s)
        if self._queue.put(item):
            self._history.frame_dropped()
        self._events.frame()


class _Pace:
    """Lets the frames of a file pass at their own times; while it is held, time stands still."""

    def __init__(self, stopped: threading.Event, going: threading.Event) -> None:
        self._stopped, self._going = stopped, going
        self._start_s: float | None = None

    def wait(self, time_s: float) -> bool:
        """Wait for a frame's time; False if the reader has to end."""
        if not self._going.is_set():
            held_s = time.monotonic()
            self._going.wait()
            if self._start_s is not None:
                self._start_s += time.monotonic() - held_s
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s - time_s
        return not self._stopped.wait(max(0.0, self._start_s + time_s - now_s))
