"""What the README shows is what happens: its commands run against the shipped bundles, its Python too."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data

from service.settings import Settings
from tests import spots
from tests.conftest import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
CURLS = [block for kind, block in BLOCKS if kind == "sh" and block.startswith("curl")]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Settings()) as running:
        yield running.url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photo.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(spots.encode(skimage.data.astronaut(), "JPEG"))
    return tmp_path


def test_it_has_examples() -> None:
    assert len(CURLS) >= 5
    assert len(PROGRAMS) >= 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs the program curl")
@pytest.mark.parametrize("block", CURLS, ids=range(len(CURLS)))
def test_curl_examples_answer(block: str, address: str, folder: Path) -> None:
    command = block.replace("http://localhost:8000", address).replace("curl ", "curl --silent --show-error --fail ")
    answer = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr
    pictures = [path for path in folder.iterdir() if path.name not in {"photo.jpg", "other.jpg"}]
    if pictures:
        assert pictures[0].read_bytes()[:2] == b"\xff\xd8"
    else:
        json.loads(answer.stdout)


@pytest.mark.parametrize("block", PROGRAMS, ids=range(len(PROGRAMS)))
def test_python_examples_run(block: str, address: str, folder: Path) -> None:
    program = block.replace("http://localhost:8000", address)
    program = program.replace("ws://localhost:8000", address.replace("http", "ws", 1))
    answer = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


def test_every_file_of_the_map_exists() -> None:
    where = README.partition("## Where things are")[2].partition("\n## ")[0]
    paths = re.findall(r"^\| `([\w./-]+)` \|", where, flags=re.MULTILINE)
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
