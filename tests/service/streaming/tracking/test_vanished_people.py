"""How long people who are out of sight, or not detected, are reported and searched for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.simulated_people import FPS, SIZE, Scene, stands, tracker, walks
from tests.spots import HALF_BOX


def test_a_lost_person_is_searched_for_at_once_and_removed_later() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), until_s=0.2)], tracker(max_misses=12))
    for _ in range(20):
        scene.step()
    assert scene.detections == [0, 6, 7, 8, 9, 10, 11, 12, 15, 18]  # unseen in 6 for the first time, given up in 18
    assert scene.tracker.ids == {1}


def test_the_track_of_a_person_who_leaves_the_picture_is_removed() -> None:
    scene = Scene([walks((1100, 300), 600)], tracker())
    for _ in range(20):
        scene.step()
    assert scene.tracker.ids == set()


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 10, 1000]),
    st.floats(1, 60),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 3),
    st.floats(-300, 300),
)
def test_a_person_who_vanishes_is_reported_three_more_frames_at_most_whatever_the_network_sees(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """At any frame rate and `detect_every`, with a body in every box. The people who stay are reported on."""
    ways = [stands((900 + 130 * i, 300)) for i in range(min(others, 2))]
    gone = walks((400, 300), px_per_s, until_s=(frames - 0.5) / fps)
    scene = Scene([*ways, gone], tracker(detect_every=detect_every), seed, ghosts=True)
    for frame in range(frames + 40):
        scene.step(frame / fps)
    everyone = {number for ids in scene.reported[:frames] for number in ids}
    assert all(len(ids) == len(ways) for ids in scene.reported[frames + 3 :])
    assert all(set(ids) <= everyone for ids in scene.reported)  # no track started without a detection


@settings(max_examples=20)
@given(
    st.sampled_from([1, 3, 10, 1000]), st.sampled_from([5.0, 30.0]), st.floats(52, 200), st.sampled_from([-1, 1]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_person_who_vanishes_is_reported_three_more_frames_at_most_even_beside_a_similar_body(
    detect_every: int, fps: float, jump_px: float, side: int, seed: int
) -> None:
    gone_s = 4.5 / fps
    scene = Scene(
        [lambda t: (400 + (side * jump_px if t > gone_s else 0), 300)], tracker(detect_every=detect_every), seed
    )
    scene.undetected = lambda person, t: t > gone_s
    for frame in range(20):
        scene.step(frame / fps)
    assert scene.reported == [[1]] * 5 + scene.reported[5:8] + [[]] * 12


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 10, 30]),
    st.floats(1, 60),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 2),
    st.floats(-60, 60),
)
def test_a_person_whom_only_the_detector_misses_is_reported_until_it_runs_and_two_more_frames(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """What takes the person's place looks alike and moves on: only the detector can tell. The score falls too."""
    ways = [*(stands((900 + 130 * i, 300 + 3 * HALF_BOX[1])) for i in range(others)), walks((400, 300), px_per_s)]
    gone_s = (frames - 0.5) / fps
    assume(HALF_BOX[0] < 400 + px_per_s * gone_s < SIZE[0] - HALF_BOX[0])  # not out of the picture before
    scene = Scene(ways, tracker(detect_every=detect_every, max_misses=1000), seed)
    scene.undetected = lambda person, t: person == others and t > gone_s
    for frame in range(frames + detect_every + 8):
        scene.step(frame / fps)
    assert all(len(ids) == others + 1 for ids in scene.reported[:frames])
    assert all(len(ids) == others for ids in scene.reported[frames + detect_every + 2 :])
    assert all(set(ids) <= set(range(1, others + 2)) for ids in scene.reported)
    end_s = (frames + detect_every + 8) / fps
    scores = scene.tracker.predict(end_s)[1]
    walked_out = not HALF_BOX[0] < 400 + px_per_s * end_s < SIZE[0] - HALF_BOX[0]
    assert np.sum(scores < 0.45) == 1 or (walked_out and len(scores) == others)


@pytest.mark.parametrize("detect_every", [1, 3, 10])
def test_a_person_whom_the_detector_misses_in_three_consecutive_frames_stays(detect_every: int) -> None:
    scene = Scene([stands((400, 300)), stands((700, 300))], tracker(detect_every=detect_every))
    scene.undetected = lambda person, t: person == 1 and round(t * FPS) // 4 % 2 == 1 and round(t * FPS) % 4 < 3
    assert all(scene.step() == {0: 1, 1: 2} for _ in range(60))
