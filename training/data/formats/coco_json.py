"""Reader of COCO keypoint files that checks every entry; each fault is reported with its key path."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.pose.skeleton import Skeleton
from training.data.coco import DatasetError, is_number, picture_path, without_unlabelled
from training.data.formats.classes import Classes
from training.data.formats.coco_categories import counts_from_0, read_skeleton
from training.data.formats.image_file import ImageFile, ImageFileError, read_image_file
from training.data.formats.labelled_set import (
    LabelFault,
    LabelledImage,
    LabelledPerson,
    LabelledSet,
)
from training.files import read_text

KNOWN_KEYS = {"id", "image_id", "category_id", "iscrowd", "bbox", "area", "keypoints", "num_keypoints"}


def read(path: Path, images: Path, skeleton: Skeleton | None = None, wanted: Sequence[str] = ()) -> LabelledSet:
    """Read a COCO file and check its pictures.

    Args:
        path: The JSON file.
        images: Folder of its pictures.
        skeleton: Skeleton that it labels; None: as the file describes it, COCO's for 17 keypoints without names.
        wanted: Categories to read, by name or id; see `Classes`.

    Raises:
        DatasetError: The file is not COCO JSON, has no pictures or people, lacks a wanted category, or labels another
            skeleton.
    """
    tree = _tree(path)
    categories = [it for it in tree.get("categories") or [] if isinstance(it, dict)]
    able = [it for it in categories if it.get("keypoints")] or categories
    classes = Classes(path, {_key(it.get("id")): it.get("name") for it in able}, wanted)
    named = [it for it in able if it.get("keypoints") and classes.has(_key(it.get("id")))]
    return _Reading(path, images, tree, read_skeleton(path, tree, named, skeleton), classes, named).labelled()


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_text(path))
    except OSError as error:
        raise DatasetError(f"{path}: expected a COCO JSON file, got {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DatasetError(f"{path}: expected an object with images and annotations, got a {type(tree).__name__}")
    for key in ("images", "annotations"):
        if not isinstance(tree.get(key), list):
            got = f"a {type(tree[key]).__name__}" if key in tree else f"{', '.join(tree) or 'nothing'}"
            raise DatasetError(f"{path}: {key}: expected a list, got {got}; give a COCO file")
    return tree


class _Reading:
    """One pass over a file, which collects valid entries, faults and notes."""

    def __init__(
        self,
        path: Path,
        images: Path,
        tree: dict[str, Any],
        skeleton: Skeleton,
        classes: Classes,
        named: Sequence[dict[str, Any]],
    ) -> None:
        self.path, self.images, self.tree, self.skeleton, self.classes = path, images, tree, skeleton, classes
        self.faults: list[LabelFault] = []
        self.notes: list[LabelFault] = []
        if any(map(counts_from_0, named)):
            self._note("edges counted from 0", "categories", "COCO counts from 1; convert writes them so")
        categories = [it for it in tree.get("categories") or [] if isinstance(it, dict)]
        self.others = {_key(it.get("id")): it.get("name") for it in categories if not it.get("keypoints")}
        if len(self.others) == len(categories):  # no category names keypoints, so any may have some
            self.others = {}
        self.numbers = {key: self._numbered(key) for key in ("images", "annotations")}

    def labelled(self) -> LabelledSet:
        pictures = self._pictures()
        people = self._people()
        if not people and not self.faults:
            raise DatasetError(f"{self.path}: annotations: expected people, got none; label some, or give another file")
        self._note_missing()
        self.notes += self.classes.notes
        return LabelledSet(
            self.path, "COCO json", self.images, self.skeleton, pictures, people, self.faults, self.notes
        )

    def fault(self, kind: str, where: str, what: str) -> None:
        self.faults.append(LabelFault(kind, f"{self.path}: {where}", what))

    def _numbered(self, key: str) -> dict[str, int]:
        """Return a number for each id of a list: the id itself if all are integers, else its position."""
        ids = [it["id"] for it in self.tree[key] if isinstance(it, dict) and _is_id(it.get("id"))]
        if all(isinstance(it, int) for it in ids):
            return {_key(it): it for it in ids}
        numbers = {name: i for i, name in enumerate(dict.fromkeys(map(_key, ids)), start=1)}
        if all(name.isdecimal() for name in numbers) and len({int(name) for name in numbers}) == len(numbers):
            numbers = {name: int(name) for name in numbers}
        first = next(it for it in ids if not isinstance(it, int))
        what = f"expected integers, got e.g. {_short(first)}, which becomes {numbers[_key(first)]}; convert renumbers"
        self._note("ids renumbered", key, what)
        return numbers

    def _objects(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the entries of a list that are objects with unique ids, each with its key path."""
        seen: dict[str, int] = {}
        for i, entry in enumerate(self.tree[key]):
            where = f"{key}[{i}]"
            if not isinstance(entry, dict):
                self.fault("no object", where, f"expected an object, got {_short(entry)}")
            elif not _is_id(entry.get("id")):
                self.fault("missing key", f"{where}.id", f"expected an integer, got {_short(entry.get('id'))}")
            elif (name := _key(entry["id"])) in seen:
                self.fault(
                    "duplicate id", f"{where} (id {entry['id']})",
                    f"expected a unique id, got that of {key}[{seen[name]}]; renumber them",
                )  # fmt: skip
            else:
                seen[name] = i
                yield f"{where} (id {entry['id']})", entry

    def _pictures(self) -> dict[int, LabelledImage]:
        found: dict[int, LabelledImage] = {}
        for where, entry in tqdm(list(self._objects("images")), desc=f"check {self.images.name}", unit="picture"):
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                self.fault("missing key", f"{where}.file_name", f"expected a file name, got {_short(name)}")
                continue
            file = picture_path(self.images, name)
            try:
                seen = read_image_file(file)
            except ImageFileError as error:
                kind = "unreadable picture" if file.exists() else "missing picture"
                advice = "check --images, or remove it" if kind == "missing picture" else "or remove it"
                self.faults.append(LabelFault(kind, str(file), f"{error}; {advice} from {self.path} {where}"))
                continue
            number = self.numbers["images"][_key(entry["id"])]
            name = name if file == self.images / name else name.replace("\\", "/")
            found[number] = self._picture(where, {**entry, "id": number, "file_name": name}, seen)
        return found

    def _picture(self, where: str, entry: dict[str, Any], seen: ImageFile) -> LabelledImage:
        size = seen.size
        stated = (entry.get("width"), entry.get("height"))
        turned = seen.orientation >= 5 and stated == seen.upright_size != seen.size
        upright = bool(entry.get("upright")) or turned
        if upright:
            size = seen.upright_size
        if None not in stated and stated != size:
            self.fault(
                "size differs", where,
                f"expected {size[0]} x {size[1]} px as {self.images / entry['file_name']} has, got width and height "
                f"{_short(stated[0])} x {_short(stated[1])}; put back the labelled picture, or scale its labels",
            )  # fmt: skip
        extra = {key: value for key, value in entry.items() if key not in {"id", "file_name", "width", "height"}}
        return LabelledImage(entry["id"], entry["file_name"], size, upright, f"{self.path}: {where}", seen, extra)

    def _people(self) -> list[LabelledPerson]:
        found, left_out = [], Counter[Any]()
        for where, entry in self._objects("annotations"):
            category = _key(entry.get("category_id"))
            if category in self.others:
                left_out[self.others[category]] += 1
                continue
            if not self.classes.takes(category):
                continue
            before = len(self.faults)
            self._check_place(where, entry)
            joints = self._joints(where, entry)
            if len(self.faults) == before:
                found.append(self._person(where, entry, joints))
        if left_out:
            kinds = ", ".join(f"{count} of {name}" for name, count in left_out.items())
            self._note("other categories", "annotations", f"{kinds}, without keypoints; convert leaves them out")
        return found

    def _check_place(self, where: str, entry: dict[str, Any]) -> None:
        if not _is_id(entry.get("image_id")):
            self.fault(
                "missing key", f"{where}.image_id", f"expected an image's id, got {_short(entry.get('image_id'))}"
            )
        elif _key(entry["image_id"]) not in self.numbers["images"]:
            self.fault("unknown picture", f"{where}.image_id", f"expected the id of an image, got {entry['image_id']}")
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            kind = "wrong box" if "bbox" in entry else "missing key"
            self.fault(kind, f"{where}.bbox", f"expected [x, y, width, height] in px, got {_short(box)}")
        elif not all(map(is_number, box)):
            self.fault("number that is none", f"{where}.bbox", f"expected four finite numbers, got {_short(box)}")
        elif box[2] < 0 or box[3] < 0:
            self.fault("negative box", f"{where}.bbox", f"expected a width and height of 0 or more, got {_short(box)}")

    def _joints(self, where: str, entry: dict[str, Any]) -> Sequence[float]:
        count = 3 * len(self.skeleton)
        joints = entry.get("keypoints") or [0] * count
        if not isinstance(joints, list) or len(joints) != count:
            length = f"{len(joints)} numbers" if isinstance(joints, list) else _short(joints)
            self.fault(
                "wrong count of numbers", f"{where}.keypoints",
                f"expected {count} numbers, x, y, v for each of {self.skeleton.name!r}'s {count // 3}, got {length}",
            )  # fmt: skip
            return []
        joints = without_unlabelled(joints)
        for k, number in enumerate(joints):
            if not is_number(number):
                place = f"{where}.keypoints[{k}] ({self.skeleton.keypoints[k // 3]})"
                self.fault("number that is none", place, f"expected a finite number, got {_short(number)}")
                return []
            if k % 3 == 2 and number not in {0, 1, 2}:
                place = f"{where}.keypoints[{k}] ({self.skeleton.keypoints[k // 3]})"
                self.fault(
                    "wrong visibility", place,
                    f"expected v 0 (not labelled), 1 (hidden) or 2 (visible), got {_short(number)}",
                )  # fmt: skip
                return []
        return joints

    def _person(self, where: str, entry: dict[str, Any], joints: Sequence[float]) -> LabelledPerson:
        table = np.array(joints, np.float64).reshape(-1, 3)
        area: Any = entry.get("area")
        x, y, width, height = map(float, entry["bbox"])
        extra = {key: value for key, value in entry.items() if key not in KNOWN_KEYS}
        stated = entry.get("num_keypoints")
        if stated is not None and stated != int((table[:, 2] > 0).sum()):
            self._note("wrong num_keypoints", where, f"{stated}, but {int((table[:, 2] > 0).sum())} are labelled")
        number, picture = (
            self.numbers["annotations"][_key(entry["id"])],
            self.numbers["images"][_key(entry["image_id"])],
        )
        return LabelledPerson(
            number, picture, (x, y, width, height), table, bool(entry.get("iscrowd")),
            float(area) if is_number(area) else None, f"{self.path}: {where}", extra,
        )  # fmt: skip

    def _note_missing(self) -> None:
        entries: list[Mapping[str, Any]] = [it for it in self.tree["annotations"] if isinstance(it, dict)]
        numbers = {_key(it.get("category_id")) for it in entries} - set(self.others)
        numbers = {it for it in numbers if self.classes.has(it)}
        if numbers - {"1"}:
            kinds = ", ".join(sorted(numbers))
            self._note("other category_id", "annotations", f"{kinds}, but evaluation uses only 1; convert writes 1")

    def _note(self, kind: str, where: str, what: str) -> None:
        self.notes.append(LabelFault(kind, f"{self.path}: {where}", what))


def _is_id(value: Any) -> bool:
    return is_number(value) or (isinstance(value, str) and bool(value))


def _key(value: Any) -> str:
    """Return the text that ids are compared by: tools write 7, 7.0 or "7" for the same id."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) < 80 else f"{text[:77]}..."
