"""Makes a bundle of a third-party pose model, so that it can be served, teach, or be the start of a training."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import onnx

from service.pose import bundle
from service.pose.bundle import Bundle, Manifest
from service.pose.skeleton import COCO17, Skeleton
from training.export import imported_card
from training.onnx import wrap
from training.onnx.probe import ImportRefusedError, Shape
from training.onnx.wrap import Conventions

CELL_PX = 4
"""Crop px per heatmap cell in the manifest of a SimCC model, as in exported bundles."""


@dataclass(frozen=True, slots=True)
class ThirdPartyModel:
    """A third-party pose model and what the user states about it.

    Attributes:
        path: The ONNX file.
        model: The graph.
        shape: Inputs and outputs of the graph.
        decoder: ``heatmap`` or ``simcc``.
        name: Name of the bundle.
        version: Version of the bundle.
        role: ``teacher`` or ``student``.
        padding: Factor on a person's box before it is cropped.
        licence: Licence of the weights.
        origin: Authors and source of the model.
        skeleton: Its keypoints are predicted by the bundle.
    """

    path: Path
    model: onnx.ModelProto
    shape: Shape
    decoder: Literal["heatmap", "simcc"]
    name: str
    version: str
    role: Literal["teacher", "student"]
    padding: float
    licence: str
    origin: str
    skeleton: Skeleton = COCO17


def bundle_name(folder: Path) -> str:
    """Turn the name of a folder into a name for a bundle: lower case, with ``-`` for all but letters and digits.

    Raises:
        ImportRefusedError: The name has no letter or digit of ASCII.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("._-")
    if not name:
        raise ImportRefusedError(
            f"{folder}: expected a folder whose name has letters or digits of ASCII, got {folder.name!r}; the bundle "
            "gets its name from it"
        )
    return name


def read(path: Path) -> onnx.ModelProto:
    """Read a graph.

    Raises:
        ImportRefusedError: The file is missing or is not an ONNX graph.
    """
    if not path.is_file():
        raise ImportRefusedError(f"{path}: expected an ONNX file, found nothing")
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's own exceptions share no base
        raise ImportRefusedError(f"{path}: expected an ONNX graph, got {type(error).__name__}: {error}") from error


def describe(imported: ThirdPartyModel, conventions: Conventions, metrics: dict[str, float]) -> Manifest:
    """Make the manifest."""
    width, height = imported.shape.input_size
    cells = imported.shape.cells if imported.decoder == "heatmap" else (width // CELL_PX, height // CELL_PX)
    return Manifest(
        name=imported.name,
        version=imported.version,
        role=imported.role,
        files={},
        skeleton=COCO17.name if imported.skeleton == COCO17 else imported.skeleton,
        input_size=(width, height),
        heatmap_size=cells,
        box_padding=imported.padding,
        decoder=imported.decoder,
        parameters=parameters(imported.model),
        gflops=round(multiply_adds(imported.model, imported.shape) / 1e9, 4),
        metrics=metrics,
        trained_by={
            "imported_from": imported.path.name,
            "imported_sha256": bundle.sha256(imported.path.read_bytes()),
            "origin": imported.origin,
            "licence": imported.licence,
            "conventions": asdict(conventions),
        },
    )


def make(imported: ThirdPartyModel, conventions: Conventions, metrics: dict[str, float]) -> Bundle:
    """Make the bundle in memory; `bundle.write` writes it.

    Raises:
        ImportRefusedError: See `wrap.wrap`.
    """
    graph = wrap.wrap(imported.model, imported.shape, conventions, imported.decoder, imported.skeleton)
    manifest = describe(imported, conventions, metrics)
    return Bundle(Path(imported.name), manifest, graph, _card(manifest, conventions))


def parameters(model: onnx.ModelProto) -> int:
    """Count the weights: all values of float constants, except single numbers."""
    kept = list(model.graph.initializer)
    kept += [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"
    ]
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    return sum(math.prod(it.dims) for it in kept if it.data_type in floats and math.prod(it.dims) > 1)


def multiply_adds(model: onnx.ModelProto, shape: Shape) -> int:
    """Count the multiply-adds of convolutions and matrix products with constant weights, for one picture.

    Layers whose size ONNX cannot infer are not counted.
    """
    single = onnx.ModelProto()
    single.CopyFrom(model)
    width, height = shape.input_size
    wanted = (1, 3, height, width) if shape.channels_first else (1, height, width, 3)
    given = next(it for it in single.graph.input if it.name == shape.input_name)
    for side, value in zip(given.type.tensor_type.shape.dim, wanted, strict=True):
        side.dim_value = value
    del single.graph.value_info[:]
    for output in single.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(single).graph
    sizes = {
        it.name: [side.dim_value for side in it.type.tensor_type.shape.dim] for it in [*graph.value_info, *graph.output]
    }
    weights = {it.name: list(it.dims) for it in graph.initializer}
    total = 0
    for node in graph.node:
        weight, output = weights.get(node.input[1]) if len(node.input) > 1 else None, sizes.get(node.output[0], [])
        if weight and output and node.op_type == "Conv":
            total += math.prod(output) * math.prod(weight[1:])
        elif weight and output and node.op_type in {"MatMul", "Gemm"}:
            total += math.prod(output) * (math.prod(weight) // max(1, output[-1]))
    return total


def _card(manifest: Manifest, conventions: Conventions) -> str:
    told = {
        "Channels": conventions.colour.upper(),
        "Mean of pixels 0..255 (R, G, B)": conventions.mean,
        "Deviation": conventions.deviation,
        "Box padding": manifest.box_padding,
        "Shift of keypoints": f"{conventions.shift} crop px",
        "Activation": conventions.activation,
        "Scale of scores": conventions.scale,
    }
    return imported_card.write(manifest, f"a {manifest.role}", told, "the box padding")
