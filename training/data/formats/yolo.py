"""Reader of YOLO-pose labels (Ultralytics): a ``data.yaml``, a folder of pictures, a text file for each picture.

A row is ``class cx cy w h``, then ``x y`` or ``x y v`` for each keypoint. All but class and v are relative to the width
and height of the picture, turned by its EXIF orientation (docs.ultralytics.com/datasets/pose).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose.skeleton import Skeleton
from training.data.coco import DatasetError
from training.data.formats.classes import Classes
from training.data.formats.image_file import ImageFileError, read_image_file
from training.data.formats.labelled_set import (
    SHOWN,
    LabelFault,
    LabelledImage,
    LabelledPerson,
    LabelledSet,
    infer_skeleton,
)
from training.data.images import SUFFIXES
from training.files import read_text
from training.recipe import skeletons

SPLITS = ("train", "val", "test")
PATHS = re.compile(r"^\s*(?:(?:path|train|val|test)\s*:|-\s).*$", re.MULTILINE)
"""Lines of a data.yaml with paths; their back-slashes are replaced, as YAML reads them as escapes in double quotes."""
TOLERANCE = 0.01
"""Coordinates may lie this far outside of 0..1, as in Ultralytics, since tools round."""


def read(
    path: Path, split: str | None = None, skeleton: Skeleton | None = None, wanted: Sequence[str] = ()
) -> LabelledSet:
    """Read a set and check its pictures.

    Args:
        path: The ``data.yaml``.
        split: ``train``, ``val`` or ``test``; None reads all of them.
        skeleton: Skeleton that it labels; None: as the file describes it, COCO's for 17 keypoints without names.
        wanted: Classes to read, by name or number; see `Classes`.

    Raises:
        DatasetError: The file is not YAML or has no ``kpt_shape``, labels another skeleton, lacks the class or the
            split, or has no pictures or people.
    """
    tree = _tree(path)
    count, numbers = _shape(path, tree)
    chosen = _skeleton(path, tree, count, skeleton)
    root = path.parent / str(tree.get("path") or "")
    if not root.is_dir():
        root = path.parent  # the path is often of another machine
    names = tree.get("names") or ["person"]
    names = names if isinstance(names, dict) else dict(enumerate(names))
    classes = Classes(path, names, wanted)
    listed = list(dict.fromkeys(_pictures(path, root, tree, split)))
    files = [it for it in listed if it.suffix.lower() in SUFFIXES]
    notes, more = _other_formats(files, [it for it in listed if it.suffix.lower() not in SUFFIXES])
    files += more
    if not files:
        raise DatasetError(f"{path}: expected pictures in {root}, got none; correct path, train and val")
    pictures: dict[int, LabelledImage] = {}
    people: list[LabelledPerson] = []
    faults: list[LabelFault] = []
    for i, file in enumerate(tqdm(files, desc=f"check {root.name}", unit="picture"), start=1):
        try:
            seen = read_image_file(file)
        except ImageFileError as error:
            kind = "unreadable picture" if file.exists() else "missing picture"
            faults.append(LabelFault(kind, str(file), f"{error}; or remove it from the set"))
            continue
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file.resolve())
        pictures[i] = LabelledImage(i, name, seen.upright_size, seen.orientation > 1, str(file), seen)
        for where, row in rows_of(labels_of(file)):
            read_row = LabelRow(where, row, count, numbers, len(names))
            if read_row.fault is not None:
                faults.append(read_row.fault)
                continue
            if not classes.takes(read_row.kind):
                continue
            box, joints = read_row.in_px(seen.upright_size)
            people.append(LabelledPerson(len(people) + 1, i, box, joints, crowd=False, area=None, where=where))
    if not people and not faults:
        raise DatasetError(
            f"{path}: expected people, got none in {len(files)} pictures; the labels of picture {files[0].name} are "
            f"expected at {labels_of(files[0])}"
        )
    return LabelledSet(path, "YOLO pose", root, chosen, pictures, people, faults, [*notes, *classes.notes])


def _other_formats(files: Sequence[Path], others: Sequence[Path]) -> tuple[list[LabelFault], list[Path]]:
    """Split labelled files with unusual suffixes: notes on unreadable ones, and the readable ones."""
    known, readable, refused = {labels_of(file) for file in files}, [], []
    for file in others:
        if labels_of(file) in known or not labels_of(file).is_file():
            continue
        try:
            read_image_file(file)
        except ImageFileError:
            refused.append(file)
        else:
            readable.append(file)
    if not refused:
        return [], readable
    names = ", ".join(file.name for file in refused[:SHOWN]) + (", ..." if len(refused) > SHOWN else "")
    what = f"{len(refused):,} labelled files are left out: {names}; convert them to JPEG or PNG if they are pictures"
    return [LabelFault("format that cannot be read", str(refused[0].parent), what)], readable


def labels_of(picture: Path) -> Path:
    """Return the path of a picture's rows, where ``labels`` replaces the last folder ``images``."""
    parts = list(picture.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _tree(path: Path) -> dict[str, Any]:
    try:
        text = PATHS.sub(lambda line: line[0].replace("\\", "/"), read_text(path))
        tree = yaml.safe_load(text)
    except OSError as error:
        raise DatasetError(f"{path}: expected a data.yaml, got {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DatasetError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise DatasetError(f"{path}: expected keys such as train and kpt_shape, got a {type(tree).__name__}")
    return tree


def _shape(path: Path, tree: dict[str, Any]) -> tuple[int, int]:
    shape = tree.get("kpt_shape")
    match shape:
        case [int(count), 2 | 3 as numbers] if count > 0:
            return count, numbers
    raise DatasetError(
        f"{path}: kpt_shape: expected [keypoints, 2 or 3], got {shape!r}; without it a data set labels only boxes"
    )


def _skeleton(path: Path, tree: dict[str, Any], count: int, wanted: Skeleton | None) -> Skeleton:
    names = tree.get("kpt_names")
    if isinstance(names, dict):  # by class
        names = next(iter(names.values()), None)
    if names is not None and (not isinstance(names, list) or len(names) != count):
        raise DatasetError(f"{path}: kpt_names: expected {count} names as kpt_shape says, got {names!r}")
    if wanted is not None and len(wanted) != count:
        raise DatasetError(
            f"{path}: kpt_shape: expected the {len(wanted)} keypoints of {wanted.name!r}, got {count}; "
            "give the skeleton that was labelled"
        )
    try:
        chosen = wanted or infer_skeleton(names, count, path.parent.resolve().name)
        flip = tree.get("flip_idx")
        if flip is not None and tuple(flip) != chosen.flip:
            if wanted is not None or chosen.name == "coco17":
                raise DatasetError(
                    f"{path}: flip_idx: expected the mirror partners of {chosen.name!r}, {list(chosen.flip)}, "
                    f"got {flip}; the keypoints have another order than the skeleton's"
                )
            chosen = Skeleton(chosen.name, chosen.keypoints, (), tuple(flip), skeletons.usual_sigmas(chosen.keypoints))
    except (ValueError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: flip_idx or kpt_names: {error}") from error
    return chosen


def _pictures(path: Path, root: Path, tree: dict[str, Any], split: str | None) -> Iterator[Path]:
    known = [name for name in SPLITS if tree.get(name)]
    if not known or (split and split not in known):
        raise DatasetError(f"{path}: expected {split or 'train or val'}, got {', '.join(known) or 'neither'}")
    for name in [split] if split else known:
        if name == "test" and not split and not any(it.exists() for it in _places(path, root, str(tree[name]))):
            continue  # Roboflow names a test set even if it exports none
        for part in tree[name] if isinstance(tree[name], list) else [tree[name]]:
            yield from _listed(path, root, str(part))


def _listed(path: Path, root: Path, part: str) -> Iterator[Path]:
    places = _places(path, root, part)
    place = next((it for it in places if it.exists()), None)
    if place is None:
        raise DatasetError(f"{path}: expected pictures at {places[0]}, got nothing there; correct path, train and val")
    if place.is_dir():
        yield from sorted(it for it in place.rglob("*") if it.suffix.lower() != ".txt" and it.is_file())
        return
    for line in read_text(place).replace("\\", "/").splitlines():
        if line.strip():
            yield place.parent / line.strip() if line.startswith("./") else root / line.strip()


def _places(path: Path, root: Path, part: str) -> list[Path]:
    # Roboflow writes ../train/images, relative to a folder that does not exist.
    return [root / part, root / part.removeprefix("../"), path.parent / part]


def rows_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield rows with their file and line; a missing file has none."""
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            if line.strip():
                yield f"{path}:{number}", line.split()


class LabelRow:
    """The row of one person; `fault` says what is wrong with it, if anything."""

    def __init__(self, where: str, columns: Sequence[str], count: int, numbers: int, classes: int) -> None:
        self.fault: LabelFault | None = None
        self.kind = -1
        self._numbers = numbers
        expected = 5 + count * numbers
        if len(columns) != expected:
            self.fault = LabelFault(
                "wrong number of columns", where,
                f"expected {expected} columns, 5 and {count} x {numbers} as kpt_shape says, got {len(columns)}",
            )  # fmt: skip
            return
        try:
            self._values = [float(column) for column in columns]
        except ValueError:
            self.fault = LabelFault("number that is none", where, f"expected numbers, got {' '.join(columns)[:60]!r}")
            return
        self.fault = self._judge(where, columns, classes)

    def _judge(self, where: str, columns: Sequence[str], classes: int) -> LabelFault | None:
        kind, *values = self._values
        if not kind.is_integer() or not 0 <= kind < classes:
            return LabelFault("unknown class", where, f"expected a class 0 to {classes - 1} of names, got {columns[0]}")
        self.kind = int(kind)
        visible = values[6::3] if self._numbers == 3 else []
        for place, value in enumerate(values):
            column = f"column {place + 2}"
            is_visibility = self._numbers == 3 and place >= 4 and (place - 4) % 3 == 2
            if not math.isfinite(value) and not self._unlabelled(place, visible):
                return LabelFault(
                    "number that is none", where, f"{column}: expected a finite number, got {columns[place + 1]}"
                )
            if is_visibility and value not in {0, 1, 2}:
                return LabelFault(
                    "wrong visibility", where, f"{column}: expected v 0, 1 or 2, got {columns[place + 1]}"
                )
            if not is_visibility and not -TOLERANCE <= value <= 1 + TOLERANCE and not self._unlabelled(place, visible):
                return LabelFault(
                    "value outside 0..1", where,
                    f"{column}: expected a share of the picture's size, 0 to 1, got {columns[place + 1]}; "
                    "divide px by width and height",
                )  # fmt: skip
        return None

    def _unlabelled(self, place: int, visible: Sequence[float]) -> bool:
        """Return whether a value is a coordinate of a keypoint that is marked as not labelled."""
        return place >= 4 and bool(visible) and visible[(place - 4) // 3] == 0

    def in_px(self, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], NDArray[np.float64]]:
        """Return the box (x, y, width, height) and joints (K, 3) in px.

        Without v, a keypoint at 0, 0 is not labelled.
        """
        _, cx, cy, w, h, *rest = self._values
        width, height = size
        joints = np.array(rest, np.float64).reshape(-1, self._numbers)
        if self._numbers == 2:
            labelled = (joints != 0).any(axis=1)
            joints = np.concatenate([joints, 2.0 * labelled[:, None]], axis=1)
        joints[joints[:, 2] == 0] = 0
        joints[:, :2] *= size
        return ((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height), joints
