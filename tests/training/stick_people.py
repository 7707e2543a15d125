"""Drawn stick figures with twelve exact keypoints, written in each layout that the readers accept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAMES = (
    "head", "neck", "left_hand", "right_hand", "left_elbow", "right_elbow",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_foot", "right_foot",
)  # fmt: skip
EDGES = ((0, 1), (1, 4), (4, 2), (1, 5), (5, 3), (1, 6), (1, 7), (6, 8), (8, 10), (7, 9), (9, 11))
SIZE = (160, 200)
TOML = f"""name = "stick12"
keypoints = {json.dumps(NAMES)}
edges = {json.dumps([[NAMES[a], NAMES[b]] for a, b in EDGES])}
upper = ["head", "neck", "left_hand", "right_hand", "left_elbow", "right_elbow"]

[sigmas]
head = 0.03
"""
# A standing figure in units of its height, from the middle of the hips; x to the picture's right.
_POSE = np.array(
    [
        (0, -0.45), (0, -0.32), (0.22, -0.02), (-0.22, -0.02), (0.16, -0.18), (-0.16, -0.18),
        (0.08, 0), (-0.08, 0), (0.1, 0.22), (-0.1, 0.22), (0.12, 0.45), (-0.12, 0.45),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A picture uint8 (200, 160, 3) RGB and its points float64 (12, 2) in px."""

    image: np.ndarray
    points: np.ndarray

    @property
    def box(self) -> list[float]:
        low, high = self.points.min(axis=0) - 8, self.points.max(axis=0) + 8
        return [*low.round(2).tolist(), *(high - low).round(2).tolist()]


def draw(rng: np.random.Generator) -> Figure:
    height = rng.uniform(110, 150)
    middle = np.array(SIZE) / 2 + rng.uniform(-12, 12, 2)
    points = middle + height * (_POSE + rng.normal(0, 0.02, _POSE.shape))
    image = rng.integers(90, 170, (25, 20, 3)).astype(np.uint8)
    image = cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC)
    fixed = np.round(points * 16).astype(int).tolist()
    for a, b in EDGES:
        left = NAMES[a].startswith("left") or NAMES[b].startswith("left")
        cv2.line(image, fixed[a], fixed[b], (40, 40, 230) if left else (230, 40, 40), 5, cv2.LINE_AA, 4)
    cv2.circle(image, fixed[0], 12 * 16, (250, 250, 60), -1, cv2.LINE_AA, 4)
    return Figure(image, points)


def figures(count: int, seed: int = 0) -> list[Figure]:
    rng = np.random.default_rng(seed)
    return [draw(rng) for _ in range(count)]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def coco_tree(drawn: list[Figure], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    images, annotations = [], []
    for i, figure in enumerate(drawn, start=1):
        images.append({"id": i, "file_name": f"{i:03}.png", "width": SIZE[0], "height": SIZE[1]})
        joints = [number for x, y in figure.points for number in (round(x, 2), round(y, 2), 2)]
        annotations.append(
            {
                "id": 100 + i, "image_id": i, "category_id": 1, "iscrowd": 0, "bbox": figure.box,
                "area": round(0.5 * figure.box[2] * figure.box[3], 2), "num_keypoints": 12, "keypoints": joints,
            }
        )  # fmt: skip
    edges = [[a + 1, b + 1] for a, b in EDGES]
    category = {"id": 1, "name": "stick", "keypoints": list(names), "skeleton": edges}
    return {"images": images, "annotations": annotations, "categories": [category]}


def write_coco(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """Write ``annotations/stick_keypoints_train.json`` and ``train/``; returns the json."""
    drawn = figures(count, seed)
    for i, figure in enumerate(drawn, start=1):
        save(folder / "train" / f"{i:03}.png", figure.image)
    path = folder / "annotations" / "stick_keypoints_train.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(coco_tree(drawn)))
    return path


def yolo_row(figure: Figure) -> str:
    x, y, width, height = figure.box
    box = [(x + width / 2) / SIZE[0], (y + height / 2) / SIZE[1], width / SIZE[0], height / SIZE[1]]
    joints = [number for point in figure.points / SIZE for number in (*point, 2)]
    return " ".join(["0", *(f"{number:.6f}" for number in box), *(f"{number:.6g}" for number in joints)])


def write_yolo(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """Write ``data.yaml`` with splits train and val, the last two pictures; returns it."""
    for i, figure in enumerate(figures(count, seed), start=1):
        split = "train" if i <= count - 2 else "val"
        save(folder / "images" / split / f"{i:03}.png", figure.image)
        labels = folder / "labels" / split / f"{i:03}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(yolo_row(figure) + "\n")
    flip = [0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    path = folder / "data.yaml"
    path.write_text(
        f"path: .\ntrain: images/train\nval: images/val\nkpt_shape: [12, 3]\nflip_idx: {flip}\nnames: {{0: stick}}\n"
    )
    return path
