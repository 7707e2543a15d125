"""Windows of calls and of agreement: what counts, and that memory is bounded."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.inference.agreement import MAX_MODELS, MAX_PEOPLE, Agreements
from service.inference.call_window import MAX_CALLS, CallWindow
from service.inference.model import Model
from service.inference.registry import open_registry
from service.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def models(models_dir: Path) -> dict[str, Model]:
    return open_registry(Settings(models_dir=models_dir)).models


def test_calls_are_summed_up_and_grow_old() -> None:
    clock = Clock()
    window = CallWindow(60, clock)
    window.add(5.0, 1.5, 2)
    clock.now_s = 40
    window.add(15.0, 0.5, 1)
    window.add(None)
    statistics = window.statistics()
    assert (statistics.calls, statistics.errors, statistics.pose_ms) == (3, 1, (5.0, 15.0))
    assert statistics.percentile_ms(50) == 10
    assert statistics.mean_score == pytest.approx(2 / 3)
    assert statistics.people_per_picture == 1.5
    clock.now_s = 61
    assert (window.statistics().calls, window.statistics().pose_ms) == (2, (15.0,))
    clock.now_s = 101
    empty = window.statistics()
    assert (empty.calls, empty.percentile_ms(95), empty.mean_score, empty.people_per_picture) == (0, None, None, None)


def test_a_window_keeps_the_latest_calls_only() -> None:
    window = CallWindow(60)
    for i in range(MAX_CALLS + 500):
        window.add(float(i))
    statistics = window.statistics()
    assert statistics.calls == MAX_CALLS
    assert statistics.pose_ms[0] == 500


def test_threads_lose_no_calls() -> None:
    window = CallWindow(60)
    threads = [threading.Thread(target=lambda: [window.add(1.0) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert window.statistics().calls == 1600


def test_agreement_is_summed_up_and_grows_old(models: dict[str, Model]) -> None:
    clock = Clock()
    agreements = Agreements(60, clock)
    assert agreements.statistics("student-s") is None
    agreements.add(models["student-s"], models["teacher"], np.array([0.2, 1.0], np.float32))
    clock.now_s = 30
    agreements.add(models["student-s"], models["teacher"], np.array([0.9], np.float32))
    found = agreements.statistics("student-s")
    assert found is not None
    assert (found.reference, found.people, found.different) == ("teacher", 3, 1)
    assert found.mean_oks == pytest.approx(0.7)
    clock.now_s = 61
    found = agreements.statistics("student-s")
    assert found is not None
    assert (found.people, found.different) == (1, 0)
    clock.now_s = 100
    assert agreements.statistics("student-s") is None


def test_a_new_version_begins_anew(models: dict[str, Model]) -> None:
    agreements, ones = Agreements(60), np.ones(3, np.float32)
    student, teacher = models["student-s"], models["teacher"]
    agreements.add(student, teacher, ones)
    files = student.manifest.files | {"model.onnx": "0" * 64}
    newer = replace(student, manifest=student.manifest.model_copy(update={"files": files}))
    agreements.add(newer, teacher, ones[:1])
    found = agreements.statistics("student-s")
    assert found is not None
    assert found.people == 1


def test_agreement_keeps_bounded_memory(models: dict[str, Model]) -> None:
    agreements, student = Agreements(60), models["student-s"]
    for i in range(MAX_MODELS + 3):
        other = replace(student, manifest=student.manifest.model_copy(update={"name": f"m{i}"}))
        for _ in range(2):
            agreements.add(other, models["teacher"], np.ones(MAX_PEOPLE, np.float32))
    known = [i for i in range(MAX_MODELS + 3) if agreements.statistics(f"m{i}")]
    assert known == list(range(3, MAX_MODELS + 3))
    found = agreements.statistics("m5")
    assert found is not None
    assert found.people == MAX_PEOPLE
