"""Tracking of people from frame to frame, so that the detector need not run on every frame.

For each frame, `Tracker.predict` gives the boxes in which the known people are expected. If `Tracker.detection_due`,
the detector runs as well, and `Tracker.add_detections` merges its boxes with the predicted ones. The pose network runs
on all boxes. If the poses show that the predictions were wrong (`Tracker.predictions_failed`), the detector runs in
the same frame. Finally `Tracker.update` assigns the poses to tracks.

Poses are assigned by how well they fit the motion (OKS and IoU) and the appearance of the tracks, with one optimal
assignment for the whole frame, because a crop that shows two people may yield the pose of either. Of two poses of one
person, the one with the higher score is kept; the track that is left without a pose is extrapolated, and the detector
searches for its person.

A pose network finds a body in whatever box it is given, so poses alone do not keep a track alive. Each track starts
with a box of the detector and has to be confirmed by it again once a pose is inconsistent (`Track.is_consistent`) or
the detector ran and did not see the person. Until then the detector runs on every frame. A track that is not confirmed
within `track.MAX_UNCONFIRMED` frames is no longer reported, and needs the score of a new person to come back.

A one-stage network needs no boxes and finds everybody on every frame: `Tracker.add_people` then stands in the place
of the detections, and each pose confirms its own track.

So a person who has left is reported in at most three more frames. There is one exception: if something with the same
pose and colours takes the person's place, nothing is inconsistent until the detector runs next, and it is reported in
at most ``detect_every`` + 2 more frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.types import Boxes, Floats, Poses
from service.streaming.tracking import association, clock, state
from service.streaming.tracking.assignment import assign
from service.streaming.tracking.association import URGENT_MISSES
from service.streaming.tracking.crowding import Crowding
from service.streaming.tracking.duplicates import distinct_poses
from service.streaming.tracking.track import Track

SLOW_STEP_S = 0.15
"""Gap between frames (s) above which a stream is slow: people may turn or stop between two frames, so they are expected
both at the predicted place and where they were last."""
MAX_RELATIVE_DISPLACEMENT = 0.2
"""In slow streams, the detector runs if a person is predicted to move farther than this, in person sizes."""
MAX_PREDICTION_S = 0.3
"""Gap between frames (s) above which predicted boxes are not trusted and the detector runs. Shorter gaps do not force a
detection: in an overloaded server, every detection makes the streams slower still."""
SAME_BOX_IOU = 0.3
"""Minimum IoU of a detected box and a track's box that show the same person."""
AGREEING_IOU = 0.6
"""Below this IoU, the detected box replaces the predicted one. In slow streams it always does, because people move too
far between frames for a prediction to be as accurate, and a tight crop cuts them off."""
KEEP_SHARE = 0.6
"""A tracked person is kept until the score falls below this share of the minimum score for new people."""
LATER_SEARCH_EVERY = 3
"""After `URGENT_MISSES` missed frames, a lost person is searched for in every so many-th frame."""


@dataclass(frozen=True, slots=True)
class TrackerOutput:
    """The tracked people of one frame.

    Attributes:
        index: intp (M,), indices into the given poses.
        ids: Track ids, M, ascending.
        boxes: float32 (M, 4) xyxy, image px: the tracks' boxes in this frame.
    """

    index: NDArray[np.intp]
    ids: list[int]
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class _Detection:
    """A box of the detector, float32 (4,) xyxy in image px, and its score, 0..1."""

    box: Floats
    score: float


