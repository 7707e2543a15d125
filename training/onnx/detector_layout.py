"""How the outputs of third-party detectors hold boxes, recognised by their shapes and values.

Sources of the layouts: MMDeploy's ``dets`` and ``labels``; YOLOX' ``demo_postprocess`` (yolox/utils/demo_utils.py);
Ultralytics' heads and YOLOv5's ``Detect``; DETR's ``PostProcess``; RT-DETR's and D-FINE's ``tools/export_onnx.py``;
RF-DETR's export (``dets`` without scores, ``labels`` with a logit for each class); YOLOv7's ``--end2end``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Floats
from training.onnx.detector_probe import DetectorProbe
from training.onnx.probe import ImportRefusedError

MOST_QUERIES = 1000
"""Boxes that a DETR lists at most, each object once; longer lists are cells that have to be suppressed."""
POSE_HINT = (
    "for a pose network pass --role student or teacher, and --skeleton or --joints if it has other keypoints than COCO"
)
"""What to do with a graph that is no detector."""
BoxFormat = Literal["xyxy", "cxcywh"]
BoxUnit = Literal["px", "unit", "cells"]
PYRAMIDS = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32))
"""Strides of the grids whose cells a detector lists one after another."""
KNOWN_COUNTS = (1, 80, 91, 365)
"""Numbers of classes: people alone, COCO (as 80, or by category id), and Objects365."""
PERSON_OF_COUNT = {1: 0, 80: 0, 90: 0, 91: 1, 365: 0, 366: 1}
"""Index of people by the number of classes. COCO's category ids begin with 1: of 91 classes the first stays empty."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Some columns of an output, read as a table with one row for each box.

    Attributes:
        output: Name of the output.
        first: First column.
        count: Number of columns.
    """

    output: str
    first: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class DetectorLayout:
    """How to read boxes of people off the outputs of a third-party detector.

    Attributes:
        name: What it looks like, for messages.
        boxes: Four columns; empty for ``maps``.
        scores: A score for each class, or the score of the class in ``labels``.
        labels: The class of each box; None where every class has a score.
        objectness: Factor on all scores; None: there is none.
        maps: Score map and distance map of each level, finest first, of a detector that answers in maps.
        columns_first: Tables are (1, columns, rows).
        box_format: Corners, or centre and size.
        unit: Of the boxes: ``px`` of the input, ``unit`` for shares of the input, or ``cells`` of the grid (YOLOX: an
            offset from the cell and the logarithm of the size; maps: distances in strides).
        strides: Of the grids whose cells are listed; empty where boxes are not bound to cells.
        cell_offset: Where a cell's reference point lies in it, 0 at its corner to 0.5 in its middle; for ``maps``.
        activation: Turns class scores into 0..1; ``softmax`` has a last class for "no object".
        class_count: Number of classes; None where it is not known.
        person: Index of people; None where it is not known.
        is_final: The graph lists each object once, so that no non-maximum suppression is needed.
    """

    name: str
    boxes: Columns
    scores: Columns
    labels: Columns | None = None
    objectness: Columns | None = None
    maps: tuple[tuple[str, str], ...] = ()
    columns_first: bool = False
    box_format: BoxFormat = "cxcywh"
    unit: BoxUnit = "px"
    strides: tuple[int, ...] = ()
    cell_offset: float = 0.0
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    class_count: int | None = None
    person: int | None = None
    is_final: bool = False

    @property
    def is_one_table(self) -> bool:
        """Whether a row holds the box and a score for each class, and may have an objectness in between."""
        return not self.maps and self.labels is None and self.boxes.output == self.scores.output


def recognise(found: DetectorProbe, has_objectness: bool | None = None) -> DetectorLayout:
    """Recognise the layout of a detector's outputs.

    Args:
        found: What the detector answered for a picture.
        has_objectness: Whether rows have an objectness before the classes; None: judge by their number.

    Raises:
        ImportRefusedError: No known layout fits.
    """
    layout = _of_maps(found.outputs)
    if layout is None:
        outputs = {name: values for name, values in found.outputs.items() if not _is_mask(values)}
        layout = (
            _of_listed_objects(outputs)
            or _of_separate_tables(outputs, found)
            or _of_one_table(outputs, found, has_objectness)
        )
        if any(values.ndim == 4 for values in outputs.values()):  # each object's keypoints
            layout = None
    if layout is None:
        got = ", ".join(f"{name} {values.shape}" for name, values in found.outputs.items())
        raise ImportRefusedError(
            "expected the outputs of a detector: (1, M, 5 + classes) or (1, 4 + classes, M) as of YOLO, (1, N, 6), "
            "dets (1, N, 5) and labels (1, N), labels, boxes and scores, boxes (1, N, 4) and logits (1, N, classes), "
            f"or score maps with distance maps; got {got}; {POSE_HINT}"
        )
    return _with_person(layout, found.class_names)


def centers(input_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    """List the cells of all grids: indices (M, 2) along x and y, and strides (M, 1) in px, both float32."""
    cells, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[: input_size[1] // stride, : input_size[0] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _of_maps(outputs: Mapping[str, NDArray[Any]]) -> DetectorLayout | None:
    """Score maps (1, classes, h, w), each with a distance map (1, 4, h, w) of the same size: RTMDet without its end."""
    maps = {name: values.shape for name, values in outputs.items() if values.ndim == 4}
    if len(maps) < 2 or len(maps) != len(outputs):
        return None
    pairs = []
    for size in sorted({shape[2:] for shape in maps.values()}, reverse=True):
        of_size = [name for name, shape in maps.items() if shape[2:] == size]
        distances = [name for name in of_size if maps[name][1] == 4]
        scores = [name for name in of_size if maps[name][1] != 4]
        if len(distances) != 1 or len(scores) != 1:
            return None
        pairs.append((scores[0], distances[0]))
    classes = maps[pairs[0][0]][1]
    logits = not all(_within_unit(outputs[score]) for score, _ in pairs)
    return DetectorLayout(
        "score maps and distance maps", Columns(""), Columns("", 0, classes), maps=tuple(pairs), box_format="xyxy",
        activation="sigmoid" if logits else "none", class_count=classes,
    )  # fmt: skip


def _of_listed_objects(outputs: Mapping[str, NDArray[Any]]) -> DetectorLayout | None:
    """Objects with a class each: dets and labels; labels, boxes and scores; or rows of six or seven."""
    tables = {name: values.shape[-1] for name, values in outputs.items() if _is_table(values)}
    lists = [name for name, values in outputs.items() if _is_list(values)]
    if len(tables) == 1 and lists:
        ((name, width),) = tables.items()
        labels = [it for it in lists if _is_whole(outputs[it], it)]
        scores = [it for it in lists if it not in labels]
        if width == 5 and len(labels) == 1 and not scores:
            named, score = "dets and labels", Columns(name, 4)
        elif width == 4 and len(labels) == 1 and len(scores) == 1:
            named, score = "labels, boxes and scores", Columns(scores[0])
        else:
            return None
        return DetectorLayout(
            named, Columns(name, 0, 4), score, Columns(labels[0]), box_format="xyxy", unit=_unit(outputs[name]),
            is_final=True,
        )  # fmt: skip
    if len(outputs) != 1 or len(tables) != 1:
        return None
    ((name, width),) = tables.items()
    rows = outputs[name].reshape(-1, width)
    if width == 6 and _whole(rows[:, 5]):
        return DetectorLayout(
            "rows of box, score and class", Columns(name, 0, 4), Columns(name, 4), Columns(name, 5), box_format="xyxy",
            unit=_unit(rows[:, :4]), is_final=True,
        )  # fmt: skip
    if width == 7 and outputs[name].ndim == 2 and not rows[:, 0].any() and _whole(rows[:, 5]):
        return DetectorLayout(
            "rows of picture, box, class and score", Columns(name, 1, 4), Columns(name, 6), Columns(name, 5),
            box_format="xyxy", unit=_unit(rows[:, 1:5]), is_final=True,
        )  # fmt: skip
    return None


def _of_separate_tables(outputs: Mapping[str, NDArray[Any]], found: DetectorProbe) -> DetectorLayout | None:
    """Boxes (1, N, 4) and a score of each class (1, N, classes): DETR, RT-DETR, RF-DETR, YOLO-NAS."""
    tables = {name: values for name, values in outputs.items() if _is_table(values)}
    boxes = [name for name, values in tables.items() if values.shape[-1] == 4]
    if len(boxes) > 1:  # four classes: the scores have no order of corners or sizes, so names decide
        boxes = [name for name in boxes if "box" in name or name == "dets"]
    scores = [name for name in tables if name not in boxes]
    scores = [name for name in scores if tables[name].shape[:-1] == tables[boxes[0]].shape[:-1]] if boxes else []
    if len(boxes) != 1 or len(scores) != 1:
        return None
    classes = tables[scores[0]].shape[-1]
    activation, kept = _activation(tables[scores[0]].reshape(-1, classes))
    layout = DetectorLayout(
        f"boxes and {'scores' if activation == 'none' else 'logits'} of each class", Columns(boxes[0], 0, 4),
        Columns(scores[0], 0, classes), activation=activation, class_count=classes - (not kept),
    )  # fmt: skip
    rows = tables[boxes[0]].reshape(-1, 4)
    listed, _ = _pyramid(len(rows), found.input_size)
    return replace(_with_boxes(layout, rows, found), is_final=not listed and len(rows) <= MOST_QUERIES)


def _of_one_table(
    outputs: Mapping[str, NDArray[Any]], found: DetectorProbe, has_objectness: bool | None
) -> DetectorLayout | None:
    """Rows of box, perhaps an objectness, and a score of each class: the YOLOs, and Ultralytics' RT-DETR."""
    tables = {name: values for name, values in outputs.items() if _is_table(values)}
    # YOLOv5's exports may have the three grids as further outputs of five dimensions.
    if len(tables) != 1 or any(values.ndim != 5 for name, values in outputs.items() if name not in tables):
        return None
    ((name, values),) = tables.items()
    table: NDArray[Any] = values[0] if values.ndim == 3 else values
    usual = [bool({side - 4, side - 5} & {*KNOWN_COUNTS, len(found.class_names)}) for side in table.shape]
    columns_first = usual[0] if usual[0] != usual[1] else table.shape[0] < table.shape[1]
    rows = table.T if columns_first else table
    rows = rows[:, : rows.shape[1] - _mask_columns(rows.shape[1], found)]
    width = rows.shape[1]
    if width < 5:
        return None
    if has_objectness is None:
        has_objectness = _has_objectness(width, columns_first, len(found.class_names))
    classes = width - 4 - has_objectness
    if classes < 1:
        return None
    listed, has_anchors = _pyramid(len(rows), found.input_size)
    activation: Literal["none", "sigmoid"] = "none" if _within_unit(rows[:, 4:]) else "sigmoid"
    layout = DetectorLayout(
        "rows of box" + (", objectness" if has_objectness else "") + " and classes",
        Columns(name, 0, 4), Columns(name, 4 + has_objectness, classes),
        objectness=Columns(name, 4) if has_objectness else None, columns_first=columns_first,
        activation=activation, class_count=classes,
        is_final=not listed and not has_anchors and len(rows) <= MOST_QUERIES,
    )  # fmt: skip
    return _with_boxes(layout, rows[:, :4], found)


