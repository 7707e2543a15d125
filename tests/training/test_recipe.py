"""Recipes are strict and say what is wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import service
from service.pose import bundle
from training import ablate, chain, recipe
from training.recipe import RecipeError

STUDENT = Path(__file__).parent / "two-phases.toml"
SHIPPED = Path(recipe.__file__).parent / "recipes"
RECIPES = sorted(SHIPPED.glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_survive_a_round_trip(path: Path) -> None:
    plans = (
        ablate.load(path).plans
        if path.stem.startswith("ablation") and path.stem != "ablation-start"
        else chain.load(path)
    )
    for plan in plans:
        again = recipe.parse(recipe.dump(plan), "dump")
        assert again == plan
        assert recipe.digest(again) == recipe.digest(plan)
        assert plan.phases[-1].size == plan.network.input_size


def test_the_digest_names_what_a_recipe_says_not_how_many_keys_there_are() -> None:
    """A key that is left at its default, whether written or not and however new, changes nothing."""
    plan = recipe.load(STUDENT)
    assert recipe.digest(recipe.load(STUDENT, ("losses.past=0.0", f"seed={plan.seed}"))) == recipe.digest(plan)
    assert recipe.digest(recipe.load(STUDENT, ("losses.past=0.1",))) != recipe.digest(plan)


def test_overrides_reach_every_depth() -> None:
    plan = recipe.load(STUDENT, ("optimiser.lr=0.5", "phases.0.steps=7", "name=mine", "phases.0.size=[64, 96]"))
    assert (plan.optimiser.lr, plan.phases[0].steps, plan.name, plan.phases[0].size) == (0.5, 7, "mine", (64, 96))
    assert recipe.digest(plan) != recipe.digest(recipe.load(STUDENT))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.speed=1", "optimiser.speed"),
        ("phases.0.steps=many", "phases.0.steps"),
        ("phases.9.steps=1", "no such place"),
        ("lr", "expected key=value"),
        ("role=boss", "role"),
        ("role=finder", "role finder for a finder network"),
        ("network.backbone=nope", "network.backbone"),
        ("phases=[]", "phases"),
        ("phases.0.batch=0", "phases.0.batch"),
        ("optimiser.lr=nan", "optimiser.lr"),
        ("phases.0.size=[100, 140]", "multiples of"),
        ("network.input_size=[96, 128]", "expected the last phase at network.input_size"),
        ("name=Capital Letters", "name"),
        ("name.x.y=1", "no such place"),
        ("losses.dense=1", "expected guides where dense is positive"),
        ("losses.classification=0", "expected a positive weight"),
        ("losses.drop=true", "at least two guides"),
        ("network.temperature=0", "network.temperature"),
        ("losses.joint_weights=[1.0, 2.0]", "expected 17, one for each keypoint of 'coco17', or none, got 2"),
    ],
)
def test_a_wrong_key_or_value_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(STUDENT, (override,))


def test_a_missing_file_and_bad_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.toml"):
        recipe.load(tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        recipe.load(tmp_path / "bad.toml")


def test_phases_follow_each_other() -> None:
    plan = recipe.load(STUDENT)
    assert plan.phase_at(0) is plan.phases[0]
    assert plan.phase_at(plan.phases[0].steps) is plan.phases[1]
    assert plan.phase_at(plan.steps - 1) is plan.phases[-1]
    with pytest.raises(IndexError):
        plan.phase_at(plan.steps)


@pytest.mark.parametrize("name", ["student-s", "student-t", "teacher", "finder"])
def test_shipped_bundles_name_the_recipes_that_made_them(name: str) -> None:
    models = Path(service.__file__).parent / "models"
    plan = recipe.load(SHIPPED / f"{name}.toml")
    made = bundle.read(models / name).manifest.trained_by
    plan = replace(plan, losses=replace(plan.losses, guides=_named_as_then(plan, made["recipe"])))
    assert made["recipe_sha256"] == recipe.digest(plan)


def _named_as_then(plan: recipe.Recipe, made: dict[str, Any]) -> tuple[recipe.Guide, ...]:
    """A recipe's guides; one that was an ONNX file then, which is a bundle of that file now, as it was then."""
    then = [recipe.Guide(**it) for it in made["losses"]["guides"]]
    return tuple(
        old if (old.name, old.kind) == (now.name, "tinypose") else now
        for now, old in zip(plan.losses.guides, then, strict=True)
    )
