"""Chains and ablations: several trainings from one file, each of which resumes."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from service.pose import bundle
from tests.training.commands import run, toml
from tests.training.conftest import tiny_recipe
from tests.training.distillation.test_teachers import PoseStandIn, take
from training.cli.train import train as train_recipe
from training.data import coco, crop_cache
from training.engine import checkpoint
from training.evaluation import ablation as ablate
from training.evaluation import ablation_rows
from training.recipe import chain, recipe
from training.recipe.errors import RecipeError
from training.recipe.losses import Losses, Teacher

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
losses = { dense = 1.0, teachers = [{ name = "big", kind = "checkpoint", path = "@big" }] }
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
    assert [it["recipe_sha256"] for it in small.lineage.started_from] == [recipe.digest(big.recipe)]
    before = (tmp_path / "runs" / "big" / "last.pt").stat().st_mtime_ns
    run(*distill)  # nothing left to do
    assert (tmp_path / "runs" / "big" / "last.pt").stat().st_mtime_ns == before
    run("export", tmp_path / "runs" / "small" / "last.pt", "--out", tmp_path / "bundle")
    trained_by = bundle.read(tmp_path / "bundle").manifest.trained_by
    assert trained_by["teachers"] == ["big, trained by this project"]


@pytest.mark.slow
def test_a_dry_run_trains_every_stage_in_small_and_keeps_nothing(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "chain.toml").write_text(HEADER + STAGES)
    before = {it: it.stat().st_mtime_ns for it in data_root.rglob("*")}
    answer = run(
        "distill", tmp_path / "chain.toml", "--data", data_root, "--out", tmp_path / "runs", "--dry-run"
    ).stdout
    big, small, last = answer.splitlines()
    assert big.startswith("big: teacher, plain-s, 96 x 128, from no start, taught by labels alone: 2 steps, 4 samples")
    assert small.startswith("small: student, plain-s, 96 x 128, from @big, taught by big")
    assert "nothing was written" in last
    assert not (tmp_path / "runs").exists()
    assert {it: it.stat().st_mtime_ns for it in data_root.rglob("*")} == before


@pytest.mark.slow
def test_the_accelerators_chain_runs_to_its_end_on_a_cpu(
    painted: coco.Source, published_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage begins where the one before ended, is taught by all that are larger, and can be exported."""
    crop_cache.build(painted, tmp_path / "crops" / "coco_train2017", size=(348, 464))
    shutil.copytree(published_bundle, tmp_path / "bundles" / "tinypose-256")
    monkeypatch.chdir(tmp_path)
    chain_ = Path(recipe.__file__).parents[1] / "recipes" / "accelerator.toml"
    answer = run("distill", chain_, "--data", ".", "--out", "runs", "--dry-run", "--device", "cpu")
    *stages, last = answer.stdout.splitlines()
    assert [it.partition(":")[0] for it in stages] == [it.name for it in chain.load(chain_)]
    assert "nothing was written" in last
    assert not (tmp_path / "runs").exists()
    assert "canvases of" not in answer.stderr
    for line in answer.stderr.splitlines():
        if "tensors begin" in line:
            done, _, every = line.partition(": ")[2].split(" ")[:3]
            assert done == every


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
    teachers = (Teacher("t", "checkpoint", "t"), Teacher("a", "checkpoint", "a"))
    full = Losses(
        teachers=teachers,
        regression=0.5,
        dense=0.5,
        dense_form="squared",
        drop=True,
        binarize=0.1,
        self_distillation=0.2,
        features=0.5,
    )
    rows = ablation_rows.ladder(full)
    assert list(rows) == list(ablation_rows.ROWS)
    assert rows["dskd"] == full
    assert [g.name for g in rows["minus-assistants"].teachers] == ["t"]
    assert rows["plain"].teachers == ()
    assert rows["plain"].regression == 1
    assert [g.name for g in rows["teacher"].teachers] == ["t"]
    assert [g.name for g in rows["chain"].teachers] == ["a"]
    assert (rows["dense"].drop, rows["drop"].drop) == (False, True)
    assert (rows["drop"].binarize, rows["binarize"].binarize) == (0, 0.1)
    assert (rows["binarize"].classification, rows["classify"].classification) == (0, 1)
    assert rows["classify"].self_distillation == 0
    for row, parts in {
        "minus-assistants": {"teachers", "drop"}, "minus-drop": {"drop"}, "minus-binarize": {"binarize"},
        "minus-classify": {"classification"}, "minus-self-distillation": {"self_distillation"},
    }.items():  # fmt: skip
        assert {f.name for f in fields(Losses) if getattr(rows[row], f.name) != getattr(full, f.name)} == parts


