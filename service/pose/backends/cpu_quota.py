"""The number of cores that this process may use: its affinity, and the CPU quotas of its cgroups (cgroups(7))."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

V1, V2 = "cgroup", "cgroup2"
_USUAL = ((V2, "/sys/fs/cgroup"), (V1, "/sys/fs/cgroup/cpu"), (V1, "/sys/fs/cgroup/cpu,cpuacct"))


class _Mount(NamedTuple):
    """A mount point ``at`` which shows a tree of cgroups from the cgroup ``root`` on."""

    kind: str
    root: str
    at: str


def available_cores(system: Path = Path("/")) -> int:
    """Count the cores that this process may use, rounded up.

    Args:
        system: Folder that holds ``proc`` and ``sys``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas(system)])))


def _quotas(system: Path) -> Iterator[float]:
    """List the quotas, in cores, of this process' cgroup and of every cgroup above it."""
    memberships = _memberships(system)
    for kind, root, at in {*_mounts(system), *(_Mount(kind, "/", at) for kind, at in _USUAL)}:
        path = memberships.get(kind)
        if path is None:
            continue
        top = system / at.lstrip("/")
        # Without a cgroup namespace a container reads the host's path, but its mount begins at its own cgroup.
        below = path.removeprefix(root) if root != "/" else path
        parts = [part for part in below.split("/") if part not in {"", ".."}]
        for depth in range(len(parts) + 1):
            quota = _quota(top.joinpath(*parts[:depth]), kind)
            if quota is not None:
                yield quota


def _quota(folder: Path, kind: str) -> float | None:
    """Read the quota of one cgroup, in cores; None if it has none or does not exist."""
    try:
        if kind == V2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{it}_us").read_text() for it in ("quota", "period"))
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # the quota may be "max"
        return None
    return cores if cores > 0 else None  # -1 means none


def _memberships(system: Path) -> dict[str, str]:
    """Read the cgroup of this process in each hierarchy that controls CPUs."""
    found: dict[str, str] = {}
    for line in _lines(system / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found[V2] = path
        elif "cpu" in controllers.split(","):
            found[V1] = path
    return found or {V1: "/", V2: "/"}


def _mounts(system: Path) -> Iterator[_Mount]:
    """Read the mount points of the hierarchies that control CPUs (proc_pid_mountinfo(5))."""
    for line in _lines(system / "proc/self/mountinfo"):
        mount, _, source = line.partition(" - ")
        _, _, _, root, at, *_ = (re.sub(r"\\(\d{3})", lambda it: chr(int(it[1], 8)), it) for it in mount.split(" "))
        kind, *_, options = source.split(" ")
        if kind == V2 or (kind == V1 and "cpu" in options.split(",")):
            yield _Mount(kind, root, at)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux
        return []
