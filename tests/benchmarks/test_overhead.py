"""A guard on the CPU time of a call: it must stay near that of a plain FastAPI handler with the same models."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import load, rounds
from tests.benchmarks.__main__ import prepare
from tests.benchmarks.contenders import CONTENDERS, request_bytes
from tests.benchmarks.rounds import ROOT, Server, Setup

pytestmark = pytest.mark.serial

NAMES = ["in-process", "ours, raw", "ours, multipart", "ours, stream", "FastAPI def", "FastAPI def, multipart"]
MAX_RATIO = 1.35
ROUNDS, REQUESTS, ATTEMPTS = 9, 60, 3


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    picture = ROOT / "tests" / "photos" / "astronaut_drawn.jpg"
    options = argparse.Namespace(picture=picture, slots=1, runtime_threads=1, cache=Path("unused"))
    return prepare("null", options, tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def servers(setup: Setup) -> Iterator[dict[str, Server]]:
    with rounds.started(NAMES, setup) as servers:
        yield servers


def test_contenders_answer_the_same(servers: dict[str, Server], setup: Setup) -> None:
    rounds.check_equal(servers, NAMES, setup)


def test_a_call_costs_about_as_much_cpu_as_a_plain_handler(servers: dict[str, Server], setup: Setup) -> None:
    ratios = []
    for _ in range(ATTEMPTS):
        ratios.append(_ratio(servers, setup))
        if ratios[-1] < MAX_RATIO:
            return
    pytest.fail(f"expected at most {MAX_RATIO} times the CPU time of a plain FastAPI handler, got {ratios}")


def _ratio(servers: dict[str, Server], setup: Setup) -> float:
    """CPU of our server by that of the plain one: the median of interleaved rounds."""
    ratios = []
    for turn in range(ROUNDS + 1):
        spent = [_cpu_s(name, servers, setup) for name in ("ours, raw", "FastAPI def")]
        if turn:  # the first one warms up
            ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def _cpu_s(name: str, servers: dict[str, Server], setup: Setup) -> float:
    contender = CONTENDERS[name]
    server = servers[contender.server]
    request = request_bytes(contender, setup.picture.read_bytes(), setup.boxes)
    before_s = server.tree.cpu_s(server.pids)
    load.run(server.port, request, clients=1, requests=REQUESTS, stream=False)
    return server.tree.cpu_s(server.pids) - before_s
