"""Heatmaps of an exported pose network: height and place of their peaks."""

import numpy as np
import torch

from service.pose.decoders import heatmap
from service.pose.skeleton import COCO17
from training.networks.pose import SIDE_SHARE, STRIDE, OksBlur, heatmaps

SIZE = (36, 48)
SIGMA, PADDING = 1.5, 1.25


def test_logits_of_the_training_target_score_one_at_its_centre() -> None:
    """The blur moves no peak, and gives keypoints with small and with large sigmas the score 1."""
    points = np.random.default_rng(0).uniform(36, 108, (10, 17, 2)).astype(np.float32)
    target = heatmap.encode(points, SIZE, STRIDE, SIGMA)
    maps = heatmaps(torch.from_numpy(target).clamp_min(1e-30).log(), SIGMA)
    blurred = OksBlur(COCO17, SIZE, SIGMA, PADDING)(maps).numpy()
    found, scores = heatmap.decode(blurred, STRIDE)
    np.testing.assert_allclose(found, points, atol=0.1)
    assert scores.min() > 0.9
    assert blurred.max() < 1.03


def test_the_blur_prefers_a_probable_region_to_one_probable_cell() -> None:
    """The expected OKS is higher in a region of 0.8 with 0.09 per cell than at a single cell of 0.2."""
    probability = torch.zeros(1, 17, 48, 36)
    probability[:, :, 10, 8] = 0.2
    probability[:, :, 29:32, 19:22] = 0.8 / 9
    peaks = OksBlur(COCO17, SIZE, SIGMA, PADDING)(probability).flatten(2).argmax(dim=2)[0]
    wide = [k for k in range(17) if COCO17.sigmas[k] > 0.06]
    assert all(int(peaks[k]) == 30 * 36 + 20 for k in wide)


def test_a_uniform_distribution_scores_low() -> None:
    """The score is at most the share of the map that the blurred peak of a certain keypoint would cover."""
    blurred = OksBlur(COCO17, SIZE, SIGMA, PADDING)(heatmaps(torch.zeros(1, 17, 48, 36), SIGMA))
    widths = 2 * np.array(COCO17.sigmas) * SIDE_SHARE * 48 / PADDING
    peaks = 2 * np.pi * (SIGMA**2 + widths**2) / (48 * 36)
    assert (blurred.amax(dim=(0, 2, 3)).numpy() <= 1.01 * peaks).all()
    assert peaks.max() < 0.075
