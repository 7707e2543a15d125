"""Skeletons of COCO categories in JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.pose.skeleton import COCO17
from training.data import known_skeletons
from training.recipe.skeletons import SkeletonError

HAND: dict[str, Any] = {
    "name": "Hand",
    "keypoints": ["wrist", "left_tip", "right_tip"],
    "skeleton": [[1, 2], [1, 3]],
}


def written(folder: Path, tree: object) -> Path:
    path = folder / "skeleton.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], lambda it: {"categories": [{"id": 2}, it]}])
def test_a_category_a_list_and_a_data_set_give_the_skeleton(tmp_path: Path, wrap: Any) -> None:
    found = known_skeletons.find(written(tmp_path, wrap(HAND)))
    assert found.name == "hand-3"
    assert found.keypoints == ("wrist", "left_tip", "right_tip")
    assert found.edges == ((0, 1), (0, 2))
    assert found.flip == (0, 2, 1)
    assert found.sigmas == (0.072, 0.072, 0.072)


def test_flip_pairs_and_sigmas_may_be_given(tmp_path: Path) -> None:
    listed = known_skeletons.find(written(tmp_path, HAND | {"flip_pairs": [], "sigmas": [0.05, 0.03, 0.02]}))
    assert (listed.flip, listed.sigmas) == ((0, 1, 2), (0.05, 0.03, 0.02))
    named = known_skeletons.find(written(tmp_path, HAND | {"sigmas": {"wrist": 0.05}}))
    assert named.sigmas == (0.05, 0.072, 0.072)


def test_cocos_own_category_is_cocos_skeleton(tmp_path: Path) -> None:
    coco = {
        "name": "person",
        "keypoints": list(COCO17.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO17.edges],
    }
    assert known_skeletons.find(written(tmp_path, {"categories": [coco]})) == COCO17
    other = known_skeletons.find(written(tmp_path, coco | {"sigmas": [0.1] * 17}))
    assert (other.name, other.keypoints, other.sigmas) == ("person-17", COCO17.keypoints, (0.1,) * 17)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "x"}, "expected one category with `keypoints`, got none"),
        ([HAND, HAND | {"name": "Foot", "keypoints": ["heel"]}], "got 'Hand', 'Foot'"),
        (HAND | {"keypoints": [1, 2]}, "keypoints: expected a list of names"),
        (HAND | {"sigmas": [0.1]}, "sigmas: expected 3 numbers, one per keypoint, got 1"),
        (HAND | {"flip_pairs": [["left_tip", "tail"]]}, "expected one of wrist, left_tip, right_tip, got 'tail'"),
        (HAND | {"skeleton": [[1, 9]]}, "edges must name keypoints"),
    ],
)
def test_faults_are_named(tmp_path: Path, tree: object, message: str) -> None:
    with pytest.raises(SkeletonError, match=r"skeleton\.json") as caught:
        known_skeletons.find(written(tmp_path, tree))
    assert message in str(caught.value)


def test_a_file_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SkeletonError, match="expected a skeleton's JSON"):
        known_skeletons.find(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(SkeletonError, match="not valid JSON"):
        known_skeletons.find(tmp_path / "x.json")
