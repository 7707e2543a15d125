"""When the detector runs, and who is tracked."""

from __future__ import annotations

import pytest

from tests.simulated_people import DETECT_EVERY, FPS, Scene, stands, tracker


def test_the_detector_runs_on_every_frame_if_set_so_or_while_nobody_is_known() -> None:
    everywhere = Scene([stands((200, 300))], tracker(detect_every=1))
    empty = Scene([], tracker())
    for scene in (everywhere, empty):
        for _ in range(5):
            scene.step()
        assert scene.detections == list(range(5))


@pytest.mark.parametrize("entry", range(1, DETECT_EVERY + 1))
def test_a_person_who_enters_is_tracked_within_detect_every_frames(entry: int) -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), since_s=entry / FPS)], tracker())
    known = [1 in scene.step() for _ in range(entry + DETECT_EVERY)]
    assert True in known[entry : entry + DETECT_EVERY]


def test_a_falling_score_runs_the_detector() -> None:
    scene = Scene([stands((200, 300))], tracker(), keypoint_score=lambda t: 0.9 if t < 0.1 else 0.45)
    for _ in range(6):
        scene.step()
    assert scene.detections[:2] == [0, 3]


def test_there_are_at_most_max_people_tracks() -> None:
    scene = Scene([stands((150 + 200 * i, 300)) for i in range(5)], tracker(max_people=3))
    for _ in range(2 * DETECT_EVERY):
        assert len(scene.step()) == 3


@pytest.mark.parametrize("most", [1, 2])
def test_at_the_limit_a_lost_person_soon_makes_room_for_a_new_one(most: int) -> None:
    """At a cut, or a change of person: long before an unknown one is forgotten."""
    before = [stands((150 + 200 * i, 300), until_s=0.99) for i in range(most)]
    after = [stands((650 + 200 * i, 300), since_s=1) for i in range(most)]
    scene = Scene([*before, *after], tracker(max_people=most))
    people = [len(scene.step()) for _ in range(2 * int(FPS))]
    assert people[: int(FPS)] == [most] * int(FPS)
    assert people[int(FPS) + 10 :] == [most] * (int(FPS) - 10)


def test_poses_of_low_score_start_no_track() -> None:
    scene = Scene([stands((200, 300))], tracker(min_score=0.5), keypoint_score=lambda t: 0.4)
    assert scene.step() == {}


def test_a_weak_detection_keeps_a_track_but_starts_none() -> None:
    scene = Scene([stands((400, 300)), stands((700, 300), since_s=0.5)], tracker(detect_every=3))
    scene.box_score = lambda t: 0.9 if t < 0.1 else 0.12
    assert all(scene.step() == {0: 1} for _ in range(60))
