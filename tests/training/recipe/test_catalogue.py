"""Recipes name data sets and teachers; what is trained describes them in full."""

from typing import Any

import pytest

from tests.training.conftest import tiny_recipe
from training.recipe import catalogue, recipe
from training.recipe.errors import RecipeError

POSE = {"kind": "pose", "backbone": "plain-s", "input_size": [96, 128]}
DETECTOR = {"kind": "detector", "backbone": "plain-s", "input_size": [96, 128]}


def test_a_pose_network_reads_the_crop_cache_of_a_set_and_a_detector_its_labels() -> None:
    (crops,) = tiny_recipe(network=POSE, data=[{"set": "coco-fresh", "share": 0.5}]).data
    assert (crops.path, crops.images, crops.share) == ("crops/coco_fresh", "", 0.5)
    (labels,) = tiny_recipe("detector", network=DETECTOR, data=[{"set": "coco-fresh"}]).data
    assert (labels.path, labels.images, labels.share) == ("coco_fresh/annotations.json", "coco_fresh/images", 1)
    for source in (crops, labels):
        assert source.name == "COCO train2017 (864 pictures)"
        assert "cocodataset.org" in source.origin
        assert "CC BY 4.0" in source.terms


def test_keys_beside_a_name_replace_those_of_the_description() -> None:
    plan = tiny_recipe(
        network=POSE,
        data=[{"set": "lspet", "path": "mine/lspet", "labels": False}],
        losses={"dense": 1.0, "teachers": [{"teacher": "tinypose", "cached": False, "path": "elsewhere"}]},
    )
    assert (plan.data[0].path, plan.data[0].labels) == ("mine/lspet", False)
    (teacher,) = plan.losses.teachers
    assert (teacher.name, teacher.kind, teacher.path, teacher.cached) == ("tinypose", "bundle", "elsewhere", False)
    assert "Apache-2.0" in teacher.origin


def test_a_named_set_is_the_same_recipe_as_one_written_in_full() -> None:
    named = tiny_recipe(data=[{"set": "coco-full", "share": 2}])
    written = tiny_recipe(data=[recipe.dump(named)["data"][0]])
    assert written == named
    assert recipe.digest(written) == recipe.digest(named)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [{"set": "coco-ful"}]}, r"test: data.0.set: expected one of coco-train2017, .*, got 'coco-ful'"),
        (
            {"losses": {"dense": 1, "teachers": [{"teacher": "tiny"}]}},
            r"losses.teachers.0.teacher: expected one of tinypose, .*, got 'tiny'",
        ),
        ({"data": [{"set": "coco-full-training"}]}, r"data.0.set: expected a set with a crop cache, got 'coco-full-tr"),
        ({"data": [{"set": "coco-full", "speed": 1}]}, r"data.0.speed: unknown key"),
        ({"data": "coco-full"}, r"data: Input should be a valid tuple"),
        ({"data": ["coco-full"]}, r"data.0: "),
        ({"data": [{"set": ["coco-full"]}]}, r"data.0.set: expected one of .*, got \['coco-full'\]"),
    ],
    ids=["set", "teacher", "no crops", "key", "no list", "no table", "no name"],
)
def test_what_is_not_described_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(**changes)


def test_every_set_says_what_it_is_where_it_comes_from_and_under_which_terms() -> None:
    assert len(catalogue.data_sets()) >= 9
    for name, described in catalogue.data_sets().items():
        assert {"name", "origin", "terms"} <= set(described), name
        assert set(described) <= {"name", "origin", "terms", "crops", "annotations", "images"}, name
        assert ("annotations" in described) == ("images" in described), name
        assert "crops" in described or "annotations" in described, name
