"""Which frames of a video are answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.video_limits import FrameSelection
from service.video.frames import VideoFrame
from service.wire.job import JobOptions

av = pytest.importorskip("av", reason="PyAV is an extra")

PICTURE = av.VideoFrame(2, 2)


def taken(options: JobOptions, fps: float, count: int) -> list[int]:
    selection = FrameSelection(options)
    frames = [VideoFrame(i, i / fps, PICTURE) for i in range(count)]
    return [frame.index for frame in frames if selection.takes(frame)]


@given(every=st.integers(1, 9), count=st.integers(0, 50))
def test_every_nth_frame(every: int, count: int) -> None:
    assert taken(JobOptions(every=every), 25, count) == list(range(0, count, every))


@given(fps=st.floats(1, 240), max_fps=st.floats(0.5, 300), count=st.integers(1, 300))
def test_at_most_so_many_frames_a_second_and_not_much_fewer(fps: float, max_fps: float, count: int) -> None:
    found = taken(JobOptions(max_fps=max_fps), fps, count)
    assert found[0] == 0
    elapsed_s = (count - 1) / fps
    assert len(found) <= elapsed_s * max_fps + 1.001
    assert len(found) >= min(count, int(elapsed_s * min(fps, max_fps) / 2))


@pytest.mark.parametrize(("fps", "max_fps", "step"), [(30, 10, 3), (25, 25, 1), (60, 30, 2), (29.97, 29.97, 1)])
def test_even_rates_give_even_steps(fps: float, max_fps: float, step: int) -> None:
    assert taken(JobOptions(max_fps=max_fps), fps, 300) == list(range(0, 300, step))