def _with_boxes(layout: DetectorLayout, rows: NDArray[Any], found: DetectorProbe) -> DetectorLayout:
    """Complete a layout with format and unit of its boxes (M, 4), judged by their values.

    In a grid the decoded boxes have their middle near their own cell; those that are not decoded have not.
    """
    strides, _ = _pyramid(len(rows), found.input_size)
    if not strides:
        corners = (rows[:, 2:] >= rows[:, :2]).mean() > 0.98
        return replace(layout, box_format="xyxy" if corners else "cxcywh", unit=_unit(rows))
    cells, sizes = centers(found.input_size, strides)
    wanted = (cells + 0.5) * sizes
    size = np.array(found.input_size, np.float32)
    middles: dict[tuple[BoxFormat, BoxUnit], NDArray[Any]] = {
        ("cxcywh", "px"): rows[:, :2],
        ("cxcywh", "unit"): rows[:, :2] * size,
        ("cxcywh", "cells"): (rows[:, :2] + cells) * sizes,
        ("xyxy", "px"): (rows[:, :2] + rows[:, 2:]) / 2,
        ("xyxy", "unit"): (rows[:, :2] + rows[:, 2:]) / 2 * size,
    }
    apart = {kind: float(np.median(np.abs(middle - wanted) / sizes)) for kind, middle in middles.items()}
    box_format, unit = min(apart, key=lambda kind: apart[kind])
    return replace(layout, box_format=box_format, unit=unit, strides=strides)


