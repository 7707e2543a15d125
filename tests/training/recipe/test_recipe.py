"""Recipes are strict and say what is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import service
from service.pose import bundle
from tests.training.conftest import tiny_recipe
from training.evaluation import ablation
from training.recipe import chain, recipe
from training.recipe.backbones import NAMES, TRAITS
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

STUDENT = Path(__file__).parent / "two-phases.toml"
SHIPPED = Path(recipe.__file__).parents[1] / "recipes"
ROOT = Path(recipe.__file__).parents[2]
RECIPES = sorted(SHIPPED.glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_survive_a_round_trip(path: Path) -> None:
    for plan in plans_of(path):
        again = recipe.parse(recipe.dump(plan), "dump")
        assert again == plan
        assert recipe.digest(again) == recipe.digest(plan)
        assert plan.phases[-1].size == plan.network.input_size


def test_the_digest_covers_every_value_whether_written_or_a_default() -> None:
    plan = recipe.load(STUDENT)
    assert recipe.digest(recipe.load(STUDENT, ("losses.self_distillation=0.0", f"seed={plan.seed}"))) == recipe.digest(
        plan
    )
    assert recipe.digest(recipe.load(STUDENT, ("losses.self_distillation=0.1",))) != recipe.digest(plan)
    tree = json.loads(json.dumps(recipe.dump(plan)))  # as a manifest holds it
    assert recipe.digest_of(tree) == recipe.digest(plan)
    tree["optimizer"]["ema_decay"] = 0.99  # not written in the file: another version's default
    assert recipe.digest_of(tree) != recipe.digest(plan)


def test_overrides_reach_every_depth() -> None:
    plan = recipe.load(STUDENT, ("optimizer.lr=0.5", "phases.0.steps=7", "name=mine", "phases.0.size=[64, 96]"))
    assert (plan.optimizer.lr, plan.phases[0].steps, plan.name, plan.phases[0].size) == (0.5, 7, "mine", (64, 96))
    assert recipe.digest(plan) != recipe.digest(recipe.load(STUDENT))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.speed=1", "optimizer.speed"),
        ("phases.0.steps=many", "phases.0.steps"),
        ("phases.9.steps=1", "no such place"),
        ("lr", "expected key=value"),
        ("role=boss", "role"),
        ("role=detector", "role detector for a detector network"),
        ("network.backbone=nope", "network.backbone"),
        ("phases=[]", "phases"),
        ("phases.0.batch=0", "phases.0.batch"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("phases.0.size=[100, 140]", "multiples of"),
        ("network.input_size=[96, 128]", "expected the last phase at network.input_size"),
        ("name=Capital Letters", "name"),
        ("name.x.y=1", "no such place"),
        ("losses.dense=1", "expected teachers where dense is positive"),
        ("losses.classification=0", "expected a positive weight"),
        ("losses.drop=true", "at least two teachers"),
        ("network.temperature=0", "network.temperature"),
        ("losses.joint_weights=[1.0, 2.0]", "expected 17, one for each keypoint of 'coco17', or none, got 2"),
        ("data.0.set=nowhere", "data.0.set: expected one of coco-train2017, .*got 'nowhere'"),
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


def plans_of(path: Path) -> Sequence[Recipe]:
    ablates = path.stem.startswith("ablation") and path.stem != "ablation-imagenet-start"
    return ablation.load(path).plans if ablates else chain.load(path)


def test_shipped_recipes_begin_with_what_ships_what_import_makes_or_another_recipe() -> None:
    """Nobody has the checkpoints of older recipes."""
    plans = [plan for path in RECIPES for plan in plans_of(path)]
    trained = {plan.name for plan in plans}
    for plan in plans:
        for place in filter(None, (plan.init_from, *(teacher.path for teacher in plan.losses.teachers))):
            if place.startswith(("@", "runs/")):
                assert place.removeprefix("@").removeprefix("runs/").removesuffix("/last.pt") in trained, plan.name
            elif place.startswith(("service/", "models/")):
                assert (ROOT / "service" / place.removeprefix("service/") / "manifest.json").is_file(), plan.name
            else:
                assert place in {"bundles/tinypose-256", "bundles/tinypose-128", "bundles/rtmdet-nano"}, plan.name


def test_shipped_recipes_say_where_their_pictures_come_from() -> None:
    for path in RECIPES:
        for plan in plans_of(path):
            assert all(source.origin for source in plan.data), path


@pytest.mark.parametrize("name", ["student-s", "student-t", "teacher", "detector"])
def test_shipped_bundles_name_the_recipes_that_made_them(name: str) -> None:
    models = Path(service.__file__).parent / "models"
    made = bundle.read(models / name).manifest.trained_by
    plan = recipe.parse(made["recipe"], name)
    shipped = [stage for path in RECIPES if not path.stem.startswith("ablation") for stage in chain.load(path)]
    assert plan in shipped
    if "pictures" in made:  # Older exports hashed only the written keys.
        assert made["recipe_sha256"] == recipe.digest_of(made["recipe"]) == recipe.digest(plan)


@pytest.mark.parametrize(("kind", "backbone"), [("pose", "lite-hrnet"), ("detector", "rtmdet-nano")])
def test_a_network_without_imagenet_weights_has_no_blocks_to_freeze(kind: str, backbone: str) -> None:
    network = {"kind": kind, "backbone": backbone, "norms": "folded", "input_size": [96, 128]}
    phases = [{"steps": 1, "batch": 1, "size": [96, 128], "frozen_blocks": 2}]
    with pytest.raises(RecipeError, match=f"expected frozen_blocks 0 for {backbone}"):
        tiny_recipe(kind, network=network, phases=phases)


def test_every_backbone_has_traits() -> None:
    assert tuple(TRAITS) == NAMES
