"""``posewright-client predict``, and the command line as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from posewright_client.cli.main import SUBCOMMANDS
from tests import spots
from tests.client.cli.conftest import Run
from tests.conftest import Running
from tests.spots import SURE


def test_the_result_is_printed(run: Run, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", photo, photo, "--url", server.url) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"{photo}: 640 x 384, 2 people, student-s, ")
    assert "nose 180,104" in lines[1] + lines[2]


def test_the_reply_is_printed_as_json(
    run: Run, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", photo, "--json", "--url", server.url, "--model", "teacher") == 0
    reply = json.loads(capsys.readouterr().out)
    assert (reply["schema"], reply["model"]["role"]) == ("pose.v1", "teacher")


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_skeletons_are_drawn_on_the_upright_photo(
    run: Run, server: Running, tmp_path: Path, orientation: int
) -> None:
    upright = spots.paint(SURE)
    photo, out = tmp_path / "photo.jpg", tmp_path / "drawn.png"
    photo.write_bytes(spots.encode(spots.stored_as(upright, orientation), "JPEG", orientation))
    assert run("predict", photo, "--draw", out, "--url", server.url) == 0
    drawn = cv2.imread(str(out))[..., ::-1]
    assert drawn.shape == upright.shape
    difference = np.abs(drawn.astype(int) - upright).max(axis=2)
    x, y = (SURE.keypoints[5] + SURE.keypoints[6]).astype(int) // 2  # between the shoulders: an edge and no spot
    assert difference[y - 3 : y + 4, x].max() > 60
    assert np.median(difference[:, 400:]) < 5


def test_errors_are_messages_with_status_1(
    run: Run, server: Running, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", photo, "--url", server.url, "--model", "nobody") == 1
    assert "404 No such model" in capsys.readouterr().err
    assert run("predict", tmp_path / "nothing.jpg", "--url", server.url) == 1
    assert "nothing.jpg" in capsys.readouterr().err
    assert run("predict", photo, photo, "--draw", "x.png", "--url", server.url) == 1
    assert "expected one photo" in capsys.readouterr().err
    assert run("predict", photo, "--draw", tmp_path / "drawn", "--url", server.url) == 1
    assert "expected a suffix" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["photograph"], [], ["predict"], ["bench", "x", "y", "--rate", "0"]], ids=str)
def test_an_invalid_command_line_exits_with_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_help_lists_the_subcommands(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SUBCOMMANDS)


def test_the_module_runs_as_a_program(server: Running, photo: Path) -> None:
    command = [sys.executable, "-m", "posewright_client", "predict", str(photo), "--url", server.url]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 people" in result.stdout
