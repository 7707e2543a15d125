"""COCO keypoint files, read with suspicion: every fault is told with its key path."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from service.pose.skeleton import Skeleton
from training.coco import DatasetError, same_name
from training.datasets.labelled import Fault, LabelledSet, Person, Picture, infer_skeleton
from training.datasets.looks import Look, LookError, look

OURS = {"id", "image_id", "category_id", "iscrowd", "bbox", "area", "keypoints", "num_keypoints"}


def read(path: Path, images: Path, skeleton: Skeleton | None = None) -> LabelledSet:
    """Read a COCO file and look at its pictures.

    Args:
        path: The json.
        images: Folder of its pictures.
        skeleton: Whose keypoints it labels; None takes the file's word, and COCO's for 17 without names.

    Raises:
        DatasetError: No json, not an object, without pictures or people, or another skeleton's.
    """
    tree = _tree(path)
    return _Reading(path, images, tree, _skeleton(path, tree, skeleton)).labelled()


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: expected a COCO json, got {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DatasetError(f"{path}: expected an object with images and annotations, got a {type(tree).__name__}")
    for key in ("images", "annotations"):
        if not isinstance(tree.get(key), list):
            got = f"a {type(tree[key]).__name__}" if key in tree else f"{', '.join(tree) or 'nothing'}"
            raise DatasetError(f"{path}: {key}: expected a list, got {got}; this is no COCO file")
    return tree


def _skeleton(path: Path, tree: dict[str, Any], wanted: Skeleton | None) -> Skeleton:
    """The skeleton of a file's categories, or of its people's counts, held against the one that is wanted."""
    named = [it for it in tree.get("categories") or [] if isinstance(it, dict) and it.get("keypoints")]
    if len({tuple(map(same_name, it["keypoints"])) for it in named}) > 1:
        kinds = ", ".join(f"{it.get('name')!r} ({len(it['keypoints'])})" for it in named)
        raise DatasetError(
            f"{path}: categories: expected one skeleton, got {kinds}; put each kind into a file of its own"
        )
    lengths = Counter(len(it["keypoints"]) for it in tree["annotations"] if isinstance(it, dict) and _is_list(it))
    most = lengths.most_common(1)[0][0] // 3 if lengths else 0
    names = named[0]["keypoints"] if named else None
    count = len(names) if names else most
    if not count:
        raise DatasetError(f"{path}: expected people with keypoints, got none; label some, or give another file")
    if wanted is None:
        edges = [(a - 1, b - 1) for a, b in (named[0].get("skeleton") or [])] if named else []
        try:
            return infer_skeleton(names, count, str(named[0].get("name")) if named else path.stem, edges)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path}: categories: {error}") from error
    if names and [same_name(it) for it in names] != [same_name(it) for it in wanted.keypoints]:
        raise DatasetError(
            f"{path}: categories: expected the keypoints of {wanted.name!r} ({', '.join(wanted.keypoints)}), "
            f"got {', '.join(map(str, names))}; give the skeleton that was labelled"
        )
    return wanted


def _is_list(annotation: dict[str, Any]) -> bool:
    return isinstance(annotation.get("keypoints"), list) and bool(annotation["keypoints"])


class _Reading:
    """One pass over a file; collects what is sound and what is not."""

    def __init__(self, path: Path, images: Path, tree: dict[str, Any], skeleton: Skeleton) -> None:
        self.path, self.images, self.tree, self.skeleton = path, images, tree, skeleton
        self.faults: list[Fault] = []
        self.notes: list[Fault] = []
        categories = [it for it in tree.get("categories") or [] if isinstance(it, dict)]
        self.others = {it.get("id"): it.get("name") for it in categories if not it.get("keypoints")}
        if len(self.others) == len(categories):  # none says that it has keypoints: then any may have
            self.others = {}

    def labelled(self) -> LabelledSet:
        pictures = self._pictures()
        people = self._people({entry["id"] for entry in self.tree["images"] if _has_number(entry, "id")})
        if not people and not self.faults:
            raise DatasetError(f"{self.path}: annotations: expected people, got none; label some, or give another file")
        self._note_missing()
        return LabelledSet(
            self.path, "COCO json", self.images, self.skeleton, pictures, people, self.faults, self.notes
        )

    def fault(self, kind: str, where: str, what: str) -> None:
        self.faults.append(Fault(kind, f"{self.path}: {where}", what))

    def _objects(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Entries of a list that are objects with an id of their own, each with its key path."""
        seen: dict[Any, int] = {}
        for i, entry in enumerate(self.tree[key]):
            where = f"{key}[{i}]"
            if not isinstance(entry, dict):
                self.fault("no object", where, f"expected an object, got {_short(entry)}")
            elif not _has_number(entry, "id"):
                self.fault("missing key", f"{where}.id", f"expected a whole number, got {_short(entry.get('id'))}")
            elif entry["id"] in seen:
                self.fault(
                    "duplicate id", f"{where} (id {entry['id']})",
                    f"expected an id of its own, got that of {key}[{seen[entry['id']]}]; number them anew",
                )  # fmt: skip
            else:
                seen[entry["id"]] = i
                yield f"{where} (id {entry['id']})", entry

    def _pictures(self) -> dict[int, Picture]:
        found: dict[int, Picture] = {}
        for where, entry in tqdm(list(self._objects("images")), desc=f"look at {self.images.name}", unit="picture"):
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                self.fault("missing key", f"{where}.file_name", f"expected a file's name, got {_short(name)}")
                continue
            try:
                seen = look(self.images / name)
            except LookError as error:
                kind = "missing picture" if not (self.images / name).exists() else "unreadable picture"
                advice = "check --images, or take it out" if kind == "missing picture" else "or take it out"
                self.faults.append(Fault(kind, str(self.images / name), f"{error}; {advice} of {self.path} {where}"))
                continue
            found[entry["id"]] = self._picture(where, entry, seen)
        return found

    def _picture(self, where: str, entry: dict[str, Any], seen: Look) -> Picture:
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
        return Picture(entry["id"], entry["file_name"], size, upright, f"{self.path}: {where}", seen, extra)

    def _people(self, known: set[Any]) -> list[Person]:
        found, left_out = [], Counter[Any]()
        for where, entry in self._objects("annotations"):
            if entry.get("category_id") in self.others:
                left_out[self.others[entry["category_id"]]] += 1
                continue
            before = len(self.faults)
            self._check_place(where, entry, known)
            joints = self._joints(where, entry)
            if len(self.faults) == before:
                found.append(self._person(where, entry, joints))
        if left_out:
            kinds = ", ".join(f"{count} of {name}" for name, count in left_out.items())
            self._note("other categories", "annotations", f"{kinds}, without keypoints; convert leaves them out")
        return found

    def _check_place(self, where: str, entry: dict[str, Any], known: set[Any]) -> None:
        if not _has_number(entry, "image_id"):
            self.fault(
                "missing key", f"{where}.image_id", f"expected an image's id, got {_short(entry.get('image_id'))}"
            )
        elif entry["image_id"] not in known:
            self.fault("unknown picture", f"{where}.image_id", f"expected the id of an image, got {entry['image_id']}")
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            kind = "wrong box" if "bbox" in entry else "missing key"
            self.fault(kind, f"{where}.bbox", f"expected [x, y, width, height] in px, got {_short(box)}")
        elif not all(map(_is_finite, box)):
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
        for k, number in enumerate(joints):
            if not _is_finite(number):
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

    def _person(self, where: str, entry: dict[str, Any], joints: Sequence[float]) -> Person:
        table = np.array(joints, np.float64).reshape(-1, 3)
        area: Any = entry.get("area")
        x, y, width, height = map(float, entry["bbox"])
        extra = {key: value for key, value in entry.items() if key not in OURS}
        stated = entry.get("num_keypoints")
        if stated is not None and stated != int((table[:, 2] > 0).sum()):
            self._note("wrong num_keypoints", where, f"{stated}, but {int((table[:, 2] > 0).sum())} are labelled")
        return Person(
            entry["id"], entry["image_id"], (x, y, width, height), table, bool(entry.get("iscrowd")),
            float(area) if _is_finite(area) else None, f"{self.path}: {where}", extra,
        )  # fmt: skip

    def _note_missing(self) -> None:
        entries: list[Mapping[str, Any]] = [it for it in self.tree["annotations"] if isinstance(it, dict)]
        numbers = {it.get("category_id") for it in entries} - set(self.others)
        if numbers - {1}:
            kinds = ", ".join(map(str, sorted(numbers, key=str)))
            self._note(
                "other category_id", "annotations", f"{kinds}, and evaluation counts 1 alone; convert makes it 1"
            )

    def _note(self, kind: str, where: str, what: str) -> None:
        self.notes.append(Fault(kind, f"{self.path}: {where}", what))


def _has_number(entry: Any, key: str) -> bool:
    value = entry.get(key) if isinstance(entry, dict) else None
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) < 80 else f"{text[:77]}..."
