"""Networks in their exported form: uint8 pixels in, and what the bundle's decoder reads out."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from service.pose.backends.runner import OnnxRunner
from training.networks.detector import DetectorNetwork, ServedDetector
from training.networks.mobileone import MobileOneUnit
from training.networks.pose import ServedPose, ServedSimcc
from training.networks.registry import TrainableNetwork
from training.networks.rtmdet import RtmDet, ServedRtmDet
from training.recipe.recipe import Recipe

TOLERANCE = 2e-3
"""Largest difference allowed between torch and ONNX, as a share of the largest output."""
ServedNetwork = ServedPose | ServedSimcc | ServedDetector | ServedRtmDet


def served_network(network: TrainableNetwork, plan: Recipe, flip_test: bool = False) -> ServedNetwork:
    """Turn a network into its exported form: in evaluation mode, with parallel branches fused."""
    network.eval()
    for part in network.modules():
        if isinstance(part, MobileOneUnit):
            part.fuse()
    served: ServedNetwork
    if isinstance(network, DetectorNetwork):
        served = ServedDetector(network)
    elif isinstance(network, RtmDet):
        served = ServedRtmDet(network)
    else:
        network.adapter = None  # only training compares features
        served = (ServedSimcc if plan.network.head == "simcc" else ServedPose)(network, plan.network, flip_test)
    return served.eval()


@torch.no_grad()
def largest_difference(served: ServedNetwork, onnx: bytes, plan: Recipe) -> float:
    """Compare a network with an ONNX graph on random pictures.

    The batches have 1 and 3 pictures. A detector also gets pictures in portrait format.

    Args:
        served: Computes the reference.
        onnx: The graph that should give the same, run by onnxruntime.
        plan: Tells the size of the input.

    Returns:
        Largest difference of any output, relative to the largest value of that output; NaN if there are NaNs.
    """
    width, height = plan.network.input_size
    runner = OnnxRunner(onnx, threads=1)
    rng = np.random.default_rng(0)
    sizes = [(width, height)] if plan.network.kind == "pose" else [(width, height), (height, width)]
    differences: list[float] = []
    for count, (columns, rows) in product((1, 3), sizes):
        coarse = rng.integers(0, 256, (count, rows // 8, columns // 8, 3), np.uint8)
        pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
        given = torch.from_numpy(pixels)
        expected = served(given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        outputs = [torch.from_numpy(it) for it in runner.run(pixels)]
        found = [_relative(want, got) for want, got in zip(expected, outputs, strict=True)]
        if isinstance(served, ServedDetector):
            found[0] = difference_of_peaks(served.centers(given)[0], outputs[0])
        differences += found
    return float(np.max(differences))


def _relative(want: Tensor, got: Tensor) -> float:
    return float((want - got).abs().max() / want.abs().max().clamp_min(1e-6))


def difference_of_peaks(centers: Tensor, got: Tensor) -> float:
    """Largest difference of a map of peaks ``got`` from the peaks of ``centers``, relative to the largest value.

    Rounding decides which of several equal neighbours is the peak, so such a cell may be a peak or 0.

    Args:
        centers: (N, 1, h, w), before non-maximum suppression.
        got: (N, 1, h, w), 0 where a neighbour is higher.
    """
    neighbours = F.unfold(centers, 3, padding=1).reshape(len(centers), 9, -1)  # probabilities are above the padding
    highest = torch.cat([neighbours[:, :4], neighbours[:, 5:]], dim=1).amax(dim=1).reshape(centers.shape)
    from_peak = torch.maximum((got - centers).abs(), highest - centers)
    from_none = torch.maximum(got.abs(), centers - highest)
    return float(torch.minimum(from_peak, from_none).max() / centers.max())
