"""Frames of a stream: what a binary message holds."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from service.errors import BadRequest
from service.inference.image_header import ACCEPTED, PNG_SIGNATURE

HEADER = struct.Struct(">BBHIQ")
"""Version, flags, reserved, seq, capture_us; big-endian."""
VERSION = 1
_MAGICS = (b"\xff\xd8", PNG_SIGNATURE[:4], b"RIFF")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a stream.

    Attributes:
        seq: The client's number, or the server's count where the client gave none.
        capture_us: When the client says it was taken, on a clock of its own; None where it does not say.
        content: The picture's file.
        arrived_s: When its last byte had arrived, `time.perf_counter`.
        time_s: When it was taken as far as is known, on a clock of the stream: captures, or else arrivals.
    """

    seq: int
    capture_us: int | None
    content: bytes
    arrived_s: float
    time_s: float


class FrameReader:
    """Takes binary messages apart; counts the frames that carry no number."""

    def __init__(self) -> None:
        self._expected_seq = 0
        self._origin_us: int | None = None

    def read(self, message: bytes, arrived_s: float) -> Frame:
        """Read one message: a header of 16 bytes and a picture, or a bare picture.

        What follows the header is not looked at: that costs time, and belongs on an inference thread. The flags and the
        reserved bytes mean nothing yet, so that clients may set them one day.

        Args:
            message: As it came.
            arrived_s: When, `time.perf_counter`.

        Raises:
            BadRequest: Neither a header of this version nor a picture; ``seq`` among its extras.
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
                "see the README on streams",
                seq=seq,
            )
        if not capture_us:  # a clock that stands at 0 is none
            return Frame(seq, capture_us, content, arrived_s, arrived_s)
        if self._origin_us is None:
            self._origin_us = capture_us
        # Integers first: microseconds since 1970 leave a float too few digits.
        return Frame(seq, capture_us, content, arrived_s, (capture_us - self._origin_us) / 1e6)
