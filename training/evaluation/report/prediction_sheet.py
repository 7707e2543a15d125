"""Prediction sheets: crops of the best, median and worst people, with labels thin and predictions bold."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from service.pose import crop, drawing
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Image, Poses
from training.data import coco, images
from training.evaluation import error_analysis
from training.evaluation.predictions import Predictions

TILE_SIZE = (330, 440)
"""(width, height) of a person's tile in px."""
PADDING = 1.25
TILES = 12
MIN_LABELLED = 5
"""People with fewer labelled keypoints are not shown, as the OKS of one or two joints varies much by chance."""
JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Tile:
    """One person.

    Attributes:
        image_id: Of the picture.
        annotation_id: Of the person.
        oks: 0..1.
        labelled: Count of labelled keypoints.
        mistakes: Count of each kind of mistake that occurs, by name.
        jpeg: The person's crop with both skeletons.
    """

    image_id: int
    annotation_id: int
    oks: float
    labelled: int
    mistakes: dict[str, int]
    jpeg: bytes


def choose(oks: Floats, labelled: NDArray[np.int64], count: int = TILES) -> dict[str, NDArray[np.intp]]:
    """Choose the people of the sheets ``best``, ``median`` and ``worst``, each person at most once.

    Args:
        oks: float32 (N,).
        labelled: int64 (N,), count of labelled keypoints of each person.
        count: People on a sheet; fewer if N is small.

    Returns:
        Indices into N by sheet, best first; the worst sheet begins with the worst.
    """
    able = np.flatnonzero(labelled >= MIN_LABELLED)
    if not len(able):
        able = np.arange(len(oks))
    order = able[np.argsort(-oks[able], kind="stable")]
    count = min(count, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[::-1][:count]}


def tiles(source: coco.Source, predicted: Predictions, chosen: NDArray[np.intp]) -> list[Tile]:
    """Draw the chosen people.

    Raises:
        DatasetError: A picture is missing.
    """
    files = coco.load(source.annotations).imgs
    oks = predicted.oks
    drawn = []
    for i in chosen.tolist():
        image = images.read_labelled(source.images, files[int(predicted.image_ids[i])])
        counted = error_analysis.counts(predicted.kinds[i : i + 1]).sum(axis=0).tolist()
        named = {
            name: count for name, count in zip(error_analysis.KINDS, counted, strict=True) if name != "good" and count
        }
        drawn.append(
            Tile(
                image_id=int(predicted.image_ids[i]),
                annotation_id=int(predicted.annotation_ids[i]),
                oks=float(oks[i]),
                labelled=int(predicted.labelled[i].sum()),
                mistakes=named,
                jpeg=to_jpeg(draw(image, predicted, i)),
            )
        )
    return drawn


def draw(image: Image, predicted: Predictions, i: int) -> Image:
    """Cut person ``i`` out of its picture and draw the prediction and the label of each labelled joint."""
    box = predicted.poses.boxes[i : i + 1]
    cut = crop.cut(image, box, TILE_SIZE, PADDING)
    to_crop = crop.invert(cut.to_image)
    # Scores of 0 hide joints without a label, which do not count.
    shown = predicted.labelled[i : i + 1].astype(np.float32)
    drawn_poses = Poses(
        crop.transform(predicted.poses.keypoints[i : i + 1], to_crop),
        shown,
        crop.transform(box.reshape(1, 2, 2), to_crop).reshape(1, 4),
        np.ones(1, np.float32),
    )
    canvas = drawing.draw(cut.pixels[0], drawn_poses, predicted.skeleton, keypoint_threshold=0.5)
    truth = crop.transform(predicted.truth[i : i + 1], to_crop)[0]
    _draw_truth(canvas, truth, predicted.labelled[i], predicted.skeleton)
    return canvas


def _draw_truth(canvas: Image, truth: Floats, labelled: NDArray[np.bool_], skeleton: Skeleton) -> None:
    """Draw labelled joints (K, 2) and their edges as white lines with a dark rim, in place."""
    places = np.round(truth).astype(int).tolist()
    for color, thickness in (((20, 20, 20), 3), ((255, 255, 255), 1)):
        for start, end in skeleton.edges:
            if labelled[start] and labelled[end]:
                cv2.line(canvas, places[start], places[end], color, thickness, cv2.LINE_AA)
        for k in np.flatnonzero(labelled).tolist():
            cv2.circle(canvas, places[k], 3, color, thickness, cv2.LINE_AA)


def to_jpeg(tile: Image) -> bytes:
    """Encode a picture, uint8 (H, W, 3) RGB, as JPEG."""
    stream = io.BytesIO()
    imsave(stream, tile, format="jpeg", pil_kwargs={"quality": JPEG_QUALITY})
    return stream.getvalue()
