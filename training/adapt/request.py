"""What is asked of an adaptation, and whether it can be done."""

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
from training.export import from_bundle
from training.recipe.recipe import Recipe

SHIPPED = Path(bundle.__file__).parents[1] / "models"
"""The bundles of this repository."""


class AdaptError(ValueError):
    """An adaptation cannot be made of what was given."""


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """What is asked for.

    Attributes:
        source: A folder of pictures, or a video.
        out: Folder to write.
        student: Who is adapted.
        teacher: Who labels; the same skeleton.
        detector: Who finds the people.
        frames: At most so many pictures.
        hold_out: Share of the time, at the end, to measure on.
        steps: Of training; None for as many as the minutes allow.
        minutes: For everything, from the call on.
        rehearse: Labelled crop caches.
        settings: ``key=value`` each, of the recipe.
        gates: What a joint must pass.
        blend: Share of the way from the old weights to the trained ones, see `rehearsal.blend`.
        threads: Of the CPU.
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
        """Where everything lies but the results."""
        return self.out / "work"


def open_bundle(name: str) -> Bundle:
    """Read a bundle by its folder, or a shipped one by its name.

    Raises:
        BundleError: Neither.
    """
    folder = Path(name) if (Path(name) / bundle.MANIFEST).is_file() else SHIPPED / name
    if not folder.is_dir():
        known = sorted(it.parent.name for it in SHIPPED.glob("*/" + bundle.MANIFEST))
        raise BundleError(f"{name}: expected a bundle's folder, or a shipped bundle of {known}, got neither")
    return bundle.read(folder)


def require_sound(order: AdaptRequest) -> None:
    """Refuse before any work: to write where bundles serve, a student that cannot learn, other joints, bad settings.

    Raises:
        AdaptError: ``out`` is a bundle's folder, or holds bundles that are not of an adaptation; or teacher and student
            differ in their joints.
        BundleError: The student's network is not one of ours.
        RecipeError: A setting is not valid.
        DatasetError: A cache to rehearse is missing.
    """
    mine, theirs = (skeleton_of(it) for it in (order.student, order.teacher))
    if mine.keypoints != theirs.keypoints:
        raise AdaptError(
            f"--teacher: expected one that answers the student's {len(mine)} keypoints of {mine.name!r}, got "
            f"{order.teacher.manifest.name!r} with {len(theirs)} of {theirs.name!r}"
        )
    held = [] if (order.work / "order.json").is_file() else [it.parent for it in order.out.glob("*/" + bundle.MANIFEST)]
    if (order.out / bundle.MANIFEST).exists() or held:
        what = f"the bundle {held[0].name!r}" if held else "a bundle"
        raise AdaptError(
            f"--out {order.out}: expected a folder of its own, got one with {what}; what serves is never written over: "
            "name another folder and copy the new bundle yourself"
        )
    if order.out.exists() and not order.out.is_dir():
        raise AdaptError(f"--out {order.out}: expected a folder, got a file")
    if order.rehearse:
        crop_cache.open_cache(list(order.rehearse), mine)
    plan(order, from_bundle.recipe_of(order.student), 1)


def identity(order: AdaptRequest) -> dict[str, str]:
    """What must not change between a call and the one that goes on."""
    caches = [hashlib.sha256((it / "labels.npz").read_bytes()).hexdigest() for it in order.rehearse]
    return {
        "--from": footage.describe(order.source),
        "--student": bundle.sha256(order.student.onnx),
        "--teacher": _answers(order.teacher),
        "--detector": _answers(order.detector),
        "--pictures": str(order.frames),
        "--hold-out": str(order.hold_out),
        "--rehearse": ",".join(caches),
        "--set": json.dumps(order.settings),
        "--steps": str(order.steps),
        "gates": str(order.gates),
    }


def _answers(opened: Bundle) -> str:
    """A hash of all that a bundle's answers depend on: gates are meant of calibrated scores."""
    known = opened.manifest.calibration
    return bundle.sha256(opened.onnx + (b"" if known is None else known.model_dump_json().encode()))


def remember(order: AdaptRequest) -> None:
    """Write down what was asked for, or refuse to go on with something else.

    Raises:
        AdaptError: Another adaptation was begun in ``out``.
    """
    place, asked = order.work / "order.json", identity(order)
    if not place.is_file():
        files.write(place, json.dumps(asked, indent=2).encode())
        return
    known = json.loads(place.read_text())
    differ = [name for name, value in asked.items() if known.get(name) != value]
    if differ:
        raise AdaptError(
            f"--out {order.out}: expected the adaptation that was begun there, got another {', '.join(differ)}; "
            "repeat that command to go on, or name another folder"
        )


def skeleton_of(opened: Bundle) -> Skeleton:
    """The joints of a pose bundle."""
    return PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1)).skeleton


def plan(order: AdaptRequest, before: Recipe, steps: int) -> Recipe:
    """The recipe of an adaptation of so many steps; ``before`` is the student's."""
    name = f"{order.source.name}, labelled by {order.teacher.manifest.name} {order.teacher.manifest.version}"
    return rehearsal.recipe_of(before, name, "crops/footage", order.rehearse, steps, order.settings)
