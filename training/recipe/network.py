"""The section ``network`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from training.recipe.backbones import TRAITS, BackboneName
from training.recipe.fields import STRICT, Count, Positive, Share, Size


@dataclass(frozen=True, slots=True)
class Network:
    """The network that is trained.

    Attributes:
        kind: ``pose`` or ``detector``.
        backbone: The network's trunk; `training.networks` builds it by this name.
        decoder_width: Channels of the decoder.
        input_size: (width, height) in px of the exported network's input: multiples of 16 for ``lite0-stride16``
            backbones and ``lite-hrnet``, of 8 for ``imported``, of 32 for the others. The last phase has the same size.
        sigma_cells: Standard deviation of the target Gaussians, in cells (pose).
        head: ``heatmap``, or ``simcc``: a distribution along each axis (pose).
        temperature: Factor on the outputs before a softmax over cells. 1 for a network that learns by cross-entropy;
            about 10 where ``losses.regression`` holds the outputs themselves to 0..1.
        norms: ``batch``, or ``folded``: continue from a trained ``lite0`` network whose batch norms are folded into its
            convolutions, which makes a training step on a CPU faster.
        box_padding: Factor on a person's box before the crop is cut, in training and in the bundle (pose). Below 1.25
            people appear larger, which helps small inputs but tolerates less error in the box.
        first_cell_px: Crop px of the first cell's centre in the network's own heatmaps. Bundles have 1.5. PP-TinyPose
            has 0, which a training that begins with its weights may keep: the exported graph then moves the heatmaps.
        modules: Modules of each stage (``lite-hrnet``).
        unit_widths: Channels inside the units of each branch, finest first (``lite-hrnet``).
        exchange: Which branches exchange features (``lite-hrnet``): ``full``: all pairs; ``star``: the finest with each
            of the others.
        pruning_ramp: Share of the training over which the modules and connections that the start has and this network
            lacks are blended out; 0 leaves them out at once (``lite-hrnet``).
        start_modules: The ``modules`` of the start that is blended into this network.
        start_exchange: The ``exchange`` of that start.
        activation: Activations of ``rtmdet-nano``: ``silu``, as published; ``relu``: all become ReLUs, which are
            faster; ``early-relu``: those of the stem and the first stage do.
        activation_ramp: Share of the training over which the activations change; 0 for a start that already has them.
        graph: Folder of an imported bundle, relative to the current folder, for the backbone ``imported``: the network
            is the bundle's graph and begins with its weights.
    """

    __pydantic_config__ = STRICT
    kind: Literal["pose", "detector"]
    backbone: BackboneName
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
    pruning_ramp: Share = 0.0
    start_modules: tuple[Count, ...] = (2, 4, 2)
    start_exchange: Literal["full", "star"] = "full"
    activation: Literal["silu", "early-relu", "relu"] = "silu"
    activation_ramp: Share = 0.5
    graph: str = ""

    def __post_init__(self) -> None:
        if (self.backbone == "imported") != bool(self.graph):
            raise ValueError(
                'expected graph = "bundles/NAME" with backbone = "imported" and with no other, got '
                f"graph = {self.graph!r} with {self.backbone!r}"
            )
        self._require_fitting_backbone()
        if self.backbone == "lite-hrnet" and len(self.unit_widths) != len(self.modules) + 1:
            raise ValueError(
                f"expected one of unit_widths for each of {len(self.modules) + 1} branches (one more than modules has "
                f"stages), got {len(self.unit_widths)}"
            )
        if self.pruning_ramp:
            self._require_larger_start()
        if self.head == "simcc" and self.temperature != 1:
            raise ValueError(f"expected temperature 1 with a simcc head, got {self.temperature}")

    def _require_fitting_backbone(self) -> None:
        traits = TRAITS[self.backbone]
        if traits.only_kind and self.kind != traits.only_kind:
            raise ValueError(f'expected kind = "{traits.only_kind}" for backbone {self.backbone}, got {self.kind!r}')
        if traits.always_folded and self.norms != "folded":
            raise ValueError(
                f'expected norms = "folded" for backbone {self.backbone}, whose start has no batch norms, '
                f"got {self.norms!r}"
            )
        if traits.always_folded and self.kind == "pose" and self.head != "heatmap":
            raise ValueError(f'expected head = "heatmap" for backbone {self.backbone}, got {self.head!r}')
        if self.norms == "folded" and not (traits.imagenet or traits.always_folded):
            raise ValueError(f"expected norms = \"batch\" for a network of {self.backbone}, got 'folded'")

    def _require_larger_start(self) -> None:
        if self.backbone != "lite-hrnet":
            raise ValueError(
                f"expected pruning_ramp 0 for {self.backbone}: only lite-hrnet can be shrunk, got {self.pruning_ramp}"
            )
        start, here = self.start_modules, self.modules
        fits = len(start) == len(here) and all(more >= few for more, few in zip(start, here, strict=True))
        if not fits or (self.start_exchange, self.exchange) == ("star", "full"):
            raise ValueError(
                f"expected start_modules and start_exchange of a start that has all of this network, modules {here} "
                f"and exchange {self.exchange!r}, got {start} and {self.start_exchange!r}"
            )

    @property
    def pretrained(self) -> bool:
        """Whether the backbone begins with weights that were trained on ImageNet."""
        return TRAITS[self.backbone].imagenet

    @property
    def coarsest_stride(self) -> int:
        """Input pixels per cell of the deepest level: input sizes must be multiples."""
        return TRAITS[self.backbone].stride
