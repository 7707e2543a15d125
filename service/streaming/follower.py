"""Inference on the frames of one stream: like `service.inference.predict`, but people are tracked between frames.

A network that needs boxes gets those in which the tracker expects people, and the detector's every few frames. A
one-stage network runs on each whole frame; the tracker keeps the ids in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.inference import image
from service.inference.image import DecodedImage
from service.inference.predict import PoseRequest, Prediction, Stopwatch, apply_fallback, predict
from service.inference.registry import ModelRegistry
from service.pose import boxes as boxes_
from service.pose.types import Boxes, Floats, Poses
from service.streaming.tracking import appearance
from service.streaming.tracking.smoothing import Smoother
from service.streaming.tracking.tracker import KEEP_SHARE, Tracker, TrackerOutput


@dataclass(frozen=True, slots=True)
class TrackedPrediction:
    """The people of one frame.

    Attributes:
        prediction: Poses in this frame.
        ids: Track ids, in the order of the poses; None in a stream without tracking.
    """

    prediction: Prediction
    ids: list[int] | None


class Follower:
    """Runs inference on one stream's frames in their order. Not safe for concurrent calls."""

    def __init__(
        self,
        registry: ModelRegistry,
        request: PoseRequest,
        *,
        track: bool,
        smooth: bool,
        detect_every: int,
        max_misses: int,
    ) -> None:
        """Start without known people.

        Args:
            registry: Holds the detector.
            request: How each frame is processed.
            track: Whether people get ids; otherwise each frame is processed independently.
            smooth: Whether keypoints of tracked people are smoothed.
            detect_every: See `Tracker`.
            max_misses: See `Tracker`.
        """
        self._registry = registry
        self._request = request
        self._estimator = request.choice.model.estimator
        self._tracker: Tracker | None = None
        self._smoother = Smoother() if smooth else None
        if track:
            self._tracker = Tracker(
                self._estimator.skeleton.sigma_array,
                detect_every=detect_every,
                max_misses=max_misses,
                max_people=request.max_people,
                min_score=request.min_score,
                min_box_score=request.min_box_score,
            )

    def state(self) -> dict[str, Any]:
        """Return what the next frames depend on, as plain values. Call it between two frames."""
        if self._tracker is None:
            return {}
        return {"tracker": self._tracker.state(), "smoother": self._smoother.state() if self._smoother else {}}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where another follower of the same options was when its `state` was taken.

        Raises:
            KeyError: It is not such a state.
            ValueError: It is not such a state.
        """
        if self._tracker is not None:
            self._tracker.restore(saved["tracker"])
            if self._smoother is not None:
                self._smoother.restore(saved["smoother"])

    def infer(self, content: bytes | DecodedImage, time_s: float, stopwatch: Stopwatch) -> TrackedPrediction:
        """Process one frame.

        Args:
            content: The image file, or a decoded image whose size the caller has checked.
            time_s: Time of the frame on the stream's clock.
            stopwatch: Times the stages.

        Raises:
            ServiceError: The image cannot be read. The tracks stay as they were.
        """
        if self._request.rolled_back:
            self._use_stable()
        if self._tracker is None:
            prediction = predict(self._registry, content, self._request, stopwatch)
            stopwatch.lap("track")
            return TrackedPrediction(prediction, None)
        picture = content
        if not isinstance(picture, DecodedImage):
            picture = image.decode(picture, self._request.max_pixels)
        stopwatch.lap("decode")
        estimated, appearances = self._estimate(self._tracker, picture, time_s, stopwatch)
        poses, by_fallback = apply_fallback(self._request, picture, estimated)
        stopwatch.lap("pose")
        if poses is not estimated:
            appearances = self._appearances(picture, poses)
        output = self._tracker.update(poses, appearances, picture.size)
        people = self._tracked_poses(self._tracker, poses, output, picture.size, time_s)
        stopwatch.lap("track")
        prediction = Prediction.of(self._request.choice, picture, people, by_fallback[output.index])
        if self._request.assignment is not None:
            self._request.assignment.record_answer(stopwatch.laps_ms["pose"], people)
        return TrackedPrediction(prediction, output.ids)

    def _estimate(
        self, tracker: Tracker, picture: DecodedImage, time_s: float, stopwatch: Stopwatch
    ) -> tuple[Poses, Floats]:
        """Estimate the poses of this frame; returns their appearances too."""
        boxes, scores = tracker.predict(time_s)
        stopwatch.lap("detect")
        found = self._find(picture)
        if found is None:
            return self._estimate_in_boxes(tracker, picture, boxes, scores, stopwatch)
        stopwatch.lap("pose")
        tracker.add_people(found)
        appearances = self._appearances(picture, found)
        stopwatch.lap("track")
        return found, appearances

    def _find(self, picture: DecodedImage) -> Poses | None:
        """Find everybody by a one-stage network; None where the model needs boxes."""
        if self._estimator.needs_boxes:
            return None
        request, share = self._request, KEEP_SHARE  # a weaker pose can still confirm a known person
        try:
            return self._estimator.find(
                picture.pixels,
                self._registry.detector.detect,
                request.max_people,
                share * request.min_box_score,
                share * request.min_score,
                covariance=request.covariance,
            )
        except Exception:
            if not self._left_canary():
                raise
        return self._find(picture)  # by the stable model, which may need boxes

    def _estimate_in_boxes(
        self, tracker: Tracker, picture: DecodedImage, boxes: Boxes, scores: Floats, stopwatch: Stopwatch
    ) -> tuple[Poses, Floats]:
        """Estimate poses in the predicted boxes, and in the detector's where it runs; returns their appearances too."""
        detect = tracker.detection_due
        if detect:
            boxes, scores = self._add_detections(tracker, picture, boxes, scores)
        stopwatch.lap("detect")
        poses = self._poses(picture, boxes, scores)
        stopwatch.lap("pose")
        appearances = self._appearances(picture, poses)
        stopwatch.lap("track")
        if not detect and tracker.predictions_failed(poses, appearances):
            boxes, scores = self._add_detections(tracker, picture, boxes, scores)
            stopwatch.lap("detect")
            poses = self._update_poses(picture, poses, boxes, scores)
            stopwatch.lap("pose")
            appearances = self._appearances(picture, poses)
        return poses, appearances

    def _poses(self, picture: DecodedImage, boxes: Boxes, scores: Floats) -> Poses:
        """Estimate poses. A stream whose canary fails is on the stable model from then on, with its tracks."""
        try:
            return self._estimator.estimate(picture.pixels, boxes, scores, covariance=self._request.covariance)
        except Exception:
            if not self._left_canary():
                raise
        return self._poses(picture, boxes, scores)  # by the stable model

    def _left_canary(self) -> bool:
        """Use the stable model after a failure, in an `except` block; False where it was no candidate that failed."""
        if self._request.assignment is None or not self._request.assignment.record_failure():
            return False
        self._use_stable()
        return True

    def _use_stable(self) -> None:
        """Answer this stream with the stable model; it estimates the same keypoints, so that the tracks go on."""
        self._request = self._request.on_stable()
        self._estimator = self._request.choice.model.estimator

    def _appearances(self, picture: DecodedImage, poses: Poses) -> Floats:
        return appearance.sample(picture.pixels, poses, self._estimator.skeleton)

    def _add_detections(
        self, tracker: Tracker, picture: DecodedImage, boxes: Boxes, scores: Floats
    ) -> tuple[Boxes, Floats]:
        min_score = KEEP_SHARE * self._request.min_box_score  # a weaker box can still confirm a known person
        detected = self._registry.detector.detect(picture.pixels, self._request.max_people, min_score)
        return tracker.add_detections(boxes, scores, *detected)

    def _update_poses(self, picture: DecodedImage, poses: Poses, boxes: Boxes, scores: Floats) -> Poses:
        """Estimate poses in those of the ``boxes`` (M, 4) that are new or differ from the boxes of the N <= M poses."""
        outdated = np.ones(len(boxes), bool)
        known = slice(len(poses))
        outdated[known] = (boxes[known] != poses.boxes).any(axis=1) | (scores[known] != poses.box_scores)
        updated = self._poses(picture, boxes[outdated], scores[outdated])
        order = np.arange(len(boxes))
        order[outdated] = len(poses) + np.arange(len(updated))
        return Poses.concatenate([poses, updated]).select(order)

    def _tracked_poses(
        self, tracker: Tracker, poses: Poses, output: TrackerOutput, image_size: tuple[int, int], time_s: float
    ) -> Poses:
        """Select the poses of tracked people, smooth them, and set their boxes.

        Covariances stay those of this frame's unsmoothed keypoints.
        """
        poses = poses.select(output.index)
        keypoints = poses.keypoints
        if self._smoother is not None:
            sizes = np.sqrt(boxes_.areas(output.boxes))
            columns = zip(output.ids, keypoints, poses.scores, sizes, strict=True)
            smoothed = [self._smoother.smooth(i, points, scores, size, time_s) for i, points, scores, size in columns]
            keypoints = np.asarray(smoothed, np.float32).reshape(keypoints.shape)
            self._smoother.keep(tracker.ids)
        return replace(poses, keypoints=keypoints, boxes=boxes_.clip(output.boxes, image_size))
