"""A candidate answers a share of the calls for ``auto``, until it is promoted or rolled back.

A call is assigned by a hash of its caller, so that one caller always meets the same model, that every process of a
service decides alike, and that callers of the candidate stay with it when the share grows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from service.errors import ServiceError
from service.inference.agreement import Agreements
from service.inference.assignment import Assignment
from service.inference.call_window import CallWindow
from service.inference.canary_file import CanaryFile, CanaryState
from service.inference.errors import NoCanary
from service.inference.model import Model, same_skeleton
from service.inference.registry import ModelRegistry
from service.inference.rollout_metrics import RolloutMetrics
from service.inference.trial import (
    Arm,
    CanaryCause,
    CanaryEvent,
    Change,
    Trial,
    position,
    require_comparable,
)
from service.inference.verdict import CanaryVerdict, ModelEvidence, judge
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

JUDGE_EVERY = 25
"""Calls of the candidate after which an automatic roll back is considered; each error is a further occasion."""


class Canary:
    """The canary of one server: the trial that runs, if any. Safe from several threads."""

    def __init__(
        self,
        registry: ModelRegistry,
        settings: Settings,
        metrics: RolloutMetrics,
        agreements: Agreements,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the trial that the canary file, or else the settings ask for, if any.

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
        self._file = None if settings.canary_file is None else CanaryFile(settings.canary_file)
        self._previous: str | None = None  # the student before the last promotion
        self._promoted: Trial | None = None  # the trial that led to it, for the streams that it still has
        self._awaited: str | None = None  # the student by the canary file, while this process has no such model
        self.window_s = settings.canary_window_s
        self.auto_rollback = settings.canary_auto_rollback
        self.trial: Trial | None = None
        self.last_event: CanaryEvent | None = None
        self.refresh()
        if settings.canary is not None and self.last_event is None:
            try:
                self._start(settings.canary, settings.canary_share, "settings")
            except ServiceError as error:
                raise SettingsError(f"POSEWRIGHT_CANARY (--canary): {error.detail}") from None

    @property
    def stable(self) -> str:
        """Name of the model that answers calls for ``auto`` without a trial."""
        return self._registry.choose("auto").model.manifest.name

    @property
    def names(self) -> set[str]:
        """Names of the models that answer calls for ``auto``, now or after the next promotion or roll back."""
        trial = self.trial
        candidate = None if trial is None else trial.candidate
        return {it for it in (self._registry.student, self._awaited, self._previous, candidate) if it is not None}

    def assign(self, key: str) -> Assignment | None:
        """Assign a call for ``auto``.

        Args:
            key: Names the caller.

        Returns:
            None where no trial runs: the registry chooses.
        """
        self.refresh()
        trial = self.trial
        if trial is None:
            return None
        stable = self._registry.choose("auto")
        if position(trial.candidate, key) < trial.share:
            choice = self._registry.choose("auto", trial.candidate)
            # A candidate that was unloaded or cannot run is passed over, as is one that was replaced by another kind.
            if choice.model.manifest.name == trial.candidate and same_skeleton(choice.model, stable.model):
                return Assignment(self.record, trial, "candidate", choice, stable)
        return Assignment(self.record, trial, "stable", stable, stable)

    def start(self, candidate: str, share: float) -> None:
        """Start a trial, or change the share of the one that runs.

        Raises:
            UnknownModel: No pose model has this name.
            Unavailable: The model cannot run.
            BadParameter: It cannot take the stable model's place.
        """
        self.refresh()
        self._registry.choose(candidate)
        self._start(candidate, share, "operator")

    def promote(self) -> None:
        """Let the candidate answer all calls for ``auto``; it is the stable model from now on.

        Raises:
            NoCanary: No trial runs.
            Unavailable: The candidate cannot run.
        """
        self.refresh()
        with self._lock:
            trial = self.trial
            if trial is None:
                raise NoCanary("expected a canary to promote, but none runs; start one with PUT /canary")
            self._registry.choose(trial.candidate)
            self._previous, self._promoted = self._registry.student, trial
            self._take_student(trial.candidate)
            self._end(trial, "promoted", "operator")

    def roll_back(self) -> None:
        """Give all calls for ``auto`` back to the stable model at once; without a trial, undo the last promotion.

        Calls and streams that the candidate was assigned to change with their next picture.

        Raises:
            NoCanary: There is nothing to roll back.
            Unavailable: The student before the promotion cannot run.
        """
        self.refresh()
        with self._lock:
            if self.trial is not None:
                self._end(self.trial, "rolled_back", "operator")
            elif self._previous is not None:
                self._registry.choose(self._previous)
                promoted = self._registry.student
                self._take_student(self._previous)
                self._undo_promotion()
                self._note("rolled_back", promoted, "operator")
            else:
                raise NoCanary("expected a canary or a promotion to roll back, but there is none; see GET /canary")

    def refresh(self) -> None:
        """Take over what another process of this service has decided, where there is a canary file."""
        if self._file is None:
            return
        if self._file.changed():
            with self._lock:
                state = self._file.read()
                if state is not None:
                    self._apply(state)
        if self._awaited is not None:
            self._take_student(self._awaited)

    def roll_back_unloaded(self, name: str) -> None:
        """Roll back the candidate if it is this model, which was unloaded: calls and streams change at once."""
        with self._lock:
            if self.trial is not None and self.trial.candidate == name:
                self._end(self.trial, "rolled_back", "operator", ("the candidate was unloaded",))

    def evidence(self, trial: Trial) -> tuple[ModelEvidence, ModelEvidence]:
        """Collect what is known about both models of a trial: stable, candidate."""

        def known(arm: Arm, name: str) -> ModelEvidence:
            counted = trial.models.get(arm)
            if counted is not None and not self._serves(counted):
                self._count_anew(trial, arm, None)
            return ModelEvidence(name, trial.calls[arm].statistics(), self._agreements.statistics(name))

        return known("stable", trial.stable), known("candidate", trial.candidate)

    def record(self, call: Assignment, pose_ms: float | None, score_sum: float = 0.0, people: int = 0) -> None:
        """Count a picture of a trial; see `CallWindow.add`."""
        self.refresh()
        trial = call.trial
        if trial.state != "running":
            return
        model = call.choice.model
        if not self._serves(model):  # a version that was replaced meanwhile
            return
        if trial.models.get(call.arm) is not model:
            self._count_anew(trial, call.arm, model)
        trial.calls[call.arm].add(pose_ms, score_sum, people)
        failed = pose_ms is None
        self._metrics.canary_request(model.manifest.name, "failed" if failed else "answered")
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
                require_comparable(self._registry, candidate, stable, "a candidate", finds_people=True)
                if self.trial is not None:
                    self._end(self.trial, "rolled_back", "operator")
                self.trial = self._new_trial(candidate, share)
                self._note("started", candidate, cause)
            log.info("canary %r answers %.2f %% of the callers of `auto`", candidate, 100 * share)
            self._metrics.canary_share(share)
            if cause != "settings":
                self._save()

    def _new_trial(self, candidate: str, share: float) -> Trial:
        arms: tuple[Arm, ...] = ("stable", "candidate")
        return Trial(self.stable, candidate, share, {arm: CallWindow(self.window_s, self._clock) for arm in arms})

    def _apply(self, state: CanaryState) -> None:
        """Take over a state that another process wrote."""
        self._take_student(state.student)
        if state.previous is None:
            self._undo_promotion()
        self._previous = state.previous
        trial = self.trial
        if trial is not None and trial.candidate != state.candidate:
            trial.state = "promoted" if trial.candidate == state.student else "rolled_back"
            self._promoted = trial if trial.state == "promoted" else self._promoted
            self.trial = None
        if state.candidate is not None:
            self.trial = self.trial or self._new_trial(state.candidate, state.share)
            self.trial.share = state.share
        self._metrics.canary_share(state.share)
        self.last_event = state.event

    def _take_student(self, name: str) -> None:
        """Make a model the student; one that another process has loaded, as soon as this one has followed."""
        if name in self._registry.models:
            self._registry.student, self._awaited = name, None
        else:
            self._awaited = name

    def _serves(self, model: Model) -> bool:
        """Whether this is the version of its model that answers new calls."""
        return self._registry.models.get(model.manifest.name) is model

    def _count_anew(self, trial: Trial, arm: Arm, model: Model | None) -> None:
        """Forget the calls of the version before."""
        trial.models[arm] = model
        trial.calls[arm] = CallWindow(self.window_s, self._clock)

    def _undo_promotion(self) -> None:
        if self._promoted is not None:
            self._promoted.state = "rolled_back"
        self._previous = self._promoted = None

    def _save(self) -> None:
        """Tell the other processes of this service."""
        if self._file is not None and self.last_event is not None:
            trial = self.trial
            candidate, share = (None, 0.0) if trial is None else (trial.candidate, trial.share)
            self._file.write(
                CanaryState(
                    student=self._awaited or self._registry.student,
                    previous=self._previous,
                    candidate=candidate,
                    share=share,
                    event=self.last_event,
                )
            )

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
        cause: CanaryCause,
        reasons: tuple[str, ...] = (),
    ) -> None:
        self.last_event = CanaryEvent(change, model, cause, reasons, datetime.now(UTC))
        if change == "rolled_back":
            self._metrics.canary_rollback(cause)
        if change != "started":
            self._save()
        log.warning("canary %r %s (%s)%s", model, change.replace("_", " "), cause, "".join(f"; {it}" for it in reasons))
