"""The model repository: loads, unloads and rolls back models while the server runs (Triton's model repository)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from service.errors import QueueFull, ServiceError
from service.inference import heap, model_checks
from service.inference.canary import Canary
from service.inference.control_journal import Action, Change, ControlJournal
from service.inference.errors import ModelControlFailed
from service.inference.model import Model, one_line
from service.inference.model_checks import is_name
from service.inference.registry import ModelRegistry, bundle_paths
from service.pose.bundle import BundleError, sha256
from service.settings import Settings

log = logging.getLogger(__name__)

State = Literal["READY", "UNAVAILABLE"]
UNLOADED = "unloaded"
_BAD_NAME = "cannot be loaded: expected a name of at most 100 characters a-z, 0-9, '.', '_' and '-'; rename the bundle"
MAX_WAITING = 8
"""Most actions that wait for their turn; further ones are refused."""
POLL_S = 1.0
"""Time between two looks at the journal of the other processes, in seconds."""
MAX_REASON = 500
"""Longest reason of a failure, in characters: a manifest's faults may be many."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version of one model.

    Attributes:
        name: The model's name.
        version: Its version; None for a bundle that has not been read.
        sha256: sha256 (hex) of the network's file; None likewise.
        state: Whether it answers calls.
        reason: Why it does not, or why the last load left this version serving; empty otherwise.
    """

    name: str
    version: str | None
    sha256: str | None
    state: State
    reason: str = ""

    @classmethod
    def of(cls, model: Model, reason: str) -> IndexEntry:
        """Describe a model that is in the registry."""
        state: State = "UNAVAILABLE" if model.network is None else "READY"
        return cls(model.manifest.name, model.manifest.version, model.sha256, state, reason)


class ModelRepository:
    """Changes the models of a registry, one change at a time. Safe from several threads.

    A name keeps its skeleton, and stays a detector or a pose model, because callers rely on both. The version that a
    load replaced stays in memory for `roll_back` until another load of that name succeeds, or until it is unloaded.

    Attributes:
        load_failures: Why the last load of a name failed, by name; replaced with every change, never changed itself.
    """

    def __init__(
        self, registry: ModelRegistry, settings: Settings, on_load_failure: Callable[[str], None], canary: Canary
    ) -> None:
        """Change nothing yet.

        Args:
            registry: The models that serve.
            settings: Name the folder of the bundles, the models that callers rely on, and the folder of the journal.
            on_load_failure: Called with a model's name whenever loading it has failed.
            canary: Decides which model is the student; its candidate is rolled back where that is unloaded.
        """
        self._journal: ControlJournal | None = None
        if settings.model_control == "explicit" and settings.run_dir is not None:
            self._journal = ControlJournal(settings.run_dir)
        self._caught_up = False
        self._closed = threading.Event()
        self.load_failures: dict[str, str] = {}
        self._registry = registry
        self._settings = settings
        self._on_load_failure = on_load_failure
        self._canary = canary
        self._previous: dict[str, Model] = {}
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    def previous(self, name: str) -> Model | None:
        """Get the version to which `roll_back` would return; None if there is none."""
        return self._previous.get(name)

    def index(self) -> list[IndexEntry]:
        """List all versions in memory, and the bundles in the models folder that are not loaded."""
        models = self._registry.models
        entries = []
        for name, model in models.items():
            entries.append(IndexEntry.of(model, self.load_failures.get(name) or model.failure or ""))
            if (previous := self.previous(name)) is not None:
                kept = "replaced; a roll back returns to it"
                entries.append(IndexEntry(name, previous.manifest.version, previous.sha256, "UNAVAILABLE", kept))
        on_disk: list[Path] = []
        with suppress(BundleError):  # the folder is gone; the models in memory serve on
            on_disk = bundle_paths(self._settings.models_dir)
        for path in on_disk:
            if path.name not in models:
                reason = self.load_failures.get(path.name, "not loaded" if is_name(path.name) else _BAD_NAME)
                entries.append(IndexEntry(path.name, None, None, "UNAVAILABLE", reason))
        return entries

    def follow(self) -> None:
        """Make the changes of the other processes of this server from now on, until `close`."""
        if self._journal is not None:
            threading.Thread(target=self._follow, name="model-journal", daemon=True).start()

    def close(self) -> None:
        """End `follow`."""
        self._closed.set()

    async def run(self, action: Action, name: str) -> Model:
        """Make a change on a thread of its own, so that calls are answered meanwhile; see `change`.

        Raises:
            NotReady: The warm-up is still running.
            QueueFull: Too many changes are waiting.
            UnknownModel: There is no such model.
            ModelControlFailed: The change cannot be made.
        """
        if not self._registry.wait_until_warm(0):
            self._registry.require_ready()
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"expected at most {MAX_WAITING} changes of models to wait, got one more; try again in 5 s",
                headers={"Retry-After": "5"},
                retry_after_s=5,
                capacity=MAX_WAITING,
            )
        answer: Future[Model] = Future()
        answer.set_running_or_notify_cancel()  # the change is made even if its caller leaves
        # Not a pool's thread: the process would wait for it at its end, however long the backend takes.
        work = threading.Thread(target=self._work, args=(answer, action, name), name=f"model-{name[:40]}", daemon=True)
        try:
            work.start()
        except RuntimeError:  # the system allows no further thread
            self._places.release()
            raise
        try:
            return await asyncio.wrap_future(answer)
        finally:
            del answer  # it holds an error whose traceback holds this frame, and thereby the model

    def _work(self, answer: Future[Model], action: Action, name: str) -> None:
        """Make a change and pass its result on."""
        try:
            try:
                model = self.change(action, name)
            finally:
                self._places.release()
            answer.set_result(model)
        except BaseException as error:  # noqa: BLE001 - raised again where the call is awaited
            answer.set_exception(error)
        finally:
            del answer  # as in `run`

    def change(self, action: Action, name: str) -> Model:
        """Make a change, in this process and by the journal in the others; one change is made at a time.

        Args:
            action: ``load`` reads, verifies, loads and runs the bundle of a name, then lets it serve in the place of
                the version before. ``unload`` drops a model and the version before; calls and streams under way end on
                it. ``rollback`` returns to the version that the last load replaced; a second one to the newer.
            name: The model's name.

        Returns:
            The model that serves now, or the unloaded one.

        Raises:
            UnknownModel: There is no such model.
            ModelControlFailed: The change cannot be made; what served serves on.
        """
        with self._turn:
            if self._journal is None:
                model = self._make(action, name)
                self._tell_canary(action, name)
                return model
            try:
                with self._journal.turn():
                    self._catch_up(self._journal)
                    model = self._make(action, name)
                    self._tell_canary(action, name)
                    self._journal.append(Change(action, name, _digest(model)))
            except OSError as error:  # of the journal alone
                raise ModelControlFailed(
                    f"model {name!r}: expected a journal in {self._settings.run_dir} to tell the other processes of "
                    f"the change, got: {error.strerror}; correct the folder and repeat the call",
                    model=name,
                ) from error
            return model

    def _make(self, action: Action, name: str, wanted: str | None = None) -> Model:
        """Make a change in this process; ``wanted`` is the `Change.bundle` that it must lead to."""
        self._canary.refresh()  # the student may be another one by now
        try:
            if action == "load":
                return self._load(name, wanted)
            return self._unload(name) if action == "unload" else self._roll_back(name)
        finally:
            heap.return_freed_memory()

    def catch_up(self, patience_s: float = -1) -> None:
        """Make the changes that other processes have made until now; does nothing before the warm-up has ended.

        Args:
            patience_s: Time for which another change may take its turn first, in seconds; -1: as long as it takes.
        """
        if self._journal is None or not self._registry.wait_until_warm(0) or not self._turn.acquire(timeout=patience_s):
            return
        try:
            self._catch_up(self._journal)
        finally:
            self._turn.release()

    def _tell_canary(self, action: Action, name: str) -> None:
        """End the trial of a model that was unloaded here; the other processes learn of it from the canary's file."""
        if action == "unload":
            self._canary.roll_back_unloaded(name)

    def _follow(self) -> None:
        """Catch up with the other processes once a second."""
        while True:
            self.catch_up()
            if self._closed.wait(POLL_S):
                return

    def _catch_up(self, journal: ControlJournal) -> None:
        """Make the changes of other processes; the first time only the last of each model, which is what is left."""
        try:
            changes = journal.unread()
        except OSError as error:
            log.warning("the journal of model changes cannot be read: %s", error)
            return
        due = changes if self._caught_up else list({it.name: it for it in changes}.values())
        self._caught_up = True
        for change in due:
            try:
                if change.action == "unload" or not self._serves(change):
                    self._make(change.action, change.name, change.bundle)
            except ServiceError as error:
                log.warning("a change of another process was not made here: %s", error.detail)
                if change.name not in self.load_failures:
                    self._note_failure(change.name, error)

    def _serves(self, change: Change) -> bool:
        """Whether this process already serves the version that a change led to."""
        model = self._registry.models.get(change.name)
        return model is not None and model.network is not None and _digest(model) == change.bundle

    def _load(self, name: str, wanted: str | None) -> Model:
        path = model_checks.find_folder(self._registry, self._settings, name)
        try:
            model = model_checks.load_checked(self._registry, self._settings, self._canary, path)
            _require_version(model, wanted)
        except Exception as error:
            reason = self._note_failure(name, error)
            self._on_load_failure(name)
            log.warning("model %r was not loaded: %s", name, reason)
            serving = name in self._registry.models and self._registry.models[name].network is not None
            state = "the version before serves on" if serving else "the model stays unavailable"
            raise ModelControlFailed(f"model {name!r} was not loaded, {state}: {reason}", model=name) from error
        self._replace(name, model)
        log.info("model %r: version %s (sha256 %s) serves", name, model.manifest.version, model.sha256[:12])
        return model

    def _unload(self, name: str) -> Model:
        model = self._registry.find_model(name)
        model_checks.require_dispensable(self._registry, self._settings, name)
        unloaded = replace(model, network=None, failure=UNLOADED)
        self._registry.put(name, unloaded)
        self._previous.pop(name, None)
        log.info("model %r is unloaded", name)
        return unloaded

    def _roll_back(self, name: str) -> Model:
        self._registry.find_model(name)
        model = self.previous(name)
        if model is None:
            raise ModelControlFailed(
                f"model {name!r}: expected a version that a load has replaced, got none since the start or since "
                "the model was unloaded; put the older bundle into the models folder and load it",
                model=name,
            )
        try:
            model_checks.require_people_finder(self._registry, self._settings, self._canary, model.manifest)
        except BundleError as error:
            raise ModelControlFailed(f"model {name!r} was not rolled back: {error}", model=name) from None
        self._replace(name, model)
        log.info("model %r: rolled back to version %s", name, model.manifest.version)
        return model

    def _note_failure(self, name: str, error: Exception) -> str:
        reason = _reason(error)
        self.load_failures = self.load_failures | {name: reason}
        return reason

    def _replace(self, name: str, model: Model) -> None:
        """Let a model serve, and keep the one that it replaces unless that is the same version."""
        old = self._registry.models.get(name)
        self._registry.put(name, model)
        self.load_failures = {other: why for other, why in self.load_failures.items() if other != name}
        if old is not None and old.network is not None and old.manifest != model.manifest:
            self._previous[name] = old


def _reason(error: Exception) -> str:
    """Write why a model cannot serve in one line that is not too long."""
    text = error.detail if isinstance(error, ServiceError) else one_line(error)
    return (text or type(error).__name__)[:MAX_REASON]


def _digest(model: Model) -> str:
    """Identify a bundle: its manifest holds the hashes of all its files."""
    return sha256(model.manifest.model_dump_json().encode())


def _require_version(model: Model, wanted: str | None) -> None:
    if wanted not in {None, _digest(model)}:
        raise BundleError(
            f"expected the bundle that another process of this server has loaded, got version "
            f"{model.manifest.version}, which was put into the models folder since; load it once more"
        )
