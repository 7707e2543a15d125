"""``squats.py``: angles, counting, and a video with squats against a real server."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posewright_client import KEYPOINTS, Keypoint, Pose
from tests import spots
from tests.client.examples.conftest import Load
from tests.conftest import Running

HIP, KNEE, ANKLE = 11, 13, 15
"""Left; the right ones follow."""
THIGH, SHANK = 30.0, 32.0
FPS = 25


def leg(angle: float) -> np.ndarray:
    """Hip, knee and ankle of a leg whose knee has an angle in degrees, with the ankle at the origin; px."""
    bend = math.radians(180 - angle)
    knee = np.array([math.sin(bend / 2) * SHANK, -math.cos(bend / 2) * SHANK])
    hip = knee + np.array([-math.sin(bend / 2) * THIGH, -math.cos(bend / 2) * THIGH])
    return np.array([hip, knee, [0.0, 0.0]])


class Squatter(spots.Person):
    """A person on straight or bent legs."""

    angle = 180.0

    @property
    def keypoints(self) -> np.ndarray:
        figure = spots.FIGURE.copy()
        for side in (0, 1):
            figure[[HIP + side, KNEE + side, ANKLE + side]] = leg(self.angle) + figure[ANKLE + side]
        figure[:HIP, 1] += figure[HIP, 1] - spots.FIGURE[HIP, 1]  # the body above the hips goes down with them
        return np.asarray(self.center, np.float32) + figure


def squatting(angle: float, center: tuple[int, int] = (180, 188)) -> Squatter:
    person = Squatter(center)
    object.__setattr__(person, "angle", angle)
    return person


def pose_of(points: np.ndarray, scores: np.ndarray | None = None) -> Pose:
    scores = np.full(17, 0.9) if scores is None else scores
    keypoints = tuple(
        Keypoint(name, x, y, score) for name, (x, y), score in zip(KEYPOINTS, points.tolist(), scores, strict=True)
    )
    return Pose("1", 0.9, (0, 0, 1, 1), keypoints)


def cycle(position: float) -> float:
    """The knee angle in a squat: straight at 0, deep at 0.5, straight at 1."""
    return 125 + 45 * math.cos(2 * math.pi * position)


@given(
    angle=st.floats(20, 180),
    turned=st.floats(0, 2 * math.pi),
    scale=st.floats(0.2, 10),
    mirrored=st.booleans(),
    hidden=st.sampled_from([(), (KNEE,), (KNEE + 1,), (ANKLE, HIP)]),
)
def test_the_angle_is_that_of_the_legs(
    load: Load, angle: float, turned: float, scale: float, mirrored: bool, hidden: tuple[int, ...]
) -> None:
    points = squatting(angle).keypoints.astype(float) * (-1 if mirrored else 1, 1) * scale
    rotation = np.array([[math.cos(turned), -math.sin(turned)], [math.sin(turned), math.cos(turned)]])
    scores = np.full(17, 0.9)
    scores[list(hidden)] = 0.1
    found = load("squats").knee_angle(pose_of(points @ rotation.T, scores))
    assert found == pytest.approx(angle, abs=0.01)


def test_without_knees_there_is_no_angle(load: Load) -> None:
    assert load("squats").knee_angle(pose_of(squatting(90).keypoints, np.zeros(17))) is None


@given(
    squats=st.integers(0, 5), frames=st.integers(20, 60), noise=st.floats(0, 12), missing=st.floats(0, 0.2),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_squat_counts_once(load: Load, squats: int, frames: int, noise: float, missing: float, seed: int) -> None:
    rng, counter = np.random.default_rng(seed), load("squats").SquatCounter()
    for i in range(squats * frames + 1):
        angle = cycle(i / frames) + rng.uniform(-noise, noise)
        seen = i % frames in (0, frames // 2) or rng.uniform() >= missing
        counter.update(angle if seen else None)
    assert counter.count == squats


def test_half_squats_do_not_count(load: Load) -> None:
    counter = load("squats").SquatCounter()
    assert not any(counter.update(angle) for angle in (170, 130, 112, 130, 170, 140, 149, 170))


def test_the_squats_in_a_video_are_counted(
    load: Load, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(tmp_path / "training.mp4"), fourcc, FPS, spots.DETECTOR_SIZE)
    for i in range(2 * FPS + 5):
        people = squatting(cycle(i / FPS)), squatting(cycle(i / FPS / 2), (444, 164))
        writer.write(np.ascontiguousarray(spots.paint(*people)[..., ::-1]))
    writer.release()

    assert load("squats").main([str(tmp_path / "training.mp4"), "--url", server.url]) == 3

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "3 squats"
    first, *others = (line.split(" s: person ") for line in lines[:-1])
    assert 0.5 < float(first[0]) <= 1.04
    assert sorted(text.split(", ")[1] for _, text in (first, *others)) == ["squat 1", "squat 1", "squat 2"]


def test_a_missing_video_is_a_message(load: Load, server: Running) -> None:
    with pytest.raises(SystemExit, match=r"cannot open 'nothing\.mp4'"):
        load("squats").main(["nothing.mp4", "--url", server.url])
