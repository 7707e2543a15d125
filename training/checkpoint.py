"""Checkpoints: everything that a training needs to go on, and what made it."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training import files, recipe


class CheckpointError(ValueError):
    """A checkpoint is missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training's state after ``step`` steps.

    Attributes:
        step: Steps done.
        network: Weights as trained.
        ema: Averaged weights, the ones to use.
        optimiser: Its state.
        recipe: What is trained, resolved.
        revision: Git revision of the code, ``unknown`` outside a repository.
        run: Folder that it lies in; not stored.
        fading: Averaged weights of what is blended out (`recipe.Network.fade`): a training goes on with them, nothing
            else uses them.
    """

    step: int
    network: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    recipe: recipe.Recipe
    revision: str
    run: Path = Path()
    fading: dict[str, torch.Tensor] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    content = io.BytesIO()
    torch.save(
        {
            "step": checkpoint.step,
            "network": checkpoint.network,
            "ema": checkpoint.ema,
            "optimiser": checkpoint.optimiser,
            "recipe": recipe.dump(checkpoint.recipe),
            "revision": checkpoint.revision,
            "fading": checkpoint.fading,
        },
        content,
    )
    files.write(path, content.getvalue())


def load(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: Missing or not a checkpoint of ours.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a checkpoint, got a folder; give {path / 'last.pt'}")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(**{**tree, "recipe": recipe.parse(tree["recipe"], str(path)), "run": path.parent})
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a checkpoint, got no file; train first") from error
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint of posewright-train: {error}") from error


def locate(reference: str, root: Path, run: Path) -> Path:
    """The file that a recipe means: ``@NAME`` is the run folder NAME beside ``run``, else a path from ``root``."""
    return run.parent / reference[1:] / "last.pt" if reference.startswith("@") else root / reference


def ancestors(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Follow ``init_from`` back to the checkpoints that came before, newest first, as far as there are any.

    Raises:
        CheckpointError: One of them is gone.
    """
    found: list[Checkpoint] = []
    while checkpoint.recipe.init_from and not origin(checkpoint):
        checkpoint = load(locate(checkpoint.recipe.init_from, Path(), checkpoint.run))
        found.append(checkpoint)
    return found


def origin(checkpoint: Checkpoint) -> Path | None:
    """The folder of the bundle that this training went on from, if it was a bundle."""
    path = locate(checkpoint.recipe.init_from, Path(), checkpoint.run)
    return path if checkpoint.recipe.init_from and path.is_dir() else None


def revision() -> str:
    """Git revision of the running code, with ``-dirty`` where it was changed; ``unknown`` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
