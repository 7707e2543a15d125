"""Every execution provider that works here gives the CPU's answers on the shipped bundles.

``pytest tests/service/pose/backends/test_accelerators.py -s -rs`` prints times, and why a provider is skipped.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from service.pose import bundle, crop
from service.pose.backends.execution_provider import CPU, PROVIDER_NAMES, BackendError, ExecutionProvider
from service.pose.backends.provider_choice import choose
from service.pose.backends.runner import Runner, open_runner
from service.pose.bundle import Bundle
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator

MODELS = Path(bundle.__file__).parent.parent / "models"
LARGE = pytest.param("teacher", marks=pytest.mark.slow)
POSE_NETWORKS = ("student-s", LARGE)
BOX = np.array([[0, 0, 512, 512]], np.float32)
BATCH = 8


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut(), np.uint8)


@pytest.fixture(scope="module", params=[name for name in PROVIDER_NAMES if name != "cpu"])
def provider(request: pytest.FixtureRequest) -> ExecutionProvider:
    try:
        return choose(request.param).provider
    except BackendError as error:
        pytest.skip(str(error))


@cache
def ready(name: str, provider: ExecutionProvider) -> tuple[Bundle, Runner]:
    opened = bundle.read(MODELS / name)
    return opened, open_runner(provider, opened.onnx, threads=1, batch_size=BATCH if provider != CPU else 1)


def median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        started_s = time.perf_counter()
        call()
        times.append((time.perf_counter() - started_s) * 1e3)
    return statistics.median(times)


def test_the_detector_finds_the_same_box(provider: ExecutionProvider, photo: np.ndarray) -> None:
    (ours, our_scores), (theirs, their_scores) = (
        PersonDetector(*ready("detector", it)).detect(photo) for it in (CPU, provider)
    )
    assert len(ours) == len(theirs) == 1
    assert np.abs(ours - theirs).max() < 10  # px, of a box 450 wide
    assert np.abs(our_scores - their_scores).max() < 0.1


@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_the_keypoints_are_in_the_same_places(name: str, provider: ExecutionProvider, photo: np.ndarray) -> None:
    ours, theirs = (PoseEstimator(*ready(name, it)).estimate(photo, BOX) for it in (CPU, provider))
    apart = np.linalg.norm(ours.keypoints - theirs.keypoints, axis=2)[ours.scores > 0.5]
    assert len(apart) >= 5
    assert np.median(apart) < 2  # px; a pixel of the crop is 3.3 and more
    assert np.abs(ours.scores - theirs.scores).max() < 0.1


@pytest.mark.parametrize("name", ["detector", *POSE_NETWORKS])
def test_a_batch_has_the_answers_of_its_images(name: str, provider: ExecutionProvider, photo: np.ndarray) -> None:
    opened, runner = ready(name, provider)
    pixels = shifted(photo, opened)
    together = runner.run(pixels)
    alone = [runner.run(pixels[i : i + 1]) for i in range(BATCH)]
    times = {count: median_ms(lambda count=count: runner.run(pixels[:count])) for count in (1, BATCH)}
    print(f"\n{runner.backend} {name}: 1 image {times[1]:.1f} ms, {BATCH} images {times[BATCH]:.1f} ms")
    close(together, alone)


@pytest.mark.parametrize("name", ["detector", "student-t", "student-s", "teacher"])
def test_the_shipped_graphs_take_batches(name: str, photo: np.ndarray) -> None:
    """On the CPU, which everybody has, with the free batch axis that accelerators get."""
    opened = bundle.read(MODELS / name)
    pixels = shifted(photo, opened)[:3]
    one_by_one = open_runner(CPU, opened.onnx, threads=1)
    together = open_runner(CPU, opened.onnx, threads=1, batch_size=3).run(pixels)
    close(together, [one_by_one.run(pixels[i : i + 1]) for i in range(3)])


def shifted(photo: np.ndarray, opened: Bundle) -> np.ndarray:
    """Cut different inputs of a network: uint8 (BATCH, h, w, 3)."""
    if opened.manifest.is_detector:
        return np.stack([np.roll(photo[::2, ::2], 8 * i, axis=1) for i in range(BATCH)])
    boxes = np.repeat(BOX, BATCH, axis=0) + 10 * np.arange(BATCH, dtype=np.float32)[:, None]
    return crop.cut(photo, boxes, opened.manifest.input_size, opened.manifest.box_padding or 1.0).pixels


def close(together: list[np.ndarray], alone: list[list[np.ndarray]]) -> None:
    """Compare outputs to 1 % of their range; reduced precision rounds otherwise in another batch."""
    for got, expected in zip(together, [np.concatenate(parts) for parts in zip(*alone, strict=True)], strict=True):
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 0.01 * np.abs(expected).max()
