"""The examples of README and manuals run as they stand, against the bundles that ship."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data

from service.settings import Settings
from tests import manuals, spots
from tests.conftest import serving
from tests.manuals import ROOT, Block

README = ROOT / "README.md"
WITH_EXAMPLES = [README, ROOT / "docs" / "api.md", ROOT / "docs" / "streaming.md"]
CURLS = [it for page in WITH_EXAMPLES for it in manuals.blocks(page, "sh") if it.text.startswith("curl")]
PROGRAMS = [it for page in WITH_EXAMPLES for it in manuals.blocks(page, "python")]


def names(found: list[Block]) -> list[str]:
    return [f"{it.page}-{i}" for i, it in enumerate(found)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Settings()) as running:
        yield running.url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(spots.encode(skimage.data.astronaut(), "JPEG"))
    return tmp_path


def test_there_are_examples() -> None:
    assert len(CURLS) >= 9
    assert len(PROGRAMS) >= 5
    assert {it.page for it in CURLS} == {"README.md", "docs/api.md"}
    assert {it.page for it in PROGRAMS} == {"README.md", "docs/api.md", "docs/streaming.md"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs the program curl")
@pytest.mark.parametrize("block", CURLS, ids=names(CURLS))
def test_curl_examples_answer(block: Block, address: str, folder: Path) -> None:
    command = block.text.replace("http://localhost:8000", address).replace(
        "curl ", "curl --silent --show-error --fail "
    )
    answer = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr
    pictures = [path for path in folder.iterdir() if path.name not in {"photo.jpg", "other.jpg"}]
    if pictures:
        assert pictures[0].read_bytes()[:2] == {".jpg": b"\xff\xd8", ".png": b"\x89P"}[pictures[0].suffix]
    else:
        json.loads(answer.stdout)


@pytest.mark.parametrize("block", PROGRAMS, ids=names(PROGRAMS))
def test_python_examples_run(block: Block, address: str, folder: Path) -> None:
    program = block.text.replace("http://localhost:8000", address)
    program = program.replace("ws://localhost:8000", address.replace("http", "ws", 1))
    answer = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


def test_the_commands_of_the_first_minute_exist() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    makefile = (ROOT / "Makefile").read_text()
    first = " ".join(it.text for it in manuals.blocks(README, "sh"))
    for command in ("make serve", "python -m pip install .", "posewright-serve", "make test"):
        assert command in first
    assert "posewright-serve" in scripts
    for target in re.findall(r"^make (\S+)", first, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150
    assert len((ROOT / "docs" / "train.md").read_text().splitlines()) <= 200
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 100
