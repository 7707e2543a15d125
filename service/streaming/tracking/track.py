"""One tracked person: newest pose, motion, and a box that moves with the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.boxes import keypoint_extents
from service.pose.types import Floats, Poses
from service.streaming.tracking.clock import MIN_STEP_S

MARGIN = 0.08
"""Share of the body's size by which a box extends beyond the outermost keypoints."""
MOTION_WEIGHT = 0.5
"""Weight of the newest measurement in the velocity."""
CROWD_MOTION_WEIGHT = 0.1
"""The same where other people are near: measurements are less reliable there."""
SCORE_WEIGHT = 0.2
"""Weight of the newest frame in running means of scores."""
OUTLIER_SHARE = 0.15
"""In a crowd, keypoints farther than this share of the person's size from their predicted place are outliers."""
OUTLIER_SCORE_FACTOR = 0.1
"""Factor on the score of such a keypoint."""
SCALE_LIMITS = (0.85, 1.18)
"""Change of the body's size from one frame to the next; a larger change is a limb that moved, or an error."""
MAX_SPEED = 8.0
"""Person sizes per second, a sprint. Higher speeds come of wrong clocks."""
MIN_APPEARANCE_SIMILARITY = 0.65
"""`appearance.similarity` with the body that the detector confirmed, below which the pose is inconsistent."""
MIN_FIT = 0.4
"""Mean of OKS and IoU with the predicted pose, below which the person has jumped and the pose is inconsistent."""
FALLEN_SCORE_SHARE = 0.65
"""Share of the person's mean keypoint score so far, below which the pose is inconsistent."""
UNCONFIRMED_FACTOR = 0.85
"""Factor on the box score of a track for each unconfirmed frame."""
MAX_UNCONFIRMED = 3
"""Unconfirmed frames in a row in which a person is still reported."""
MAX_EXTRAPOLATION_S = 0.5
"""An unseen person is assumed to keep the velocity for this long, and to stand afterwards."""


