"""Recognises the outputs of a one-stage pose network, which finds people and their keypoints in the whole picture.

Layouts, with Q rows for people and K keypoints:
    ``yolo-pose``: one table (1, Q, C), or (1, C, Q), with a row for each anchor: box, score (objectness and class score
        in YOLOv7), x, y and score of each keypoint. Neighbouring anchors find the same person.
    ``yolo-pose-nms``: one table (1, Q, 6 + 3 K), each person once: box xyxy, score, class, keypoints.
    ``rtmo``: boxes xyxy with scores (1, Q, 5) and keypoints (1, Q, K, 3), each person once.
    ``detr-pose``: boxes (1, Q, 4), if any, class scores (1, Q, C) and keypoints (1, Q, ...), each person once.
Sources: ultralytics' ``Pose.kpts_decode`` and ``NMSModel``, YOLOv7-pose's ``IKeypoint``, mmdeploy's rewriter of
``RTMOHead.forward``, GroupPose's ``PostProcess``, RF-DETR's ``PostProcess`` and ``resolve_output_names``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.onnx.probe import BOX, ImportRefusedError, Shape

LayoutName = Literal["yolo-pose", "yolo-pose-nms", "rtmo", "detr-pose"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
MAX_CLASSES = 400
ROLES = {
    "boxes": ("dets", "boxes", "pred_boxes"),
    "scores": ("labels", "logits", "scores", "pred_logits"),
    "keypoints": ("keypoints", "pred_keypoints"),
}
"""Usual names of the outputs of ``detr-pose``."""


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """How people are written in the outputs of a graph.

    Attributes:
        name: The layout.
        boxes: Output with the boxes; "" where there are none. For a table, the table.
        scores: Output with the scores. For a table, the table.
        keypoints: Output with the keypoints. For a table, the table.
        transposed: Whether the table is (1, C, Q).
        rows: Q; 0 where there were none in the picture that the graph was run on.
        score_columns: Numbers in a row that are about the score.
        keypoint_count: K.
        values: Numbers of one keypoint: x, y, score where there are three, and others that are not read.
        slots: Sets of keypoints in a row, one for each class.
    """

    name: LayoutName
    boxes: str
    scores: str
    keypoints: str
    rows: int
    score_columns: int
    keypoint_count: int
    values: int
    transposed: bool = False
    slots: int = 1

    @property
    def is_table(self) -> bool:
        """Whether one output holds everything."""
        return self.boxes == self.keypoints


def recognise(
    shape: Shape, found: list[NDArray[np.floating]], count: int, wanted: LayoutName | None = None
) -> OutputLayout | None:
    """Tell the layout of a graph's outputs.

    Args:
        shape: The graph's input and the names of its outputs.
        found: The outputs for one picture.
        count: Number of keypoints to expect.
        wanted: The layout that the user named.

    Returns:
        The layout; None if the outputs are not those of a one-stage network.

    Raises:
        ImportRefusedError: They are not of the layout that the user named.
    """
    outputs = dict(zip(shape.outputs, found, strict=True))
    layout = _table(outputs, count, wanted) or _rtmo(outputs) or _detr(outputs, count)
    if wanted is not None and (layout is None or layout.name != wanted):
        told = ", ".join(f"{name} {it.shape}" for name, it in outputs.items())
        raise ImportRefusedError(
            f"decoder {wanted}: expected its outputs for {count} keypoints, got {told}; choose by --outputs, or name "
            "the keypoints by --skeleton or --joints"
        )
    return layout


def _table(outputs: dict[str, NDArray[np.floating]], count: int, wanted: LayoutName | None) -> OutputLayout | None:
    if len(outputs) != 1:
        return None
    ((name, table),) = outputs.items()
    if table.ndim != 3:
        return None
    sides = {transposed: table.shape[1 if transposed else 2] for transposed in (False, True)}
    # Three numbers a keypoint and one or two about the score are usual. Many classes look like a detector without
    # keypoints, so the user has to say that it is none.
    for values, most in ((3, 2), (2, 2), *([(3, MAX_CLASSES)] if wanted else [])):
        for transposed, columns in sides.items():
            about_score = columns - BOX - values * count
            if not 1 <= about_score <= most or (most > 2 and columns > table.size // columns):
                continue
            rows = table[0].T if transposed else table[0]
            kind: LayoutName = "yolo-pose"
            if about_score == 2 and (wanted == "yolo-pose-nms" or (wanted is None and _has_class_column(rows))):
                kind = "yolo-pose-nms"
            return OutputLayout(kind, name, name, name, len(rows), about_score, count, values, transposed)
    return None


def _has_class_column(rows: NDArray[np.floating]) -> bool:
    """Whether the second number about the score is a class, 0, 1, …, and not a probability."""
    classes = rows[:, BOX + 1]
    return bool((classes == np.round(classes)).all())


def _rtmo(outputs: dict[str, NDArray[np.floating]]) -> OutputLayout | None:
    if len(outputs) != 2:
        return None
    (boxes, with_score), (keypoints, points) = sorted(outputs.items(), key=lambda it: it[1].ndim)
    if with_score.ndim != 3 or with_score.shape[2] != BOX + 1 or points.ndim != 4 or points.shape[3] != 3:
        return None
    return OutputLayout("rtmo", boxes, boxes, keypoints, points.shape[1], 1, points.shape[2], 3)


def _detr(outputs: dict[str, NDArray[np.floating]], count: int) -> OutputLayout | None:
    roles = _roles(outputs, count)
    if roles is None:
        return None
    points, scores = outputs[roles["keypoints"]], outputs[roles["scores"]]
    if points.ndim == 4:
        places, values = points.shape[2:]
        slots = places // count
        if places % count or values < 2:
            return None
    else:
        slots, values = 1, points.shape[2] // count
        if points.shape[2] not in {2 * count, 3 * count}:
            return None
    return OutputLayout(
        "detr-pose",
        roles.get("boxes", ""),
        roles["scores"],
        roles["keypoints"],
        points.shape[1],
        scores.shape[2],
        count,
        values,
        slots=slots,
    )


def _roles(outputs: dict[str, NDArray[np.floating]], count: int) -> dict[str, str] | None:
    """Which output is what, by the usual names or else by the shapes; None if it is no such network."""
    if len(outputs) not in {2, 3} or any(it.ndim not in {3, 4} for it in outputs.values()):
        return None
    if len({it.shape[1] for it in outputs.values()}) != 1:
        return None
    named = {role: name for role, names in ROLES.items() for name in outputs if name.lower() in names}
    if set(named.values()) == set(outputs) and {"scores", "keypoints"} <= set(named):
        return named
    flat = {name: it for name, it in outputs.items() if it.ndim == 3}
    points = [name for name, it in outputs.items() if it.ndim == 4 or it.shape[2] in {2 * count, 3 * count}]
    boxes = [name for name in flat if flat[name].shape[2] == BOX and name not in points][:1]
    scores = [name for name in flat if name not in [*points, *boxes]]
    if len(points) != 1 or len(scores) != 1 or len(boxes) != len(outputs) - 2:
        return None
    return {"keypoints": points[0], "scores": scores[0]} | ({"boxes": boxes[0]} if boxes else {})
