"""The section ``optimizer`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from training.recipe.fields import STRICT, NaturalNumber, Positive, Share, Weight


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The optimizer and its schedule: linear warm-up, then cosine decay.

    Attributes:
        kind: ``adamw``, or ``soap``: Adam in the slowly updated eigenbasis of each layer's gradients (arXiv
            2409.11321). ``soap`` learns more per step where layers have no batch norms; its steps take longer.
        lr: Highest learning rate.
        backbone_lr_scale: Factor on the learning rate of the backbone.
        weight_decay: Decay of convolution weights; other parameters have none.
        warmup_steps: Steps over which the learning rate rises from 0 to ``lr``.
        final_lr_share: Learning rate at the last step, as a share of ``lr``.
        ema_decay: Decay of the exponential moving average of the weights. The averaged weights are exported.
        bf16_on_cpu: Train in bf16 on a CPU too, as is always done on an accelerator. This is faster on some CPUs with
            AVX512-BF16 or AMX (see ``lscpu``) and slower on others: compare with `posewright-train speed`.
    """

    __pydantic_config__ = STRICT
    kind: Literal["adamw", "soap"] = "adamw"
    lr: Positive = 1e-3
    backbone_lr_scale: Positive = 0.5
    weight_decay: Weight = 0.02
    warmup_steps: NaturalNumber = 200
    final_lr_share: Share = 0.02
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    bf16_on_cpu: bool = False
