"""One person over time: the newest pose, the motion, and the box that moves with the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.boxes import keypoint_extents
from service.pose.types import Floats, Poses
from service.streaming.tracking.clock import SHORTEST_STEP_S

MARGIN = 0.08
"""Share of a body's extent by which a box reaches beyond its outermost keypoints."""
MOTION_WEIGHT = 0.5
CROWD_MOTION_WEIGHT = 0.1
"""People seldom turn just where others are in the way, and measured motion is worth little there."""
SCORE_WEIGHT = 0.2
STRAY_SHARE = 0.15
"""Of a person's size: joints farther from where they are expected in a crowd are taken for somebody else's."""
STRAY_SCORE = 0.1
"""Factor on the score of such a joint."""
SCALE_LIMITS = (0.85, 1.18)
"""Of a body's growth from one frame to the next; beyond it is a limb that moved, or an error."""
FASTEST = 8.0
"""Person sizes a second: a sprint. More comes of clocks that are wrong."""
SAME_LOOK = 0.65
"""Least `appearance.likeness` with the body that the detector confirmed. Below, the detector is asked."""
LEAST_FIT = 0.4
"""Least mean of OKS and IoU with where the person was heading. Below, he has jumped, and the detector is asked."""
FALLEN_SHARE = 0.65
"""Share of a person's usual keypoint score below which the detector is asked."""
UNCONFIRMED = 0.85
"""Factor on the box score for each frame of doubt."""
MOST_DOUBT = 3
"""Frames of doubt for which a person is still told."""
COASTING_S = 0.5
"""For so long an unseen person is taken to go on as before; then he stands."""