class Tracker:
    """The tracks of one stream. Not safe for concurrent calls."""

    def __init__(
        self,
        sigmas: Floats,
        *,
        detect_every: int,
        max_misses: int,
        max_people: int,
        min_score: float,
        min_box_score: float,
    ) -> None:
        """Start without tracks.

        Args:
            sigmas: float32 (K,), `Skeleton.sigma_array`.
            detect_every: The detector runs at least on every so many-th frame.
            max_misses: Consecutive missed frames after which a track is removed.
            max_people: Maximum number of tracks.
            min_score: Minimum person score to start a track.
            min_box_score: Minimum score of a detected box to look for a new person in it.
        """
        self._sigmas = sigmas
        self._detect_every = detect_every
        self._max_misses = max_misses
        self._max_people = max_people
        self._min_score = min_score
        self._min_box_score = min_box_score
        self._tracks: list[Track] = []
        self._next_id = 1
        self._frames_since_detection = 0
        self._detection_wanted = True
        self._time_s: float | None = None
        self._slow = False
        self._failed: set[int] = set()  # tracks, by index, whose predicted box turned out to be wrong in this frame
        self._detected = False  # whether the detector ran on this frame
        self._detections: dict[int, _Detection] = {}  # the detector's boxes in this frame, by the index of the pose

    @property
    def ids(self) -> set[int]:
        """Ids of all tracks, including those of people who are not seen in this frame."""
        return {track.id for track in self._tracks}

    @property
    def detection_due(self) -> bool:
        """Whether the detector must run on this frame: nobody is known, somebody is lost, or it is time."""
        return self._detection_wanted or not self._tracks or self._frames_since_detection + 1 >= self._detect_every

    def state(self) -> dict[str, Any]:
        """Return everything that the next frames depend on, as plain values; call it between two frames."""
        return {
            "tracks": [state.pack(track) for track in self._tracks],
            "next_id": self._next_id,
            "frames_since_detection": self._frames_since_detection,
            "detection_wanted": self._detection_wanted,
            "time_s": self._time_s,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where another tracker was when its `state` was taken.

        Raises:
            KeyError: It is not such a state.
            ValueError: It is not such a state.
        """
        self._tracks = [state.unpack(Track, it) for it in saved["tracks"]]
        self._next_id, self._frames_since_detection = saved["next_id"], saved["frames_since_detection"]
        self._detection_wanted, self._time_s = saved["detection_wanted"], saved["time_s"]

    def predict(self, time_s: float) -> tuple[Boxes, Floats]:
        """Begin a frame: predict the box of each track.

        Args:
            time_s: Time of the frame on the stream's clock. Where it jumps, people are assumed to stand still.

        Returns:
            Boxes float32 (T, 4) xyxy, image px, and scores float32 (T,), 0..1.
        """
        if self._time_s is not None:
            step_s = clock.step(self._time_s, time_s)
            self._slow = step_s is None or step_s > SLOW_STEP_S
            self._detection_wanted |= step_s is None or step_s > MAX_PREDICTION_S
            self._detection_wanted |= self._slow and any(
                track.relative_displacement(time_s) > MAX_RELATIVE_DISPLACEMENT for track in self._tracks
            )
            if step_s is None:
                for track in self._tracks:
                    track.reset_motion(time_s)
        self._time_s = time_s
        boxes = [track.search_box(time_s) if self._slow else track.predicted_box(time_s) for track in self._tracks]
        scores = [track.box_score for track in self._tracks]
        return np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)

    def predictions_failed(self, poses: Poses, appearances: Floats) -> bool:
        """Check the poses in predicted boxes; if any is wrong, the detector should run on this frame too.

        Only tracks that were fine until now count: for the others, the detector runs on the next frames anyway.

        Args:
            poses: T poses, in the order of the boxes from `predict`.
            appearances: float32 (T, S, 4), `appearance.sample` of them.
        """
        fit = self._motion_fit(poses)
        similarity = association.appearance_similarity(appearances, self._tracks)
        visible = poses.person_scores >= self._min_kept_score
        self._failed = {
            j
            for j, track in enumerate(self._tracks)
            if not (track.misses or track.inconsistent)
            and not (visible[j] and track.is_consistent(float(similarity[j, j]), float(fit[j, j]), poses.scores[j]))
        }
        return bool(self._failed)

    def add_detections(
        self, boxes: Boxes, scores: Floats, detected: Boxes, detected_scores: Floats
    ) -> tuple[Boxes, Floats]:
        """Merge the detector's boxes with the predicted ones.

        Args:
            boxes: float32 (T, 4), from `predict`.
            scores: float32 (T,).
            detected: float32 (D, 4) xyxy, image px.
            detected_scores: float32 (D,).

        Returns:
            A box for each track, then the detected boxes that match no track, and the scores of all.
        """
        self._detected, self._frames_since_detection, self._detection_wanted, self._detections = True, -1, False, {}
        overlaps = boxes_.iou(detected, boxes)
        if self._slow and self._tracks:
            overlaps = np.maximum(overlaps, boxes_.iou(detected, np.stack([track.box for track in self._tracks])))
        boxes, scores, matched = boxes.copy(), scores.copy(), set()
        for i, j in assign(overlaps, SAME_BOX_IOU):
            self._detections[j] = _Detection(detected[i], float(detected_scores[i]))
            matched.add(i)
            if self._slow or overlaps[i, j] < AGREEING_IOU or j in self._failed:
                boxes[j] = detected[i]
            if self._tracks[j].unconfirmed:
                scores[j] = detected_scores[i]
        new = [i for i in range(len(detected)) if i not in matched and detected_scores[i] >= self._min_box_score]
        for row, i in enumerate(new):
            self._detections[len(boxes) + row] = _Detection(detected[i], float(detected_scores[i]))
        return np.concatenate([boxes, detected[new]]), np.concatenate([scores, detected_scores[new]])

    def add_people(self, poses: Poses) -> None:
        """Take the people whom a one-stage network found in the whole frame, before `update` gets the same poses."""
        self._detected, self._frames_since_detection, self._detection_wanted = True, -1, False
        columns = zip(poses.boxes, poses.box_scores.tolist(), strict=True)
        self._detections = {i: _Detection(box, score) for i, (box, score) in enumerate(columns)}

    def update(self, poses: Poses, appearances: Floats, image_size: tuple[int, int]) -> TrackerOutput:
        """End a frame: assign its poses to tracks, and start and remove tracks.

        Args:
            poses: N poses, in the order of the boxes from `predict` or `add_detections`, or those of `add_people`.
            appearances: float32 (N, S, 4), `appearance.sample` of them.
            image_size: (width, height), px.

        Returns:
            The tracked people of the frame.
        """
        self._frames_since_detection += 1
        candidates, confirming = distinct_poses(poses, self._sigmas, self._min_kept_score, self._detections)
        similarity = association.appearance_similarity(appearances, self._tracks)
        fit = self._motion_fit(poses)
        scores = association.continuation(fit[candidates], similarity[candidates], self._tracks)
        assigned = {j: int(candidates[row]) for row, j in assign(scores, association.MIN_CONTINUATION)}
        crowding = Crowding.of(self._tracks, self._now_s)
        seen: list[tuple[Track, int]] = []
        for j, track in enumerate(self._tracks):
            i = assigned.get(j)
            if i is not None and not track.is_consistent(float(similarity[i, j]), float(fit[i, j]), poses.scores[i]):
                track.inconsistent = True
            detection = self._confirming_detection(track, None if i is None else confirming.get(i), poses)
            if detection is None and (self._detected or i is None or track.inconsistent):
                track.add_unconfirmed()
            if i is not None and (detection is not None or track.reportable):
                track.update(poses.keypoints[i], poses.scores[i], self._now_s, crowded=bool(crowding.in_crop[j]))
                if detection is not None:
                    seen_alone = not crowding.overlapped[j]
                    track.confirm(*detection, appearances[i] if seen_alone else track.appearance)
                self._detection_wanted |= track.unconfirmed > 0
                seen.append((track, i))
            else:
                track.misses += 1
                self._detection_wanted |= track.misses <= URGENT_MISSES or track.misses % LATER_SEARCH_EVERY == 0
        self._tracks = [it for it in self._tracks if it.misses <= self._max_misses and it.inside(image_size)]
        seen = [(track, i) for track, i in seen if track in self._tracks]
        unassigned = [int(i) for i in candidates if i not in assigned.values() and int(i) in confirming]
        seen += self._start_tracks(poses, appearances, unassigned, confirming)
        seen.sort(key=lambda it: it[0].id)
        self._detected, self._detections, self._failed = False, {}, set()
        boxes = np.asarray([track.box for track, _ in seen], np.float32).reshape(-1, 4)
        return TrackerOutput(np.array([i for _, i in seen], np.intp), [track.id for track, _ in seen], boxes)

    @property
    def _now_s(self) -> float:
        assert self._time_s is not None, "predict must be called first"
        return self._time_s

    @property
    def _min_kept_score(self) -> float:
        return KEEP_SHARE * self._min_score

    def _motion_fit(self, poses: Poses) -> Floats:
        return association.motion_fit(poses, self._tracks, self._now_s, self._sigmas, may_have_stopped=self._slow)

    def _confirming_detection(self, track: Track, pose: int | None, poses: Poses) -> tuple[Floats, float] | None:
        """The detected box and its score if ``pose``, the index of the pose in that box, confirms the track."""
        if pose is None:
            return None
        # The score of a pose that is inconsistent for the first time still rests on what was seen before.
        confirmed = poses.person_scores[pose] >= self._min_score if track.unconfirmed else not track.inconsistent
        return (self._detections[pose].box, self._detections[pose].score) if confirmed else None

    def _make_room(self) -> bool:
        """Whether one more track may be started; if necessary, the track that was lost for longest is removed."""
        if len(self._tracks) < self._max_people:
            return True
        lost = max(self._tracks, key=lambda track: track.misses)
        if lost.misses <= URGENT_MISSES:
            return False
        self._tracks = [track for track in self._tracks if track is not lost]
        return True

    def _start_tracks(
        self, poses: Poses, appearances: Floats, unassigned: list[int], confirming: dict[int, int]
    ) -> list[tuple[Track, int]]:
        """Start tracks from poses in detected boxes that continue no track, in the order of ``unassigned``."""
        started = []
        for i in unassigned:
            if poses.person_scores[confirming[i]] < self._min_score or not self._make_room():
                continue
            track = Track.start(self._next_id, poses.select(np.array([i])), appearances[i], self._now_s)
            self._next_id += 1
            self._tracks.append(track)
            started.append((track, i))
        return started
