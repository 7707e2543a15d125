"""A candidate answers a share of the calls for ``auto``, until it is promoted or rolled back.

A call is assigned by a hash of its caller, so that one caller always meets the same model, that every process of a
service decides alike, and that callers of the candidate stay with it when the share grows.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from service.errors import BadParameter, NoCanary, ServiceError, UnknownModel
from service.inference.agreement import Agreements
from service.inference.call_window import CallWindow
from service.inference.metrics import Metrics
from service.inference.registry import Model, ModelChoice, ModelRegistry
from service.inference.verdict import CanaryVerdict, ModelEvidence, judge
from service.pose.types import Poses
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

Arm = Literal["stable", "candidate"]
Change = Literal["started", "promoted", "rolled_back"]
JUDGE_EVERY = 25
"""Calls of the candidate after which an automatic roll back is considered; each error is a further occasion."""


def position(candidate: str, key: str) -> float:
    """Place a caller in [0, 1): below the share of a canary, the candidate answers.

    The candidate's name is part of the hash, so that it is not always the same callers who try the new models.

    Args:
        candidate: Name of the candidate.
        key: Names the caller.
    """
    digest = hashlib.blake2b(f"{candidate}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(slots=True, eq=False)
class Trial:
    """One candidate beside the stable model, from its start to its promotion or roll back.

    Attributes:
        stable: Name of the model that answers the other calls.
        candidate: Name of the candidate.
        share: Share of the callers whom the candidate answers.
        calls: Windows of both models' calls.
        state: Whether the candidate still answers, or how the trial ended.
        answered: Calls of the candidate so far.
        failed: Whether the candidate has failed; only the first error is logged in full.
    """

    stable: str
    candidate: str
    share: float
    calls: dict[Arm, CallWindow]
    state: Literal["running", "promoted", "rolled_back"] = "running"
    answered: int = 0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class CanaryEvent:
    """The latest change of a canary.

    Attributes:
        change: What happened.
        model: The candidate.
        cause: Who decided: the settings, an operator over HTTP, or the verdict.
        reasons: The verdict's reasons.
        at: When, UTC.
    """

    change: Change
    model: str
    cause: Literal["settings", "operator", "verdict"]
    reasons: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Assignment:
    """The model that a call, or a stream for its whole life, was assigned to.

    Attributes:
        canary: Records how the calls end.
        trial: The trial that ran when the call came.
        arm: Which of its two models answers.
        choice: That model, with its fallback.
        stable: The stable model, with its fallback.
    """

    canary: Canary
    trial: Trial
    arm: Arm
    choice: ModelChoice
    stable: ModelChoice

    @property
    def rolled_back(self) -> bool:
        """Whether the candidate was assigned and has been rolled back since."""
        return self.arm == "candidate" and self.trial.state == "rolled_back"

    def on_stable(self) -> Assignment:
        """Return the assignment of a call that the stable model answers in the candidate's place."""
        return Assignment(self.canary, self.trial, "stable", self.stable, self.stable)

    def record_answer(self, pose_ms: float, poses: Poses) -> None:
        """Count an answered picture: ms of its stage `pose`, and its people."""
        self.canary.record(self, pose_ms, float(poses.person_scores.sum()), len(poses))

    def record_failure(self) -> bool:
        """Count a picture for which the network raised, in an `except` block.

        Returns:
            Whether the stable model should answer in the candidate's place.
        """
        if self.arm == "candidate":
            first, self.trial.failed = not self.trial.failed, True
            log.warning(
                "canary %r failed on a picture; the stable model answers it", self.trial.candidate, exc_info=first
            )
        self.canary.record(self, None)
        return self.arm == "candidate"


