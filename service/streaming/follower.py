"""One stream's pictures to people: as `service.inference.predict`, with a memory of the pictures before."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from service.inference import image
from service.inference.predict import Prediction, Stopwatch, Wish, fall_back, predict
from service.inference.registry import ModelRegistry
from service.pose import boxes as boxes_
from service.pose.types import Poses
from service.streaming.tracking import appearance
from service.streaming.tracking.smoothing import Smoother
from service.streaming.tracking.tracker import KEPT_SHARE, Tracked, Tracker


@dataclass(frozen=True, slots=True)
class Sight:
    """The people of one frame.

    Attributes:
        prediction: They.
        ids: Their numbers; None where nobody is tracked.
    """

    prediction: Prediction
    ids: list[int] | None


class Watcher:
    """Follows the people of one stream. Not for several threads at once."""

    def __init__(
        self, registry: ModelRegistry, wish: Wish, *, track: bool, smooth: bool, detect_every: int, max_misses: int
    ) -> None:
        """Begin to watch.

        Args:
            registry: Gives the detector.
            wish: What is asked of every frame.
            track: Whether people keep ids; otherwise every frame is answered as a picture of its own.
            smooth: Whether keypoints of people with ids are smoothed.
            detect_every: See `Tracker`.
            max_misses: See `Tracker`.
        """
        self._registry = registry
        self._wish = wish
        self._tracker: Tracker | None = None
        self._smoother = Smoother() if smooth else None
        if track:
            self._tracker = Tracker(
                wish.choice.model.estimator.skeleton.sigma_array,
                detect_every=detect_every,
                max_misses=max_misses,
                max_people=wish.max_people,
                min_score=wish.min_score,
                least_box_score=wish.least_box_score,
            )

    def look(self, content: bytes, time_s: float, watch: Stopwatch) -> Sight:
        """Answer one frame.

        Args:
            content: The picture's file.
            time_s: When it was taken, on the stream's clock.
            watch: Times the stages.

        Raises:
            ServiceError: The picture cannot be read. Whoever is tracked stays known.
        """
        if self._tracker is None:
            sight = Sight(predict(self._registry, content, self._wish, watch), None)
            watch.lap("track")
            return sight
        picture = image.decode(content, self._wish.max_pixels)
        watch.lap("decode")
        boxes, scores = self._tracker.boxes(time_s)
        if self._tracker.due:
            least = KEPT_SHARE * self._wish.least_box_score  # a weaker box can confirm who is known
            found = self._registry.detector.find(picture.pixels, self._wish.max_people, least)
            boxes, scores = self._tracker.add_found(boxes, scores, *found)
        watch.lap("find")
        poses = self._wish.choice.model.estimator.estimate(picture.pixels, boxes, scores)
        poses, fallen_back = fall_back(self._wish.choice, picture, poses)
        watch.lap("pose")
        looks = appearance.sample(picture.pixels, poses, self._wish.choice.model.estimator.skeleton)
        tracked = self._tracker.update(poses, looks, picture.size)
        people = self._recognised(self._tracker, poses, tracked, picture.size, time_s)
        watch.lap("track")
        return Sight(Prediction.of(self._wish.choice, picture, people, fallen_back[tracked.index]), tracked.ids)

    def _recognised(
        self, tracker: Tracker, poses: Poses, tracked: Tracked, image_size: tuple[int, int], time_s: float
    ) -> Poses:
        """Keep the poses of known people, smoothed, with boxes around where they are now."""
        poses = poses.select(tracked.index)
        keypoints = poses.keypoints
        if self._smoother is not None:
            sizes = np.sqrt(boxes_.areas(tracked.boxes))
            columns = zip(tracked.ids, keypoints, poses.scores, sizes, strict=True)
            smoothed = [self._smoother.smooth(i, points, scores, size, time_s) for i, points, scores, size in columns]
            keypoints = np.asarray(smoothed, np.float32).reshape(keypoints.shape)
            self._smoother.keep(tracker.ids)
        return replace(poses, keypoints=keypoints, boxes=boxes_.clip(tracked.boxes, image_size))
