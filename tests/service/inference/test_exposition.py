"""Metrics of several processes, added up through the files that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.parser import text_string_to_metric_families

from service.inference import exposition
from service.inference.exposition import FOLDER_VARIABLE

ROOT = Path(__file__).parents[3]
PROCESS = """
import os, sys
from dataclasses import replace
from pathlib import Path
from service.inference.metrics import Metrics
from service.inference.registry import open_registry
from service.inference.scheduler import Scheduler
from service.settings import Settings

registry = open_registry(Settings(models_dir=Path(sys.argv[1])))
metrics, scheduler = Metrics("1"), Scheduler(2, 5, 1.0)
metrics.watch(scheduler, registry)
metrics.request("POST", "/predict", 200, 0.01, 10, 20)
metrics.sessions(3)
teacher = registry.models["teacher"]
if sys.argv[2] == "broken":
    registry.models["teacher"] = replace(teacher, network=None)
if sys.argv[2] == "replaced":
    manifest = teacher.manifest.model_copy(update={"version": "2"})
    registry.models["teacher"] = replace(teacher, manifest=manifest)
metrics.sample()
print(os.getpid())
print(metrics.write()[0].decode())
scheduler.close()
"""


def run(models_dir: Path, folder: Path, kind: str) -> tuple[int, dict[tuple[str, ...], float]]:
    """Run a process to its end; nobody marks it as dead, so that its gauges count as those of a live one."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROCESS, str(models_dir), kind],
        env=os.environ | {FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    pid, _, text = result.stdout.partition("\n")
    families = text_string_to_metric_families(text)
    return int(pid), {(it.name, *it.labels.values()): it.value for family in families for it in family.samples}


def teachers(samples: dict[tuple[str, ...], float]) -> dict[str, float]:
    """The teacher's versions, and whether each can run."""
    return {
        key[5]: value for key, value in samples.items() if key[0] == "posewright_model_info" and key[2] == "teacher"
    }


@pytest.mark.slow
def test_values_of_all_processes_are_added_up_and_the_worst_model_counts(models_dir: Path, tmp_path: Path) -> None:
    first, samples = run(models_dir, tmp_path, "broken")
    assert teachers(samples) == {"1": 0}

    second, samples = run(models_dir, tmp_path, "replaced")
    assert samples["http_server_request_duration_seconds_count", "POST", "/predict", "200"] == 2
    assert samples["http_server_request_body_size_bytes_sum", "POST", "/predict"] == 20
    assert samples["posewright_stream_sessions",] == 6
    assert samples["posewright_queue_capacity",] == 10
    assert samples["posewright_workers",] == 2
    assert teachers(samples) == {"1": 0, "2": 1}

    mark_process_dead(first, str(tmp_path))
    _, samples = run(models_dir, tmp_path, "replaced")
    assert samples["http_server_request_duration_seconds_count", "POST", "/predict", "200"] == 3  # counters stay
    assert samples["posewright_workers",] == 2
    assert teachers(samples) == {"2": 1}  # nobody has version 1 any more
    assert second != first


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="file descriptors are counted on Linux alone")
def test_the_process_with_the_fewest_file_descriptors_left_is_told(tmp_path: Path) -> None:
    """Its supervisor has far more, and would hide it in a sum."""
    script = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50)); "
        "held = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]; print(os.getpid(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as poor:
        assert poor.stdout is not None
        pid = int(poor.stdout.readline())
        (tmp_path / f"gauge_livesum_{pid}.db").touch()
        (tmp_path / f"gauge_livesum_{os.getpid()}.db").touch()
        samples = {it.name: it.samples[0].value for it in exposition._ProcessTotals(tmp_path).collect()}
        poor.communicate()
    assert samples["process_max_fds"] == 50
    assert 43 <= samples["process_open_fds"] <= 50
