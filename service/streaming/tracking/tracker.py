"""Who is who from frame to frame, and where to look next, so that the detector need not look at every frame.

One frame goes: `Tracker.boxes` says where the known people must be now; where `Tracker.due`, the detector looks too, and
what it finds elsewhere is added; the pose network looks into all boxes; `Tracker.update` says whose pose is whose.

A pose's own box tells little about whose it is: in a crop that shows two people the network may choose the other one.
So ids are given by how well poses fit to where their owners were heading (OKS and IoU, the best pairing as a whole). Of
two poses that are one person the surer one stays; the track that is left without coasts on, and the detector looks for
its person until he is back or given up.

A pose network sees a body wherever it is told to look, so poses alone keep nobody: every track begins with a box of the
detector and lives by its word. That word holds for what it was given about. Once the pose jumps, or its score or the
colours of the body fall away (`Track.compare`), and whenever the detector looks and is silent, the person is in doubt.
Then the detector looks at every frame, and whoever it does not confirm within `track.MOST_DOUBT` frames is not told,
until it does. Who has come into doubt is judged like a stranger.

So who has left is told in at most three more frames. One case takes longer: where something takes the person's place
that has the same pose and colours, nothing speaks against it until the detector looks, and it is told in at most
``detect_every`` + 2 more frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.boxes import body_boxes
from service.pose.oks import REACH, oks
from service.pose.types import Boxes, Floats, Poses
from service.streaming.tracking import appearance, clock
from service.streaming.tracking.assignment import pair
from service.streaming.tracking.track import Track

SLOW_STEP_S = 0.15
"""Between frames. In slower streams people may turn or stop meanwhile: they are expected ahead, and where they were."""
LONG_STRIDE = 0.2
"""In person sizes: whoever moves farther between two frames of a slow stream is not followed by the box alone."""
BLIND_STEP_S = 0.3
"""Between frames; after so long nobody is. (Not for all slow streams: in an overloaded server each look of the detector
makes every stream slower still, and it would not get out of that again.)"""
SAME_BOX_IOU = 0.3
"""A found box that overlaps a track's so much is the same person's."""
AGREEING_IOU = 0.6
"""If it overlaps less than this, the track's is off, and the found one is looked into instead. In slow streams it
always is: people move too far between frames for any prediction to be as near, and close crops cut them off."""
SAME_POSE_OKS = 0.6
"""Poses more alike than this (with `REACH`) are one person's: less than in a single picture, since tracks of two boxes
slide onto one person bit by bit. Of 22,822 pairs of people in COCO pictures 0.4 % are so alike, and half of these are
people who were labelled twice."""
LEAST_LIKENESS = 0.15
"""Least mean of OKS and IoU at which a pose can be the next one of a track."""
LOOK_WEIGHT = 0.5
"""Share of that likeness which depends on whether the pose looks like the track; no pose is refused for its look."""
CROP_MARGIN = 0.15
"""Share of a box's longer side by which a crop may reach beyond it: padding, and the network's aspect."""
OVERLAPPED_IOU = 0.1
"""Of two tracks whose boxes overlap more, each keeps the look from before: what is seen may be partly the other's."""
RECENT = 0.9
"""Factor on the likeness for each frame a track was not seen: of two who claim a pose, who was just there has it."""
KEPT_SHARE = 0.6
"""Of the score that a person needs to be taken up, the share that a known one needs to stay."""
URGENT_MISSES = 5
"""For so many frames someone lost is looked for in every one, after that in every `LATER_EVERY`-th."""
LATER_EVERY = 3


@dataclass(frozen=True, slots=True)
class Tracked:
    """The people of one frame who are known.

    Attributes:
        index: intp (M,), into the poses that were given.
        ids: Their numbers, M, ascending.
        boxes: float32 (M, 4) xyxy, image px: around each person now.
    """

    index: NDArray[np.intp]
    ids: list[int]
    boxes: Boxes


