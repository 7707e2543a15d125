"""Binary messages of a stream: a header of 16 bytes and an image file, or the image file alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from service.errors import BadRequest
from service.inference.image import DecodedImage
from service.inference.image_header import ACCEPTED, PNG_SIGNATURE

HEADER = struct.Struct(">BBHIQ")
"""Version, flags, reserved, seq, capture_us; big-endian."""
VERSION = 1
_MAGICS = (b"\xff\xd8", PNG_SIGNATURE[:4], b"RIFF")


class FramePicture(Protocol):
    """The picture of a frame that did not come as an image file."""

    @property
    def pixel_count(self) -> int:
        """Number of its pixels."""
        ...

    def decode(self) -> DecodedImage:
        """Make its pixels; called on an inference thread."""
        ...


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame of a stream.

    Attributes:
        seq: The client's sequence number, or the server's count where the client sent none.
        capture_us: Capture time in microseconds on the client's clock; None where the client sent none.
        content: The image file, or a picture that a video's decoder made.
        arrived_s: When the last byte arrived, `time.perf_counter`.
        time_s: Time of the frame on the stream's clock: the capture time if known, otherwise the arrival time.
    """

    seq: int
    capture_us: int | None
    content: bytes | FramePicture
    arrived_s: float
    time_s: float


class FrameReader:
    """Parses binary messages, and numbers the frames that carry no sequence number."""

    def __init__(self) -> None:
        """Start at sequence number 0."""
        self._expected_seq = 0
        self._origin_us: int | None = None

    def read(self, message: bytes, arrived_s: float) -> StreamFrame:
        """Parse one message.

        The image is not decoded here but on an inference thread. Flags and reserved bytes are ignored.

        Args:
            message: The binary message.
            arrived_s: When it arrived, `time.perf_counter`.

        Raises:
            BadRequest: It begins with neither a header of this version nor an image; ``extras`` holds ``seq``.
        """
        seq, capture_us, content = self._expected_seq, None, message
        if message[:1] == bytes([VERSION]) and len(message) >= HEADER.size:
            _, _, _, seq, capture_us = HEADER.unpack_from(message)
            content = message[HEADER.size :]
        self._expected_seq = (seq + 1) % 2**32
        if content is message and not message.startswith(_MAGICS):
            raise BadRequest(
                f"expected a frame header (16 bytes, the first one {VERSION}) before a {ACCEPTED}, or the bare "
                f"picture, got {len(message)} bytes beginning with [{message[:16].hex(' ')}]; "
                "see docs/streaming.md",
                seq=seq,
            )
        if not capture_us:  # 0 means that the client has no clock
            return StreamFrame(seq, capture_us, content, arrived_s, arrived_s)
        if self._origin_us is None:
            self._origin_us = capture_us
        # Subtract as integers: microseconds since 1970 exceed the precision of a float.
        return StreamFrame(seq, capture_us, content, arrived_s, (capture_us - self._origin_us) / 1e6)
