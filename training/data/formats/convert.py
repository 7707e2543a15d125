"""Writer of labelled sets as COCO JSON, the format that all other subcommands take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training import files
from training.data.coco import AREA_SHARE
from training.data.formats.labelled_set import LabelledSet, nameless, require_sound


def write(labelled: LabelledSet, out: Path) -> None:
    """Write a set as COCO JSON, atomically.

    Raises:
        DatasetError: The set has faults.
    """
    require_sound(labelled)
    files.write(out, (json.dumps(tree(labelled), allow_nan=False) + "\n").encode())


def tree(labelled: LabelledSet) -> dict[str, Any]:
    """Return the content of the JSON file. Additional keys of a COCO file are kept."""
    skeleton = labelled.skeleton
    category: dict[str, Any] = {"id": 1, "name": "person"}
    if skeleton.keypoints != nameless(len(skeleton)):  # else the skeleton's TOML names them
        category["keypoints"] = list(skeleton.keypoints)
        category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.edges]  # COCO counts from 1
    images = [
        {
            **it.extra,
            "id": it.id,
            "file_name": it.file_name,
            "width": it.size[0],
            "height": it.size[1],
            **({"upright": True} if it.upright else {}),
        }
        for it in labelled.pictures.values()
    ]
    people = [
        {
            **it.extra,
            "id": it.id,
            "image_id": it.picture,
            "category_id": 1,
            "iscrowd": int(it.crowd),
            "bbox": _rounded(it.box),
            "area": round(AREA_SHARE * it.box[2] * it.box[3] if it.area is None else it.area, 3),
            "num_keypoints": int((it.joints[:, 2] > 0).sum()),
            "keypoints": [number for x, y, v in it.joints.tolist() for number in (*_rounded((x, y)), int(v))],
        }
        for it in labelled.people
    ]
    return {"images": images, "annotations": people, "categories": [category]}


def _rounded(numbers: tuple[float, ...]) -> list[float]:
    """Round numbers, and write integers without decimals to keep files small."""
    return [int(it) if it == int(it) else round(it, 3) for it in numbers]
