"""A recipe: one strict TOML file -> frozen dataclasses. A training saves its resolved copy with the weights."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from service.pose.skeleton import COCO17, Skeleton
from training.recipe import catalogue, skeletons
from training.recipe.data import Data, Phase
from training.recipe.errors import RecipeError
from training.recipe.fields import STRICT
from training.recipe.losses import Losses
from training.recipe.network import Network
from training.recipe.optimizer import Optimizer
from training.recipe.overrides import override


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole training.

    Attributes:
        name: Name of the run and of its bundle.
        role: Role of the bundle.
        seed: Seed of the initial weights, of sampling and of augmentation.
        network: The network that is trained.
        data: The sources of samples.
        phases: The phases of the training, in order.
        optimizer: The optimizer and its schedule.
        losses: The terms of a pose network's loss.
        init_from: The checkpoint, relative to the current folder, whose weights of equal name and shape are the start.
            Empty: ImageNet's weights, or those of ``network.graph``. ``@NAME`` is the last checkpoint of the run folder
            NAME beside this run's. With folded norms it may be a bundle's folder too.
        skeleton: The keypoints (pose): a TOML file beside the recipe, or a table of its keys; see docs/your-labels.md.
    """

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    role: Literal["detector", "student", "teacher"]
    network: Network
    data: Annotated[tuple[Data, ...], Field(min_length=1)]
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    optimizer: Optimizer = field(default_factory=Optimizer)
    losses: Losses = field(default_factory=Losses)
    seed: int = 0
    init_from: str = ""
    skeleton: Skeleton = COCO17

    def __post_init__(self) -> None:
        self._begin_with_the_graph()
        if (self.role == "detector") != (self.network.kind == "detector"):
            raise ValueError(f"expected role detector for a detector network and no other, got {self.role!r}")
        stride = self.network.coarsest_stride
        sizes = {"network.input_size": self.network.input_size}
        sizes |= {f"phases.{i}.size": phase.size for i, phase in enumerate(self.phases)}
        for key, size in sizes.items():
            if any(side % stride for side in size):
                raise ValueError(f"{key}: expected multiples of {stride} for {self.network.backbone}, got {size}")
        for phase in self.phases:
            if phase.frozen_blocks and not self.network.pretrained:
                raise ValueError(f"expected frozen_blocks 0 for {self.network.backbone}, which has no ImageNet weights")
        if self.network.kind == "pose" and self.phases and self.phases[-1].size != self.network.input_size:
            raise ValueError(
                f"expected the last phase at network.input_size {self.network.input_size}, got {self.phases[-1].size}: "
                "a pose network works best at the size that it was trained on last"
            )
        if self.network.head == "simcc":
            if any(phase.size != self.network.input_size for phase in self.phases):
                raise ValueError("expected every phase at network.input_size with a simcc head, whose size is fixed")
            if self.losses.regression or (self.losses.dense and self.losses.dense_form == "squared"):
                raise ValueError("expected no squared loss with a simcc head, which has no heatmap")
        self._require_fitting_skeleton()

    def _begin_with_the_graph(self) -> None:
        """Name the graph as the start: model cards and manifests read the start from ``init_from``."""
        if self.network.graph and not self.init_from:
            object.__setattr__(self, "init_from", self.network.graph)

    def _require_fitting_skeleton(self) -> None:
        if self.network.kind == "detector" and self.skeleton != COCO17:
            raise ValueError(f"expected no skeleton for a detector, which has no keypoints, got {self.skeleton.name!r}")
        expected, got = len(self.skeleton), len(self.losses.joint_weights)
        if got not in {0, expected}:
            raise ValueError(
                f"losses.joint_weights: expected {expected}, one for each keypoint of {self.skeleton.name!r}, or none, "
                f"got {got}"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def ramped(self, share: float, step: int) -> float:
        """Return the progress, 0..1, at a step (0-based) of a change over the first ``share`` of the training."""
        length = share * self.steps
        return min(1.0, (step + 1) / length) if length else 1.0

    def phase_at(self, step: int) -> Phase:
        """Return the phase that a step (0-based) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        raise IndexError(f"step beyond the recipe's {self.steps}")


def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: TOML file.
        overrides: ``a.b=value`` each, value in TOML; list items by number, e.g. ``phases.0.steps=10``.

    Raises:
        RecipeError: No such file, bad TOML, unknown or missing key, wrong type.
    """
    tree = read(path, overrides)
    if "stages" in tree:
        raise RecipeError(f"{path}: expected one recipe, got a chain of stages; use posewright-train distill")
    return parse(tree, str(path))


def read(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a TOML file as a plain tree and apply the overrides.

    Raises:
        RecipeError: No such file, bad TOML, or no such place.
    """
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise RecipeError(f"{path}: expected a recipe, got {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error
    for setting in overrides:
        override(tree, setting)
    _resolve_skeletons(tree, path)
    return tree


def _resolve_skeletons(tree: dict[str, Any], path: Path) -> None:
    """Replace the names of skeleton files in a recipe, or in the parts of a chain, by the skeletons in full."""
    for part in (tree, tree.get("defaults"), *_list(tree.get("stages"))):
        if not isinstance(part, dict) or "skeleton" not in part:
            continue
        asked = part["skeleton"]
        try:
            if isinstance(asked, dict):
                made = skeletons.parse(asked, f"{path}: skeleton")
            elif asked == COCO17.name:
                made = COCO17
            else:
                made = skeletons.load(path.parent / str(asked))
        except skeletons.SkeletonError as error:
            raise RecipeError(str(error)) from error
        part["skeleton"] = asdict(made)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def parse(tree: dict[str, Any], origin: str) -> Recipe:
    """Turn a plain tree into a recipe, in which names of data sets and teachers are described in full.

    Args:
        tree: The recipe's keys and values.
        origin: Named in errors.

    Raises:
        RecipeError: Unknown or missing key, wrong type, or unknown data set or teacher.
    """
    try:
        return TypeAdapter(Recipe).validate_python(catalogue.resolve(tree, origin))
    except ValidationError as error:
        raise RecipeError("\n".join([f"{origin}: not a valid recipe:", *_lines(error)])) from error


def _lines(error: ValidationError) -> list[str]:
    """Return one line for each error: its key, what was expected, what was given."""
    lines = []
    places = [e["loc"] for e in error.errors()]
    for e in error.errors():
        if e["type"] == "too_short" and any(place[: len(e["loc"])] == e["loc"] != place for place in places):
            continue  # The errors of its items have lines of their own.
        key = ".".join(map(str, e["loc"]))
        match e["type"]:
            case "value_error":  # raised by our dataclasses: the message is complete
                lines.append(f"  {key}{': ' if key else ''}{e['ctx']['error']}")
            case "unexpected_keyword_argument":
                lines.append(f"  {key}: unknown key, got {e['input']!r}; posewright-train keys lists all")
            case "string_pattern_mismatch":
                lines.append(f"  {key}: expected lower-case letters, digits, '.', '_' and '-', got {e['input']!r}")
            case "literal_error" if e["input"] in {"tinypose", "simcc"}:
                lines.append(
                    f"  {key}: expected 'checkpoint' or 'bundle', got {e['input']!r}; make a bundle of the file with "
                    'posewright-train import (docs/import.md), then kind = "bundle" and its folder as path'
                )
            case _:
                lines.append(f"  {key}: {e['msg']}, got {e['input']!r}")
    return lines


def dump(recipe: Recipe) -> dict[str, Any]:
    """Turn a recipe into a plain tree that `parse` reads."""
    return asdict(recipe)


def digest(recipe: Recipe) -> str:
    """Return the sha256 (hex) of the recipe in full, defaults included. Manifests hold it."""
    return digest_of(dump(recipe))


def digest_of(tree: dict[str, Any]) -> str:
    """Return the sha256 (hex) of a plain tree as json with sorted keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
