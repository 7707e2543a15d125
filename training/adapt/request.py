"""The request for an adaptation, and whether it can be carried out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle, BundleError
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import Skeleton
from training import files
from training.adapt import footage, rehearsal
from training.adapt.pseudo_labels import Gates
from training.data import crop_cache
from training.engine import from_bundle
from training.recipe.recipe import Recipe

SHIPPED = Path(bundle.__file__).parents[1] / "models"
"""Folder of the bundles that are shipped."""


class AdaptError(ValueError):
    """The request for an adaptation cannot be carried out; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """What to adapt, to what, and how.

    Attributes:
        source: A folder of pictures, or a video.
        out: Folder to write.
        student: The bundle to adapt.
        teacher: The bundle that labels the footage; it has the same skeleton.
        detector: The bundle that detects the people.
        frames: Maximum count of pictures.
        hold_out: Share of the time, at the end, that is held out for measuring.
        steps: Training steps; None for as many as fit in the minutes.
        minutes: Time for the whole adaptation.
        rehearse: Labelled crop caches that are trained on too, so that earlier data is not forgotten.
        settings: ``key=value`` each, settings of the recipe.
        gates: Limits that a joint must keep to be trained on.
        blend: Weight of the trained weights against the student's, see `rehearsal.blend`.
        threads: CPU threads.
    """

    source: Path
    out: Path
    student: Bundle
    teacher: Bundle
    detector: Bundle
    frames: int = 600
    hold_out: float = 0.25
    steps: int | None = None
    minutes: float = 10.0
    rehearse: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    gates: Gates = field(default_factory=Gates)
    blend: float = 0.5
    threads: int = 1

    @property
    def work(self) -> Path:
        """Folder of everything but the results."""
        return self.out / "work"


def open_bundle(name: str) -> Bundle:
    """Read a bundle by its folder, or a shipped one by its name.

    Raises:
        BundleError: There is neither.
    """
    folder = Path(name) if (Path(name) / bundle.MANIFEST).is_file() else SHIPPED / name
    if not folder.is_dir():
        known = sorted(it.parent.name for it in SHIPPED.glob("*/" + bundle.MANIFEST))
        raise BundleError(f"{name}: expected a bundle's folder, or a shipped bundle of {known}, got neither")
    return bundle.read(folder)


def require_sound(request: AdaptRequest) -> None:
    """Refuse a request that cannot be carried out, before any work.

    Raises:
        AdaptError: ``out`` is a bundle's folder or holds bundles of something else than an adaptation, or teacher and
            student have different keypoints.
        BundleError: The student's network is not one of this project.
        RecipeError: A setting is not valid.
        DatasetError: A cache to rehearse is missing.
    """
    mine, theirs = (skeleton_of(it) for it in (request.student, request.teacher))
    if mine.keypoints != theirs.keypoints:
        raise AdaptError(
            f"--teacher: expected one for the student's {len(mine)} keypoints of {mine.name!r}, got "
            f"{request.teacher.manifest.name!r} with {len(theirs)} of {theirs.name!r}"
        )
    held = (
        []
        if (request.work / "request.json").is_file()
        else [it.parent for it in request.out.glob("*/" + bundle.MANIFEST)]
    )
    if (request.out / bundle.MANIFEST).exists() or held:
        what = f"the bundle {held[0].name!r}" if held else "a bundle"
        raise AdaptError(
            f"--out {request.out}: expected a folder of its own, got one with {what}, which is never overwritten; "
            "name another folder and copy the new bundle yourself"
        )
    if request.out.exists() and not request.out.is_dir():
        raise AdaptError(f"--out {request.out}: expected a folder, got a file")
    if request.rehearse:
        crop_cache.open_cache(list(request.rehearse), mine)
    plan(request, from_bundle.recipe_of(request.student), 1)


def identity(request: AdaptRequest) -> dict[str, str]:
    """Return what must not change between a call and the one that continues it."""
    caches = [hashlib.sha256((it / "labels.npz").read_bytes()).hexdigest() for it in request.rehearse]
    return {
        "--from": footage.describe(request.source),
        "--student": bundle.sha256(request.student.onnx),
        "--teacher": _prediction_hash(request.teacher),
        "--detector": _prediction_hash(request.detector),
        "--pictures": str(request.frames),
        "--hold-out": str(request.hold_out),
        "--rehearse": ",".join(caches),
        "--set": json.dumps(request.settings),
        "--steps": str(request.steps),
        "gates": str(request.gates),
    }


def _prediction_hash(opened: Bundle) -> str:
    """Return a hash of everything that a bundle's predictions depend on, the calibration included."""
    known = opened.manifest.calibration
    return bundle.sha256(opened.onnx + (b"" if known is None else known.model_dump_json().encode()))


def remember(request: AdaptRequest) -> None:
    """Save the request, or refuse one that differs from the request that was begun.

    Raises:
        AdaptError: Another adaptation was begun in ``out``.
    """
    place, asked = request.work / "request.json", identity(request)
    if not place.is_file():
        files.write(place, json.dumps(asked, indent=2).encode())
        return
    known = json.loads(place.read_text())
    differ = [name for name, value in asked.items() if known.get(name) != value]
    if differ:
        raise AdaptError(
            f"--out {request.out}: expected the adaptation that was begun there, got another {', '.join(differ)}; "
            "repeat the first command to continue, or name another folder"
        )


def skeleton_of(opened: Bundle) -> Skeleton:
    """Return the skeleton of a pose bundle."""
    return PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1)).skeleton


def plan(request: AdaptRequest, before: Recipe, steps: int) -> Recipe:
    """Return the recipe of an adaptation; ``before`` is the student's recipe."""
    name = f"{request.source.name}, labelled by {request.teacher.manifest.name} {request.teacher.manifest.version}"
    return rehearsal.recipe_of(before, name, "crops/footage", request.rehearse, steps, request.settings)
