"""One strict TOML recipe -> frozen dataclasses. The resolved copy is saved with the weights."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from service.pose.skeleton import COCO17, Skeleton
from training.data import skeletons


class RecipeError(ValueError):
    """A recipe is not valid; the message names each key, what was expected and what came."""


_STRICT = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Count, Count]
NORMLESS = ("lite-hrnet", "rtmdet-nano", "imported")
"""Backbones that begin with the weights of a network whose norms are part of its convolutions."""


@dataclass(frozen=True, slots=True)
class Network:
    """Which network is trained.

    Attributes:
        kind: ``pose`` or ``detector``.
        backbone: See `networks.pose.backbone`.
        decoder_width: Channels of the decoder.
        input_size: (width, height) in px that the bundle serves at: multiples of 16 for ``lite0-stride16`` backbones
            and ``lite-hrnet``, of 8 for ``imported``, of 32 for the others. The last phase's size must be the same.
        sigma_cells: Deviation of the target Gaussians, in cells (pose).
        head: ``heatmap``, or ``simcc``: a distribution along each axis (pose).
        temperature: Factor on the outputs before a softmax over cells. 1 for a network that learns by cross-entropy;
            about 10 where `Losses.regression` holds the outputs themselves to 0..1.
        norms: ``batch``, or ``folded``: a ``lite0`` network that goes on from a trained one without its batch norms,
            which have become part of the convolutions. On a CPU a step takes 0.8 of the time.
        box_padding: Factor on a person's box before it is cut, in training and in the bundle (pose). Less than 1.25
            shows people larger, which small inputs gain by, and forgives fewer faults of their boxes.
        first_cell_px: Crop px of the first cell's centre in the network's own maps. 1.5 is the convention of all
            bundles; 0 is PP-TinyPose's, which a training that begins with its weights may keep: the blur of the
            exported graph then moves the maps.
        modules: Modules of each stage (``lite-hrnet``).
        unit_widths: Channels inside the units of each branch, finest first (``lite-hrnet``).
        exchange: Between which branches features are exchanged (``lite-hrnet``): ``full``, or ``star``: between the
            finest and each other one.
        fade: Share of the training over which the modules and paths that the start has and this network lacks are
            blended out; 0: they are left out at once (``lite-hrnet``).
        fade_modules: Modules of the start that is blended into this network.
        fade_exchange: The start's ``exchange``, likewise.
        activation: Of ``rtmdet-nano``. ``relu``: SiLUs, which take a quarter of a call, become ReLUs; ``early-relu``:
            those of the stem and the first stage alone.
        activation_ramp: Share of the training over which they change; 0 for a start that has changed already.
        graph: For the backbone ``imported``: an imported bundle's folder, from the current folder. The network is its
            graph, whatever it is, and begins with its weights.
    """

    __pydantic_config__ = _STRICT
    kind: Literal["pose", "detector"]
    backbone: Literal[
        "lite0",
        "lite0-context",
        "lite0-stride16",
        "lite0-stride16-narrow",
        "plain-s",
        "plain-m",
        "shuffle-s",
        "shuffle-m",
        "lite-hrnet",
        "rtmdet-nano",
        "imported",
    ]
    input_size: Size
    decoder_width: Count = 64
    sigma_cells: Positive = 1.5
    head: Literal["heatmap", "simcc"] = "heatmap"
    temperature: Positive = 1.0
    norms: Literal["batch", "folded"] = "batch"
    box_padding: Annotated[float, Field(ge=1, le=1.5)] = 1.25
    first_cell_px: Annotated[float, Field(ge=0, le=3)] = 1.5
    modules: tuple[Count, ...] = (2, 4, 2)
    unit_widths: tuple[Count, ...] = (20, 40, 80, 160)
    exchange: Literal["full", "star"] = "full"
    fade: Share = 0.0
    fade_modules: tuple[Count, ...] = (2, 4, 2)
    fade_exchange: Literal["full", "star"] = "full"
    activation: Literal["silu", "early-relu", "relu"] = "silu"
    activation_ramp: Share = 0.5
    graph: str = ""

    def __post_init__(self) -> None:
        if (self.backbone == "imported") != bool(self.graph):
            raise ValueError(
                'expected graph = "bundles/NAME" with backbone = "imported" and with no other, got '
                f"graph = {self.graph!r} with {self.backbone!r}"
            )
        if self.backbone in {"lite-hrnet", "imported"}:
            if self.norms != "folded" or self.head != "heatmap" or self.kind != "pose":
                raise ValueError(
                    'expected kind = "pose", norms = "folded" and head = "heatmap" for lite-hrnet and imported, '
                    f"whose start has no norms, got {self.kind!r}, {self.norms!r} and {self.head!r}"
                )
            if len(self.unit_widths) != len(self.modules) + 1:
                raise ValueError(
                    f"expected one of unit_widths for each of {len(self.modules) + 1} branches (one more than the "
                    f"stages of modules), got {len(self.unit_widths)}"
                )
        if self.fade:
            self._require_larger_start()
        if self.backbone == "rtmdet-nano" and (self.norms != "folded" or self.kind != "detector"):
            raise ValueError(
                'expected kind = "detector" and norms = "folded" for rtmdet-nano, whose start has no norms, got '
                f"{self.kind!r} and {self.norms!r}"
            )
        if self.norms == "folded" and not self.pretrained and self.backbone not in NORMLESS:
            raise ValueError(f"expected norms = \"batch\" for a network of {self.backbone}, got 'folded'")
        if self.head == "simcc" and self.temperature != 1:
            raise ValueError(f"expected temperature 1 with a simcc head, got {self.temperature}")

    def _require_larger_start(self) -> None:
        if self.backbone != "lite-hrnet":
            raise ValueError(f"expected fade 0 for {self.backbone}, only lite-hrnet is shrunk, got {self.fade}")
        start, here = self.fade_modules, self.modules
        fits = len(start) == len(here) and all(more >= few for more, few in zip(start, here, strict=True))
        if not fits or (self.fade_exchange, self.exchange) == ("star", "full"):
            raise ValueError(
                f"expected fade_modules and fade_exchange of a start that has all of this network, modules {here} and "
                f"exchange {self.exchange!r}, got {start} and {self.fade_exchange!r}"
            )

    @property
    def pretrained(self) -> bool:
        """Whether the backbone has ImageNet weights."""
        return self.backbone.startswith("lite0")

    @property
    def coarsest_stride(self) -> int:
        """Input pixels per cell of the deepest level: sizes must be multiples."""
        if self.backbone == "imported":
            return 8  # its graph tells what else it asks for
        return 16 if "stride16" in self.backbone or self.backbone == "lite-hrnet" else 32


@dataclass(frozen=True, slots=True)
class Data:
    """One source of samples.

    Attributes:
        name: Short name; the card lists it.
        path: Crop cache (pose) or COCO json (detector), relative to the data folder.
        share: Share of each batch; shares are normalised.
        images: Pictures' folder (detector), relative to the data folder.
        labels: Whether its joints count as targets; otherwise only teachers speak there (pose).
        origin: Where the pictures come from, for the card.
        terms: Terms of pictures and labels, for the card.
    """

    __pydantic_config__ = _STRICT
    name: str
    path: str
    share: Positive
    images: str = ""
    labels: bool = True
    origin: str = ""
    terms: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training at one input size.

    Attributes:
        steps: Optimizer steps.
        batch: Samples a step, of all processes together.
        size: (width, height) of the input in px.
        augment: ``strong``, ``light`` or ``faint``.
        frozen_blocks: The backbone's stem and so many first blocks stay as they are; 0 trains all.
    """

    __pydantic_config__ = _STRICT
    steps: Count
    batch: Count
    size: Size
    augment: Literal["strong", "light", "faint"] = "strong"
    frozen_blocks: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Optimizer:
    """With linear warm-up and cosine decay.

    Attributes:
        kind: ``adamw``, or ``soap``: Adam in the slowly turning eigenbasis of each layer's gradients (arXiv
            2409.11321), which learns more of each step where layers have no norms, for some 60 ms a step on a CPU core.
        lr: Highest learning rate.
        backbone_lr_scale: Factor on it for the backbone, which starts from ImageNet.
        weight_decay: On convolution weights only.
        warmup_steps: Steps from 0 to ``lr``.
        final_lr_share: Where the cosine ends, as a share of ``lr``.
        ema_decay: Of the averaged weights, which are what is exported.
        bf16_on_cpu: Train in bf16 on a CPU too, as an accelerator always does. Faster on some CPUs with AVX512-BF16 or
            AMX (``lscpu`` tells), slower on others: time both.
    """

    __pydantic_config__ = _STRICT
    kind: Literal["adamw", "soap"] = "adamw"
    lr: Positive = 1e-3
    backbone_lr_scale: Positive = 0.5
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    final_lr_share: Share = 0.02
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    bf16_on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network that teaches a pose network by its heatmaps.

    Attributes:
        name: Short name, for logs and the card.
        kind: ``checkpoint`` of ours, or ``bundle``, ours or imported (`posewright-train import`).
        path: File or bundle's folder, relative to the data folder; ``@NAME`` is the checkpoint of the run folder NAME
            beside this run's.
        cached: Look at every crop once and keep the maps on disk; otherwise it runs beside the student.
        flip: Average over the mirrored crop.
        origin: Who made it and under which licence, for the card; empty for a network that this project trained.
    """

    __pydantic_config__ = _STRICT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")]
    kind: Literal["checkpoint", "bundle"]
    path: str
    cached: bool = True
    flip: bool = False
    origin: str = ""


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Losses:
    """What a pose network is held to: DSKD's terms, each with its weight; see `distill`.

    Attributes:
        teachers: Teacher first, then assistants.
        pseudo_labels: Joints that a teacher marked in the crop cache count as targets too, by their weight.
        regression: Squared error against the labels' Gaussians.
        dense: Distance to each teacher's heatmaps.
        dense_form: ``squared`` error, or ``divergence`` of the distributions over cells.
        drop: Leave one teacher out of each batch, by chance (DGKD).
        binarize: Teachers' cells below this share of the peak are taken for noise; 0 is off.
        binary: ``denoised`` keeps the heights above it, ``hard`` makes them 1.
        classification: Classify each joint's cell.
        classification_form: ``cells``: cross-entropy over cells; ``bce``: yes or no per cell; ``axes``: x and y apart.
        teacher_targets: Where nobody labelled a joint, classify it by the teachers' mean map. Beside ``dense`` as ``divergence``
            that teaches twice, and labels count for less.
        joint_weights: Factor on each keypoint in ``regression``, ``dense`` and ``classification``, in the skeleton's
            order (MMPose's ``joint_weights``); empty: all alike.
        self_distillation: Distance to the student's own averaged past (self-distillation).
        self_distillation_rampup: Share of the training after which ``past`` has its full weight.
        features: Distance of the backbone's stride-16 features to those of ImageNet's EfficientNet-Lite0.
    """

    __pydantic_config__ = _STRICT
    teachers: tuple[Teacher, ...] = ()
    pseudo_labels: bool = True
    regression: Weight = 0.0
    dense: Weight = 0.0
    dense_form: Literal["squared", "divergence"] = "divergence"
    drop: bool = False
    binarize: Share = 0.0
    binary: Literal["denoised", "hard"] = "denoised"
    classification: Weight = 1.0
    classification_form: Literal["cells", "bce", "axes"] = "cells"
    teacher_targets: bool = True
    joint_weights: tuple[Weight, ...] = ()
    self_distillation: Weight = 0.0
    self_distillation_rampup: Share = 0.5
    features: Weight = 0.0

    def __post_init__(self) -> None:
        if self.regression + self.dense + self.classification == 0:
            raise ValueError("expected a positive weight of regression, dense or classification, got none")
        if self.dense and not self.teachers:
            raise ValueError("expected teachers where dense is positive, got none")
        if self.drop and len(self.teachers) < 2:
            raise ValueError(f"expected at least two teachers to drop one of, got {len(self.teachers)}")
        if len({teacher.name for teacher in self.teachers}) < len(self.teachers):
            raise ValueError("expected teachers of different names")

    @property
    def by_squares(self) -> bool:
        """Whether squared errors alone teach: the network's outputs are then heatmaps, 0..1, themselves."""
        return not self.classification and (self.dense_form == "squared" or not self.dense)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole training.

    Attributes:
        name: Name of the run and its bundle.
        role: Role of the bundle.
        seed: Of weights, sampling and augmentation.
        network: What is trained.
        data: Where samples come from.
        phases: In order.
        optimizer: How.
        losses: What a pose network is held to.
        init_from: From the current folder, the checkpoint whose weights of equal name and shape are the start; empty
            for ImageNet's, or for those of ``network.graph``. ``@NAME`` is the checkpoint of the run folder NAME beside
            this run's; with folded norms a bundle's folder will do too.
        skeleton: Which keypoints (pose): a TOML beside the recipe, or a table of its keys; see docs/your-labels.md.
    """

    __pydantic_config__ = _STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    role: Literal["detector", "student", "teacher"]
    network: Network
    data: Annotated[tuple[Data, ...], Field(min_length=1)]
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    optimizer: Optimizer = Optimizer()
    losses: Losses = Losses()
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
                "a pose network answers well at the size that it saw last"
            )
        if self.network.head == "simcc":
            if any(phase.size != self.network.input_size for phase in self.phases):
                raise ValueError("expected every phase at network.input_size with a simcc head, which knows no other")
            if self.losses.regression or (self.losses.dense and self.losses.dense_form == "squared"):
                raise ValueError("expected no squared loss with a simcc head, which has no heatmap")
        self._require_fitting_skeleton()

    def _begin_with_the_graph(self) -> None:
        """Cards and manifests tell by ``init_from`` what a training began with."""
        if self.network.graph and not self.init_from:
            object.__setattr__(self, "init_from", self.network.graph)

    def _require_fitting_skeleton(self) -> None:
        if self.network.kind == "detector" and self.skeleton != COCO17:
            raise ValueError(f"expected no skeleton for a detector, which knows boxes only, got {self.skeleton.name!r}")
        expected, got = len(self.skeleton), len(self.losses.joint_weights)
        if got not in {0, expected}:
            raise ValueError(
                f"losses.joint_weights: expected {expected}, one for each keypoint of {self.skeleton.name!r}, or none, "
                f"got {got}"
            )

    @property
    def steps(self) -> int:
        """All steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def ramped(self, share: float, step: int) -> float:
        """How far a change over the first ``share`` of the training is at a step (0-based), 0..1."""
        length = share * self.steps
        return min(1.0, (step + 1) / length) if length else 1.0

    def phase_at(self, step: int) -> Phase:
        """The phase that a step (0-based) belongs to."""
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
    """Put skeletons in full where a recipe, or parts of a chain, name a TOML: what is trained describes itself."""
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
    """Turn a plain tree into a recipe; ``origin`` is named in errors.

    Raises:
        RecipeError: Unknown or missing key, wrong type.
    """
    try:
        return TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        raise RecipeError("\n".join([f"{origin}: not a valid recipe:", *_lines(error)])) from error


def _lines(error: ValidationError) -> list[str]:
    """One line for each thing that is wrong: its key, what was expected, what came."""
    lines = []
    places = [e["loc"] for e in error.errors()]
    for e in error.errors():
        if e["type"] == "too_short" and any(place[: len(e["loc"])] == e["loc"] != place for place in places):
            continue  # its items are named on lines of their own
        key = ".".join(map(str, e["loc"]))
        match e["type"]:
            case "value_error":  # of ours: it says what came
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
    """sha256 (hex) of the recipe in full, defaults too, as a bundle's manifest holds it."""
    return digest_of(dump(recipe))


def digest_of(tree: dict[str, Any]) -> str:
    """sha256 (hex) of a plain tree as json with sorted keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def override(tree: dict[str, Any], setting: str) -> None:
    """Apply one ``key=value`` to a plain tree.

    Raises:
        RecipeError: No such place.
    """
    key, separator, value = setting.partition("=")
    if not separator:
        raise RecipeError(f"--set {setting!r}: expected key=value, e.g. optimizer.lr=0.001")
    *parents, leaf = key.strip().split(".")
    node: Any = tree
    try:
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        parsed = _toml_value(value)
        if isinstance(node, list):
            node[int(leaf)] = parsed
        else:
            node[leaf] = parsed
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {setting!r}: no such place in the recipe ({error})") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string