@dataclass(slots=True, eq=False)
class Track:
    """One person.

    Attributes:
        id: Counts up in a stream, never given twice.
        keypoints: float32 (K, 2), as last seen, image px.
        scores: float32 (K,), a running mean.
        box: float32 (4,) xyxy, image px; in the detector's style, moved and scaled with the body since.
        box_score: The detector's, 0..1.
        time_s: When the person was last seen.
        velocity: float32 (2,), px/s.
        usual_score: Running mean of the mean keypoint score.
        look: float32 (S, 4), `appearance.sample` of the body when the detector last confirmed it.
        misses: Frames in a row without a pose that may be told.
        changed: What is seen in the box is not what the detector confirmed.
        doubt: Frames that speak against the person since the detector's last word for him.
    """

    id: int
    keypoints: Floats
    scores: Floats
    box: Floats
    box_score: float
    time_s: float
    velocity: Floats
    usual_score: float
    look: Floats
    misses: int = 0
    changed: bool = False
    doubt: int = 0

    @staticmethod
    def begin(number: int, pose: Poses, look: Floats, time_s: float) -> Track:
        """Begin with a first pose, the only one in ``pose``, in a box of the detector; ``look`` (S, 4) is its look."""
        score = float(pose.scores[0].mean())
        still = np.zeros(2, np.float32)
        return Track(
            number, pose.keypoints[0], pose.scores[0], pose.boxes[0], float(pose.box_scores[0]), time_s, still, score,
            look,
        )  # fmt: skip

    def shift(self, time_s: float) -> Floats:
        """Predict the way since the person was last seen, float32 (2,), px."""
        speed = float(np.linalg.norm(self.velocity))
        limit = FASTEST * float(np.sqrt(boxes_.areas(self.box[None])[0]))
        share = min(1.0, limit / max(speed, 1e-6))
        return np.asarray(self.velocity * share * min(time_s - self.time_s, COASTING_S), np.float32)

    def stride(self, time_s: float) -> float:
        """The length of that way in person sizes."""
        return float(np.linalg.norm(self.shift(time_s)) / np.sqrt(boxes_.areas(self.box[None])[0]))

    def keypoints_at(self, time_s: float) -> Floats:
        """Predict the keypoints, float32 (K, 2), image px."""
        return self.keypoints + self.shift(time_s)

    def box_at(self, time_s: float) -> Floats:
        """Predict the box, float32 (4,) xyxy, image px."""
        return np.asarray(self.box + np.tile(self.shift(time_s), 2), np.float32)

    def reach_at(self, time_s: float) -> Floats:
        """Predict the box of someone who may have stopped or turned, float32 (4,) xyxy: both where he was and ahead."""
        ahead = self.box_at(time_s)
        return np.concatenate([np.minimum(self.box[:2], ahead[:2]), np.maximum(self.box[2:], ahead[2:])])

    def halt(self, time_s: float) -> None:
        """Forget the motion: the clock jumped to ``time_s``."""
        self.velocity = np.zeros(2, np.float32)
        self.time_s = time_s

    def follow(self, keypoints: Floats, scores: Floats, time_s: float, *, crowded: bool) -> None:
        """Take the person's next pose.

        Where two people share a crop, a network may mix them: some joints are the one's, some the other's. So in a
        crowd joints that are far from where they were heading count as unseen, and stay on their way.

        Args:
            keypoints: float32 (K, 2), image px.
            scores: float32 (K,).
            time_s: Later than before, or the time at which the track was halted.
            crowded: Whether other people are near.
        """
        if crowded:
            expected = self.keypoints_at(time_s)
            reach = STRAY_SHARE * np.sqrt(boxes_.areas(self.box[None]))[0]
            astray = np.linalg.norm(keypoints - expected, axis=1) > reach
            keypoints = np.where(astray[:, None], expected, keypoints)
            scores = np.where(astray, STRAY_SCORE * scores, scores).astype(np.float32)
        weights = scores * self.scores + 1e-6
        scale, before, now = _similarity(self.keypoints, keypoints, weights)
        if time_s > self.time_s:  # not just halted: then nobody knows how long the way took
            # A person unseen for longer than a gap has still been followed from frame to frame.
            step_s = max(time_s - self.time_s, SHORTEST_STEP_S)
            # The first step of a new or halted track is taken at its word; later ones are averaged.
            weight = 1.0 if not self.velocity.any() else CROWD_MOTION_WEIGHT if crowded else MOTION_WEIGHT
            self.velocity = self.velocity + np.float32(weight) * ((now - before) / np.float32(step_s) - self.velocity)
        corners = (self.box.reshape(2, 2) - before) * scale + now
        self.box = _contain(corners.reshape(4), keypoints, scores)
        self.keypoints = keypoints
        self.scores = self.scores + np.float32(SCORE_WEIGHT) * (scores - self.scores)
        self.usual_score += SCORE_WEIGHT * (float(scores.mean()) - self.usual_score)
        self.time_s = time_s
        self.misses = 0

    @property
    def told(self) -> bool:
        """Whether there is too little doubt to keep silent."""
        return self.doubt <= MOST_DOUBT

    def confirm(self, found: Floats, found_score: float, look: Floats) -> None:
        """Note that the detector sees the person.

        Args:
            found: float32 (4,) xyxy, image px.
            found_score: 0..1.
            look: float32 (S, 4), of the pose in that box.
        """
        self.box = _contain((self.box + found) / 2, self.keypoints, self.scores)
        # A score from before the doubt is about something else.
        self.box_score += (1.0 if self.doubt else 0.5) * (found_score - self.box_score)
        self.look, self.changed, self.doubt = look, False, 0

    def compare(self, likeness: float, fit: float, scores: Floats) -> None:
        """Note whether what is seen now follows from what the detector confirmed.

        Args:
            likeness: `appearance.likeness` with the body that the detector confirmed.
            fit: Mean of OKS and IoU with where the person was heading.
            scores: float32 (K,), of the keypoints.
        """
        fallen = float(scores.mean()) < FALLEN_SHARE * self.usual_score
        self.changed |= likeness < SAME_LOOK or fit < LEAST_FIT or fallen

    def doubt_more(self) -> None:
        """Note a frame without the detector's word, in which it was asked, or something else than before was seen."""
        self.doubt += 1
        self.box_score *= UNCONFIRMED

    def inside(self, image_size: tuple[int, int]) -> bool:
        """Whether any of the box is in the picture of (width, height)."""
        low, high = self.box[:2], self.box[2:]
        return bool((low < np.asarray(image_size, np.float32)).all() and (high > 0).all())


def _similarity(a: Floats, b: Floats, weights: Floats) -> tuple[np.float32, Floats, Floats]:
    """Fit b = (a - center_a) * scale + center_b by least squares.

    Args:
        a: float32 (K, 2).
        b: float32 (K, 2).
        weights: float32 (K,), positive.

    Returns:
        The scale within `SCALE_LIMITS`, and both centers, float32 (2,).
    """
    shares = (weights / weights.sum())[:, None]
    center_a, center_b = (shares * a).sum(axis=0), (shares * b).sum(axis=0)
    spread = (shares * (a - center_a) ** 2).sum()
    scale = (shares * (a - center_a) * (b - center_b)).sum() / max(spread, 1e-6)
    return np.float32(np.clip(scale, *SCALE_LIMITS)), center_a, center_b


def _contain(box: NDArray[np.floating], keypoints: Floats, scores: Floats) -> Floats:
    """Widen a box (4,) where sure keypoints would be at its edge or outside."""
    body = keypoint_extents(keypoints[None], scores[None])[0]
    margin = MARGIN * np.sqrt(boxes_.areas(body[None])[0])
    widened = [np.minimum(box[:2], body[:2] - margin), np.maximum(box[2:], body[2:] + margin)]
    return np.concatenate(widened).astype(np.float32)
