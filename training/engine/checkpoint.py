"""Checkpoints: everything that a training needs to resume, and where its weights come from."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training import files
from training.data.image_record import PictureRecord
from training.recipe import recipe


class CheckpointError(ValueError):
    """A checkpoint is missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a training comes from, recorded when it starts; see `lineage`.

    Attributes:
        started_from: The trainings and bundles before it, newest first, as manifests list them.
        data: Names of the data sources of the trainings before it.
        terms: Origin and terms of those sources, a text each.
        teachers: Names of the teachers of this training and of those before it, as the card tells them.
        pictures: Pictures that this training and those before it learn from.
        start: The weights that this training, or the first of those before it, began with if that was a bundle; else
            empty.
    """

    started_from: tuple[dict[str, Any], ...] = ()
    data: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    pictures: PictureRecord = field(default_factory=PictureRecord)
    start: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training after ``step`` steps.

    Attributes:
        step: Steps done.
        network: Weights as trained.
        ema: Averaged weights, which are exported.
        optimizer: State of the optimizer.
        recipe: The resolved recipe.
        revision: Git revision of the code, ``unknown`` outside a repository.
        run: Folder of the checkpoint; not stored.
        lineage: Where the training comes from.
        surplus: Averaged weights of the parts that are pruned gradually (the recipe's ``network.pruning_ramp``); only a
            resumed training uses them.
    """

    step: int
    network: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    recipe: recipe.Recipe
    revision: str
    run: Path = Path()
    lineage: Lineage = field(default_factory=Lineage)
    surplus: dict[str, torch.Tensor] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    content = io.BytesIO()
    torch.save(
        {
            "step": checkpoint.step,
            "network": checkpoint.network,
            "ema": checkpoint.ema,
            "optimizer": checkpoint.optimizer,
            "recipe": recipe.dump(checkpoint.recipe),
            "revision": checkpoint.revision,
            "lineage": _tree(checkpoint.lineage),
            "surplus": checkpoint.surplus,
        },
        content,
    )
    files.write(path, content.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: The file is missing or is not a checkpoint of this project.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a checkpoint, got a folder; give {path / 'last.pt'}")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
        known = {
            "recipe": recipe.parse(tree["recipe"], str(path)),
            "lineage": _lineage(tree["lineage"]),
            "run": path.parent,
        }
        return Checkpoint(**{**tree, **known})
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a checkpoint, got no file; train first") from error
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint of posewright-train: {error}") from error


def locate(reference: str, root: Path, run: Path) -> Path:
    """Resolve a reference in a recipe: a path from ``root``, or ``@NAME`` for the run folder NAME beside ``run``."""
    return run.parent / reference[1:] / "last.pt" if reference.startswith("@") else root / reference


def _tree(lineage: Lineage) -> dict[str, Any]:
    """Turn a lineage into plain values and tensors, which load without running code."""
    return {
        "started_from": list(lineage.started_from),
        "data": list(lineage.data),
        "terms": list(lineage.terms),
        "teachers": list(lineage.teachers),
        "pictures": torch.from_numpy(lineage.pictures.ids),
        "unrecorded": list(lineage.pictures.unrecorded),
        "start": lineage.start,
    }


def _lineage(tree: dict[str, Any]) -> Lineage:
    return Lineage(
        tuple(tree["started_from"]),
        tuple(tree["data"]),
        tuple(tree["terms"]),
        tuple(tree["teachers"]),
        PictureRecord(tree["pictures"].numpy(), tuple(tree["unrecorded"])),
        tree["start"],
    )


def revision() -> str:
    """Return the code's Git revision, with ``-dirty`` if it was changed; ``unknown`` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
