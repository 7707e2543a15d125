"""Latency of untrained student designs, to compare them before training: exported graphs, one thread, interleaved."""

from __future__ import annotations

import time

import numpy as np

from service.pose.backends.runner import OnnxRunner
from training.export import to_onnx
from training.networks import registry
from training.networks.served import served_network
from training.recipe.network import Network
from training.recipe.recipe import Recipe

DESIGNS = (
    Network("pose", "plain-s", (192, 256), 64),
    Network("pose", "plain-m", (192, 256), 64),
    Network("pose", "lite0-stride16-narrow", (192, 256), 64),
    Network("pose", "lite0-stride16", (144, 192), 64),
    Network("pose", "lite0-stride16", (160, 224), 64),
    Network("pose", "lite0-stride16", (176, 240), 64),
    Network("pose", "lite0-stride16", (192, 256), 64),
    Network("pose", "lite0-context", (192, 256), 64),
    Network("pose", "lite0", (160, 192), 64),
    Network("pose", "lite0", (192, 256), 64),
    Network("pose", "lite0", (192, 256), 128),
)


def compare(rounds: int) -> str:
    """Time every design once in each round; returns a Markdown table of medians."""
    runners, figures, pixels = {}, {}, {}
    for network in DESIGNS:
        plan = Recipe("design", "student", network, (), ())
        built = registry.build(plan, pretrained=False)
        served = served_network(built, plan)
        parameters = sum(p.numel() for p in built.parameters())
        figures[network] = parameters / 1e6, to_onnx.multiply_adds(served, plan) / 1e9
        runners[network] = OnnxRunner(to_onnx.to_onnx(served, plan), threads=1)
        width, height = network.input_size
        pixels[network] = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    times: dict[Network, list[float]] = {network: [] for network in runners}
    for _ in range(rounds):
        for network, runner in runners.items():
            start = time.perf_counter()
            runner.run(pixels[network])
            times[network].append(1000 * (time.perf_counter() - start))
    lines = ["| backbone | decoder | input | M parameters | G multiply-adds | ms |", "|---|---|---|---|---|---|"]
    medians = {network: float(np.median(times[network])) for network in runners}
    for network in sorted(medians, key=lambda network: medians[network]):
        width, height = network.input_size
        millions, operations = figures[network]
        lines.append(
            f"| {network.backbone} | {network.decoder_width} | {width} x {height} "
            f"| {millions:.2f} | {operations:.3f} | {medians[network]:.2f} |"
        )
    return "\n".join(lines)
