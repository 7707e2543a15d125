"""Dry runs of trainings, and errors: no accelerator, no room on the disk."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.commands import toml
from tests.training.conftest import tiny_recipe
from training import files
from training.__main__ import main
from training.data import coco
from training.distillation import dry_run
from training.engine import checkpoint
from training.engine.training_log import TrainingLog
from training.recipe.losses import Losses, Teacher

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*"))


@pytest.fixture
def train(data_root: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.toml").write_text(toml(tiny_recipe()))
    return ["train", str(tmp_path / "tiny.toml"), "--data", str(data_root), "--out", str(tmp_path / "run")]


def test_a_dry_run_describes_the_training_and_writes_nothing(
    train: list[str], data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(data_root), names(tmp_path)
    assert main([*train, "--dry-run", "--set", "phases.0.steps=30", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    for line in (
        "phases.0.steps = 30",
        "data: painted: 12 crops, 100% of each batch, each seen about 5.0 times",
        "device: CPU, 1 thread(s), as --device says",
        "steps: 30, of which 0 are done",
        "phase 0: 30 steps of 2 at 96 x 128: ",
        "time: about ",
        "nothing was written",
    ):
        assert line in told
    assert (names(data_root), names(tmp_path)) == before


def test_a_dry_run_knows_the_steps_done_and_the_size_of_a_checkpoint(
    train: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train, "--until", "2", "--device", "cpu"]) == 0
    assert "tiny: CPU, 1 thread(s), as --device says" in capsys.readouterr().err
    assert main([*train, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "steps: 3, of which 2 are done" in told
    size = (tmp_path / "run" / "last.pt").stat().st_size / 1e6
    (line,) = (it for it in told.splitlines() if it.startswith("disk: "))
    assert float(line.split()[1]) == pytest.approx(size, rel=0.1)
    assert main([*train, "--dry-run", "--set", "seed=1"]) == 1
    assert "which differs in seed" in capsys.readouterr().err


def test_a_dry_run_counts_the_crops_that_teachers_must_still_infer(
    train: list[str], data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train) == 0
    teacher = Teacher("own", "checkpoint", str(tmp_path / "run" / "last.pt"))
    guided = replace(tiny_recipe(), name="guided", losses=Losses(dense=1.0, classification=0.0, teachers=(teacher,)))
    waiting = dry_run.uncached_teachers(guided, data_root, tmp_path / "guided")
    assert [(it.name, [len(cache) for cache in caches]) for it, caches in waiting] == [("own", [12])]
    alone = dry_run.without_teachers(guided, ["own"])
    assert alone.losses.teachers == ()
    before = names(data_root)
    (tmp_path / "tiny.toml").write_text(
        toml(tiny_recipe()) + f'\n[losses]\ndense = 1.0\n[[losses.teachers]]\nname = "own"\nkind = "checkpoint"\n'
        f'path = "{teacher.path}"\n'
    )
    capsys.readouterr()
    assert main([*train[:-1], str(tmp_path / "guided"), "--dry-run"]) == 0
    assert "teacher own: infers 12 crops first: about 0.0 minutes, 0.2 MB under" in capsys.readouterr().out
    assert names(data_root) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_a_missing_accelerator_is_an_error(train: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*train, "--device", "cuda"]) == 1
    assert "--device cuda: expected an accelerator, got none: torch" in capsys.readouterr().err


def test_without_room_the_old_file_stays(tmp_path: Path) -> None:
    """Uses the limit on file sizes, whose error differs from that of a full disk only in its number."""
    kept, asked = tmp_path / "kept", tmp_path / "new.npy"
    files.write(kept, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(files.FullError, match=r"kept: expected room for 2.0 MB, got .* repeat the command"):
            files.write(kept, bytes(2_000_000))
        with pytest.raises(files.FullError, match=r"new.npy: expected room for 2.0 MB"):
            files.new_array(asked, (2, 1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept.read_bytes() == b"old"
    assert names(tmp_path) == ["kept"]
    assert errno.EFBIG in files.FULL


def test_an_incomplete_row_of_the_log_is_removed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,lr\n50,2.00000,0.001\n100,1.5")
    log = TrainingLog(tmp_path / "log.csv", 100)
    for step in range(101, 151):
        log.add(step, {"loss": torch.tensor(1.0)}, 1e-3)
    assert (tmp_path / "log.csv").read_text() == "step,loss,lr\n50,2.00000,0.001\n150,1.00000,0.001\n"


FILLED = """
mount -t tmpfs -o size=64m tmpfs "$DISK" && train() { "$PYTHON" -m training "$@"; }
train "${@:4}" --until 1 || exit 9
head -c 100M /dev/zero > "$DISK/filler" 2> /dev/null
train "${@:4}" 2> "$TOLD/train"; [ $? = 1 ] || exit 8
train crops --annotations "$1" --images "$2" --out "$DISK/crops" 2> "$TOLD/crops"; [ $? = 1 ] || exit 7
find "$DISK" -type f > "$TOLD/left"; cp "$DISK/run/last.pt" "$TOLD/one.pt"
rm "$DISK/filler"; train "${@:4}" || exit 6
cp "$DISK/run/last.pt" "$TOLD/three.pt"
"""


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_run_resumes_once_there_is_room(
    painted: coco.Source, train: list[str], tmp_path: Path
) -> None:
    """Uses a small tmpfs in a namespace of its own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare and user namespaces, to mount a small disk")
    disk, told = tmp_path / "disk", tmp_path / "told"
    disk.mkdir(), told.mkdir()
    environment = {**os.environ, "DISK": str(disk), "TOLD": str(told), "PYTHON": sys.executable}
    command = ["unshare", "-rm", "bash", "-c", FILLED, "filled", str(painted.annotations), str(painted.images), ""]
    answer = subprocess.run(
        [*command, *train[:-1], str(disk / "run")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    for name in ("train", "crops"):
        assert "No space left on device" in (told / name).read_text()
        assert "make room and repeat the command" in (told / name).read_text()
    assert sorted((told / "left").read_text().split()) == [str(disk / "filler"), str(disk / "run" / "last.pt")]
    assert [checkpoint.load(told / f"{it}.pt").step for it in ("one", "three")] == [1, 3]
