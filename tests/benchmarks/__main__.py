"""Benchmark: the same models, decoding and reply behind this server and behind others, side by side.

python -m tests.benchmarks [--models null student-t student-s] [--only NAME ...] [--rounds N] [--out FOLDER]

Every server runs in processes of its own, all of them during the whole run. In each round each contender gets the same
number of requests, one after the other, so that a busy machine disturbs all alike. docs/benchmarks.md explains the
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from tests.benchmarks import report, rounds
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.null_models import write_null_models
from tests.benchmarks.rounds import ROOT, Setup
from tests.benchmarks.steps import BOXES

NULL_SIZE = (128, 128)
NULL_ROLES = {role: f"{role}-null" for role in ("student", "teacher", "detector")}


def main() -> int:
    """Measure, print tables, write JSON and a plot."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    results: dict[str, list[dict[str, Any]]] = {}
    versions: dict[str, str] = {}
    for models in options.models:
        with tempfile.TemporaryDirectory() as folder:
            setup = prepare(models, options, Path(folder))
            rows = _measure(setup, options)
        results[models] = rows
        versions |= {row["name"]: row.pop("version") for row in rows}
        print(f"\n## {models}\n\n{report.table(rows)}", flush=True)
        if options.out:
            _write(options, versions, results)
    return 0


def _write(options: argparse.Namespace, versions: dict[str, str], results: dict[str, list[dict[str, Any]]]) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": _machine(),
        "slots": options.slots,
        "runtime_threads": options.runtime_threads,
        "versions": versions,
        "results": results,
    }
    (options.out / "benchmarks.json").write_text(json.dumps(document, indent=1) + "\n")
    report.plot(results, options.out / "benchmarks.svg")


def _measure(setup: Setup, options: argparse.Namespace) -> list[dict[str, Any]]:
    wanted = [name for name in CONTENDERS if name == "in-process" or name in options.only]
    with rounds.started(wanted, setup) as servers:
        names = [name for name in wanted if CONTENDERS[name].server in servers]
        rounds.check_equal(servers, names, setup)
        return [
            measured.figures()
            for clients in options.clients
            for measured in rounds.measure(servers, names, setup, clients, options.rounds, options.requests)
        ]


def prepare(models: str, options: argparse.Namespace, folder: Path) -> Setup:
    """Write what a run with some models needs to a folder; "null" stands for graphs that only copy constants."""
    picture = options.picture
    if models == "null":
        models_dir, roles = write_null_models(folder / "models"), NULL_ROLES
        picture = folder / "small.jpg"  # so that decoding takes little time, too
        cv2.imwrite(str(picture), cv2.resize(cv2.imread(str(options.picture)), NULL_SIZE, interpolation=cv2.INTER_AREA))
    else:
        models_dir, roles = ROOT / "service" / "models", {"student": models}
    environment = rounds.environment(models_dir, roles, options.slots, options.runtime_threads)
    boxes = _detected_boxes(environment, picture)
    return Setup(environment | {BOXES: boxes}, picture, boxes, options.slots, options.cache, folder)


def _detected_boxes(environment: dict[str, str], picture: Path) -> str:
    """The box of the first person that the detector finds, so that a stream, which detects, works on the same."""
    code = "from tests.benchmarks.steps import detected; import sys; print(detected(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(picture)]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["null", "student-t", "student-s"])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=100, help="Requests to each contender in a round.")
    parser.add_argument("--slots", type=int, default=1, help="Pictures that a server works on at the same time.")
    parser.add_argument("--runtime-threads", type=int, default=1, help="onnxruntime's threads in one call.")
    parser.add_argument("--picture", type=Path, default=ROOT / "tests" / "photos" / "astronaut_drawn.jpg")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "rivals", help="The rivals' environments.")
    parser.add_argument("--out", type=Path, help="Folder for benchmarks.json and benchmarks.svg.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
