"""Which of the usual layouts a file or folder is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from service.pose.skeleton import Skeleton
from training.coco import DatasetError
from training.datasets import coco_json, lsp, yolo
from training.datasets.labelled import LabelledSet

EXPECTED = "a COCO json, or a folder with annotations/*.json, a data.yaml of YOLO pose, or LSP's joints.mat"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a labelled set lies.

    Attributes:
        data: A file, or a folder of one of the layouts.
        images: Folder of the pictures; None looks in the usual places.
        split: Of a YOLO set; None for all.
        third: Meaning of a 1 in the third row of a ``joints.mat``; None goes by its shape.
    """

    data: Path
    images: Path | None = None
    split: str | None = None
    third: lsp.Third | None = None


def read(place: Place, skeleton: Skeleton | None = None) -> LabelledSet:
    """Read a set in whatever layout it is, and look at its pictures.

    Raises:
        DatasetError: None of the layouts, several files to choose from, or see the readers.
    """
    path = _labels(place.data)
    if path.suffix in {".yaml", ".yml"}:
        return yolo.read(path, place.split, skeleton)
    if place.split:
        raise DatasetError(f"{path}: expected a YOLO set with --split, got none; leave --split out, or name the json")
    if path.suffix == ".mat":
        return lsp.read(path, place.images or path.parent / "images", skeleton, place.third)
    return coco_json.read(path, place.images or _images_of(path), skeleton)


def _labels(data: Path) -> Path:
    """The file that holds a set's labels, or leads to them."""
    if data.is_file():
        if data.suffix.lower() not in {".json", ".yaml", ".yml", ".mat"}:
            raise DatasetError(f"{data}: expected {EXPECTED}, got a {data.suffix or 'nameless'} file")
        return data
    if not data.is_dir():
        raise DatasetError(f"{data}: expected {EXPECTED}, got nothing there")
    jsons = [*sorted((data / "annotations").glob("*.json")), *sorted(data.glob("*.json"))]
    named = [it for it in jsons if "keypoint" in it.name]
    yamls = [it for suffix in ("yaml", "yml") for it in sorted(data.glob(f"*.{suffix}"))]
    for found in (named, jsons, [it for it in yamls if "kpt_shape" in it.read_text()] or yamls, [data / "joints.mat"]):
        if len(found) > 1:
            raise DatasetError(
                f"{data}: expected one file of labels, got {', '.join(map(str, found))}; name one of them"
            )
        if found and found[0].is_file():
            return found[0]
    raise DatasetError(f"{data}: expected {EXPECTED}, got none of them")


def _images_of(path: Path) -> Path:
    """The folder of a COCO file's pictures: where its first one is."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    part = path.stem.rpartition("_")[2]
    places = [root / "images" / part, root / part, root / "images", root]
    try:
        name = json.loads(path.read_text())["images"][0]["file_name"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return places[2]  # the reader says what is wrong with the file
    for place in places:
        if (place / str(name)).is_file():
            return place
    raise DatasetError(
        f"{path}: expected its picture {name} in one of {', '.join(map(str, places))}, got it in none; give --images"
    )
