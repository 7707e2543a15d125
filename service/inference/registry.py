"""The model registry: loads the bundles of a folder, and chooses the model that answers a call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from service.errors import NotReady, Unavailable
from service.inference.errors import UnknownModel
from service.inference.model import Model, load, one_line, read, same_skeleton, shown_skeleton, try_out
from service.inference.no_detector import NoDetector
from service.pose import bundle as bundles
from service.pose.backends.dynamic_batching import DynamicBatching
from service.pose.bundle import BundleError
from service.pose.detector import PersonDetector
from service.settings import Settings

log = logging.getLogger(__name__)

Fallback = Literal["student_unavailable", "low_confidence"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The models that answer a call.

    Attributes:
        model: Estimates everyone's pose first.
        fallback: Why `model` is the teacher although the caller left the choice to the server.
        backup: Estimates again the poses of `model` whose person score is below `backup_below`; None: no fallback.
        backup_below: Person score, 0..1.
    """

    model: Model
    fallback: Fallback | None = None
    backup: Model | None = None
    backup_below: float = 0.0


class ModelRegistry:
    """The models of one folder. Safe from several threads.

    Attributes:
        models: By name.
        batching: How their networks gather images.
        detector: The detector that finds the people, for the models that need it.
    """

    def __init__(self, models: dict[str, Model], settings: Settings, batching: DynamicBatching) -> None:
        self.models = models  # never changed: `put` replaces it, so that readers need no lock
        self.batching = batching
        self.student = settings.student
        """Name of the model that answers calls for ``auto``; a canary that is promoted takes the place."""
        self._settings = settings
        self._changing = threading.Lock()
        self._warm = threading.Event()
        self._failure: str | None = None
        self.detector = _detector(models, settings.detector) or NoDetector(settings.detector)

    @property
    def ready(self) -> bool:
        """Whether the warm-up has ended and calls can be answered."""
        return self._warm.is_set() and self._failure is None

    def require_ready(self) -> None:
        """Refuse calls before the warm-up has ended.

        Raises:
            NotReady: The warm-up is still running, or it left no detector or no pose model that runs.
        """
        if not self.ready:
            state = self._failure or "models that are still warming up"
            raise NotReady(
                f"expected warm models, got {state}; try again in a second",
                headers={"Retry-After": "1"},
                retry_after_s=1,
            )

    def warm_up(self) -> None:
        """Run every network once: the first run of a graph allocates its memory, and shows whether the graph runs.

        A second call does nothing.
        """
        if self._warm.is_set():
            return
        for name, model in self.models.items():
            try:
                try_out(model, self.batching)
            except Exception as error:
                log.exception("model %r failed its warm-up", name)
                self.put(name, replace(model, network=None, failure=one_line(error)))
        self._warm.set()

    def put(self, name: str, model: Model) -> None:
        """Add a model, or replace the one of this name. Calls that have chosen the old one end on it."""
        with self._changing:
            self.models = self.models | {name: model}
            self.detector = _detector(self.models, self._settings.detector) or self.detector
            runnable = [it for it in map(self._runnable, (self.student, self._settings.teacher)) if it]
            detector = self.models.get(self._settings.detector)
            self._failure = None
            if detector is not None and detector.network is None and _need_boxes(runnable):
                self._failure = f"a detector that cannot run: {detector.failure}"
            elif not runnable:
                self._failure = "neither a student nor a teacher that can run"

    def wait_until_warm(self, timeout_s: float) -> bool:
        """Wait for the end of the warm-up; False after ``timeout_s``."""
        return self._warm.wait(timeout_s)

    def find_model(self, name: str) -> Model:
        """Get a model by its name.

        Raises:
            UnknownModel: No model has this name.
        """
        if name in self.models:
            return self.models[name]
        known = sorted(self.models)
        raise UnknownModel(f"expected a model of {known}, got {name!r}; see /models", model=name, models=known)

    def is_default(self, model: Model) -> bool:
        """Whether the model answers calls for ``auto``."""
        return model is (self._runnable(self.student) or self._runnable(self._settings.teacher))

    def choose(self, wanted: str, candidate: str | None = None) -> ModelChoice:
        """Choose the models that answer a call.

        Only ``auto`` falls back to the teacher: a caller who names a model gets that model or an error.

        Args:
            wanted: ``auto``, ``student``, ``teacher`` or a model's name.
            candidate: Name of a model that takes the student's place.

        Raises:
            UnknownModel: No pose model has this name.
            Unavailable: The model cannot run.
        """
        student_name = candidate or self.student
        student, teacher = self._runnable(student_name), self._runnable(self._settings.teacher)
        if wanted != "auto":
            names = {"student": student_name, "teacher": self._settings.teacher}
            return ModelChoice(self._find_pose_model(names.get(wanted, wanted)))
        if student is None:
            failed = self.models.get(student_name)
            if failed is not None and teacher is not None and not same_skeleton(failed, teacher):
                return ModelChoice(self._find_pose_model(student_name))
            return ModelChoice(teacher or self._find_pose_model(self._settings.teacher), "student_unavailable")
        if self._settings.fallback_score is None or (teacher is not None and not same_skeleton(student, teacher)):
            return ModelChoice(student)
        return ModelChoice(student, backup=teacher, backup_below=self._settings.fallback_score)

    def _runnable(self, name: str) -> Model | None:
        model = self.models.get(name)
        return None if model is None or model.network is None else model

    def _find_pose_model(self, name: str) -> Model:
        model = self.find_model(name)
        if model.manifest.role == "detector":
            known = sorted(other for other, it in self.models.items() if it.manifest.role != "detector")
            raise UnknownModel(f"expected a pose model of {known}, got the detector {name!r}", model=name, models=known)
        if model.network is None:
            raise Unavailable(
                f"expected model {name!r} to run, got: {model.failure}; ask for another model", model=name
            )
        return model


