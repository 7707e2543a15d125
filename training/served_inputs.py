"""What a network is given where it serves, gathered from labelled pictures: for those who measure inside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.bundle import Bundle
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner, Runner
from training import coco, pictures


class Recorder:
    """A runner that remembers what it was given, for the length of a measurement."""

    def __init__(self, runner: Runner) -> None:
        self.backend = runner.backend
        self.inputs: list[NDArray[np.uint8]] = []
        self._runner = runner

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Runner.run`."""
        self.inputs.append(pixels.copy())
        return self._runner.run(pixels)


def gather(opened: Bundle, source: coco.Source, ids: list[int]) -> list[NDArray[np.uint8]]:
    """Gather what serving gives the network on some pictures: crops of labelled people, or whole pictures resized.

    Args:
        opened: The bundle.
        source: Labelled pictures.
        ids: Which of them.

    Returns:
        uint8 (1, H, W, 3) each: of a picture's people the first alone.

    Raises:
        DatasetError: Nobody is labelled there.
    """
    truth = coco.load(source.annotations)
    recorder = Recorder(OnnxRunner(opened.onnx, threads=1))
    is_finder = opened.manifest.role == "finder"
    ask: Any = PersonFinder(opened, recorder) if is_finder else PoseEstimator(opened, recorder)
    for image_id in ids:
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        if is_finder:
            ask.find(image)
        else:
            people = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd") and a.get("num_keypoints")]
            ask.estimate(image, boxes_.from_xywh([a["bbox"] for a in people[:1]]))
    if not recorder.inputs:
        raise coco.DatasetError(f"{source.annotations}: expected labelled people to look at, got none")
    return recorder.inputs
