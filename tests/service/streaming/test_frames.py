"""Binary messages of a stream."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest
from service.streaming.frames import FrameReader

JPEG, PNG, WEBP = b"\xff\xd8\xff\xe0rest", b"\x89PNG\r\n\x1a\nrest", b"RIFF\0\0\0\0WEBPrest"


def message(seq: int, capture_us: int, content: bytes = JPEG, version: int = 1, flags: int = 0, more: int = 0) -> bytes:
    return struct.pack(">BBHIQ", version, flags, more, seq, capture_us) + content


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**64 - 1), st.binary(), st.integers(0, 255), st.integers(0, 65535))
def test_a_header_is_parsed_whatever_follows(seq: int, capture_us: int, content: bytes, flags: int, more: int) -> None:
    frame = FrameReader().read(message(seq, capture_us, content, 1, flags, more), 5.0)
    assert (frame.seq, frame.capture_us, frame.content, frame.arrived_s) == (seq, capture_us, content, 5.0)


@pytest.mark.parametrize("content", [JPEG, PNG, WEBP], ids=["jpeg", "png", "webp"])
def test_a_bare_picture_gets_the_next_sequence_number(content: bytes) -> None:
    reader = FrameReader()
    assert reader.read(content, 1.0).seq == 0
    assert reader.read(message(9, 0), 2.0).seq == 9
    frame = reader.read(content, 3.0)
    assert (frame.seq, frame.capture_us, frame.content, frame.time_s) == (10, None, content, 3.0)


def test_times_are_exact_for_large_clock_values() -> None:
    reader, begun_us = FrameReader(), 2**63 + 1
    times = [reader.read(message(i, begun_us + 33_333 * i), 7.0).time_s for i in range(3)]
    assert times == [0.0, 0.033333, 0.066666]
    assert reader.read(message(3, begun_us - 1_000_000), 7.0).time_s == -1.0


def test_a_capture_time_of_zero_means_no_clock() -> None:
    frame = FrameReader().read(message(0, 0), 7.0)
    assert (frame.capture_us, frame.time_s) == (0, 7.0)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x01", message(1, 2)[:15], message(1, 2, version=2), b"GIF89a", bytes(100)], ids=len
)
def test_other_messages_are_refused_with_their_sequence_number(garbage: bytes) -> None:
    reader = FrameReader()
    reader.read(message(4, 0), 1.0)
    with pytest.raises(BadRequest, match="expected a frame header") as caught:
        reader.read(garbage, 2.0)
    assert caught.value.extras["seq"] == 5
    assert reader.read(JPEG, 3.0).seq == 6


@given(st.binary(max_size=100))
def test_any_bytes_are_a_frame_or_are_refused(content: bytes) -> None:
    with suppress(BadRequest):
        assert content.endswith(FrameReader().read(content, 0.0).content)
