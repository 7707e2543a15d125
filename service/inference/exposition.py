"""What /metrics answers: the metrics of this process, or with several server processes those of all of them together.

With several processes each one writes its values into files of a shared folder, and the one that answers adds them up
(prometheus_client's multiprocess mode, chosen by PROMETHEUS_MULTIPROC_DIR before that library is imported).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

GONE = math.inf
"""Value of a gauge whose labels this process no longer reports: files of the shared folder cannot forget labels."""
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_LIVE = "gauge_livesum_"
_OPEN, _MAX = "process_open_fds", "process_max_fds"


def multiprocess_folder() -> Path | None:
    """Return the folder that server processes share; None where there is one process."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def write(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Write all metrics.

    Args:
        registry: The metrics of this process.
        accept: The Accept header: OpenMetrics and Prometheus' text format 1.0.0 are written where they are asked for.

    Returns:
        The text, and its content type.
    """
    folder = multiprocess_folder()
    if folder is not None:
        registry = CollectorRegistry()
        registry.register(_AllProcesses(folder))
        registry.register(_ProcessTotals(folder))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


class _AllProcesses(Collector):
    """The metrics of all processes, without labels that no process reports any more."""

    def __init__(self, folder: Path) -> None:
        self._processes = MultiProcessCollector(None, str(folder))

    def collect(self) -> Iterator[Metric]:
        try:
            metrics = list(self._processes.collect())
        except FileNotFoundError:  # the supervisor has just removed the files of a process that never served
            metrics = list(self._processes.collect())
        for metric in metrics:
            if metric.type == "gauge":
                metric.samples = [sample for sample in metric.samples if sample.value != GONE]
            yield metric


class _ProcessTotals(Collector):
    """`process_*` of the live server processes and their supervisor together. Linux only, as prometheus_client's.

    File descriptors are those of the process that has used most of its own: the limit is each process', and a sum would
    hide the one that has none left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        supervisor = os.getppid()
        pids = [supervisor, *(int(path.stem.removeprefix(_LIVE)) for path in self._folder.glob(f"{_LIVE}*.db"))]
        totals: dict[str, Metric] = {}
        most_used = -1.0
        for pid in pids:
            found = {it.name: it for it in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect()}  # type: ignore[misc]
            descriptors = {name: found.pop(name) for name in (_OPEN, _MAX) if name in found}
            if len(descriptors) == 2 and (used := _ratio(descriptors)) > most_used:
                most_used = used
                totals |= descriptors
            for metric in found.values():
                total = totals.setdefault(metric.name, metric)
                if total is not metric and metric.name != "process_start_time_seconds":
                    total.samples = [
                        sample._replace(value=sample.value + more.value)
                        for sample, more in zip(total.samples, metric.samples, strict=True)
                    ]
        if cpu := totals.get("process_cpu_seconds"):
            # Without the dead processes' time the counter would fall, which Prometheus takes for a restart.
            cpu.samples = [sample._replace(value=sample.value + _ended_cpu_s(supervisor)) for sample in cpu.samples]
        return totals.values()


def _ratio(descriptors: dict[str, Metric]) -> float:
    """Share of a process' file descriptors that are in use."""
    return float(descriptors[_OPEN].samples[0].value / descriptors[_MAX].samples[0].value)


def _ended_cpu_s(pid: int) -> float:
    """CPU seconds of the children of a process that have ended (proc_pid_stat(5), cutime and cstime)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
