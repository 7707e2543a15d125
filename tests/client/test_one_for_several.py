"""One thing where several are expected is told before anything is sent: many single things can be iterated over."""

from __future__ import annotations

import asyncio
import codecs
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posewright_client import KEYPOINTS, AsyncClient, Client, Frame, Keypoint, Pose, draw
from tests.client.hosts import free_address

ONE: list[Any] = [
    *("photo.jpg", Path("photo.jpg"), b"\xff\xd8", bytearray(b"\xff\xd8"), io.BytesIO(b"\xff\xd8")),
    codecs.getreader("ascii")(io.BytesIO(b"\xff\xd8")),  # a file that is no io.IOBase, as those of tempfile
]


@pytest.mark.parametrize("one", ONE, ids=lambda it: type(it).__name__)
def test_one_picture_is_no_batch_and_no_stream(one: Any) -> None:
    with Client(free_address()) as client:
        with pytest.raises(TypeError, match=r"predict_batch: expected an iterable of pictures, got .*; pass a list"):
            client.predict_batch(one)
        with pytest.raises(TypeError, match="stream: expected an iterable of pictures"):
            client.stream(one)

    async def main() -> None:
        async with AsyncClient(free_address()) as client:
            with pytest.raises(TypeError, match="predict_batch: expected"):
                await client.predict_batch(one)
            with pytest.raises(TypeError, match="stream: expected"):
                client.stream(one)

    asyncio.run(main())


def test_one_pose_is_no_prediction() -> None:
    pose = Pose("1", 0.9, (0, 0, 9, 9), tuple(Keypoint(name, 1, 2, 0.9, visible=None) for name in KEYPOINTS))
    canvas = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(TypeError, match=r"got one pose; pass \[pose\]"):
        draw(canvas, pose)  # type: ignore[call-overload] # the mistake
    assert draw(canvas, [pose]).any()


def test_a_capture_time_is_a_whole_number() -> None:
    """`time.time() * 1e6` is none."""
    assert Frame(b"", np.int64(40_000)).capture_us == 40_000  # type: ignore[arg-type] # accepted as an int
    with pytest.raises(TypeError, match=r"expected a whole number of µs, got 40000\.5; round it"):
        Frame(b"", 40_000.5)  # type: ignore[arg-type] # the mistake
