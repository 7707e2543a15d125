"""A student learns from a teacher's heatmaps alone: no picture has a label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.pose import crop
from service.pose.backends.runner import OnnxRunner
from service.pose.decoders import heatmap
from service.pose.estimator import PoseEstimator
from tests.training import stick_people
from tests.training.conftest import tiny_recipe
from training.data import coco, crop_cache
from training.data.crop_cache import CropCache
from training.distillation import teachers
from training.distillation.pose_task import PoseTask
from training.engine import loop
from training.engine.checkpoint import Checkpoint
from training.evaluation import coco_ap
from training.export import to_onnx
from training.networks import registry
from training.networks.pose import STRIDE
from training.recipe import recipe, skeletons

CPU = torch.device("cpu")
SIZE = (64, 96)
STICK = skeletons.parse({"name": "stick12", "keypoints": list(stick_people.NAMES)}, "test")


class StandIn:
    """A teacher that knows the people of one crop cache; it is asked for each of them once, in their order."""

    skeleton = STICK
    crop_size = SIZE
    to_crop = teachers.cells_to_crop(STRIDE)
    padding = 1.25

    def __init__(self, cache: CropCache) -> None:
        rows = np.arange(len(cache))
        to_crop = crop.invert(cache.crop_to_canvas(rows, SIZE, self.padding))
        points = crop.transform(cache.keypoints, to_crop)
        grid = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
        self._maps = torch.from_numpy(heatmap.encode(points, grid, STRIDE, 1.5))
        self._asked = 0

    def maps(self, pixels: Tensor) -> Tensor:
        self._asked += len(pixels)
        assert self._asked <= len(self._maps), "every crop is inferred once"
        return self._maps[self._asked - len(pixels) : self._asked]


def average_precision(state: Checkpoint, source: coco.Source, folder: Path) -> float:
    opened = to_onnx.export(state, folder, "1")
    return coco_ap.score_poses(source, PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))).ap


@pytest.mark.slow
def test_ap_rises_by_distillation_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stick_people.write_coco(tmp_path / "set", count=24)
    source = coco.Source("stick", path, path.parents[1] / "train")
    crop_cache.build(source, tmp_path / "labelled", size=(96, 144), skeleton=STICK)
    stand_in = StandIn(crop_cache.open_cache([tmp_path / "labelled"], STICK)[0])
    tree = json.loads(path.read_text())
    for person in tree["annotations"]:
        person.update(keypoints=[0] * 36, num_keypoints=0)
    (tmp_path / "unlabelled.json").write_text(json.dumps(tree))
    unlabelled = coco.Source("unlabelled", tmp_path / "unlabelled.json", source.images)
    crop_cache.build(unlabelled, tmp_path / "crops", min_joints=0, size=(96, 144), skeleton=STICK)
    assert not crop_cache.open_cache([tmp_path / "crops"], STICK)[0].weights.any()

    (tmp_path / "teacher.pt").write_bytes(b"the stand-in replaces it")
    monkeypatch.setattr(teachers, "open_teacher", lambda *_: stand_in)
    plan = tiny_recipe(
        skeleton=recipe.asdict(STICK),
        network={"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": SIZE},
        losses={
            "teachers": [{"name": "stand-in", "kind": "checkpoint", "path": "teacher.pt"}],
            "dense": 1.0,
            "classification": 0.0,
        },
        phases=[{"steps": 100, "batch": 12, "size": SIZE, "augment": "faint"}],
        optimizer={"lr": 4e-3, "backbone_lr_scale": 1.0, "warmup_steps": 5, "ema_decay": 0.9},
    )
    torch.manual_seed(0)
    weights = registry.build(plan, pretrained=False).state_dict()
    before = average_precision(Checkpoint(0, weights, weights, {}, plan, "test"), source, tmp_path / "untrained")
    task = PoseTask(plan, tmp_path, CPU, tmp_path / "run")
    after = average_precision(loop.fit(plan, task, tmp_path / "run", CPU), source, tmp_path / "trained")
    assert before < 0.05
    assert after > 0.3