class Tracker:
    """The people of one stream. Not for several threads at once."""

    def __init__(
        self,
        sigmas: Floats,
        *,
        detect_every: int,
        max_misses: int,
        max_people: int,
        min_score: float,
        least_box_score: float,
    ) -> None:
        """Begin without people.

        Args:
            sigmas: float32 (K,), `Skeleton.sigma_array`.
            detect_every: The detector looks at every so many-th frame at least.
            max_misses: Frames in a row for which a person may be unseen before he is given up.
            max_people: Most people at once.
            min_score: Score from which a person is taken up.
            least_box_score: Score of a found box from which it is looked into for somebody new.
        """
        self._sigmas = sigmas
        self._detect_every = detect_every
        self._max_misses = max_misses
        self._max_people = max_people
        self._min_score = min_score
        self._least_box_score = least_box_score
        self._tracks: list[Track] = []
        self._next_id = 1
        self._since_find = 0  # frames since the detector looked
        self._wanted = True
        self._time_s: float | None = None
        self._slow = False
        self._looked = False  # whether the detector looked at this frame
        self._backing: dict[int, tuple[Boxes, float]] = {}  # what it found, by the index of the box that shows it

    @property
    def ids(self) -> set[int]:
        """Everyone who is known, those who are not seen just now too."""
        return {track.id for track in self._tracks}

    @property
    def due(self) -> bool:
        """Whether the detector must look at the coming frame: nobody is known, someone is lost, or it is time."""
        return self._wanted or not self._tracks or self._since_find + 1 >= self._detect_every

    def boxes(self, time_s: float) -> tuple[Boxes, Floats]:
        """Predict where everyone is.

        Args:
            time_s: Of the coming frame, on the stream's clock; where it jumps, everyone is taken to stand still.

        Returns:
            Boxes float32 (T, 4) xyxy, image px, and scores float32 (T,), 0..1.
        """
        if self._time_s is not None:
            step_s = clock.step(self._time_s, time_s)
            self._slow = step_s is None or step_s > SLOW_STEP_S
            self._wanted |= step_s is None or step_s > BLIND_STEP_S
            self._wanted |= self._slow and any(track.stride(time_s) > LONG_STRIDE for track in self._tracks)
            if step_s is None:
                for track in self._tracks:
                    track.halt(time_s)
        self._time_s = time_s
        boxes = [track.reach_at(time_s) if self._slow else track.box_at(time_s) for track in self._tracks]
        scores = [track.box_score for track in self._tracks]
        return np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)

    def add_found(self, boxes: Boxes, scores: Floats, found: Boxes, found_scores: Floats) -> tuple[Boxes, Floats]:
        """Add what the detector saw to the predicted boxes.

        Args:
            boxes: float32 (T, 4), as `boxes` gave them.
            scores: float32 (T,).
            found: float32 (F, 4) xyxy, image px.
            found_scores: float32 (F,).

        Returns:
            The predicted boxes, then the found ones of people who may be new, and all their scores.
        """
        self._looked, self._since_find, self._wanted, self._backing = True, -1, False, {}
        overlaps = boxes_.iou(found, boxes)
        if self._slow and self._tracks:
            overlaps = np.maximum(overlaps, boxes_.iou(found, np.stack([track.box for track in self._tracks])))
        boxes, scores, taken = boxes.copy(), scores.copy(), set()
        for i, j in pair(overlaps, SAME_BOX_IOU):
            self._backing[j] = found[i], float(found_scores[i])
            taken.add(i)
            if self._slow or overlaps[i, j] < AGREEING_IOU:
                boxes[j] = found[i]
            if self._tracks[j].doubt:
                scores[j] = found_scores[i]
        new = [i for i in range(len(found)) if i not in taken and found_scores[i] >= self._least_box_score]
        self._backing |= {len(boxes) + row: (found[i], float(found_scores[i])) for row, i in enumerate(new)}
        return np.concatenate([boxes, found[new]]), np.concatenate([scores, found_scores[new]])

    def update(self, poses: Poses, looks: Floats, image_size: tuple[int, int]) -> Tracked:
        """Give the poses of a frame to their owners.

        Args:
            poses: In the order of the boxes from `boxes` or `add_found`.
            looks: float32 (N, S, 4), `appearance.sample` of them.
            image_size: (width, height), px.

        Returns:
            Who is in the frame.
        """
        assert self._time_s is not None, "boxes comes before update"
        self._since_find += 1
        candidates, witnesses = self._distinct(poses)
        alike = self._looks_alike(looks)
        fit = self._fit_ahead(poses)
        pairs = dict(pair(self._likeness(fit[candidates], alike[candidates]), LEAST_LIKENESS))
        owners = {owner: int(candidates[row]) for row, owner in pairs.items()}
        crowded, overlapped = self._crowded()
        seen: list[tuple[Track, int]] = []
        for j, track in enumerate(self._tracks):
            i = owners.get(j)
            if i is not None:
                track.compare(float(alike[i, j]), float(fit[i, j]), poses.scores[i])
            backing = self._word_for(track, None if i is None else witnesses.get(i), poses)
            if backing is None and (self._looked or i is None or track.changed):
                track.doubt_more()
            if i is not None and (backing is not None or track.told):
                track.follow(poses.keypoints[i], poses.scores[i], self._time_s, crowded=bool(crowded[j]))
                if backing is not None:
                    track.confirm(*backing, track.look if overlapped[j] else looks[i])
                self._wanted |= track.doubt > 0
                seen.append((track, i))
            else:
                track.misses += 1
                self._wanted |= track.misses <= URGENT_MISSES or track.misses % LATER_EVERY == 0
        self._tracks = [it for it in self._tracks if it.misses <= self._max_misses and it.inside(image_size)]
        rest = [int(i) for row, i in enumerate(candidates) if row not in pairs and int(i) in witnesses]
        seen = [(track, i) for track, i in seen if track in self._tracks] + self._take_up(poses, looks, rest, witnesses)
        seen.sort(key=lambda it: it[0].id)
        self._looked, self._backing = False, {}
        boxes = np.asarray([track.box for track, _ in seen], np.float32).reshape(-1, 4)
        return Tracked(np.array([i for _, i in seen], np.intp), [track.id for track, _ in seen], boxes)

    def _crowded(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether others can be seen in the crop around each track's predicted box, and in the box, bool (T,)."""
        assert self._time_s is not None
        boxes = np.asarray([track.box_at(self._time_s) for track in self._tracks], np.float32).reshape(-1, 4)
        overlapped = (boxes_.iou(boxes, boxes) > OVERLAPPED_IOU).sum(axis=1) > 1
        margin = CROP_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0)
        boxes = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
        return np.asarray((boxes_.overlap(boxes, boxes) > 0).sum(axis=1) > 1), np.asarray(overlapped)

    def _word_for(self, track: Track, witness: int | None, poses: Poses) -> tuple[Boxes, float] | None:
        """The detector's box and score for a track, where the pose ``witness`` in that box confirms it."""
        if witness is None:
            return None
        # The score of a pose that has changed just now still rests on what was seen before.
        stranger = poses.person_scores[witness] >= self._min_score if track.doubt else not track.changed
        return self._backing[witness] if stranger else None

    def _distinct(self, poses: Poses) -> tuple[NDArray[np.intp], dict[int, int]]:
        """Choose the poses that are sure enough and nobody else's.

        Returns:
            Their indices, surest first; and for those whom the detector sees, the index of the pose in its box: their
            own, or of one so alike that it was left out.
        """
        scores = poses.person_scores
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= max(KEPT_SHARE * self._min_score, 1e-6)]
        people = poses.select(order)
        bodies = body_boxes(people.keypoints, people.scores)
        alike = oks(people.keypoints, people.keypoints, REACH**2 * boxes_.areas(bodies), self._sigmas, people.scores)
        same = alike > SAME_POSE_OKS
        kept = np.ones(len(order), bool)
        witnesses: dict[int, int] = {}
        for i in range(len(order)):
            if not kept[i]:
                continue
            twins = kept[i:] & np.concatenate([[True], same[i + 1 :, i]])
            backed = [int(it) for it in order[i:][twins] if int(it) in self._backing]
            if backed:
                witnesses[int(order[i])] = backed[0]
            kept[i + 1 :] &= ~same[i + 1 :, i]
        return order[kept], witnesses

    def _looks_alike(self, looks: Floats) -> Floats:
        """How much each pose looks like each track, float32 (N, T)."""
        if not self._tracks:
            return np.zeros((len(looks), 0), np.float32)
        return appearance.likeness(looks, np.stack([track.look for track in self._tracks]))

    def _fit_ahead(self, poses: Poses) -> Floats:
        """How well each pose fits to where each track was heading, float32 (N, T): the mean of OKS and IoU."""
        if not self._tracks or not len(poses):
            return np.zeros((len(poses), len(self._tracks)), np.float32)
        assert self._time_s is not None
        heading = self._fit(poses, np.stack([track.keypoints_at(self._time_s) for track in self._tracks]))
        if self._slow:
            heading = np.maximum(heading, self._fit(poses, np.stack([track.keypoints for track in self._tracks])))
        return heading

    def _likeness(self, fit: Floats, alike: Floats) -> Floats:
        """How likely each pose is each track's, float32 (N, T): of several that fit, the one that looks like it.

        Args:
            fit: float32 (N, T), `_fit_ahead`.
            alike: float32 (N, T), `appearance.likeness`.
        """
        unseen = np.array([min(track.misses, URGENT_MISSES) for track in self._tracks])
        fit = np.asarray(fit * RECENT**unseen, np.float32)
        likely = fit * (1 - LOOK_WEIGHT + LOOK_WEIGHT * np.clip(alike, 0, 1))
        return np.asarray(np.where(fit >= LEAST_LIKENESS, np.maximum(likely, LEAST_LIKENESS), 0), np.float32)

    def _fit(self, poses: Poses, expected: Floats) -> Floats:
        """The mean of OKS and IoU with the tracks' expected keypoints (T, K, 2)."""
        scores = np.stack([track.scores for track in self._tracks])
        extents = body_boxes(expected, scores)
        similarity = oks(poses.keypoints, expected, REACH**2 * boxes_.areas(extents), self._sigmas, scores)
        overlaps = boxes_.iou(body_boxes(poses.keypoints, poses.scores), extents)
        return np.asarray((similarity + overlaps) / 2, np.float32)

    def _make_room(self) -> bool:
        """Tell whether one more may be known; for that, whoever was out of sight for longest may have to go."""
        if len(self._tracks) < self._max_people:
            return True
        lost = max(self._tracks, key=lambda track: track.misses)
        if lost.misses <= URGENT_MISSES:
            return False
        self._tracks = [track for track in self._tracks if track is not lost]
        return True

    def _take_up(
        self, poses: Poses, looks: Floats, rest: list[int], witnesses: dict[int, int]
    ) -> list[tuple[Track, int]]:
        """Begin tracks for the ``rest``: poses in boxes of the detector that are nobody's, the surest first."""
        assert self._time_s is not None
        begun = []
        for i in rest:
            if poses.person_scores[witnesses[i]] < self._min_score or not self._make_room():
                continue
            track = Track.begin(self._next_id, poses.select(np.array([i])), looks[i], self._time_s)
            self._next_id += 1
            self._tracks.append(track)
            begun.append((track, i))
        return begun
