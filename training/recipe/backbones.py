"""What a recipe must know of each backbone, without building one. `training.networks` builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

BackboneName = Literal[
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
NAMES: tuple[BackboneName, ...] = get_args(BackboneName)


@dataclass(frozen=True, slots=True)
class BackboneTraits:
    """Properties of a backbone that limit what a recipe may ask of it.

    Attributes:
        stride: Input pixels per cell of its deepest level: input sizes must be multiples.
        imagenet: It begins with weights that were trained on ImageNet.
        always_folded: It begins with the weights of a trained network whose batch norms are part of the convolutions.
        only_kind: The one kind of network that it can be part of; empty: either kind.
    """

    stride: int = 32
    imagenet: bool = False
    always_folded: bool = False
    only_kind: Literal["pose", "detector", ""] = ""


TRAITS: dict[BackboneName, BackboneTraits] = {
    "lite0": BackboneTraits(imagenet=True),
    "lite0-context": BackboneTraits(imagenet=True),
    "lite0-stride16": BackboneTraits(stride=16, imagenet=True),
    "lite0-stride16-narrow": BackboneTraits(stride=16, imagenet=True),
    "plain-s": BackboneTraits(),
    "plain-m": BackboneTraits(),
    "shuffle-s": BackboneTraits(),
    "shuffle-m": BackboneTraits(),
    "lite-hrnet": BackboneTraits(stride=16, always_folded=True, only_kind="pose"),
    "rtmdet-nano": BackboneTraits(always_folded=True, only_kind="detector"),
    "imported": BackboneTraits(stride=8, always_folded=True, only_kind="pose"),  # the graph may ask for more
}
