"""COCO-format annotation files, read by pycocotools. `datasets.check` says in detail what is wrong with one."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from service.pose.skeleton import Skeleton
from service.pose.types import Floats
from training.files import read_text

AREA_SHARE = 0.53
"""Area of a person as a share of the box, where nobody measured it: the mean of COCO's people."""


class DatasetError(ValueError):
    """A labelled data set cannot be read; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of pictures with a COCO annotation file.

    Attributes:
        name: Short name; model cards list it.
        annotations: The COCO json.
        images: Folder of the pictures.
    """

    name: str
    annotations: Path
    images: Path


def optional_source(annotations: Path | None, images: Path | None) -> Source | None:
    """A source of both, or None of neither.

    Raises:
        DatasetError: One without the other.
    """
    if annotations is None and images is None:
        return None
    if annotations is None or images is None:
        raise DatasetError("expected --annotations and --images together, got one; give both, or none")
    return Source(annotations.stem, annotations, images)


def picture_path(folder: Path, name: str) -> Path:
    """Return where a labelled picture lies; tools on Windows write its name with back-slashes."""
    path = folder / name
    return path if "\\" not in name or path.exists() else folder / name.replace("\\", "/")


def is_number(value: Any) -> bool:
    """Tell whether a value of a json is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def without_unlabelled(keypoints: list[Any]) -> list[Any]:
    """Put 0, 0 in place of whatever coordinates a keypoint has that is not labelled, where these are no numbers.

    Args:
        keypoints: x, y, v of each keypoint; NaN and null are what tools write for the unknown.
    """
    cleaned = list(keypoints)
    for k in range(2, len(cleaned), 3):
        if is_number(cleaned[k]) and cleaned[k] == 0:
            cleaned[k - 2 : k] = [it if is_number(it) or isinstance(it, str) else 0 for it in cleaned[k - 2 : k]]
    return cleaned


def load(annotations: Path) -> COCO:
    """Read a COCO file without pycocotools' chatter.

    What pycocotools needs and many tools leave out is put in: ``iscrowd`` 0, ``area`` as `AREA_SHARE` of the box,
    ``num_keypoints`` as they are, one category.

    Raises:
        DatasetError: The file is missing, is not COCO json, or its ids are no whole numbers.
    """
    if not annotations.is_file():
        raise DatasetError(f"{annotations}: expected a COCO annotation file, got nothing there; check --annotations")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            data = COCO()
            data.dataset = json.loads(read_text(annotations))
            assert isinstance(data.dataset, dict), f"a {type(data.dataset).__name__} instead of an object"
            data.createIndex()
        for person in data.anns.values():
            _complete(person)
    except (ValueError, KeyError, AssertionError, TypeError, IndexError) as error:
        raise DatasetError(
            f"{annotations}: expected COCO json, got {type(error).__name__}: {error}; posewright-train check says more"
        ) from error
    if not all(isinstance(it, int) for it in [*data.imgs, *data.anns]):
        raise DatasetError(
            f"{annotations}: expected whole numbers as ids of pictures and people, got others; posewright-train "
            "convert numbers them"
        )
    if not data.cats:
        data.cats[1] = {"id": 1, "name": "person"}
        data.dataset["categories"] = [data.cats[1]]
    return data


def _complete(person: dict) -> None:
    if not is_number(person.get("area")):
        person["area"] = AREA_SHARE * person["bbox"][2] * person["bbox"][3]
    person["iscrowd"] = person.get("iscrowd") or 0
    if isinstance(person.get("keypoints"), list):
        person["keypoints"] = without_unlabelled(person["keypoints"])
    if person.get("num_keypoints") is None:
        person["num_keypoints"] = sum(v > 0 for v in (person.get("keypoints") or [])[2::3])


def same_name(name: object) -> str:
    """A keypoint's name as tools agree on it: lower case, words joined by underscores."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def require_skeleton(data: COCO, annotations: Path, skeleton: Skeleton) -> None:
    """Refuse labels of another skeleton: another count of numbers, or other names in ``categories``.

    Raises:
        DatasetError: They are.
    """
    for category in data.cats.values():
        names = [same_name(name) for name in category.get("keypoints") or []]
        if names and names != [same_name(name) for name in skeleton.keypoints]:
            raise DatasetError(
                f"{annotations}: expected the keypoints of {skeleton.name!r} ({', '.join(skeleton.keypoints)}), got "
                f"category {category.get('name')!r} with {len(names)}: {', '.join(names)}; give another skeleton, or "
                "correct the categories"
            )
    for person in data.anns.values():
        count = len(person.get("keypoints") or [])
        if count not in {0, 3 * len(skeleton)}:
            raise DatasetError(
                f"{annotations}: expected {3 * len(skeleton)} numbers a person for {skeleton.name!r}, got {count} in "
                f"annotation {person['id']}; give another skeleton, or correct the file"
            )


def labelled_joints(people: list[dict], skeleton: Skeleton) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Read N annotations: joints float32 (N, K, 2), image px; which are labelled (N, K); areas float32 (N,), px²."""
    joints = np.array([a["keypoints"] for a in people], np.float32).reshape(len(people), len(skeleton), 3)
    return joints[..., :2], joints[..., 2] > 0, np.array([a["area"] for a in people], np.float32)
