"""People out of COCO-format annotation files, read by pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from service.pose import boxes as boxes_
from service.pose.types import Boxes, Floats


class DatasetError(ValueError):
    """A labelled data set cannot be read; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture and the people labelled in it.

    Attributes:
        path: Image file.
        boxes: float32 (N, 4) xyxy, image px.
        keypoints: float32 (N, K, 2), image px.
        visibility: uint8 (N, K): 0 not labelled, 1 occluded, 2 visible.
        crowds: float32 (M, 4) xyxy, regions of people who are not told apart.
        complete: Whether everyone in the picture has a box or lies in a crowd.
    """

    path: Path
    boxes: Boxes
    keypoints: Floats
    visibility: NDArray[np.uint8]
    crowds: Boxes
    complete: bool


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


def load(annotations: Path) -> COCO:
    """Read a COCO file without pycocotools' chatter.

    Raises:
        DatasetError: The file is missing or is not COCO json.
    """
    if not annotations.is_file():
        raise DatasetError(
            f"{annotations}: expected a COCO annotation file, got nothing there; check the recipe's path"
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(annotations))
    except (ValueError, KeyError, AssertionError) as error:
        raise DatasetError(f"{annotations}: expected COCO json, got {type(error).__name__}: {error}") from error


def read(source: Source, keypoint_count: int = 17) -> list[Picture]:
    """Read a source's pictures in the order of their ids; people without a box are left out.

    Raises:
        DatasetError: The annotation file or a picture is missing.
    """
    coco = load(source.annotations)
    pictures = []
    for image_id in sorted(coco.imgs):
        info = coco.imgs[image_id]
        path = source.images / info["file_name"]
        if not path.is_file():
            raise DatasetError(f"{path}: named in {source.annotations} but not there; check the recipe's images folder")
        annotations = coco.imgToAnns[image_id]
        people = [a for a in annotations if not a.get("iscrowd") and min(a["bbox"][2:]) >= 1]
        joints = np.array([a.get("keypoints") or [0] * 3 * keypoint_count for a in people], np.float32)
        joints = joints.reshape(len(people), keypoint_count, 3)
        pictures.append(
            Picture(
                path=path,
                boxes=boxes_.from_xywh([a["bbox"] for a in people]),
                keypoints=np.ascontiguousarray(joints[..., :2]),
                visibility=joints[..., 2].astype(np.uint8),
                crowds=boxes_.from_xywh([a["bbox"] for a in annotations if a.get("iscrowd")]),
                complete=bool(info.get("official_complete", True)),
            )
        )
    return pictures
