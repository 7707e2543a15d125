"""What a model must satisfy before it may replace another one, or leave, while the server runs."""

from __future__ import annotations

import re
from pathlib import Path

from service.errors import shown
from service.inference import model as model_
from service.inference import registry as registry_
from service.inference.canary import Canary
from service.inference.errors import ModelControlFailed, UnknownModel
from service.inference.model import Model
from service.inference.no_detector import can_find_people
from service.inference.registry import ModelRegistry
from service.pose.bundle import BundleError, Manifest
from service.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def is_name(name: str) -> bool:
    """Whether a bundle's folder may have this name: `Manifest.name` allows no other."""
    return _NAME.fullmatch(name) is not None


def find_folder(registry: ModelRegistry, settings: Settings, name: str) -> Path:
    """Find the folder of a name, which must be one part of a path.

    Raises:
        UnknownModel: There is no such model and no such folder.
    """
    path = settings.models_dir / name
    if is_name(name) and (name in registry.models or registry_.is_bundle(path)):
        return path
    raise UnknownModel(
        f"expected the name of a model or of a bundle's folder in the models folder, got {shown(name)}; "
        "POST /v2/repository/index lists them",
        model=name[:80],
        models=sorted(registry.models),
    )


def load_checked(registry: ModelRegistry, settings: Settings, canary: Canary, path: Path) -> Model:
    """Load a bundle and run it once.

    Raises:
        BundleError: It is damaged, does not fit what callers rely on, or cannot be loaded.
        Exception: Whatever the backend raises when it runs.
    """
    bundle = model_.read(path)
    _require_same_kind(registry, settings, path.name, bundle.manifest)
    model = model_.load(bundle, settings, registry.batching)
    if model.network is None:
        raise BundleError(f"bundle {path.name!r}: expected a graph that the backend loads, got: {model.failure}")
    require_people_finder(registry, settings, canary, bundle.manifest)
    model_.try_out(model, registry.batching)
    return model


def require_people_finder(registry: ModelRegistry, settings: Settings, canary: Canary, manifest: Manifest) -> None:
    """Refuse a top-down model on a server without a detector where whole pictures reach it although no caller names it.

    Raises:
        BundleError: It is such a model.
    """
    names = {settings.teacher, *canary.names}
    if settings.shadow_share and settings.shadow_whole_picture:
        names.add(settings.shadow_model or settings.teacher)
    if manifest.name in names and not can_find_people(manifest, registry.detector):
        raise BundleError(
            f"bundle {manifest.name!r}: expected a one-stage model, as the server has no detector, got a top-down "
            f"model; load {settings.detector!r} first"
        )


def require_dispensable(registry: ModelRegistry, settings: Settings, name: str) -> None:
    """Refuse to unload a model without which calls that name no model would fail or change their keypoints."""
    if name == settings.detector:
        raise ModelControlFailed(
            f"expected a model that others do not need, got the detector {name!r}, which finds the people for all "
            "of them; load another version of it instead",
            model=name,
        )
    others = {registry.student: settings.teacher, settings.teacher: registry.student}
    if name not in others:
        return
    model, other = registry.models[name], registry.models.get(others[name])
    if other is None or other is model or other.network is None or not model_.same_skeleton(model, other):
        raise ModelControlFailed(
            f"expected a model that others can replace, got {name!r}, the last that answers calls for `auto` with "
            f"its keypoints; load {others[name]!r} first",
            model=name,
        )


def _require_same_kind(registry: ModelRegistry, settings: Settings, name: str, manifest: Manifest) -> None:
    model = registry.models.get(name)
    if model is None:
        if name in {registry.student, settings.teacher} and manifest.is_detector:
            raise BundleError(f"bundle {name!r}: expected a pose model, got a detector; give it another name")
        return
    known = model.manifest
    if (known.is_detector, known.known_skeleton) != (manifest.is_detector, manifest.known_skeleton):
        raise BundleError(
            f"bundle {name!r}: expected {_kind(known)} as in the version before, got {_kind(manifest)}; "
            "callers rely on it: give the bundle another name, or restart the server"
        )


def _kind(manifest: Manifest) -> str:
    known = manifest.known_skeleton
    return "a detector" if manifest.is_detector else f"the skeleton {known.name if known else manifest.skeleton!r}"