class Canary:
    """The canary of one server: the trial that runs, if any. Safe from several threads."""

    def __init__(
        self,
        registry: ModelRegistry,
        settings: Settings,
        metrics: Metrics,
        agreements: Agreements,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the trial that the settings ask for, if any.

        Args:
            registry: Holds the models.
            settings: Of the server.
            metrics: Count the calls of a trial.
            agreements: Of both models with the shadow model.
            clock: Of the windows, seconds.

        Raises:
            SettingsError: The settings ask for a candidate that cannot take the student's place.
        """
        self._registry = registry
        self._metrics = metrics
        self._agreements = agreements
        self._clock = clock
        self._lock = threading.RLock()
        self._promotion: tuple[str, Trial] | None = None  # the student before it, and the trial that led to it
        self.window_s = settings.canary_window_s
        self.auto_rollback = settings.canary_auto_rollback
        self.trial: Trial | None = None
        self.last_event: CanaryEvent | None = None
        if settings.canary is not None:
            try:
                self._start(settings.canary, settings.canary_share, "settings")
            except ServiceError as error:
                raise SettingsError(f"POSEWRIGHT_CANARY (--canary): {error.detail}") from None

    @property
    def stable(self) -> str:
        """Name of the model that answers calls for ``auto`` without a trial."""
        return self._registry.choose("auto").model.manifest.name

    def assign(self, key: str) -> Assignment | None:
        """Assign a call for ``auto``.

        Args:
            key: Names the caller.

        Returns:
            None where no trial runs: the registry chooses.
        """
        trial = self.trial
        if trial is None:
            return None
        stable = self._registry.choose("auto")
        if position(trial.candidate, key) < trial.share:
            choice = self._registry.choose("auto", student=trial.candidate)
            # A candidate that was unloaded or cannot run is passed over, as is one that was replaced by another kind.
            if choice.model.manifest.name == trial.candidate and same_keypoints(choice.model, stable.model):
                return Assignment(self, trial, "candidate", choice, stable)
        return Assignment(self, trial, "stable", stable, stable)

    def start(self, candidate: str, share: float) -> None:
        """Start a trial, or change the share of the one that runs.

        Raises:
            UnknownModel: No pose model has this name.
            Unavailable: The model cannot run.
            BadParameter: It cannot take the stable model's place.
        """
        self._registry.choose(candidate)
        self._start(candidate, share, "operator")

    def promote(self) -> None:
        """Let the candidate answer all calls for ``auto``; it is the stable model from now on.

        Raises:
            NoCanary: No trial runs.
            Unavailable: The candidate cannot run.
        """
        with self._lock:
            trial = self.trial
            if trial is None:
                raise NoCanary("expected a canary to promote, but none runs; start one with PUT /canary")
            self._registry.choose(trial.candidate)
            self._promotion = self._registry.student, trial
            self._registry.student = trial.candidate
            self._end(trial, "promoted", "operator")

    def roll_back(self) -> None:
        """Give all calls for ``auto`` back to the stable model at once; without a trial, undo the last promotion.

        Calls and streams that the candidate was assigned to change with their next picture.

        Raises:
            NoCanary: There is nothing to roll back.
        """
        with self._lock:
            if self.trial is not None:
                self._end(self.trial, "rolled_back", "operator")
            elif self._promotion is not None:
                self._registry.student, trial = self._promotion
                self._promotion = None
                trial.state = "rolled_back"
                self._note("rolled_back", trial.candidate, "operator")
            else:
                raise NoCanary("expected a canary or a promotion to roll back, but there is none; see GET /canary")

    def evidence(self, trial: Trial) -> tuple[ModelEvidence, ModelEvidence]:
        """Collect what is known about both models of a trial: stable, candidate."""
        stable, candidate = (
            ModelEvidence(name, trial.calls[arm].statistics(), self._agreements.statistics(name))
            for arm, name in (("stable", trial.stable), ("candidate", trial.candidate))
        )
        return stable, candidate

    def record(self, call: Assignment, pose_ms: float | None, score_sum: float = 0.0, people: int = 0) -> None:
        """Count a picture of a trial; see `CallWindow.add`."""
        trial = call.trial
        if trial.state != "running":
            return
        trial.calls[call.arm].add(pose_ms, score_sum, people)
        failed = pose_ms is None
        self._metrics.canary_request(call.choice.model.manifest.name, "failed" if failed else "answered")
        if call.arm == "candidate" and self.auto_rollback:
            trial.answered += 1
            if failed or trial.answered % JUDGE_EVERY == 0:
                self._judge(trial)

    def _judge(self, trial: Trial) -> None:
        verdict: CanaryVerdict = judge(*self.evidence(trial))
        if verdict.outcome != "worse":
            return
        with self._lock:
            if self.trial is trial:
                self._end(trial, "rolled_back", "verdict", verdict.reasons)

    def _start(self, candidate: str, share: float, cause: Literal["settings", "operator"]) -> None:
        with self._lock:
            if self.trial is not None and self.trial.candidate == candidate:
                self.trial.share = share
            else:
                stable = self._registry.choose("auto").model
                require_same_skeleton(self._registry.models, candidate, stable, "a candidate")
                if self.trial is not None:
                    self._end(self.trial, "rolled_back", "operator")
                windows: dict[Arm, CallWindow] = {
                    arm: CallWindow(self.window_s, self._clock) for arm in ("stable", "candidate")
                }
                self.trial = Trial(stable.manifest.name, candidate, share, windows)
                self._note("started", candidate, cause)
            log.info("canary %r answers %.2f %% of the callers of `auto`", candidate, 100 * share)
            self._metrics.canary_share(share)

    def _end(
        self,
        trial: Trial,
        change: Literal["promoted", "rolled_back"],
        cause: Literal["operator", "verdict"],
        reasons: tuple[str, ...] = (),
    ) -> None:
        trial.state = change
        self.trial = None
        self._metrics.canary_share(0.0)
        self._note(change, trial.candidate, cause, reasons)

    def _note(
        self,
        change: Change,
        model: str,
        cause: Literal["settings", "operator", "verdict"],
        reasons: tuple[str, ...] = (),
    ) -> None:
        self.last_event = CanaryEvent(change, model, cause, reasons, datetime.now(UTC))
        if change == "rolled_back":
            self._metrics.canary_rollback(cause)
        log.warning("canary %r %s (%s)%s", model, change.replace("_", " "), cause, "".join(f"; {it}" for it in reasons))


def same_keypoints(a: Model, b: Model) -> bool:
    """Whether two models estimate the same keypoints, so that one can answer in the other's place."""
    return a.manifest.known_skeleton == b.manifest.known_skeleton


def require_same_skeleton(models: Mapping[str, Model], name: str, other: Model, what: str) -> None:
    """Find a pose model that estimates the same keypoints as another one.

    Args:
        models: The registry's models.
        name: The model.
        other: The other one.
        what: The model's part, for the message.

    Raises:
        UnknownModel: No model has this name.
        BadParameter: It is a detector or the other model itself, or it has another skeleton.
    """
    model = models.get(name)
    if model is None:
        known = sorted(models)
        raise UnknownModel(f"expected a model of {known}, got {name!r}; see /models", model=name, models=known)
    got = None
    if model.manifest.role == "detector":
        got = "a detector"
    elif model is other:
        got = "that model itself"
    elif not same_keypoints(model, other):
        known_skeleton = model.manifest.known_skeleton
        got = f"one of skeleton {known_skeleton.name!r}" if known_skeleton else "one of an unknown skeleton"
    if got is not None:
        raise BadParameter(
            f"model: expected {what} beside {other.manifest.name!r} that estimates the same keypoints, got {name!r}, "
            f"{got}; choose another model",
            model=name,
        )
