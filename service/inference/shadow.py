"""A sampled share of the answered pictures is answered again by another model, off the path of every request.

One thread does this, and only while an inference thread is idle and no call waits; it looks again before every run of a
network. Its priority in the operating system stays the ordinary one: a thread of low priority that is suspended while
it holds Python's global interpreter lock would stop all others. Pictures wait as the files that came, which take a
small part of the memory of their pixels, and are decoded a second time. Nothing of a picture is kept afterwards.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from service.errors import ServiceError
from service.inference import image
from service.inference.agreement import Agreements
from service.inference.model import Model, same_skeleton
from service.inference.predict import PoseRequest, Prediction
from service.inference.registry import ModelRegistry
from service.inference.rollout_metrics import RolloutMetrics
from service.inference.scheduler import Scheduler
from service.inference.trial import require_comparable
from service.pose import boxes as boxes_
from service.pose.oks import oks
from service.pose.types import Boxes, Floats, Image, Poses
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)
_SAMPLE = random.Random()  # noqa: S311 - no secret

MAX_WAITING = 8
"""Most pictures that wait for the shadow model; further ones are dropped."""
MAX_WAITING_BYTES = 16_000_000
"""Most bytes of the pictures' files that wait."""
MAX_PIXELS = 16_000_000
"""Pictures of more pixels are dropped: the shadow's memory comes on top of that of the calls."""
DELAY_S = 0.1
"""Seconds after which a picture may be begun: its own answer has been sent by then."""
POLL_S = 0.01
"""Seconds between two looks whether an inference thread is idle."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """A picture that was answered.

    Attributes:
        content: The file.
        request: What was asked for.
        model: The model that answered.
        poses: Its poses.
        at_s: When, on the monotonic clock.
    """

    content: bytes
    request: PoseRequest
    model: Model
    poses: Poses
    at_s: float


class Shadow:
    """The shadow model of one server and the pictures that wait for it."""

    def __init__(
        self,
        registry: ModelRegistry,
        scheduler: Scheduler,
        metrics: RolloutMetrics,
        agreements: Agreements,
        settings: Settings,
    ) -> None:
        """Start the thread.

        Args:
            registry: Holds the models.
            scheduler: Tells whether an inference thread is idle.
            metrics: Get every comparison.
            agreements: Get every comparison.
            settings: Name the model and the share.
        """
        self.model = settings.shadow_model or settings.teacher
        self._share = settings.shadow_share
        self._whole_picture = settings.shadow_whole_picture
        self._registry = registry
        self._scheduler = scheduler
        self._metrics = metrics
        self.agreements = agreements
        self._waiting: deque[_Answered] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, content: bytes, request: PoseRequest, prediction: Prediction) -> None:
        """Take a picture that was answered, if it is sampled and there is room; never waits.

        Args:
            content: The file.
            request: What was asked for.
            prediction: The answer.
        """
        if _SAMPLE.random() >= self._share:
            return
        model, poses = prediction.model, prediction.poses
        if prediction.fallback == "low_confidence" and not prediction.by_fallback.all():
            poses = poses.select(~prediction.by_fallback)
        reference = self._reference(model)
        if reference is None or not (len(poses) or self._looks_itself(request)):
            return
        with self._changed:
            full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes + len(content) > MAX_WAITING_BYTES
            if not (full or self._closed):
                self._waiting.append(_Answered(content, request, model, poses, time.monotonic()))
                self._waiting_bytes += len(content)
                self._changed.notify()
        if full:
            self._metrics.shadow_picture("dropped")

    def close(self, patience_s: float) -> None:
        """Forget the waiting pictures and end the thread; return after ``patience_s`` even if it still runs."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(patience_s)

    def _looks_itself(self, request: PoseRequest) -> bool:
        """Whether the shadow model detects people for this request; boxes that a caller gave are kept."""
        return self._whole_picture and request.boxes is None

    def _reference(self, model: Model) -> Model | None:
        """Return the shadow model; None if it cannot run, or cannot be compared with ``model``."""
        reference = self._registry.models.get(self.model)
        if reference is None or reference.network is None or reference is model or not same_skeleton(reference, model):
            return None
        return reference

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                answered = self._waiting.popleft()
                self._waiting_bytes -= len(answered.content)
            time.sleep(max(0.0, answered.at_s + DELAY_S - time.monotonic()))
            try:
                self._metrics.shadow_picture("compared" if self._compare(answered) else "dropped")
            except Exception:
                log.exception("the shadow model %r failed on a picture", self.model)
                self._metrics.shadow_picture("failed")
            del answered  # an idle thread must not keep the last picture alive

    def _compare(self, answered: _Answered) -> bool:
        """Answer a picture again and record the agreement; False where it cannot be answered any more."""
        reference = self._reference(answered.model)
        if reference is None or image.pixel_count(answered.content) > MAX_PIXELS or not self._wait_until_idle():
            return False
        pixels = image.decode(answered.content, answered.request.max_pixels).pixels
        if self._looks_itself(answered.request):
            found = self._detect(pixels, answered.request, reference)
            similar = None if found is None else _best(answered.poses, found, reference)
        else:
            found = self._estimate(pixels, answered.poses, reference)
            similar = None if found is None else np.diagonal(_oks(answered.poses, found, reference))
        if similar is None:
            return False
        self.agreements.add(answered.model, reference, similar)
        self._metrics.shadow_oks(answered.model.manifest.name, similar)
        return True

    def _estimate(self, pixels: Image, poses: Poses, reference: Model) -> Poses | None:
        """Estimate the same people again, in the same boxes; None where the server stops meanwhile."""
        parts = [Poses.empty(len(reference.estimator.skeleton))]
        step = reference.estimator.batch_size
        for start in range(0, len(poses), step):
            if not self._wait_until_idle():
                return None
            few = slice(start, start + step)
            parts.append(reference.estimator.estimate(pixels, poses.boxes[few], poses.box_scores[few]))
        return Poses.concatenate(parts)

    def _detect(self, pixels: Image, request: PoseRequest, reference: Model) -> Poses | None:
        """Find people as a call would, with the shadow model; None where the server stops meanwhile."""
        if not self._wait_until_idle():
            return None
        estimator = reference.estimator

        def detect(image: Image, max_people: int, min_score: float) -> tuple[Boxes, Floats]:
            found = self._registry.detector.detect(image, max_people, min_score)
            self._wait_until_idle()
            return found

        least = estimator.min_box_score(request.min_score)
        poses = estimator.find(pixels, detect, request.max_people, least, request.min_score)
        return None if self._closed else poses.select(poses.person_scores >= request.min_score)

    def _wait_until_idle(self) -> bool:
        """Wait until an inference thread is idle; False where the server stops meanwhile."""
        with self._changed:
            while not (self._closed or self._scheduler.idle_threads):
                self._changed.wait(POLL_S)
            return not self._closed


def require_shadow(registry: ModelRegistry, settings: Settings) -> None:
    """Check that the shadow model of the settings can be compared with the student.

    Raises:
        SettingsError: There is no such model, it has another skeleton, or it needs a detector that is not there.
    """
    if not settings.shadow_share:
        return
    name = settings.shadow_model or settings.teacher
    try:
        student, whole = registry.choose("auto").model, settings.shadow_whole_picture
        require_comparable(registry, name, student, "a shadow model", finds_people=whole)
    except ServiceError as error:
        raise SettingsError(f"POSEWRIGHT_SHADOW_MODEL (--shadow-model): {error.detail}") from None


def _oks(answer: Poses, found: Poses, reference: Model) -> Floats:
    """OKS (N, M) of the answer's people, by the boxes and keypoints of the shadow model's."""
    areas = boxes_.areas(found.boxes)
    return oks(answer.keypoints, found.keypoints, areas, reference.estimator.skeleton.sigma_array)


def _best(answer: Poses, found: Poses, reference: Model) -> Floats:
    """OKS of each person whom the shadow model found with the most similar pose of the answer; 0 without any."""
    return np.asarray(_oks(answer, found, reference).max(axis=0, initial=0.0), np.float32)
