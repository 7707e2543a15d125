"""Frames of a camera, a video file or a device, decoded by PyAV.

Reading blocks, so it belongs on a thread of its own; `Video.close` ends it from any other. Nothing waits for ever:
opening and every read have a limit of time.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from service.errors import ServiceError, TooLarge
from service.pose.types import Image
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import VideoNotInstalled, VideoUnreadable
from service.video.frame_times import FrameTimes
from service.video.http_body import HttpBody
from service.video.mjpeg_parts import MjpegParts
from service.video.orientation import upright
from service.video.rtsp_relay import RtspRelay

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mpjpeg,mjpeg,h264,hevc,ivf"
"""Formats that are read. None of them is a playlist, which would name further files and URLs to open."""
_USUAL = "MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, ASF, Ogg and GIF"
_ABSOLUTE_END = {"matroska,webm", "asf"}
"""Formats whose duration is the time of the end, also where the video does not begin at 0."""
_ANALYZE_US = "1000000"
"""Microseconds of a camera's video that FFmpeg looks at before the first frame; its own 5 s would delay results."""
_DEVICE_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
MAX_DAMAGED = 100
"""Most damaged packets in a row, after which a video is given up."""


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What a video may take.

    Attributes:
        open_s: Seconds until it is open.
        read_s: Seconds until the next frame.
        max_pixels: Most pixels of a frame.
    """

    open_s: float = 10.0
    read_s: float = 10.0
    max_pixels: int = 32_000_000


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What an opened video says about itself.

    Attributes:
        live: Whether it is a camera or a device, whose frames come when they come; a file is read as fast as possible.
        fps: Average frame rate; 0 if unknown.
        frame_count: Number of frames, by the container's word or its duration; 0 if unknown.
    """

    live: bool
    fps: float
    frame_count: int


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame, whose colours are converted only when they are needed.

    Attributes:
        index: Number of the frame since the video was opened, from 0.
        time_s: Seconds since the first frame, later than those of the frame before; by the arrival where a camera sends
            no times.
        picture: The decoded frame.
    """

    index: int
    time_s: float
    picture: av.VideoFrame

    @property
    def pixel_count(self) -> int:
        """Number of pixels."""
        return int(self.picture.width) * int(self.picture.height)

    def pixels(self) -> Image:
        """Return uint8 (H, W, 3) RGB, upright."""
        return upright(self.picture.to_ndarray(format="rgb24"), self.picture)


class Video:
    """A video that can be opened and read once; `close` may be called by any thread and at any time."""

    def __init__(self, url: VideoUrl, allowed: AllowedUrls, limits: VideoLimits | None = None) -> None:
        """Describe the video; `open` opens it.

        Args:
            url: What to open.
            allowed: Checks every connection and file.
            limits: What it may take.

        Raises:
            VideoNotInstalled: PyAV is missing.
        """
        require_av()
        self._url, self._allowed, self._limits = url, allowed, limits or VideoLimits()
        self._closed = threading.Event()
        self._transport: HttpBody | RtspRelay | None = None
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._file: BinaryIO | None = None
        self._arrival_times = False
        self.damaged = 0
        """Number of packets that could not be decoded."""

    def close(self) -> None:
        """End `open` and `frames` in whatever thread they are; their resources are freed there."""
        self._closed.set()
        if self._transport is not None:
            self._transport.close()

    def open(self) -> VideoInfo:
        """Open the video.

        Raises:
            SourceForbidden: It may not be opened.
            VideoUnreadable: It cannot be opened, has no frames, or was closed meanwhile.
            TooLarge: Its frames have too many pixels.
        """
        import av  # noqa: PLC0415 - an optional dependency

        try:
            self._container = self._open_container()
            return self._describe(self._container)
        except (ServiceError, av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            self._free()
            raise self._readable(error, "cannot be opened") from None

    def frames(self) -> Generator[VideoFrame]:
        """Yield the frames of the opened video until it ends or is closed; frees it then.

        Raises:
            VideoUnreadable: The connection broke, or no frame came in time.
            TooLarge: A frame has too many pixels.
        """
        import av  # noqa: PLC0415 - an optional dependency

        assert self._container is not None, "frames of a video that is not open"
        assert self._stream is not None
        times, index = FrameTimes(float(self._stream.average_rate or 0)), 0
        try:
            for picture in self._pictures(self._container, self._stream):
                stamp_s = time.monotonic() if self._arrival_times else picture.time
                yield VideoFrame(index, times.of_next(stamp_s), picture)
                index += 1
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            if not self._closed.is_set():
                raise self._readable(error, f"broke off after {index} frames") from None
        finally:
            self._free()

    def _open_container(self) -> Any:
        import av  # noqa: PLC0415 - an optional dependency

        limits, scheme = self._limits, self._url.scheme
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
        timeout = (limits.open_s, limits.read_s)
        if scheme == "device":
            kind = _DEVICE_FORMATS.get(sys.platform, "v4l2")
            name = f"video={self._url.path}" if kind == "dshow" else self._url.path
            return av.open(name, format=kind, timeout=timeout, options={"format_whitelist": f"{kind},video4linux2"})
        if scheme == "file":
            self._file = self._allowed.open_file(self._url)
            return av.open(self._file, timeout=timeout, options=options)
        if scheme in ("rtsp", "rtsps"):
            relay = self._transport = RtspRelay(self._url, self._allowed, limits.open_s)
            self._end_if_closed()
            options = {"format_whitelist": "rtsp", "protocol_whitelist": "tcp,rtp", "rtsp_transport": "tcp"}
            options |= {"fflags": "nobuffer", "analyzeduration": _ANALYZE_US}
            return av.open(relay.url, format="rtsp", timeout=timeout, options=options)
        body = self._transport = HttpBody(self._url, self._allowed, limits.open_s, limits.read_s)
        self._arrival_times = body.open().startswith("multipart/")
        body.expect_data()
        if self._arrival_times:
            return av.open(MjpegParts(body.read), format="mpjpeg", timeout=timeout, options=options)
        return av.open(body, timeout=timeout, options=options)

    def _describe(self, container: InputContainer) -> VideoInfo:
        import av.stream  # noqa: PLC0415 - an optional dependency

        stream: Any = container.streams.best("video")
        if stream is None or av.stream.Disposition.attached_pic in stream.disposition:  # the cover of a sound file
            raise VideoUnreadable("expected a video, got a file or stream without pictures")
        context = stream.codec_context
        if context is None:
            raise VideoUnreadable("expected a video in a codec that this server reads, got another one")
        self._stream = stream
        self._require_pixels(context.width, context.height)
        live = self._is_live(container)
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        context.thread_type = "SLICE" if live else "AUTO"  # threads that work on several frames delay them
        context.thread_count = 1 if live else 0
        rate = float(stream.average_rate or 0)
        duration_us = container.duration or 0
        if container.format.name in _ABSOLUTE_END:
            duration_us = max(0, duration_us - (container.start_time or 0))
        return VideoInfo(live, rate, 0 if live else stream.frames or round(duration_us / 1e6 * rate))

    def _is_live(self, container: InputContainer) -> bool:
        """Whether frames arrive at a camera's pace. A file has an end, also where it does not say how long it is."""
        if isinstance(self._transport, HttpBody):
            return self._arrival_times or not (container.duration or self._transport.has_length)
        return self._url.scheme != "file"

    def _pictures(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        import av  # noqa: PLC0415 - an optional dependency

        in_a_row = 0
        if isinstance(self._transport, HttpBody):
            self._transport.expect_data()
        for packet in container.demux(stream):
            try:
                pictures = packet.decode()
                in_a_row = 0
            except av.error.InvalidDataError:
                in_a_row, pictures = in_a_row + 1, []
                self.damaged += 1
                if in_a_row > MAX_DAMAGED:
                    raise
            for picture in pictures:
                if self._closed.is_set():
                    return
                self._require_pixels(picture.width, picture.height)
                if isinstance(self._transport, HttpBody):
                    self._transport.expect_data()
                yield picture
            if self._closed.is_set():
                return

    def _require_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise TooLarge(
                f"expected frames of at most {self._limits.max_pixels} pixels, got {width} x {height}; "
                "choose a smaller stream of the camera",
                width=width,
                height=height,
                pixels=width * height,
                max_pixels=self._limits.max_pixels,
            )

    def _end_if_closed(self) -> None:
        if self._closed.is_set():
            raise VideoUnreadable("the video was closed while it was opened")

    def _readable(self, error: Exception, what: str) -> ServiceError:
        """Describe a failure without the URL: FFmpeg's own messages repeat it with its credentials."""
        if isinstance(error, ServiceError):
            return error
        if self._closed.is_set():
            return VideoUnreadable("the video was closed while it was opened")
        if isinstance(self._transport, RtspRelay) and self._transport.redirected:
            return VideoUnreadable("expected a video, got a redirect to another server; name that server in the URL")
        reason = getattr(error, "strerror", None) or (
            str(error) if isinstance(error, OSError) else type(error).__name__
        )
        if "Immediate exit" in reason:  # how FFmpeg names a limit of time that is over
            reason = "no data came in time"
        elif self._may_be_of_another_format(error):
            reason = f"it is of a format that the server does not read; it reads {_USUAL}, among others"
        return VideoUnreadable(f"the video {what}: {reason}")

    def _may_be_of_another_format(self, error: Exception) -> bool:
        """Whether FFmpeg tells that a file is of no format of `_CONTAINERS`; it tells more of cameras in that way."""
        is_file = self._url.scheme in {"file", "http", "https"}
        return is_file and self._container is None and getattr(error, "errno", None) == errno.EINVAL

    def _free(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._file is not None:
            self._file.close()
        if self._transport is not None:
            self._transport.free()


def require_av() -> None:
    """Check that PyAV is installed, and keep FFmpeg's log lines, which repeat URLs with credentials, out of ours.

    Raises:
        VideoNotInstalled: It is not.
    """
    try:
        import av.logging  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise VideoNotInstalled(
            "expected a server that decodes videos, but PyAV is not installed; "
            "its operator installs it with: pip install 'posewright[video]'"
        ) from None
    av.logging.set_level(None)
