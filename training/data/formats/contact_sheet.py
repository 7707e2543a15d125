"""A contact sheet: people of a labelled set with their labels drawn, for a visual check before training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from service.pose import boxes as boxes_
from service.pose import crop, drawing
from service.pose.types import Image, Poses
from training import files
from training.data import images
from training.data.formats.labelled_set import LabelledPerson, LabelledSet
from training.data.images import LabelFrame

TILE = (240, 320)
"""(width, height) of a person's tile in px."""
COLUMNS, ROWS = 6, 4
PADDING = 1.25
HIDDEN_RGB = (20, 20, 20)
JPEG_QUALITY = 90


def write(labelled: LabelledSet, out: Path) -> int:
    """Write a JPEG with up to 24 people, evenly spread over the set; returns their count.

    Left is blue, right orange, the middle green. A dark centre marks a joint that is labelled as hidden. The person's
    number is written below.
    """
    people = _chosen(labelled)
    rows = max(1, -(-len(people) // COLUMNS))
    sheet = np.full((rows * TILE[1], COLUMNS * TILE[0], 3), 255, np.uint8)
    for i, person in enumerate(people):
        top, left = (i // COLUMNS) * TILE[1], (i % COLUMNS) * TILE[0]
        sheet[top : top + TILE[1], left : left + TILE[0]] = draw(labelled, person)
    encoded, content = cv2.imencode(
        ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert encoded
    files.write(out, content.tobytes())
    return len(people)


def _chosen(labelled: LabelledSet) -> list[LabelledPerson]:
    able = [it for it in labelled.singles if (it.joints[:, 2] > 0).any() and min(it.box[2:]) >= 1]
    spread = np.linspace(0, len(able) - 1, min(COLUMNS * ROWS, len(able))).round().astype(int)
    return [able[i] for i in spread.tolist()]


def draw(labelled: LabelledSet, person: LabelledPerson) -> Image:
    """Cut a person out and draw its labels, uint8 (320, 240, 3) RGB."""
    picture = labelled.pictures[person.picture]
    image = images.read_in_frame(labelled.images / picture.file_name, LabelFrame(picture.size, picture.upright))
    box = boxes_.from_xywh([list(person.box)])
    cut = crop.cut(image, box, TILE, PADDING)
    to_crop = crop.invert(cut.to_image)
    points = crop.transform(person.joints[None, :, :2].astype(np.float32), to_crop)
    known = (person.joints[None, :, 2] > 0).astype(np.float32)
    framed = crop.transform(box.reshape(1, 2, 2), to_crop).reshape(1, 4)
    tile = drawing.draw(cut.pixels[0], Poses(points, known, framed, np.ones(1, np.float32)), labelled.skeleton, 0.5)
    for x, y in points[0][person.joints[:, 2] == 1].round().astype(int).tolist():
        cv2.circle(tile, (x, y), 2, HIDDEN_RGB, -1, cv2.LINE_AA)
    left, top, right, bottom = framed[0].round().astype(int).tolist()
    cv2.rectangle(tile, (left, top), (right, bottom), (255, 255, 255), 1)
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place = (6, TILE[1] - 8)
        cv2.putText(tile, str(person.id), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA)
    return tile
