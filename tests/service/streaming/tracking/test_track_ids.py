"""People who are in sight keep their ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated_people import DETECT_EVERY, FPS, Scene, Way, stands, tracker, walks
from tests.spots import HALF_BOX

AMPLITUDE_PX = 50.0
"""Of a person who sways once a second: up to 2 sizes a second."""


def test_standing_people_keep_their_ids_and_the_detector_seldom_runs() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300))], tracker())
    ids = [scene.step() for _ in range(3 * DETECT_EVERY)]
    assert all(it == {0: 1, 1: 2} for it in ids)
    assert scene.detections == [0, DETECT_EVERY, 2 * DETECT_EVERY]


@pytest.mark.parametrize("px_per_s", [-900, 200, 1500])
def test_a_moving_person_is_tracked_without_the_detector(px_per_s: float) -> None:
    # 1,500 px/s at 30 fps is a third of the person's size a frame.
    scene = Scene([walks((100 if px_per_s > 0 else 1180, 300), px_per_s)], tracker(detect_every=1000))
    assert all(scene.step() == {0: 1} for _ in range(20))
    # The first step of somebody this fast looks like a jump: the speed is not known yet, and the detector runs.
    assert scene.detections in ([0], [0, 1, 2])


@settings(max_examples=15, deadline=None)
@given(
    st.floats(80, 500), st.floats(-30, 30), st.floats(-30, 30), st.sampled_from([HALF_BOX[0], 20]), st.integers(0, 99)
)
def test_people_who_cross_keep_their_ids(speed: float, dy: float, dx: float, hiding_px: float, seed: int) -> None:
    """From 0.5 to 3.2 sizes a second each, the one behind hidden for some or many frames, at any noise."""
    frames = int(800 / speed * FPS) + 1
    ways = [walks((240 + dx, 300), speed), walks((1040, 300 + dy), -speed)]
    scene = Scene(ways, tracker(), seed=seed, hiding_px=hiding_px)
    first = scene.step()
    for _ in range(frames):
        last = scene.step()
    assert len(first) == 2
    assert last == first


@pytest.mark.parametrize("fps", [2, 3, 5, 7, 10, 15, 60])
def test_a_swaying_person_keeps_the_id_at_any_frame_rate(fps: float) -> None:
    """Once a second, a third of a box to either side, so that slow streams see jumps and turns only."""
    scene = Scene([lambda t: (600 + 40 * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))], tracker())
    assert all(scene.step(i / fps) == {0: 1, 1: 2} for i in range(40))


@pytest.mark.parametrize("fps", [3, 5, 10])
def test_a_walking_person_keeps_the_id_in_slow_streams(fps: float) -> None:
    scene = Scene([walks((100, 300), 120)], tracker())
    assert all(scene.step(i / fps) == {0: 1} for i in range(int(8 * fps)))


@settings(max_examples=30)
@given(st.floats(4.5, 6.5), st.floats(20, AMPLITUDE_PX - 2), st.integers(0, 99))
def test_a_person_who_moves_fast_in_a_slow_stream_keeps_the_id(fps: float, amplitude_px: float, seed: int) -> None:
    """Swaying once a second. The predicted box misses the person, so the detector has to run on the same frame."""
    ways = [lambda t: (600 + amplitude_px * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))]
    scene = Scene(ways, tracker(), seed)
    assert all(scene.step(i / fps) == {0: 1, 1: 2} for i in range(40))


def test_without_a_detection_in_the_same_frame_a_fast_person_loses_the_id() -> None:
    """The counterpart of the test above: shows that its scenes are hard enough."""
    scene = Scene([lambda t: (600 + AMPLITUDE_PX * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))], tracker())
    scene.same_frame = False
    assert not all(scene.step(i / 4.5) == {0: 1, 1: 2} for i in range(40))


def test_two_tracks_on_one_person_become_one() -> None:
    """The person behind never comes out again."""
    ways = [stands((600, 300)), walks((300, 300), 300, until_s=1.0)]
    scene = Scene(ways, tracker())
    ids = [scene.step() for _ in range(60)]
    assert ids[0] == {0: 1, 1: 2}
    assert ids[-1] == {0: 1}
    assert scene.tracker.ids == {1}


def test_a_person_who_returns_soon_keeps_the_id_and_one_who_returns_late_does_not() -> None:
    def out_of_sight(frames: int) -> Way:
        return lambda t: None if 6 <= round(t * FPS) < 6 + frames else (600.0, 300.0)

    scene = Scene([stands((200, 300)), out_of_sight(4)], tracker(max_misses=5))
    late = Scene([stands((200, 300)), out_of_sight(8)], tracker(max_misses=5))
    assert [scene.step() for _ in range(20)][-1] == {0: 1, 1: 2}
    assert [late.step() for _ in range(30)][-1] == {0: 1, 1: 3}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("speed", [80.0, 150.0, 300.0])
def test_a_visible_person_keeps_the_id_when_another_vanishes_behind(speed: float, seed: int) -> None:
    """The one behind stops there: where they are expected, somebody else is seen."""
    hides_s = 2.0
    behind: Way = lambda t: (640 - speed * (hides_s - t), 360) if t < hides_s else (640, 360)  # noqa: E731
    scene = Scene([stands((640, 360)), behind], tracker(), seed)
    first = scene.step()[0]
    for _ in range(int(4 * FPS)):
        assert scene.step()[0] == first