def _pyramid(count: int, input_size: tuple[int, int]) -> tuple[tuple[int, ...], bool]:
    """Return the strides of the grids that have ``count`` cells, if any; and whether three times as many would fit."""
    sizes = {it: sum((input_size[0] // s) * (input_size[1] // s) for s in it) for it in PYRAMIDS}
    strides = next((it for it, cells in sizes.items() if cells == count), ())
    return strides, any(count == 3 * cells for cells in sizes.values())


def _activation(scores: NDArray[Any]) -> tuple[Literal["none", "sigmoid", "softmax"], bool]:
    """Return what turns scores (N, classes) into 0..1, and whether the last class is a class of objects."""
    if _within_unit(scores):
        return "none", True
    # Nearly all of DETR's queries find nothing, and say so by the last class.
    is_softmax = scores.shape[1] > 1 and (scores.argmax(axis=1) == scores.shape[1] - 1).mean() > 0.5
    return ("softmax", False) if is_softmax else ("sigmoid", True)


def _has_objectness(width: int, columns_first: bool, named: int) -> bool:
    """Judge by the number of columns whether there is an objectness before the classes."""
    if named and width - 4 in {named, named + 1}:
        return width - 5 == named
    if width - 4 in KNOWN_COUNTS and width - 5 not in KNOWN_COUNTS:
        return False
    if width - 5 in KNOWN_COUNTS and width - 4 not in KNOWN_COUNTS:
        return not columns_first or width > 6  # two classes of YOLOv8 look like YOLOv5's one with its objectness
    return not columns_first


def _with_person(layout: DetectorLayout, names: Mapping[int, str]) -> DetectorLayout:
    people = [index for index, name in names.items() if name.lower() in {"person", "people", "pedestrian", "human"}]
    if people:
        return replace(layout, person=people[0])
    if layout.class_count is None:
        return layout
    return replace(layout, person=PERSON_OF_COUNT.get(layout.class_count))


def _is_table(values: NDArray[Any]) -> bool:
    return (values.ndim == 3 and values.shape[0] == 1 and values.shape[2] >= 4) or (
        values.ndim == 2 and values.shape[0] != 1 and values.shape[1] in {4, 5, 6, 7}
    )


def _mask_columns(width: int, found: DetectorProbe) -> int:
    """Return how many columns follow the classes: a YOLO that segments has one for each channel of its masks."""
    channels = [it.shape[1] for it in found.outputs.values() if _is_mask(it)]
    named = len(found.class_names)
    fits = named and len(channels) == 1 and width - channels[0] in {4 + named, 5 + named}
    return channels[0] if fits else 0


def _is_mask(values: NDArray[Any]) -> bool:
    """Return whether an output is a mask of each object, (1, N, h, w), which is of no use here."""
    return values.ndim == 4 and min(values.shape[2:]) > 8


def _is_list(values: NDArray[Any]) -> bool:
    return values.ndim == 1 or (values.ndim == 2 and values.shape[0] == 1) or values.shape[2:] == (1,)


def _is_whole(values: NDArray[Any], name: str) -> bool:
    """Return whether a list holds classes. Scores may be whole by chance, so names decide about numbers with points."""
    if np.issubdtype(values.dtype, np.integer):
        return True
    return _whole(values) and not any(word in name.lower() for word in ("score", "conf", "prob"))


def _within_unit(scores: NDArray[Any]) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _whole(values: NDArray[Any]) -> bool:
    return bool((values == np.round(values)).all())


def _unit(boxes: NDArray[Any]) -> Literal["px", "unit"]:
    """Boxes of 640 px that all lie in the first two would be points; an output without boxes counts as px."""
    return "unit" if boxes.size and np.abs(boxes[..., :4]).max() <= 2 and boxes.any() else "px"