def open_registry(settings: Settings) -> ModelRegistry:
    """Read, verify and load every bundle in the models folder.

    A student or teacher that is missing, or that the backend cannot load, is tolerated while the other one runs. A
    damaged bundle is not. The detector may be missing where student and teacher find people themselves.

    Raises:
        BundleError: A bundle is damaged, the detector is missing or cannot be loaded, or no pose model runs.
        BackendError: The execution provider does not work on this machine.
    """
    folder = settings.models_dir
    batching = DynamicBatching(settings.images_per_batch, settings.batch_window_ms / 1e3)
    expected = {settings.detector, settings.student, settings.teacher}
    models = {}
    for path in bundle_paths(folder, expected):
        models[path.name] = load(read(path), settings, batching)
    runnable = [name for name in (settings.student, settings.teacher) if name in models and models[name].network]
    if _detector(models, settings.detector) is None and _need_boxes([models[name] for name in runnable]):
        detector = models.get(settings.detector)
        got = f"found {sorted(models)}" if detector is None else detector.failure or "it is no detector"
        raise BundleError(
            f"expected a detector {settings.detector!r} in {folder}, got: {got}; set models_dir or detector"
        )
    if not runnable:
        raise BundleError(
            f"expected a student {settings.student!r} or a teacher {settings.teacher!r} in {folder} that runs, "
            f"found {sorted(models)}; set models_dir, student or teacher"
        )
    if settings.student not in runnable:
        log.warning("student %r is not available; %r answers in its place", settings.student, settings.teacher)
    elif settings.fallback_score is not None and settings.teacher in runnable:
        student, teacher = models[settings.student], models[settings.teacher]
        if not same_skeleton(student, teacher):
            log.warning(
                "fallback_score has no effect: expected student and teacher of one skeleton, got %r of %s and %r of %s",
                settings.student, shown_skeleton(student), settings.teacher, shown_skeleton(teacher),
            )  # fmt: skip
    return ModelRegistry(models, settings, batching)


def _detector(models: Mapping[str, Model], name: str) -> PersonDetector | None:
    model = models.get(name)
    return model.network if model is not None and isinstance(model.network, PersonDetector) else None


def _need_boxes(runnable: Sequence[Model]) -> bool:
    """Whether a detector is required: one of the models needs boxes, or there is no model at all."""
    return not runnable or any(model.manifest.kind != "one_stage" for model in runnable)


def bundle_paths(folder: Path, expected: Collection[str] = ()) -> list[Path]:
    """List the folders that hold a manifest, and the expected folders even without one: reading them reports it.

    Raises:
        BundleError: ``folder`` cannot be listed.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise BundleError(f"expected a folder of bundles at {folder}, got {error.strerror}; set models_dir") from error
    return [path for path in paths if path.name in expected or is_bundle(path)]


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a manifest; one that may not be looked into, such as lost+found, is no bundle."""
    try:
        return (path / bundles.MANIFEST).is_file()
    except OSError:
        return False
