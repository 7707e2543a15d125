"""The skeleton of a COCO category in a JSON file of its own, or in a data set.

    {"name": "hand", "keypoints": ["wrist", "left_tip", "right_tip"], "skeleton": [[1, 2], [1, 3]],
     "flip_pairs": [["left_tip", "right_tip"]], "sigmas": [0.05, 0.03, 0.03]}

``flip_pairs`` and ``sigmas`` are additions to COCO's keys. Without the first, ``left_X`` and ``right_X`` are partners;
without the second, keypoints have COCO's sigmas by name, and 0.072 otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.pose.skeleton import COCO17, Skeleton
from training.data.formats.coco_categories import edges_of
from training.data.formats.labelled_set import infer_skeleton
from training.files import read_text
from training.recipe import skeletons
from training.recipe.skeletons import SkeletonError


def load(path: Path) -> Skeleton:
    """Read the skeleton of a JSON file: a category, a list of categories, or a data set with ``categories``.

    Raises:
        SkeletonError: The file is missing, is not JSON, or has not exactly one skeleton.
    """
    try:
        tree = json.loads(read_text(path))
    except OSError as error:
        raise SkeletonError(f"{path}: expected a skeleton's JSON, got {error.strerror}") from error
    except ValueError as error:
        raise SkeletonError(f"{path}: not valid JSON: {error}") from error
    found = tree.get("categories", [tree]) if isinstance(tree, dict) else tree
    named = [it for it in found if isinstance(it, dict) and it.get("keypoints")] if isinstance(found, list) else []
    if not named or any(it["keypoints"] != named[0]["keypoints"] for it in named):
        names = ", ".join(repr(it.get("name")) for it in named) or "none"
        raise SkeletonError(
            f"{path}: expected one category with `keypoints`, got {names}; give a file with the category alone"
        )
    return _parse(named[0], path)


def _parse(category: dict[str, Any], path: Path) -> Skeleton:
    names = category["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SkeletonError(f"{path}: keypoints: expected a list of names, got {names!r}")
    try:
        plain = infer_skeleton(names, len(names), str(category.get("name") or path.stem), edges_of(category))
    except (ValueError, TypeError) as error:
        raise SkeletonError(f"{path}: {error}") from error
    wanted = plain.keypoints
    own = {"flip_pairs", "sigmas"} & category.keys()
    if plain == COCO17 and not own:
        return plain
    tree: dict[str, Any] = {"name": "person-17" if plain == COCO17 else plain.name, "keypoints": list(wanted)}
    tree["edges"] = [[wanted[a], wanted[b]] for a, b in plain.edges]
    if "flip_pairs" in category:
        tree["flip"] = category["flip_pairs"]
    if "sigmas" in category:
        tree["sigmas"] = _sigmas(category["sigmas"], wanted, path)
    else:
        tree["sigmas"] = dict(zip(wanted, plain.sigmas, strict=True))
    return skeletons.parse(tree, str(path))


def _sigmas(given: Any, names: tuple[str, ...], path: Path) -> Any:
    if not isinstance(given, list):
        return given
    if len(given) != len(names):
        raise SkeletonError(f"{path}: sigmas: expected {len(names)} numbers, one per keypoint, got {len(given)}")
    return dict(zip(names, given, strict=True))
