"""Detection of a labelled set's layout, and reading in any layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.pose.skeleton import Skeleton
from training.data.coco import DatasetError, picture_path
from training.data.formats import coco_json, lsp, merge, yolo
from training.data.formats.labelled_set import LabelledSet
from training.files import read_text

EXPECTED = (
    "a COCO JSON file, or a folder with annotations/*.json, an export of Roboflow or FiftyOne, a data.yaml of YOLO "
    "pose, or LSP's joints.mat"
)
EXPORTS = ("_annotations.coco.json", "labels.json")
"""File names of COCO JSON in exports of Roboflow and FiftyOne."""
SPLITS = {"train": ("train",), "val": ("valid", "val", "validation"), "test": ("test",)}
"""Folders of each split in these exports."""


@dataclass(frozen=True, slots=True)
class SetLocation:
    """Location of a labelled set.

    Attributes:
        data: A file, or a folder in one of the layouts.
        images: Folder of the pictures; None searches the usual places.
        split: Split of a YOLO set or of an export with a folder for each split; None for all.
        third: Meaning of a 1 in the third row of a ``joints.mat``; None: by its shape.
        classes: Names or numbers of the classes to read; see `Classes`.
    """

    data: Path
    images: Path | None = None
    split: str | None = None
    third: lsp.Third | None = None
    classes: Sequence[str] = ()


def read(place: SetLocation, skeleton: Skeleton | None = None) -> LabelledSet:
    """Read a set in any layout, and check its pictures.

    Raises:
        DatasetError: The layout is unknown, there are several files of labels, or a reader refuses the set.
    """
    parts = _parts(place.data)
    if place.split and parts:
        parts = {name: parts[name] for name in parts if name == place.split}
        if not parts:
            raise DatasetError(f"{place.data}: expected a split {place.split}, got {', '.join(_parts(place.data))}")
    if parts:
        read_parts = [
            coco_json.read(path, place.images or _images_of(path), skeleton, place.classes) for path in parts.values()
        ]
        return merge.merge(place.data, read_parts)
    path = _labels(place.data)
    if path.suffix.lower() in {".yaml", ".yml"}:
        return yolo.read(path, place.split, skeleton, place.classes)
    if place.split:
        raise DatasetError(
            f"{path}: expected a YOLO set with --split, got none; leave out --split, or name the JSON file"
        )
    if path.suffix.lower() == ".mat":
        if place.classes:
            raise DatasetError(f"{path}: expected a set with classes for --class, got LSP's, which has none")
        return lsp.read(path, place.images or path.parent / "images", skeleton, place.third)
    return coco_json.read(path, place.images or _images_of(path), skeleton, place.classes)


def _parts(data: Path) -> dict[str, Path]:
    """Return the COCO files of an export with a folder for each split."""
    found: dict[str, Path] = {}
    for split, folders in SPLITS.items():
        files = [data / folder / name for folder in folders for name in EXPORTS]
        there = [file for file in files if file.is_file()]
        if there:
            found[split] = there[0]
    return found


def _labels(data: Path) -> Path:
    """Return the file with a set's labels, or with their location."""
    if data.is_file():
        if data.suffix.lower() not in {".json", ".yaml", ".yml", ".mat"}:
            raise DatasetError(f"{data}: expected {EXPECTED}, got a {data.suffix or 'nameless'} file")
        return data
    if not data.is_dir():
        raise DatasetError(f"{data}: expected {EXPECTED}, got nothing there")
    jsons = [*sorted((data / "annotations").glob("*.json")), *sorted(data.glob("*.json"))]
    named = [it for it in jsons if "keypoint" in it.name] or [it for it in jsons if it.name in EXPORTS]
    yamls = [it for suffix in ("yaml", "yml") for it in sorted(data.glob(f"*.{suffix}"))]
    for found in (
        named,
        jsons,
        [it for it in yamls if b"kpt_shape" in it.read_bytes()] or yamls,
        [data / "joints.mat"],
    ):
        if len(found) > 1:
            raise DatasetError(
                f"{data}: expected one file of labels, got {', '.join(map(str, found))}; name one of them"
            )
        if found and found[0].is_file():
            return found[0]
    raise DatasetError(f"{data}: expected {EXPECTED}, got none of them")


def _images_of(path: Path) -> Path:
    """Return the folder of a COCO file's pictures: the one that contains the first picture."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    part = path.stem.rpartition("_")[2]
    places = [root / "images" / part, root / part, root / "images", root / "data", root]
    try:
        name = str(json.loads(read_text(path))["images"][0]["file_name"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return places[2]  # the reader reports what is wrong with the file
    for place in places:
        if picture_path(place, name).is_file():
            return place
    raise DatasetError(
        f"{path}: expected its picture {name} in one of {', '.join(map(str, places))}, got it in none; give --images"
    )
