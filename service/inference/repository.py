"""The model repository: loads, unloads and rolls back models while the server runs (Triton's model repository)."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from service.errors import ModelControlFailed, QueueFull, ServiceError, UnknownModel, shown
from service.inference import registry as registry_
from service.inference.registry import Model, ModelRegistry
from service.pose.bundle import MANIFEST, BundleError, Manifest
from service.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

UNLOADED = "unloaded"
MAX_WAITING = 8
"""Most actions that wait for their turn; further ones are refused."""
MAX_REASON = 500
"""Longest reason of a failure, in characters: a manifest's faults may be many."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


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
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class ModelRepository:
    """Changes the models of a registry, one change at a time. Safe from several threads.

    A name keeps its skeleton, and stays a detector or a pose model, because callers rely on both. The version that a
    load replaced stays in memory for `roll_back` until another load of that name succeeds, or until it is unloaded.

    Attributes:
        load_failures: Why the last load of a name failed, by name; replaced with every change, never changed itself.
    """

    def __init__(self, registry: ModelRegistry, settings: Settings, on_load_failure: Callable[[str], None]) -> None:
        """Change nothing yet.

        Args:
            registry: The models that serve.
            settings: Name the folder of the bundles and the models that callers rely on.
            on_load_failure: Called with a model's name whenever loading it has failed.
        """
        self.load_failures: dict[str, str] = {}
        self._registry = registry
        self._settings = settings
        self._on_load_failure = on_load_failure
        self._previous: dict[str, Model] = {}
        self._turn = threading.Lock()
        self._waiting = 0

    def previous(self, name: str) -> Model | None:
        """Get the version to which `roll_back` would return; None if there is none."""
        return self._previous.get(name)

    def index(self) -> list[IndexEntry]:
        """List all versions in memory, and the bundles in the models folder that are not loaded."""
        models = self._registry.models
        entries = []
        for name, model in models.items():
            state: Literal["READY", "UNAVAILABLE"] = "UNAVAILABLE" if model.network is None else "READY"
            reason = self.load_failures.get(name) or model.failure or ""
            entries.append(IndexEntry(name, model.manifest.version, model.sha256, state, reason))
            if (previous := self.previous(name)) is not None:
                kept = "replaced; a roll back returns to it"
                entries.append(IndexEntry(name, previous.manifest.version, previous.sha256, "UNAVAILABLE", kept))
        on_disk: list[Path] = []
        with suppress(BundleError):  # the folder is gone; the models in memory serve on
            on_disk = registry_.bundle_paths(self._settings.models_dir)
        for path in on_disk:
            if path.name not in models:
                reason = self.load_failures.get(path.name, "not loaded")
                entries.append(IndexEntry(path.name, None, None, "UNAVAILABLE", reason))
        return entries

    async def run(self, action: Callable[[str], T], name: str) -> T:
        """Run `load`, `unload` or `roll_back` on a thread of its own, so that calls are answered meanwhile.

        Raises:
            NotReady: The warm-up is still running.
            QueueFull: Too many actions are waiting.
            ServiceError: See the action.
        """
        if not self._registry.wait_until_warm(0):
            self._registry.require_ready()
        if self._waiting >= MAX_WAITING:
            raise QueueFull(
                f"expected at most {MAX_WAITING} changes of models to wait, got one more; try again in 5 s",
                headers={"Retry-After": "5"},
                retry_after_s=5,
                capacity=MAX_WAITING,
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            result, error = None, None
            try:
                result = action(name)
            except BaseException as raised:  # noqa: BLE001 - raised again where the call is awaited
                error = raised
            with suppress(RuntimeError):  # the loop has closed: the server stopped meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        def settle(result: T, error: BaseException | None) -> None:
            self._waiting -= 1
            if answer.cancelled():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self._waiting += 1
        # Not a pool's thread: the process would wait for it at its end, however long the backend takes.
        threading.Thread(target=work, name=f"model-{name[:40]}", daemon=True).start()
        return await answer

    def load(self, name: str) -> Model:
        """Read, verify, load and run the bundle of a name, then let it serve in the place of the version before.

        Raises:
            UnknownModel: There is no such model and no such folder.
            ModelControlFailed: The bundle cannot serve; the version before serves on.
        """
        path = self._path(name)
        with self._turn:
            try:
                model = self._loaded(path)
            except Exception as error:
                reason = _reason(error)
                log.warning("model %r was not loaded: %s", name, reason)
                self.load_failures = self.load_failures | {name: reason}
                self._on_load_failure(name)
                serving = name in self._registry.models and self._registry.models[name].network is not None
                state = "the version before serves on" if serving else "the model stays unavailable"
                raise ModelControlFailed(f"model {name!r} was not loaded, {state}: {reason}", model=name) from error
            self._replace(name, model)
            self.load_failures = {other: why for other, why in self.load_failures.items() if other != name}
        log.info("model %r: version %s (sha256 %s) serves", name, model.manifest.version, model.sha256[:12])
        return model

    def unload(self, name: str) -> Model:
        """Take a model out of service and drop it, with the version before; calls and streams under way end on it.

        Raises:
            UnknownModel: There is no such model.
            ModelControlFailed: Calls rely on it.
        """
        with self._turn:
            model = self._registry.find_model(name)
            self._require_dispensable(name)
            unloaded = replace(model, network=None, failure=UNLOADED)
            self._registry.put(name, unloaded)
            self._previous.pop(name, None)
        log.info("model %r is unloaded", name)
        return unloaded

    def roll_back(self, name: str) -> Model:
        """Return to the version that the last load replaced; a second roll back returns to the newer one.

        Raises:
            UnknownModel: There is no such model.
            ModelControlFailed: No version before is in memory.
        """
        with self._turn:
            self._registry.find_model(name)
            model = self.previous(name)
            if model is None:
                raise ModelControlFailed(
                    f"model {name!r}: expected a version that a load has replaced, got none since the start or since "
                    "the model was unloaded; put the older bundle into the models folder and load it",
                    model=name,
                )
            self._replace(name, model)
        log.info("model %r: rolled back to version %s", name, model.manifest.version)
        return model

    def _path(self, name: str) -> Path:
        """Find the folder of a name, which must be one part of a path.

        Raises:
            UnknownModel: There is no such model and no such folder.
        """
        path = self._settings.models_dir / name
        if _NAME.fullmatch(name) and (name in self._registry.models or (path / MANIFEST).is_file()):
            return path
        raise UnknownModel(
            f"expected the name of a model or of a bundle's folder in the models folder, got {shown(name)}; "
            "POST /v2/repository/index lists them",
            model=name[:80],
            models=sorted(self._registry.models),
        )

    def _loaded(self, path: Path) -> Model:
        """Load a bundle and run it once.

        Raises:
            BundleError: It is damaged, does not fit what callers rely on, or cannot be loaded.
            Exception: Whatever the backend raises when it runs.
        """
        bundle = registry_.read(path)
        self._require_same_kind(path.name, bundle.manifest)
        model = registry_.load(bundle, self._settings)
        if model.network is None:
            raise BundleError(f"bundle {path.name!r}: expected a graph that the backend loads, got: {model.failure}")
        registry_.run_once(model)
        return model

    def _require_same_kind(self, name: str, manifest: Manifest) -> None:
        model = self._registry.models.get(name)
        if model is None:
            if name in {self._settings.student, self._settings.teacher} and manifest.is_detector:
                raise BundleError(f"bundle {name!r}: expected a pose model, got a detector; give it another name")
            return
        known = model.manifest
        if (known.is_detector, known.known_skeleton) != (manifest.is_detector, manifest.known_skeleton):
            raise BundleError(
                f"bundle {name!r}: expected {_kind(known)} as in the version before, got {_kind(manifest)}; "
                "callers rely on it: give the bundle another name, or restart the server"
            )

    def _require_dispensable(self, name: str) -> None:
        """Refuse to unload a model without which calls that name no model would fail or change their keypoints."""
        settings = self._settings
        if name == settings.detector:
            raise ModelControlFailed(
                f"expected a model that others do not need, got the detector {name!r}, which finds the people for all "
                "of them; load another version of it instead",
                model=name,
            )
        others = {settings.student: settings.teacher, settings.teacher: settings.student}
        if name not in others:
            return
        model, other = self._registry.models[name], self._registry.models.get(others[name])
        if other is None or other is model or other.network is None or not registry_.same_skeleton(model, other):
            raise ModelControlFailed(
                f"expected a model that others can replace, got {name!r}, the last that answers calls for `auto` with "
                f"its keypoints; load {others[name]!r} first",
                model=name,
            )

    def _replace(self, name: str, model: Model) -> None:
        """Let a model serve, and keep the one that it replaces unless that is the same version."""
        old = self._registry.models.get(name)
        self._registry.put(name, model)
        if old is not None and old.network is not None and old.manifest != model.manifest:
            self._previous[name] = old


def _reason(error: Exception) -> str:
    """Write why a model cannot serve in one line that is not too long."""
    text = error.detail if isinstance(error, ServiceError) else registry_.one_line(error)
    return (text or type(error).__name__)[:MAX_REASON]


def _kind(manifest: Manifest) -> str:
    known = manifest.known_skeleton
    return "a detector" if manifest.is_detector else f"the skeleton {known.name if known else manifest.skeleton!r}"
