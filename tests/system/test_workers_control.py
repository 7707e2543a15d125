"""`--workers 2 --model-control explicit`: what one process is told, both do, and so does one that starts later."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import spots
from tests.system.test_workers import COMMAND, PATIENCE_S, PICTURE, ROOT, Cluster, environment, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")]
ROLLED_BACK = {("student-s", None)}
MANY = 12
"""Calls on new connections after which both processes have answered, most likely."""


@pytest.fixture(scope="module")
def folder(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("control") / "models"))
    spots.write_pose_bundle(folder, "fails", "student", fails_on_sure=True)
    return folder


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Cluster]:
    temporary = folder.parent
    log = temporary / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*COMMAND, *flags], env=environment(folder, temporary), cwd=ROOT, stdout=subprocess.PIPE, stderr=errors,
            text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            found = re.search(r"at (http://127\.0\.0\.1:\d+) ", process.stdout.readline())
            assert found, log.read_text()
            yield Cluster(process, found[1], log)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def change(cluster: Cluster, action: str, name: str = "student-s") -> int:
    """Ask on a new connection: any process may make the change."""
    return httpx.post(f"{cluster.url}/v2/repository/models/{name}/{action}", timeout=PATIENCE_S).status_code


def answering(cluster: Cluster) -> set[tuple[str, str]]:
    """Names and versions that answer `auto`, whichever process is asked."""
    replies = [cluster.predict() for _ in range(MANY)]
    assert {it.status_code for it in replies} == {200}
    models = [it.json()["model"] for it in replies]
    return {(it["name"], it["version"]) for it in models}


def stable(cluster: Cluster) -> set[tuple[str, str | None]]:
    replies = [httpx.get(cluster.url + "/canary").json() for _ in range(MANY)]
    return {(it["stable"], it["candidate"]) for it in replies}


def ask_teacher(cluster: Cluster) -> int:
    headers = {"Content-Type": "image/png"}
    return httpx.post(cluster.url + "/predict?model=teacher", content=PICTURE, headers=headers).status_code


def replace_a_process(cluster: Cluster) -> None:
    victim = cluster.pids[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in cluster.pids and len(cluster.pids) == 2)
    eventually(lambda: cluster.samples()["posewright_workers",] == 2)


def test_changes_reach_every_process_and_those_that_start_later(folder: Path) -> None:
    with running(folder, "--model-control", "explicit") as cluster:
        spots.write_pose_bundle(folder, "student-s", "student", version="2", shift_cells=2)
        assert change(cluster, "load") == 200
        eventually(lambda: answering(cluster) == {("student-s", "2")})
        assert change(cluster, "rollback") == 200
        eventually(lambda: answering(cluster) == {("student-s", "1")})
        assert change(cluster, "rollback") == 200
        eventually(lambda: answering(cluster) == {("student-s", "2")})

        # A new bundle is tried and promoted at once: the other process may not have loaded it yet.
        spots.write_pose_bundle(folder, "newest", "student", version="7")
        assert change(cluster, "load", "newest") == 200
        wanted = {"model": "newest", "share": 1}
        assert httpx.put(cluster.url + "/canary", json=wanted, timeout=PATIENCE_S).status_code == 200
        assert httpx.post(cluster.url + "/canary/promote", timeout=PATIENCE_S).status_code == 200
        assert stable(cluster) == {("newest", None)}
        eventually(lambda: answering(cluster) == {("newest", "7")})

        assert change(cluster, "unload", "teacher") == 200
        replace_a_process(cluster)
        assert stable(cluster) == {("newest", None)}
        assert answering(cluster) == {("newest", "7")}
        assert {ask_teacher(cluster) for _ in range(MANY)} == {503}

        assert httpx.post(cluster.url + "/canary/rollback", timeout=PATIENCE_S).status_code == 200
        assert answering(cluster) == {("student-s", "2")}

        # The candidate's end by an unload reaches every process too.
        assert httpx.put(cluster.url + "/canary", json=wanted, timeout=PATIENCE_S).status_code == 200
        assert answering(cluster) == {("newest", "7")}
        assert change(cluster, "unload", "newest") == 200
        assert stable(cluster) == {("student-s", None)}
        assert answering(cluster) == {("student-s", "2")}


def test_a_candidate_that_the_verdict_rolled_back_does_not_return_with_a_new_process(folder: Path) -> None:
    flags = ("--canary", "fails", "--canary-share", "1", "--canary-auto-rollback", "true")
    with running(folder, *flags) as cluster:
        eventually(lambda: {name for name, _ in answering(cluster)} == {"student-s"} and stable(cluster) == ROLLED_BACK)
        replace_a_process(cluster)
        assert stable(cluster) == ROLLED_BACK
