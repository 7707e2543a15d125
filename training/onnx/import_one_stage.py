"""Makes a bundle of a third-party one-stage pose network, which finds people and their keypoints in a whole picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from service.pose import bundle
from service.pose.bundle import Bundle, Manifest
from service.pose.skeleton import COCO17, Skeleton
from training.export import imported_card
from training.onnx import import_pose, one_stage_graph, probe
from training.onnx.one_stage_graph import OneStageConventions
from training.onnx.one_stage_layout import LayoutName, OutputLayout
from training.onnx.probe import BOX, Shape
from training.onnx.wrap import NORMALISATIONS

USUAL: dict[LayoutName, OneStageConventions] = {
    "yolo-pose": OneStageConventions("rgb", *NORMALISATIONS["unit"]),
    "yolo-pose-nms": OneStageConventions("rgb", *NORMALISATIONS["unit"], box_format="xyxy"),
    "rtmo": OneStageConventions("bgr", *NORMALISATIONS["bytes"], fitting="top_left", box_format="xyxy"),
    "detr-pose": OneStageConventions(
        "rgb", *NORMALISATIONS["imagenet"], fitting="stretch", units="unit", activation="sigmoid"
    ),
}
"""The conventions of the programs that export each layout: ultralytics, mmdeploy, RF-DETR."""
LARGEST_SHARE = 2.0
"""Coordinates up to this are shares of the input; px would be larger somewhere."""
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class OneStageModel:
    """A third-party one-stage network and what the user states about it.

    Attributes:
        path: The ONNX file.
        model: The graph.
        shape: Input and outputs of the graph.
        layout: How people are written in its outputs.
        name: Name of the bundle.
        version: Version of the bundle.
        role: ``teacher`` or ``student``.
        licence: Licence of the weights.
        origin: Authors and source of the model.
        skeleton: Its keypoints are predicted by the bundle.
        pictures: Batch size of the bundle's graph, or the name of a dynamic one; see `one_stage_graph.batch_axis`.
    """

    path: Path
    model: onnx.ModelProto
    shape: Shape
    layout: OutputLayout
    name: str
    version: str
    role: Literal["teacher", "student"]
    licence: str
    origin: str
    skeleton: Skeleton = COCO17
    pictures: str | int = 1


def usual_conventions(
    model: onnx.ModelProto, shape: Shape, layout: OutputLayout, joints: tuple[str, ...]
) -> OneStageConventions:
    """Return the usual conventions of a layout, but for those that the graph's own numbers contradict.

    The numbers show whether coordinates are px, whether scores still need a sigmoid, and what a box's numbers are.
    """
    usual = replace(USUAL[layout.name], joints=joints)
    if shape.takes_bytes:
        mean, deviation = NORMALISATIONS["bytes"]
        usual = replace(usual, mean=mean, deviation=deviation)
    width, height = shape.input_size
    noise = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3))
    pixels = (noise - np.array(usual.mean)) / np.array(usual.deviation)
    outputs = dict(zip(shape.outputs, probe.run(model, shape, pixels), strict=True))
    return _seen(layout, outputs, usual)


def _seen(
    layout: OutputLayout, outputs: dict[str, NDArray[np.floating]], usual: OneStageConventions
) -> OneStageConventions:
    """Correct conventions by the outputs for one picture."""
    boxes, scores, keypoints = _parts(layout, outputs)
    if layout.name == "detr-pose":
        # GroupPose and ED-Pose number classes from 1 and split their flat keypoints; RF-DETR does neither.
        flat = outputs[layout.keypoints].ndim == 3
        many = layout.score_columns > 1
        order: Literal["split", "interleaved"] = "split" if flat else "interleaved"
        usual = replace(usual, keypoint_order=order, person_class=int(flat and many))
    there = scores.any(axis=1)  # suppressed people are rows of zeros
    if not there.any():
        return usual
    likelihoods = scores[there][:, :1] if layout.name == "yolo-pose-nms" else scores[there]
    places, certain = _places_and_scores(layout, keypoints[there], usual.keypoint_order)
    coordinates = boxes[there] if boxes.size else places
    usual = replace(
        usual,
        activation="none" if _are_shares(likelihoods) else "sigmoid",
        units="unit" if np.abs(coordinates).max() <= LARGEST_SHARE else "px",
    )
    if certain.size:
        usual = replace(usual, keypoint_activation="none" if _are_shares(certain) else "sigmoid")
    if boxes.size:
        corners = bool((boxes[there][:, 2:] >= boxes[there][:, :2]).all())
        sure = layout.name == "yolo-pose" or not corners
        usual = replace(usual, box_format=("xyxy" if corners else "cxcywh") if sure else usual.box_format)
    return usual


def _parts(
    layout: OutputLayout, outputs: dict[str, NDArray[np.floating]]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Split the outputs into boxes (Q, 4) or (Q, 0), scores (Q, C) and keypoints (Q, K, V)."""
    keypoints = outputs[layout.keypoints][0].astype(np.float64)
    if layout.is_table:
        table = keypoints.T if layout.transposed else keypoints
        boxes, scores, rest = np.split(table, [BOX, BOX + layout.score_columns], axis=1)
    elif layout.name == "rtmo":
        boxes, scores = np.split(outputs[layout.boxes][0], [BOX], axis=1)
        rest = keypoints
    else:
        scores, rest = outputs[layout.scores][0], keypoints
        boxes = outputs[layout.boxes][0] if layout.boxes else np.zeros((len(scores), 0))
    return boxes, scores, rest.reshape(len(scores), -1, layout.values)


