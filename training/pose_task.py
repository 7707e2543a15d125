"""What a pose network learns from: batches of crops with target heatmaps, and the loss on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from service.pose import crop, heatmap
from service.pose.skeleton import COCO17
from training import augment, crops, losses
from training.networks.pose import STRIDE
from training.recipe import Phase, Recipe


class PoseTask:
    """Draws batches as a function of the step alone, so that a resumed training sees what it would have seen."""

    def __init__(self, recipe: Recipe, data_root: Path) -> None:
        """Open the recipe's crop caches.

        Raises:
            DatasetError: A cache is missing.
        """
        self._recipe = recipe
        self._caches = crops.open_cache([data_root / data.path for data in recipe.data])
        shares = np.array([data.share for data in recipe.data])
        self._shares = shares / shares.sum()

    def batch(self, step: int, rank: int, phase: Phase) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a batch.

        Returns:
            Crops uint8 (N, H, W, 3), targets float (N, K, h, w), weights float (N, K).
        """
        rng = np.random.default_rng([self._recipe.seed, step, rank])
        strength = augment.STRENGTHS[phase.augment]
        full_view = np.array([[0, 0, *crops.CANVAS_SIZE]], np.float32) - 0.5
        view = crop.crop_to_image(full_view, phase.size, 1 / crops.CANVAS_ZOOM)[0]
        samples = []
        for source in rng.choice(len(self._caches), phase.batch, p=self._shares):
            cache = self._caches[source]
            i = rng.integers(len(cache))
            samples.append(
                augment.augment_person(
                    cache.pixels[i], cache.keypoints[i], cache.weights[i], view, phase.size, COCO17, strength, rng
                )
            )
        pixels, keypoints, weights = (np.stack(part) for part in zip(*samples, strict=True))
        size = (phase.size[0] // STRIDE, phase.size[1] // STRIDE)
        targets = heatmap.encode(keypoints, size, STRIDE, self._recipe.network.sigma_cells)
        return torch.from_numpy(pixels), torch.from_numpy(targets), torch.from_numpy(weights.astype(np.float32))

    def loss(self, outputs: Tensor, *targets: Tensor) -> Tensor:
        """Cell cross-entropy of the network's logits (N, K, h, w)."""
        return losses.cell_cross_entropy(outputs, *targets)
