"""The number of cores that a process may use, read from Linux' cgroup files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose.backends.cpu_quota import available_cores

ROOT = Path(__file__).parents[4]
HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HALF = {"cpu.max": "50000 100000\n"}
HALF_V1 = {"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}
NO_LIMIT, NO_LIMIT_V1 = {"cpu.max": "max 100000\n"}, {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}
V2 = "30 23 0:26 {root} {at} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 31 0:30 {root} {at} rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
HYBRID = "1:name=systemd:/user.slice\n9:memory:/elsewhere\n4:cpuacct,cpu:{path}\n0::/user.slice"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def tell(system: Path, cgroup: str, *mounts: str) -> None:
    """Write the files that a process reads about itself; the first mount does not limit CPUs."""
    (system / "proc/self/cgroup").write_text(cgroup + "\n")
    other = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    (system / "proc/self/mountinfo").write_text("\n".join([other, *mounts]) + "\n")


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    "limited", ["", "machine.slice", "machine.slice/pose.service", "machine.slice/pose.service/a b"]
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_every_cgroup_above_counts(system: Path, version: int, limited: str) -> None:
    path = "/machine.slice/pose.service/a b"
    at = "/sys/fs/cgroup/cpu,cpuacct" if version == 1 else "/sys/fs/cgroup"
    cgroup = HYBRID.format(path=path) if version == 1 else f"0::{path}"
    tell(system, cgroup, (V1 if version == 1 else V2).format(root="/", at=at))
    write(system / at[1:] / path[1:], NO_LIMIT_V1 if version == 1 else NO_LIMIT)
    assert available_cores(system) == HERE
    write(system / at[1:] / limited, HALF_V1 if version == 1 else HALF)
    assert available_cores(system) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_reads_its_hosts_path_finds_its_own_cgroup(system: Path, version: int) -> None:
    """Docker with ``--cgroupns host``: only the container's own tree is mounted."""
    path, at = "/docker/0123abcd", "/sys/fs/cgroup/cpu" if version == 1 else "/sys/fs/cgroup"
    tell(
        system,
        HYBRID.format(path=path) if version == 1 else f"0::{path}",
        (V1 if version == 1 else V2).format(root=path, at=at),
    )
    write(system / at[1:], HALF_V1 if version == 1 else HALF)
    assert available_cores(system) == 1


def test_cgroups_may_be_mounted_anywhere(system: Path) -> None:
    tell(system, "0::/pose", V2.format(root="/", at=r"/mnt/all\040my\040cgroups"))
    write(system / "mnt/all my cgroups/pose", HALF)
    assert available_cores(system) == 1


def test_a_quota_of_other_cgroups_does_not_count(system: Path) -> None:
    tell(system, "0::/mine", V2.format(root="/", at="/sys/fs/cgroup"))
    write(system / "sys/fs/cgroup/mine", NO_LIMIT)
    write(system / "sys/fs/cgroup/mine/child", HALF)
    write(system / "sys/fs/cgroup/others", HALF)
    assert available_cores(system) == HERE


@pytest.mark.parametrize("text", ["", "max", "0 0", "a b", "-1 100000", "50000 100000 1"])
def test_invalid_and_missing_quotas_are_ignored(system: Path, text: str) -> None:
    assert available_cores(system) == HERE
    write(system / "sys/fs/cgroup", {"cpu.max": text})
    assert available_cores(system) == HERE


@given(st.integers(1000, 10**9), st.integers(1000, 10**6))
def test_quotas_are_rounded_up_and_never_exceed_the_real_cores(
    tmp_path_factory: pytest.TempPathFactory, quota_us: int, period_us: int
) -> None:
    system = tmp_path_factory.mktemp("system")
    write(system / "sys/fs/cgroup", {"cpu.max": f"{quota_us} {period_us}\n"})
    assert available_cores(system) == min(HERE, -(-quota_us // period_us))


def test_a_process_reads_its_own_cgroup(tmp_path: Path) -> None:
    """On this machine, in a mount namespace of its own."""
    (tmp_path / "cgroup").write_text("0::/system.slice/pose.service\n")
    script = f"""
        mount -t tmpfs tmpfs /sys/fs/cgroup && mount --bind {tmp_path}/cgroup /proc/$$/cgroup || exit 99
        mkdir -p /sys/fs/cgroup/system.slice/pose.service
        echo 50000 100000 > /sys/fs/cgroup/system.slice/pose.service/cpu.max
        exec {sys.executable} -c 'from service.pose.backends.cpu_quota import available_cores; print(available_cores())'
    """
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare(1)")
    if answer.returncode in {1, 99} and "Traceback" not in answer.stderr:
        pytest.skip(f"may not mount: {answer.stderr}")
    assert answer.stdout == "1\n", answer.stderr
