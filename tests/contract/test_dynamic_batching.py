"""Dynamic batching as callers see it: the same answers, from fewer runs of the networks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.inference import model
from service.pose.backends.execution_provider import CPU, ExecutionProvider
from service.pose.backends.runner import OnnxRunner, Runner
from service.settings import Settings
from tests import spots
from tests.conftest import PATIENCE_S, Running, serving
from tests.contract.test_open_inference import arrays, files, post

PICTURES = [
    spots.encode(spots.paint(spots.Person((100 + 8 * i, 180)), *([spots.Person((400, 204))] if i % 2 else [])))
    for i in range(8)
]
BUSY_S = 0.03
"""Seconds that each run of the stand-in for an accelerator takes."""


@contextmanager
def counting(settings: Settings) -> Iterator[tuple[Running, list[int]]]:
    """Serve, and record the batch sizes."""
    with serving(settings) as running:
        sizes: list[int] = []
        running.registry.batching.on_batch = sizes.append
        yield running, sizes


def ask_all(running: Running, times: int = 1) -> list[dict[str, Any]]:
    """Ask for each picture, all at once; return the replies in order."""

    def ask(content: bytes) -> dict[str, Any]:
        with httpx.Client(base_url=running.url, timeout=PATIENCE_S) as http:
            for _ in range(times):
                reply = http.post("/predict", content=content, headers={"Content-Type": "image/png"})
                assert reply.status_code == 200, reply.text
        return reply.json()

    with ThreadPoolExecutor(len(PICTURES)) as pool:
        return list(pool.map(ask, PICTURES))


def people(reply: dict[str, Any]) -> np.ndarray:
    return np.array([[(it["x"], it["y"]) for it in pose["keypoints"]] for pose in reply["poses"]])


def test_answers_are_those_of_a_server_without_batches(server: Running, models_dir: Path) -> None:
    expected = [server.predict(content).json() for content in PICTURES]
    with counting(Settings(models_dir=models_dir, batch_size=8, batch_window_ms=20)) as (running, sizes):
        for _ in range(3):
            for got, alone in zip(ask_all(running), expected, strict=True):
                np.testing.assert_allclose(people(got), people(alone), atol=0.02)
                assert got["model"] == alone["model"]
    assert max(sizes) > 1
    assert sum(sizes) == 3 * (len(PICTURES) + sum(len(it["poses"]) for it in expected))


def test_a_single_client_never_waits_for_the_window(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, batch_size=8, batch_window_ms=1000)
    with counting(settings) as (running, sizes):
        started_s = time.perf_counter()
        for content in PICTURES[:4]:
            running.predict(content).raise_for_status()
        assert time.perf_counter() - started_s < 4  # eight windows would be eight seconds
    assert sizes == [1, 1, 1, 2, 1, 1, 1, 2]


@pytest.mark.slow
def test_a_slow_accelerator_runs_much_less_often(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are counted, because their time here would be the CPU's, which computes the answers of the stand-in."""
    device, runs = threading.Lock(), []

    class SlowRunner(OnnxRunner):
        def run(self, pixels: np.ndarray) -> list[np.ndarray]:
            with device:
                runs.append(len(pixels))
                time.sleep(BUSY_S)
                return super().run(pixels)

    def open_slowly(_: ExecutionProvider, onnx: bytes, threads: int, calls: int, batch_size: int) -> Runner:
        return SlowRunner(onnx, threads, CPU, batch_size)

    monkeypatch.setattr(model, "open_runner", open_slowly)
    counts = {}
    for size in (1, 8):
        settings = Settings(models_dir=models_dir, batch_size=size, batch_window_ms=10, inference_threads=10)
        with serving(settings) as running:
            runs.clear()
            ask_all(running, times=3)
            counts[size] = len(runs)
    assert counts[1] == 3 * 2 * len(PICTURES)
    assert counts[8] < counts[1] / 2


def test_batches_with_a_model_that_is_loaded_and_calls_of_several_pictures(server: Running, models_dir: Path) -> None:
    """On a CPU, by ``--batch-size``: the Open Inference Protocol and the model repository use the same batches."""
    pictures = [spots.paint(spots.Person((100 + 8 * i, 180)), spots.Person((400, 204))) for i in range(6)]
    expected = arrays(post(server, *files(*pictures)))
    settings = Settings(
        models_dir=models_dir, batch_size=4, batch_window_ms=20, inference_threads=4, model_control="explicit"
    )
    with counting(settings) as (running, sizes):
        gathering = len(running.registry.batching._runners)
        for action in ("load", "unload", "load"):
            assert running.http.post(f"/v2/repository/models/student-s/{action}").status_code == 200
        assert sorted(set(sizes)) == [1, 4]  # the new network was tried with one person and with a whole batch
        assert len(running.registry.batching._runners) == gathering  # nothing keeps networks that were unloaded
        sizes.clear()
        found = arrays(post(running, *files(*pictures)))
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=0.02)
    assert max(sizes) > 1
    assert sum(sizes) == len(pictures) + 2 * len(pictures)
