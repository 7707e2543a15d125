"""Chains and ablations: several trainings from one file, each from where it was left."""

import json
from pathlib import Path

import pytest
import torch

from service.pose import bundle
from tests.training.conftest import tiny_recipe
from tests.training.test_guides import PoseStandIn, take
from tests.training.test_verbs import run, toml
from training import ablate, chain, checkpoint, coco, recipe
from training.__main__ import LADDER
from training.recipe import Guide, Losses, RecipeError

HEADER = """
[defaults]
role = "student"
network = { kind = "pose", backbone = "plain-s", decoder_width = 16, input_size = [96, 128] }
data = [{ name = "painted", path = "crops", share = 1 }]
phases = [{ steps = 2, batch = 2, size = [96, 128] }]
"""
STAGES = """
[[stages]]
name = "big"
role = "teacher"
network = { decoder_width = 24 }

[[stages]]
name = "small"
init_from = "@big"
losses = { dense = 1.0, guides = [{ name = "big", kind = "checkpoint", path = "@big" }] }
"""


def test_a_chain_trains_its_stages_in_turn_and_goes_on(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "chain.toml").write_text(HEADER + STAGES)
    distill = ("distill", tmp_path / "chain.toml", "--data", data_root, "--out", tmp_path / "runs")
    run(*distill)
    big, small = (checkpoint.load(tmp_path / "runs" / name / "last.pt") for name in ("big", "small"))
    assert (big.recipe.role, big.recipe.network.decoder_width) == ("teacher", 24)
    assert small.recipe.network.decoder_width == 16
    key = "backbone.levels.0.0.one.0.weight"
    assert not torch.equal(big.ema[key], small.ema[key])
    assert small.lineage is not None
    assert [it["recipe_sha256"] for it in small.lineage.started_from] == [recipe.digest(big.recipe)]
    before = (tmp_path / "runs" / "big" / "last.pt").stat().st_mtime_ns
    run(*distill)  # nothing left to do
    assert (tmp_path / "runs" / "big" / "last.pt").stat().st_mtime_ns == before
    run("export", tmp_path / "runs" / "small" / "last.pt", "--out", tmp_path / "bundle")
    trained_by = bundle.read(tmp_path / "bundle").manifest.trained_by
    assert trained_by["guides"] == ["big, trained by this project"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGES.replace('name = "small"', 'name = "big"'), "stages of different names"),
        (STAGES.replace("@big", "@huge"), "got @huge"),
        (STAGES + "[more]\n", "got also more"),
        (STAGES.replace("dense", "dens"), "losses.dens"),
    ],
    ids=["twice", "unknown", "key", "loss"],
)
def test_a_broken_chain_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "chain.toml").write_text(HEADER + text)
    with pytest.raises(RecipeError, match=message):
        chain.load(tmp_path / "chain.toml")


def test_a_recipe_is_a_chain_of_one(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(toml(tiny_recipe()))
    assert chain.load(tmp_path / "one.toml") == [tiny_recipe()]


def test_the_ladder_climbs_from_plain_to_all() -> None:
    guides = (Guide("t", "checkpoint", "t"), Guide("a", "checkpoint", "a"))
    full = Losses(
        guides=guides, regression=0.5, dense=0.5, dense_form="squared", drop=True, binarize=0.1, past=0.2, features=0.5
    )
    rows = ablate.ladder(full)
    assert list(rows) == list(ablate.ROWS) == LADDER
    assert rows["dskd"] == full
    assert rows["plain"].guides == ()
    assert rows["plain"].regression == 1
    assert [g.name for g in rows["teacher"].guides] == ["t"]
    assert [g.name for g in rows["chain"].guides] == ["a"]
    assert (rows["dense"].drop, rows["drop"].drop) == (False, True)
    assert (rows["drop"].binarize, rows["binarize"].binarize) == (0, 0.1)
    assert (rows["binarize"].classification, rows["classify"].classification) == (0, 1)
    assert rows["classify"].past == 0


def test_an_ablation_trains_scores_and_tabulates_and_resumes(
    painted: coco.Source, data_root: Path, tmp_path: Path
) -> None:
    guide = take(PoseStandIn(), tmp_path / "pose")
    (tmp_path / "ablation.toml").write_text(
        f"""
[[trials]]
name = "painted"
annotations = "annotations.json"
images = "images"
{HEADER}
[defaults.losses]
regression = 0.5
dense = 0.5
dense_form = "squared"
guides = [
    {{ name = "t", kind = "bundle", path = "{guide}" }},
    {{ name = "a", kind = "bundle", path = "{guide}", flip = true }},
]
[[students]]
name = "tiny"
"""
    )
    arguments = ("ablate", tmp_path / "ablation.toml", "--data", data_root, "--out", tmp_path / "out")
    refused = run(*arguments, "--rows", "plain", "--seeds", 0, fails=True)
    assert "got 6 of 6 pictures that it learned from (1.png, 2.png, 3.png, ...)" in refused.stderr
    assert not (tmp_path / "out").exists()
    arguments = (*arguments, "--allow-seen")
    run(*arguments, "--rows", "plain", "--seeds", 0)
    table = run(*arguments, "--rows", "plain", "dskd", "--seeds", 0, 1).stdout
    assert "| tiny, painted, learned from |" in table
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert [line.split("`")[1] for line in rows] == ["plain", "dskd"]
    assert all("±" in line for line in rows)
    assert (tmp_path / "out" / "ablation.md").read_text() in table
    assert (tmp_path / "out" / "ablation.svg").read_text().count("<svg") == 1
    for row in ("plain", "dskd"):
        score = json.loads((tmp_path / "out" / f"tiny-{row}-1" / "score.json").read_text())
        assert score["painted"]["predictions"] == 12
        trained = checkpoint.load(tmp_path / "out" / f"tiny-{row}-1" / "last.pt")
        assert trained.recipe.seed == 1
        assert bool(trained.recipe.losses.guides) == (row == "dskd")


def test_an_ablation_without_assistants_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        f'[[trials]]\nname = "p"\nannotations = "a"\nimages = "i"\n{HEADER}\n[[students]]\nname = "tiny"\n'
    )
    with pytest.raises(RecipeError, match="a teacher and an assistant"):
        ablate.load(tmp_path / "a.toml")
    assert recipe.Losses().dense == 0
