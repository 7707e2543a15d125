"""COCO-format annotation files, read by pycocotools. `formats.check` explains in detail what is wrong with a file."""

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
"""Assumed area of a person as a share of the box where the file gives none: the mean over COCO's people."""


class DatasetError(ValueError):
    """A labelled data set cannot be read; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of pictures and its COCO annotation file.

    Attributes:
        name: Short name, for logs and model cards.
        annotations: The COCO JSON file.
        images: Folder of the pictures.
    """

    name: str
    annotations: Path
    images: Path


def optional_source(annotations: Path | None, images: Path | None) -> Source | None:
    """Return a source if both paths are given, None if neither is.

    Raises:
        DatasetError: Only one of the two is given.
    """
    if annotations is None and images is None:
        return None
    if annotations is None or images is None:
        raise DatasetError("expected --annotations and --images together, got one; give both, or none")
    return Source(annotations.stem, annotations, images)


def picture_path(folder: Path, name: str) -> Path:
    """Return the path of a labelled picture; a name with back-slashes, as Windows tools write it, is accepted."""
    path = folder / name
    return path if "\\" not in name or path.exists() else folder / name.replace("\\", "/")


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def without_unlabelled(keypoints: list[Any]) -> list[Any]:
    """Replace coordinates of unlabelled keypoints that are not numbers (NaN, null) by 0.

    Args:
        keypoints: x, y, v of each keypoint.
    """
    cleaned = list(keypoints)
    for k in range(2, len(cleaned), 3):
        if is_number(cleaned[k]) and cleaned[k] == 0:
            cleaned[k - 2 : k] = [it if is_number(it) or isinstance(it, str) else 0 for it in cleaned[k - 2 : k]]
    return cleaned


def load(annotations: Path) -> COCO:
    """Read a COCO file without pycocotools' console output.

    Fields that pycocotools needs and that many tools omit are filled in: ``iscrowd`` (0), ``area`` (`AREA_SHARE` of
    the box), ``num_keypoints`` (counted) and the category.

    Raises:
        DatasetError: The file is missing, is not COCO JSON, or has ids that are not integers.
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
            f"{annotations}: expected COCO JSON, got {type(error).__name__}: {error}; posewright-train check says why"
        ) from error
    if not all(isinstance(it, int) for it in [*data.imgs, *data.anns]):
        raise DatasetError(
            f"{annotations}: expected integer ids of pictures and people, got others; posewright-train "
            "convert renumbers them"
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
    """Normalise a keypoint name for comparison: lower case, words joined by underscores."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def require_skeleton(data: COCO, annotations: Path, skeleton: Skeleton) -> None:
    """Refuse labels of another skeleton.

    Raises:
        DatasetError: ``categories`` names other keypoints, or a person has another count of numbers.
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


def picture_ids(data: COCO, every: int = 1, *, complete: bool = False) -> list[int]:
    """Return the ids of a file's pictures in ascending order.

    Args:
        data: The file.
        every: Keep only ids that are divisible by this.
        complete: Keep only pictures whose people are all labelled (``official_complete`` is not false).
    """
    chosen = [i for i in sorted(data.imgs) if i % every == 0]
    return [i for i in chosen if data.imgs[i].get("official_complete", True)] if complete else chosen


def people(
    data: COCO,
    image_id: int,
    *,
    with_keypoints: bool = False,
    min_box: tuple[float, float] = (0, 0),
    with_crowds: bool = False,
) -> list[dict[str, Any]]:
    """Return the annotations of a picture's people in the file's order.

    Args:
        data: The file.
        image_id: The picture.
        with_keypoints: Keep only people with a labelled keypoint.
        min_box: Keep only people whose box has at least this (width, height) in px.
        with_crowds: Keep regions that are marked as crowds too.
    """
    return [
        it
        for it in data.imgToAnns[image_id]
        if (with_crowds or not it.get("iscrowd"))
        and (not with_keypoints or it.get("num_keypoints"))
        and it["bbox"][2] >= min_box[0]
        and it["bbox"][3] >= min_box[1]
    ]


def crowds(data: COCO, image_id: int) -> list[dict[str, Any]]:
    """Return the annotations of a picture's crowd regions."""
    return [it for it in data.imgToAnns[image_id] if it.get("iscrowd")]


def labelled_joints(people: list[dict], skeleton: Skeleton) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Read the labels of N annotations.

    Returns:
        Joints float32 (N, K, 2) in image px, whether each is labelled bool (N, K), and areas float32 (N,) in px².
    """
    joints = np.array([a["keypoints"] for a in people], np.float32).reshape(len(people), len(skeleton), 3)
    return joints[..., :2], joints[..., 2] > 0, np.array([a["area"] for a in people], np.float32)
