"""What the client's README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import spots
from tests.conftest import Running
from tests.spots import SURE

README = (Path(__file__).parents[2] / "clients" / "python" / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [
    line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if "posewright-client " in line
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(spots.encode(spots.paint(SURE), "JPEG"))
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, spots.DETECTOR_SIZE)
    for _ in range(3):
        writer.write(np.ascontiguousarray(spots.paint(SURE)[..., ::-1]))
    writer.release()
    return tmp_path


def run(arguments: list[str], folder: Path, server: Running) -> str:
    variables = os.environ | {"POSEWRIGHT_URL": server.url}
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs(server: Running, folder: Path, program: str) -> None:
    assert run(["-W", "error", "-c", program.replace("http://localhost:8000", server.url)], folder, server).strip()


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands(server: Running, folder: Path, command: str) -> None:
    words = (
        command.replace("http://localhost:8000", server.url)
        .replace("--duration 2", "--duration 0.3 --warm-up 0")
        .split()
    )
    assert words[0] == "posewright-client"
    assert run(["-m", "posewright_client", *words[1:]], folder, server).strip()
    for word in words:
        if word in {"drawn.jpg", "out.mp4", "out.jsonl"}:
            assert (folder / word).stat().st_size


def test_there_are_some() -> None:
    assert len(PROGRAMS) >= 4
    assert len(COMMANDS) >= 5
