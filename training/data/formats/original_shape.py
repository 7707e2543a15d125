"""Restoring the original aspect ratio of squashed copies of COCO's pictures.

Many public copies were squashed to a square, without a record of the original size. The YOLO-pose rows of COCO's labels
(six decimals, relative to the original size) reveal it: joints lie on whole pixels, and usually only one size makes all
of a picture's joints integers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose.skeleton import COCO17
from training import files
from training.data import images as pictures
from training.data.coco import DatasetError
from training.data.formats import convert, yolo
from training.data.formats.labelled_set import LabelFault, LabelledImage, LabelledPerson, LabelledSet

NUMBER = re.compile(r"(?<!\d)(\d{12})(?!\d)")
"""Number of a COCO picture in its file name."""
LONGEST, SHORTEST = 640, 160
"""px: the longer side of most of COCO's pictures, and the minimum of the shorter side."""
DISTINCT = 3
"""Minimum count of different coordinates along each side; with fewer, too many sizes fit."""
SAME_SHAPE = 0.01
"""A copy whose aspect ratio differs by less was not squashed."""
QUALITY = 97
"""JPEG quality of restored pictures."""


def restore(images: Path, labels: Path, out: Path, without: Iterable[int] = ()) -> LabelledSet:
    """Write ``out/images`` and ``out/annotations.json`` of all copies with labels whose original shape is certain.

    A copy that was not squashed is copied byte for byte; a squashed one is stretched, with as many pixels as before.

    Args:
        images: Folder of copies, searched to any depth; a name contains the picture's twelve digits.
        labels: Folder with a text file for each picture, named by its digits, with COCO's 17 keypoints as YOLO pose
            rows.
        out: Folder to write; the JSON file is written last, so a set without it is not complete.
        without: Numbers to leave out, e.g. held-out pictures.

    Returns:
        What was written. Notes say which copies were left out and why.

    Raises:
        DatasetError: No copy can be used, or a label file is broken.
    """
    shown: dict[int, LabelledImage] = {}
    people: list[LabelledPerson] = []
    notes: list[LabelFault] = []
    skipped = set(without)
    for number, file in _numbered(images):
        if number not in skipped and file.suffix.lower() not in pictures.SUFFIXES and _labels(labels, number).is_file():
            notes.append(LabelFault("format that cannot be read", str(file), "left out; convert it to JPEG or PNG"))
    for number, file in tqdm(list(_numbered(images)), desc=f"restore {images.name}", unit="picture"):
        rows = _labels(labels, number)
        if file.suffix.lower() not in pictures.SUFFIXES or number in shown or number in skipped or not rows.is_file():
            continue
        parsed = [yolo.LabelRow(where, row, len(COCO17), 3, 1) for where, row in yolo.rows_of(rows)]
        faults = [str(row.fault) for row in parsed if row.fault is not None]
        if faults:
            raise DatasetError(faults[0])
        shape = true_size(np.stack([row.in_px((1, 1))[1] for row in parsed])) if parsed else None
        if shape is None:
            notes.append(LabelFault("unknown shape", str(file), "too few joints to infer the original size"))
            continue
        picture = _written(file, shape, out / "images" / f"{number:012d}{file.suffix.lower()}", number)
        shown[number] = picture
        for row in parsed:
            box, joints = row.in_px(picture.size)
            people.append(LabelledPerson(len(people) + 1, number, box, joints, crowd=False, area=None, where=str(rows)))
    if not shown:
        raise DatasetError(
            f"{images}: expected copies of COCO pictures with twelve digits in their names and labels in {labels}, got "
            f"none whose shape the labels reveal ({len(notes)} with too few joints)"
        )
    found = LabelledSet(images, "restored COCO", out / "images", COCO17, shown, people, (), notes)
    convert.write(found, out / "annotations.json")
    return found


def true_size(joints: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the (width, height) in px with which all joints lie on whole pixels; None if several or none fit.

    Args:
        joints: (N, K, 3): x and y as shares of the sides, and v.
    """
    places = joints[joints[..., 2] > 0][:, :2]
    fitting = []
    for along in (np.unique(places[:, 0]), np.unique(places[:, 1])):
        if len(along) < DISTINCT:
            return None
        sides = np.arange(SHORTEST, LONGEST + 1)
        pixels = along[:, None] * sides  # off by the rounding to six decimals: half a millionth of the side
        fitting.append(sides[(np.abs(pixels - pixels.round()) < 7e-7 * sides + 1e-6).all(axis=0)])
    sizes = [(int(w), int(h)) for w in fitting[0] for h in fitting[1]]
    sizes = [size for size in sizes if max(size) == LONGEST] or sizes
    return sizes[0] if len(sizes) == 1 else None


def _numbered(images: Path) -> Iterator[tuple[int, Path]]:
    for file in sorted(images.rglob("*")):
        found = NUMBER.search(file.name)
        if found and file.is_file():
            yield int(found[1]), file


def _labels(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.txt"


def _written(file: Path, shape: tuple[int, int], out: Path, number: int) -> LabelledImage:
    image = pictures.read(file)
    height, width = image.shape[:2]
    out.parent.mkdir(parents=True, exist_ok=True)
    extra = {"source": "coco_train2017", "official_complete": False}
    picture = LabelledImage(number, out.name, (width, height), upright=False, where=str(file), file=None, extra=extra)
    if abs(width / height / (shape[0] / shape[1]) - 1) < SAME_SHAPE:
        files.write(out, file.read_bytes())
        return picture
    scale = (width * height / (shape[0] * shape[1])) ** 0.5
    size = (round(shape[0] * scale), round(shape[1] * scale))
    stretched = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    bgr = cv2.cvtColor(stretched, cv2.COLOR_RGB2BGR)
    drawn, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert drawn
    out = out.with_suffix(".jpg")
    files.write(out, content.tobytes())
    return replace(picture, file_name=out.name, size=size)
