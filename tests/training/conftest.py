"""A tiny labelled data set of painted people, and the recipe of a tiny network."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests import spots
from tests.training.published_tinypose import PublishedTinyPose, onnx_of
from training.__main__ import main
from training.data import coco, crop_cache
from training.recipe import recipe


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_data_set(folder: Path, pictures: int = 6) -> coco.Source:
    """Paint pictures of two people each and write their COCO file."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, pictures + 1):
        people = [spots.Person((int(rng.integers(90, 230)), 190)), spots.Person((int(rng.integers(400, 540)), 180))]
        cv2.imwrite(str(folder / "images" / f"{i}.png"), spots.paint(*people)[..., ::-1])
        images.append({"id": i, "file_name": f"{i}.png", "width": 640, "height": 384, "official_complete": True})
        for person in people:
            joints = np.concatenate([person.keypoints, np.full((17, 1), 2)], axis=1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": person.box_xywh,
                    "area": person.box_xywh[2] * person.box_xywh[3],
                    "keypoints": joints.ravel().tolist(),
                    "num_keypoints": 17,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return coco.Source("painted", folder / "annotations.json", folder / "images")


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> coco.Source:
    return write_data_set(tmp_path_factory.mktemp("painted"))


@pytest.fixture(scope="session")
def data_root(painted: coco.Source) -> Path:
    """A data folder with the painted people's crop cache under ``crops``."""
    crop_cache.build(painted, painted.annotations.parent / "crops")
    return painted.annotations.parent


@pytest.fixture(scope="session")
def published_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in PP-TinyPose's layout, as `posewright-train import` makes a bundle of it."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    (folder / "theirs.onnx").write_bytes(onnx_of(PublishedTinyPose(), (192, 256)))
    options = "--decoder heatmap --role teacher --shift -1.5 -1.5 --padding 1.1 --out"
    assert main(["import", str(folder / "theirs.onnx"), *options.split(), str(folder / "tinypose-256")]) == 0
    return folder / "tinypose-256"


def tiny_recipe(kind: str = "pose", **changes: object) -> recipe.Recipe:
    """A recipe of a small network on the painted data set."""
    tree = {
        "name": "tiny",
        "role": "detector" if kind == "detector" else "student",
        "network": {"kind": kind, "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128]},
        "data": [
            {
                "name": "painted",
                "path": "crops" if kind == "pose" else "annotations.json",
                "share": 1,
                "images": "images",
            }
        ],
        "phases": [{"steps": 3, "batch": 2, "size": [96, 128]}],
        "optimizer": {"warmup_steps": 2, "ema_decay": 0.5},
    }
    return recipe.parse({**tree, **changes}, "test")
