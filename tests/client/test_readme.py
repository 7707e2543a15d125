"""The programs and commands in the client's README run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from posewright_client.cli.main import main
from tests import spots
from tests.client.cli.clips import write_clip
from tests.conftest import Running
from tests.spots import SURE

README = (Path(__file__).parents[2] / "clients" / "python" / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [
    line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if "posewright-client " in line
]


@pytest.fixture
def folder(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that the README names."""
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(spots.encode(spots.paint(SURE), "JPEG"))
    write_clip(tmp_path / "in.mp4", 3)
    (tmp_path / "results.jsonl").write_text(
        '{"frame": 0, "time_ms": 0, "image": {"width": 9, "height": 9}, "poses": []}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSEWRIGHT_URL", server.url)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_runs(server: Running, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = program.replace("http://localhost:8000", server.url)
    exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_runs(server: Running, folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = command.replace("http://localhost:8000", server.url)
    words = shlex.split(text.replace("--duration 2", "--duration 0.3 --warm-up 0"))
    assert words[0] == "posewright-client"
    assert main(words[1:]) == 0
    assert capsys.readouterr().out.strip()
    for word in words:
        if word in {"drawn.jpg", "out.mp4", "out.jsonl"}:
            assert (folder / word).stat().st_size


def test_the_readme_has_programs_and_commands() -> None:
    assert len(PROGRAMS) >= 4
    assert len(COMMANDS) >= 5
