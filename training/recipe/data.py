"""The sections ``data`` and ``phases`` of a recipe: which samples, and how many of what size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.recipe.fields import STRICT, Count, NaturalNumber, Positive, Size


@dataclass(frozen=True, slots=True)
class Data:
    """One source of samples.

    Attributes:
        name: Short name; the model card lists it.
        path: Crop cache (pose) or COCO json (detector), relative to the data folder.
        share: Share of each batch, relative to the shares of the other sources.
        images: Folder of the pictures (detector), relative to the data folder.
        labels: Whether its labelled joints are training targets. If not, only teachers supply targets there (pose).
        origin: Where the pictures come from; the model card quotes it.
        terms: Terms of use of pictures and labels; the model card quotes it.
    """

    __pydantic_config__ = STRICT
    name: str
    path: str
    share: Positive = 1.0
    images: str = ""
    labels: bool = True
    origin: str = ""
    terms: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training at one input size.

    Attributes:
        steps: Optimizer steps.
        batch: Samples a step, over all processes together.
        size: (width, height) of the input in px.
        augment: Strength of the augmentation: ``strong``, ``light``, ``faint`` or ``detected``.
        frozen_blocks: Number of the backbone's first blocks that stay as they are, like its stem; 0 trains all.
    """

    __pydantic_config__ = STRICT
    steps: Count
    batch: Count
    size: Size
    augment: Literal["strong", "light", "faint", "detected"] = "strong"
    frozen_blocks: NaturalNumber = 0
