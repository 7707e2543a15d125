"""The image, without Docker: the steps of the Dockerfile itself, in folders of their own, and the server they make."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.serial]
MAX_MB = 400
MAX_START_CPU_S = 3.0
"""On an idle machine of two cores, start-to-ready takes less than the processor time, which load hardly changes."""
PATIENCE_S = 120.0
SHELL = re.compile(r"\$[A-Z]+")


@dataclass(frozen=True)
class Built:
    """What the Dockerfile's steps made.

    Attributes:
        venv: The folder that the image has as /venv.
        environment: The variables of the image.
        entrypoint: The command of the image.
        healthcheck: The command that tells whether the server is ready.
    """

    venv: Path
    environment: dict[str, str]
    entrypoint: list[str]
    healthcheck: list[str]

    def run(self, *command: str) -> str:
        finished = subprocess.run(
            [str(self.venv / "bin" / command[0]), *command[1:]],
            env=self.environment, cwd=self.venv, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        return finished.stdout


def instructions(stage: int) -> list[tuple[str, str]]:
    """Instructions of a stage of the Dockerfile, as (name, arguments)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, arguments.strip()))
    return stages[stage]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("image")
    places = {"/wheels": root / "wheels", "/venv": root / "venv"}
    subprocess.run([sys.executable, "-m", "venv", root / "base"], check=True)  # the pip of python:3.11-slim
    path = f"{root / 'base' / 'bin'}:{os.environ['PATH']}"
    for name, arguments in instructions(0):
        if name == "COPY":
            copy(*arguments.split(), into=root / "src")
        elif name == "RUN":
            command = re.sub(r"/(wheels|venv)\b", lambda found: str(places[found[0]]), arguments)
            subprocess.run(["sh", "-ec", command], cwd=root / "src", env={**os.environ, "PATH": path}, check=True)
    last = dict(instructions(1))
    environment = {"PATH": os.environ["PATH"]}
    for pair in last["ENV"].split():
        variable, _, value = pair.partition("=")
        value = SHELL.sub(lambda found: environment.get(found[0][1:], ""), value)
        environment[variable] = value.replace("/venv", str(places["/venv"]))
    _, _, healthcheck = last["HEALTHCHECK"].partition("CMD ")
    return Built(places["/venv"], environment, json.loads(last["ENTRYPOINT"]), json.loads(healthcheck))


def copy(*names: str, into: Path) -> None:
    """Copy files and folders as COPY does; the last name is the target, below ``into``."""
    *sources, target = names
    (into / target).mkdir(parents=True, exist_ok=True)
    for name in sources:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, into / target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, into / target)


@contextmanager
def serving(built: Built) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Serve; yields the address, the process and the seconds until it was ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**built.environment, "POSEWRIGHT_PORT": str(port)}
    begun_s = time.monotonic()
    command = [str(built.venv / "bin" / built.entrypoint[0]), *built.entrypoint[1:]]
    with subprocess.Popen(command, env=environment, cwd=built.venv) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while True:
                try:
                    urllib.request.urlopen(url + "/readyz", timeout=PATIENCE_S).close()
                    break
                except URLError:
                    assert process.poll() is None
                    assert time.monotonic() < begun_s + PATIENCE_S
                    time.sleep(0.02)
            yield url, process, time.monotonic() - begun_s
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in user and system mode (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_image_has_the_runtime_alone_and_is_small(built: Built) -> None:
    files = [path for path in built.venv.rglob("*") if path.is_file() and not path.is_symlink()]
    size_mb = sum(path.stat().st_blocks * 512 for path in files) / 1e6
    print(f"{size_mb:.0f} MB in {len(files)} files")
    assert size_mb < MAX_MB
    packages = {path.name for path in next(built.venv.glob("lib/python*/site-packages")).iterdir()}
    assert {"service", "onnxruntime", "cv2"} <= packages
    assert not packages & {"torch", "training", "ray", "pip", "setuptools", "pytest", "tests"}


def test_the_image_imports_serves_and_predicts(built: Built) -> None:
    assert "site-packages" in built.run("python", "-c", "import service; print(service.__file__)")
    with serving(built) as (url, process, ready_s):
        start_cpu_s = cpu_s(process.pid)
        print(f"ready after {ready_s:.1f} s, {start_cpu_s:.2f} s of processor time")
        assert start_cpu_s < MAX_START_CPU_S
        built.environment["POSEWRIGHT_PORT"] = url.rpartition(":")[2]
        built.run(*built.healthcheck)
        photo = (ROOT / "tests" / "photos" / "astronaut_drawn.jpg").read_bytes()
        request = urllib.request.Request(url + "/predict", photo, {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            (pose,) = json.load(reply)["poses"]
        nose = pose["keypoints"][0]
        assert abs(nose["x"] - 221) < 10
        assert abs(nose["y"] - 127) < 10
        for path in ("/", "/docs", "/posewright.js"):
            urllib.request.urlopen(url + path, timeout=PATIENCE_S).close()
    assert process.returncode in {0, -signal.SIGTERM}  # uvicorn ends in order, then by the signal itself