@dataclass(slots=True, eq=False)
class Track:
    """One tracked person.

    Attributes:
        id: Track id: counts up in a stream, never reused.
        keypoints: float32 (K, 2), as last seen, image px.
        scores: float32 (K,), running mean of the keypoint scores.
        box: float32 (4,) xyxy, image px; the detector's, moved and scaled with the body since.
        box_score: The detector's score, 0..1.
        time_s: When the person was last seen.
        velocity: float32 (2,), px/s.
        mean_score: Running mean of the mean keypoint score.
        appearance: float32 (S, 4), `appearance.sample` of the body when the detector last confirmed it.
        misses: Consecutive frames in which the person was not reported.
        inconsistent: Whether the poses since the last confirmation do not follow from the confirmed one.
        unconfirmed: Frames since the last confirmation in which the detector did not see the person, or the pose was
            inconsistent or missing.
    """

    id: int
    keypoints: Floats
    scores: Floats
    box: Floats
    box_score: float
    time_s: float
    velocity: Floats
    mean_score: float
    appearance: Floats
    misses: int = 0
    inconsistent: bool = False
    unconfirmed: int = 0

    @staticmethod
    def start(track_id: int, pose: Poses, appearance: Floats, time_s: float) -> Track:
        """Start a track.

        Args:
            track_id: The new id.
            pose: One pose, in a box of the detector.
            appearance: float32 (S, 4), the appearance of that pose.
            time_s: Time of the frame.
        """
        return Track(
            id=track_id,
            keypoints=pose.keypoints[0],
            scores=pose.scores[0],
            box=pose.boxes[0],
            box_score=float(pose.box_scores[0]),
            time_s=time_s,
            velocity=np.zeros(2, np.float32),
            mean_score=float(pose.scores[0].mean()),
            appearance=appearance,
        )

    @property
    def size(self) -> float:
        """Square root of the box's area, px."""
        return float(np.sqrt(boxes_.areas(self.box[None])[0]))

    @property
    def reportable(self) -> bool:
        """Whether an unconfirmed person may still be reported."""
        return self.unconfirmed <= MAX_UNCONFIRMED

    def displacement(self, time_s: float) -> Floats:
        """Predict the displacement since the person was last seen, float32 (2,), px."""
        speed = float(np.linalg.norm(self.velocity))
        share = min(1.0, MAX_SPEED * self.size / max(speed, 1e-6))
        return np.asarray(self.velocity * share * min(time_s - self.time_s, MAX_EXTRAPOLATION_S), np.float32)

    def relative_displacement(self, time_s: float) -> float:
        """Length of the predicted displacement in person sizes."""
        return float(np.linalg.norm(self.displacement(time_s)) / self.size)

    def predicted_keypoints(self, time_s: float) -> Floats:
        """Predict the keypoints, float32 (K, 2), image px."""
        return self.keypoints + self.displacement(time_s)

    def predicted_box(self, time_s: float) -> Floats:
        """Predict the box, float32 (4,) xyxy, image px."""
        return np.asarray(self.box + np.tile(self.displacement(time_s), 2), np.float32)

    def search_box(self, time_s: float) -> Floats:
        """Box around the last and the predicted box, float32 (4,) xyxy: holds a person who stopped or turned, too."""
        predicted = self.predicted_box(time_s)
        return np.concatenate([np.minimum(self.box[:2], predicted[:2]), np.maximum(self.box[2:], predicted[2:])])

    def reset_motion(self, time_s: float) -> None:
        """Forget the motion, after the clock jumped to ``time_s``."""
        self.velocity = np.zeros(2, np.float32)
        self.time_s = time_s

    def update(self, keypoints: Floats, scores: Floats, time_s: float, *, crowded: bool) -> None:
        """Add the person's next pose.

        Where two people share a crop, a network may mix their keypoints. So in a crowd, keypoints far from their
        predicted place count as unseen and are replaced by the prediction.

        Args:
            keypoints: float32 (K, 2), image px.
            scores: float32 (K,).
            time_s: Later than before, or the time at which the motion was reset.
            crowded: Whether other people are near.
        """
        if crowded:
            predicted = self.predicted_keypoints(time_s)
            outlier = np.linalg.norm(keypoints - predicted, axis=1) > OUTLIER_SHARE * np.float32(self.size)
            keypoints = np.where(outlier[:, None], predicted, keypoints)
            scores = np.where(outlier, OUTLIER_SCORE_FACTOR * scores, scores).astype(np.float32)
        weights = scores * self.scores + 1e-6
        scale, before, now = _fit_similarity(self.keypoints, keypoints, weights)
        if time_s > self.time_s:  # right after a reset, the elapsed time is unknown
            # A person unseen for longer than a gap has still been predicted from frame to frame.
            step_s = max(time_s - self.time_s, MIN_STEP_S)
            # The first measurement of a new or reset track is used as it is; later ones are averaged.
            weight = 1.0 if not self.velocity.any() else CROWD_MOTION_WEIGHT if crowded else MOTION_WEIGHT
            self.velocity = self.velocity + np.float32(weight) * ((now - before) / np.float32(step_s) - self.velocity)
        corners = (self.box.reshape(2, 2) - before) * scale + now
        self.box = _widen_to_body(corners.reshape(4), keypoints, scores)
        self.keypoints = keypoints
        self.scores = self.scores + np.float32(SCORE_WEIGHT) * (scores - self.scores)
        self.mean_score += SCORE_WEIGHT * (float(scores.mean()) - self.mean_score)
        self.time_s = time_s
        self.misses = 0

    def confirm(self, detected: Floats, detected_score: float, appearance: Floats) -> None:
        """Note that the detector sees the person.

        Args:
            detected: float32 (4,) xyxy, image px.
            detected_score: 0..1.
            appearance: float32 (S, 4), of the pose in that box.
        """
        self.box = _widen_to_body((self.box + detected) / 2, self.keypoints, self.scores)
        # A score from before unconfirmed frames may be about something else: it is replaced, not averaged.
        self.box_score += (1.0 if self.unconfirmed else 0.5) * (detected_score - self.box_score)
        self.appearance, self.inconsistent, self.unconfirmed = appearance, False, 0

    def is_consistent(self, similarity: float, fit: float, scores: Floats) -> bool:
        """Whether a pose follows from what the detector confirmed.

        Args:
            similarity: `appearance.similarity` with the body that the detector confirmed.
            fit: Mean of OKS and IoU with the predicted pose.
            scores: float32 (K,), of the keypoints.
        """
        fallen = float(scores.mean()) < FALLEN_SCORE_SHARE * self.mean_score
        return similarity >= MIN_APPEARANCE_SIMILARITY and fit >= MIN_FIT and not fallen

    def add_unconfirmed(self) -> None:
        """Count an unconfirmed frame."""
        self.unconfirmed += 1
        self.box_score *= UNCONFIRMED_FACTOR

    def inside(self, image_size: tuple[int, int]) -> bool:
        """Whether any of the box lies in the image of (width, height)."""
        low, high = self.box[:2], self.box[2:]
        return bool((low < np.asarray(image_size, np.float32)).all() and (high > 0).all())


def _fit_similarity(a: Floats, b: Floats, weights: Floats) -> tuple[np.float32, Floats, Floats]:
    """Fit b = (a - center_a) * scale + center_b by weighted least squares.

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


def _widen_to_body(box: NDArray[np.floating], keypoints: Floats, scores: Floats) -> Floats:
    """Widen a box (4,) so that it holds all confident keypoints with a margin."""
    body = keypoint_extents(keypoints[None], scores[None])[0]
    margin = MARGIN * np.sqrt(boxes_.areas(body[None])[0])
    widened = [np.minimum(box[:2], body[:2] - margin), np.maximum(box[2:], body[2:] + margin)]
    return np.concatenate(widened).astype(np.float32)