def _places_and_scores(
    layout: OutputLayout, keypoints: NDArray[np.floating], order: str
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Split keypoints (Q, K, V) into coordinates and scores, of which there may be none."""
    if order == "split" and layout.values > 2:
        flat = keypoints.reshape(len(keypoints), -1)
        return flat[:, : 2 * layout.keypoint_count], flat[:, 2 * layout.keypoint_count :]
    return keypoints[..., :2], keypoints[..., 2:3]


def _are_shares(values: NDArray[np.floating]) -> bool:
    return bool(values.min() >= -TOLERANCE and values.max() <= 1 + TOLERANCE)


def make(imported: OneStageModel, conventions: OneStageConventions, metrics: dict[str, float]) -> Bundle:
    """Make the bundle in memory; `bundle.write` writes it.

    Raises:
        ImportRefusedError: See `one_stage_graph.wrap`.
    """
    graph = one_stage_graph.wrap(
        imported.model, imported.shape, imported.layout, conventions, imported.skeleton, imported.pictures
    )
    manifest = Manifest(
        name=imported.name,
        version=imported.version,
        role=imported.role,
        files={},
        skeleton=COCO17.name if imported.skeleton == COCO17 else imported.skeleton,
        input_size=imported.shape.input_size,
        heatmap_size=None,
        box_padding=None,
        fitting=conventions.fitting,
        decoder="one_stage",
        parameters=import_pose.parameters(imported.model),
        gflops=round(import_pose.multiply_adds(imported.model, imported.shape) / 1e9, 4),
        metrics=metrics,
        trained_by={
            "imported_from": imported.path.name,
            "imported_sha256": bundle.sha256(imported.path.read_bytes()),
            "origin": imported.origin,
            "licence": imported.licence,
            "layout": imported.layout.name,
            "conventions": asdict(conventions),
        },
    )
    return Bundle(Path(imported.name), manifest, graph, _card(manifest))


def _card(manifest: Manifest) -> str:
    by: dict[str, Any] = manifest.trained_by
    told = {"layout": by["layout"]} | {name.replace("_", " "): value for name, value in by["conventions"].items()}
    del told["joints"]
    what = f"a one-stage {manifest.role}, which finds people and their keypoints in a whole picture,"
    return imported_card.write(manifest, what, told, "the fitting")
