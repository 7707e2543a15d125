"""What networks answer once they serve."""

import numpy as np
import pytest
import torch

from service.pose.decoders import heatmap
from service.pose.skeleton import COCO17
from training.networks.pose import SIDE_SHARE, STRIDE, OksBlur, heatmaps

SIZE = (36, 48)
SIGMA, PADDING = 1.5, 1.25


@pytest.mark.parametrize("seed", range(5))
def test_a_sure_belief_scores_one_where_it_lies(seed: int) -> None:
    """Logits of exactly the training target: the blur moves nothing and the score is 1, for wide and narrow joints."""
    points = np.random.default_rng(seed).uniform(36, 108, (2, 17, 2)).astype(np.float32)
    target = heatmap.encode(points, SIZE, STRIDE, SIGMA)
    maps = heatmaps(torch.from_numpy(target).clamp_min(1e-30).log(), SIGMA)
    blurred = OksBlur(COCO17, SIZE, SIGMA, PADDING)(maps).numpy()
    found, scores = heatmap.decode(blurred, STRIDE)
    np.testing.assert_allclose(found, points, atol=0.1)
    assert scores.min() > 0.9
    assert blurred.max() < 1.03


def test_the_blur_prefers_much_belief_nearby_to_one_likely_cell() -> None:
    """A lone cell of 0.2 against a patch of 0.8 whose cells hold 0.09 each: OKS is higher in the patch."""
    belief = torch.zeros(1, 17, 48, 36)
    belief[:, :, 10, 8] = 0.2
    belief[:, :, 29:32, 19:22] = 0.8 / 9
    peaks = OksBlur(COCO17, SIZE, SIGMA, PADDING)(belief).flatten(2).argmax(dim=2)[0]
    wide = [k for k in range(17) if COCO17.sigmas[k] > 0.06]
    assert all(int(peaks[k]) == 30 * 36 + 20 for k in wide)


def test_a_belief_spread_evenly_scores_low() -> None:
    """At most the share of the map that a sure joint's peak, blurred, would take: 1.2 % for eyes, 7 % for hips."""
    blurred = OksBlur(COCO17, SIZE, SIGMA, PADDING)(heatmaps(torch.zeros(1, 17, 48, 36), SIGMA))
    widths = 2 * np.array(COCO17.sigmas) * SIDE_SHARE * 48 / PADDING
    peaks = 2 * np.pi * (SIGMA**2 + widths**2) / (48 * 36)
    assert (blurred.amax(dim=(0, 2, 3)).numpy() <= 1.01 * peaks).all()
    assert peaks.max() < 0.075
