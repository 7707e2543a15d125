"""A training records its origins when it starts, so that its export needs no other file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.pose import bundle
from tests.training.conftest import tiny_recipe
from tests.training.export.test_to_onnx import fresh
from training.data import coco, crop_cache, image_record
from training.data.image_record import PictureRecord
from training.distillation.pose_task import PoseTask
from training.engine import checkpoint, lineage, loop
from training.engine.checkpoint import Checkpoint, Lineage
from training.evaluation.report import subject
from training.export import to_onnx
from training.recipe import recipe
from training.recipe.losses import Teacher

CPU = torch.device("cpu")
LITE0 = {"kind": "pose", "backbone": "lite0-stride16-narrow", "decoder_width": 16, "input_size": [96, 128]}
IMPORTED = {"imported_from": "poses.onnx", "origin": "PaddleDetection", "licence": "Apache-2.0", "imported_sha256": "0"}


def train(plan: recipe.Recipe, root: Path, run: Path) -> Checkpoint:
    return loop.fit(plan, PoseTask(plan, root, CPU, run), run, CPU, until=1)


@pytest.fixture
def stages(painted: coco.Source, tmp_path: Path) -> tuple[Path, Path]:
    """Data folder and runs: ``first`` trained with half of the painted people, ``second`` continues with all."""
    for name, skip in (("odd", 2), ("all", 0)):
        crop_cache.build(painted, tmp_path / "data" / name, skip=skip)
    runs = tmp_path / "runs"
    data = [{"name": "odd people", "path": "odd", "share": 1}]
    train(tiny_recipe(name="first", data=data), tmp_path / "data", runs / "first")
    data = [{"name": "all people", "path": "all", "share": 1}]
    train(tiny_recipe(name="second", data=data, init_from="@first"), tmp_path / "data", runs / "second")
    return tmp_path / "data", runs


def test_an_export_needs_only_the_checkpoint(
    stages: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, runs = stages
    first = checkpoint.load(runs / "first" / "last.pt")
    shutil.move(runs / "second" / "last.pt", tmp_path / "kept.pt")
    shutil.rmtree(runs)
    shutil.rmtree(data)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = to_onnx.export(checkpoint.load(tmp_path / "kept.pt"), tmp_path / "bundle", "1").manifest.trained_by
    assert made["data"] == ["all people", "odd people"]
    digest = recipe.digest(first.recipe)
    assert made["started_from"] == [{"recipe": "first", "recipe_sha256": digest, "steps": 1}]
    assert made["pictures"]["count"] == 6
    assert made["pictures"]["unrecorded"] == []


def test_the_pictures_of_earlier_stages_are_recorded_too(stages: tuple[Path, Path], painted: coco.Source) -> None:
    _, runs = stages
    learned = checkpoint.load(runs / "first" / "last.pt").lineage
    odd = sorted(image_record.picture_id(painted.images / f"{i}.png") for i in (1, 3, 5))
    assert learned.pictures.ids.tolist() == odd
    plan = tiny_recipe(name="third", init_from="@second")
    third = lineage.at_start(plan, runs / "third", PictureRecord.of([7]), ())
    assert third.pictures.ids.tolist() == sorted([7, *(image_record.picture_id(it) for it in painted.images.iterdir())])
    assert [it["recipe"] for it in third.started_from] == ["second", "first"]


def test_a_resumed_training_keeps_its_recorded_lineage(stages: tuple[Path, Path]) -> None:
    data, runs = stages
    before = checkpoint.load(runs / "second" / "last.pt")
    shutil.rmtree(runs / "first")
    plan = before.recipe
    after = loop.fit(plan, PoseTask(plan, data, CPU, runs / "second"), runs / "second", CPU).lineage
    assert (after.started_from, after.data) == (before.lineage.started_from, before.lineage.data)
    np.testing.assert_array_equal(after.pictures.ids, before.lineage.pictures.ids)


def imported(path: Path, **network: object) -> bundle.Bundle:
    """A bundle marked as imported."""
    made = to_onnx.export(fresh(network={**LITE0, **network}, name="theirs"), path, "3")
    return bundle.write(path, made.manifest.model_copy(update={"trained_by": IMPORTED}), made.onnx, made.card)


def test_the_card_names_an_imported_start_and_its_licence(tmp_path: Path) -> None:
    imported(tmp_path / "theirs")
    plan = tiny_recipe(init_from=str(tmp_path / "theirs"))
    line = lineage.at_start(plan, tmp_path / "run", PictureRecord.of([7]), ("theirs",))
    assert line.pictures.unrecorded == ("theirs 3 (PaddleDetection)",)
    state = fresh()
    made = to_onnx.export(replace(state, lineage=line), tmp_path / "ours", "1")
    assert made.manifest.trained_by["started_from"] == [{"imported": "theirs", **IMPORTED}]
    assert "The training pictures of these are not recorded: theirs 3 (PaddleDetection)." in made.card
    assert "It began with the weights of PaddleDetection (Apache-2.0), imported from `poses.onnx`" in made.card
    assert subject.read(tmp_path / "ours").facts["started from"] == "theirs, imported"
    again = lineage.of_bundle(made.manifest)
    assert [it.get("imported", it.get("recipe")) for it in again.started_from] == ["tiny", "theirs"]


def test_teachers_are_named_by_their_origin(tmp_path: Path) -> None:
    imported(tmp_path / "theirs")
    to_onnx.export(fresh(name="mine"), tmp_path / "mine", "1")
    teachers = [Teacher("a", "bundle", "theirs"), Teacher("b", "bundle", "mine"),
              Teacher("c", "checkpoint", "x"), Teacher("d", "bundle", "y", origin="somebody"),
              Teacher("f", "bundle", "gone")]  # fmt: skip
    assert [lineage.teacher_name(it, tmp_path / it.path) for it in teachers] == [
        "PaddleDetection (Apache-2.0)",
        "b, trained by this project",
        "c, trained by this project",
        "somebody",
        "f, a bundle whose origin the recipe does not state",
    ]


def test_the_weights_of_a_starting_bundle_are_recorded_when_the_network_becomes_smaller() -> None:
    line = Lineage(start={"a": torch.zeros(2)})
    plan = tiny_recipe(init_from="@before")
    assert lineage.with_weights(line, plan, Path("run"), {"a": torch.ones(2)}) is line
    smaller = lineage.with_weights(line, plan, Path("run"), {"a": torch.ones(1)})
    assert torch.equal(smaller.start["a"], torch.ones(1))
    assert lineage.with_weights(Lineage(), plan, Path("run"), {"a": torch.ones(1)}).start == {}


def test_a_manifest_holds_the_resolved_recipe_and_its_hash(tmp_path: Path) -> None:
    state = fresh()
    to_onnx.export(state, tmp_path / "bundle", "1", padding=1.1)
    made = bundle.read(tmp_path / "bundle").manifest.trained_by
    assert recipe.parse(made["recipe"], "manifest") == state.recipe
    assert recipe.digest_of(made["recipe"]) == made["recipe_sha256"] == recipe.digest(state.recipe)
