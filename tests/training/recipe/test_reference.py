"""The manual says what the code does."""

import re
import tomllib
from pathlib import Path

import torch

from service.pose import bundle
from tests.training.commands import run, toml
from tests.training.conftest import tiny_recipe
from training.__main__ import SUBCOMMANDS
from training.data import coco
from training.distillation.pose_task import PoseTask
from training.engine import profile
from training.recipe import recipe, reference

DOCS = Path(__file__).parents[3] / "docs"
MANUAL = (DOCS / "train.md").read_text()


def test_the_page_of_keys_is_up_to_date(tmp_path: Path) -> None:
    """If this fails: `posewright-train keys --out docs/recipe-keys.md`."""
    page = Path(recipe.__file__).parents[2] / "docs" / "recipe-keys.md"
    run("keys", "--out", tmp_path / "keys.md")
    assert (tmp_path / "keys.md").read_text() == page.read_text() == run("keys").stdout
    for key in ("losses.self_distillation", "phases.N.frozen_blocks", "network.head", "losses.teachers.N.path"):
        assert f"| `{key}` |" in page.read_text()


def test_every_key_has_a_meaning() -> None:
    for line in reference.table().splitlines()[2:]:
        _, key, default, meaning, _ = (it.strip() for it in line.split("|"))
        assert key.startswith("`")
        assert default
        assert len(meaning) > 10, key


def test_the_manual_lists_every_subcommand() -> None:
    listed = set(re.findall(r"^\| `([a-z]+)` \| ", MANUAL, flags=re.MULTILINE))
    assert listed >= set(SUBCOMMANDS)


def test_the_manuals_recipe_trains_exports_and_scores(painted: coco.Source, data_root: Path, tmp_path: Path) -> None:
    """Word for word, but for the length of the training."""
    (block,) = re.findall(r"```toml\n(name = \"mine\".*?)```", MANUAL, flags=re.DOTALL)
    (tmp_path / "mine.toml").write_text(block)
    where = ("--annotations", painted.annotations, "--images", painted.images)
    run("crops", *where, "--out", tmp_path / "crops" / "mine", "--skip", 7)
    run("train", tmp_path / "mine.toml", "--data", tmp_path, "--out", tmp_path / "run", "--set", "phases.0.steps=2")
    run("export", tmp_path / "run" / "last.pt", "--out", tmp_path / "bundles" / "mine")
    assert bundle.read(tmp_path / "bundles" / "mine").manifest.trained_by["data"] == ["my pictures"]


def test_the_manuals_other_recipes_are_toml() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", MANUAL, flags=re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        tomllib.loads(block)


def test_speed_times_every_part(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(toml(tiny_recipe()))
    table = run("speed", tmp_path / "tiny.toml", "--data", data_root, "--out", tmp_path, "--rounds", 2).stdout
    assert "pictures/s" in table
    cpu = torch.device("cpu")
    plan = tiny_recipe()
    parts = profile.measure(plan, PoseTask(plan, data_root, cpu, tmp_path), cpu, rounds=1)
    assert set(parts) == {"batch", "forward", "backward", "update"}
    assert all(ms > 0 for ms in parts.values())
    assert {line.split(" | ")[0] for line in table.splitlines() if line.startswith("| b")} == {"| batch", "| backward"}
