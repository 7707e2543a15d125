"""``posewright-client bench`` and its statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posewright_client.cli.bench import jain_index, percentiles
from tests.client.cli.conftest import Run
from tests.client.hosts import free_address
from tests.conftest import Running

Report = Callable[..., dict[str, Any]]


@pytest.fixture
def report(run: Run, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """Run a short benchmark with arguments; returns its report."""

    def measured(*arguments: object) -> dict[str, Any]:
        assert run("bench", server.url, photo, *arguments, "--duration", "0.53", "--warm-up", "0.1", "--json") == 0
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return measured


def test_a_closed_loop_reports_latencies(report: Report) -> None:
    found = report("--concurrency", "2")
    assert (found["mode"], found["failed"]) == ("closed loop", 0)
    assert found["answered"] > 2
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]


def test_an_open_loop_makes_the_same_number_of_calls_in_every_run(report: Report) -> None:
    found = report("--rate", "20")
    assert found["mode"] == "open loop"
    assert found["answered"] + found["failed"] == 12


def test_streams_report_the_fate_of_every_frame(report: Report) -> None:
    found = report("--stream", "2", "--fps", "10")
    frames = found["frames"]
    assert frames["offered"] == 13 == frames["answered"] + frames["dropped"] + frames["replaced"] + frames["lost"]
    assert 0 < found["answered_fps"]["min"] <= found["answered_fps"]["mean"] <= 13
    assert 0.5 <= found["jain_fairness"] <= 1
    assert found["server_age_ms"]["p50"] < found["age_ms"]["p50"]


def test_the_report_is_printed_as_text(
    run: Run, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", server.url, photo, "--duration", "0.2", "--warm-up", "0") == 0
    assert "latency_ms  p50" in capsys.readouterr().out


def test_an_unreachable_server_is_an_error(run: Run, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", free_address(), photo) == 1
    assert "is the server running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rates", "index"), [([5, 5, 5], 1), ([3, 0, 0], 1 / 3), ([1, 2, 3], 36 / 42), ([0, 0], 1), ([7], 1)]
)
def test_jain_index(rates: list[float], index: float) -> None:
    assert jain_index(rates) == pytest.approx(index)


def test_percentiles_are_measured_values() -> None:
    found = percentiles([float(i) for i in range(1, 101)])
    assert found == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert percentiles([]) is None