@pytest.mark.slow
def test_an_ablation_trains_scores_and_tabulates_and_resumes(
    painted: coco.Source, data_root: Path, tmp_path: Path
) -> None:
    teacher = take(PoseStandIn(), tmp_path / "pose")
    (tmp_path / "ablation.toml").write_text(
        f"""
[[evaluation_sets]]
name = "painted"
annotations = "annotations.json"
images = "images"
{HEADER}
[defaults.losses]
regression = 0.5
dense = 0.5
dense_form = "squared"
teachers = [
    {{ name = "t", kind = "bundle", path = "{teacher}" }},
    {{ name = "a", kind = "bundle", path = "{teacher}", flip = true }},
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
        assert bool(trained.recipe.losses.teachers) == (row == "dskd")


def asked(teacher: str) -> ablate.Ablation:
    """Two teachers that are one file, and two phases."""
    teachers = [{"name": name, "kind": "bundle", "path": teacher, "flip": name == "a"} for name in "ta"]
    plan = tiny_recipe(
        losses={"regression": 0.5, "dense": 0.5, "dense_form": "squared", "teachers": teachers},
        phases=[{"steps": steps, "batch": 2, "size": [96, 128]} for steps in (6, 3)],
    )
    return ablate.Ablation((plan,), (ablate.EvaluationSet("painted", "annotations.json", "images"),), minutes=2)


@pytest.mark.parametrize(("step_s", "steps"), [(10.0, [6, 3]), (20.0, [4, 2]), (1e6, [1, 1])])
def test_minutes_bound_a_run_once_and_for_all(data_root: Path, tmp_path: Path, step_s: float, steps: list[int]) -> None:
    given = asked("none")
    first = ablate.bounded(given, tmp_path, lambda plan, folder: step_s)
    assert [it.steps for it in first.plans[0].phases] == steps
    later = ablate.bounded(given, tmp_path, lambda plan, folder: pytest.fail("timed again"))
    assert later == first
    assert (
        ablate.bounded(replace(given, minutes=0), tmp_path, lambda plan, folder: pytest.fail("timed")).plans
        == given.plans
    )


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on_as_if_nothing_had_happened(data_root: Path, tmp_path: Path) -> None:
    """Killed in the middle of a run, and once more behind it, before it was scored."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = ["plain", "dskd"], [0], [], True
    ablation = asked(str(take(PoseStandIn(), tmp_path / "pose")))

    def train(plan: recipe.Recipe, folder: Path) -> checkpoint.Checkpoint:
        return train_recipe(plan, data_root, folder, asked="cpu")

    expected = ablate.run(ablation, data_root, whole, train, *arguments)
    for until in (4, 9):

        def killed(plan: recipe.Recipe, folder: Path, until: int = until) -> checkpoint.Checkpoint:
            train_recipe(plan, data_root, folder, until, asked="cpu")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ablate.run(ablation, data_root, parts, killed, *arguments)
    assert ablate.run(ablation, data_root, parts, train, *arguments) == expected
    for run_ in ("tiny-plain-0", "tiny-dskd-0"):
        one, other = (checkpoint.load(it / run_ / "last.pt").ema for it in (whole, parts))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_ablation_without_assistants_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        f'[[evaluation_sets]]\nname = "p"\nannotations = "a"\nimages = "i"\n{HEADER}\n[[students]]\nname = "tiny"\n'
    )
    with pytest.raises(RecipeError, match="a teacher and an assistant"):
        ablate.load(tmp_path / "a.toml")
    assert Losses().dense == 0
