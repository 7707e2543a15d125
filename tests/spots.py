"""Tiny ONNX networks that detect coloured spots, and images of such spots, so that tests know the exact answer.

A person is a marker at the centre of a box, for the detector, and 17 spots around it in one colour per keypoint, for
the pose network. Everything else is what the service runs: decoding, resizing, onnxruntime, heatmaps, boxes.

The detector cannot tell sizes: it answers a box of `HALF_BOX`, in px of its input, at every marker. Images of
`DETECTOR_SIZE`, upright or rotated, are not scaled.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PillowImage

from service.pose.bundle import Manifest, write
from service.pose.covariance import CovarianceCalibration
from service.pose.skeleton import COCO17
from service.pose.types import Image

BACKGROUND = (114, 114, 114)
MARKER = (255, 0, 255)
COLORS = tuple(
    color
    for color in product((0, 128, 255), repeat=3)
    if color not in {(128, 128, 128), (0, 0, 0), (255, 255, 255), MARKER}
)[: len(COCO17)]
TOLERANCE = 60.0
"""Distance in RGB from which a colour is not detected."""

DETECTOR_SIZE = (640, 384)
POSE_SIZE = (192, 256)
STRIDE, DETECTOR_STRIDE = 4, 8
HALF_BOX = (60, 100)
"""Half the width and height of every box, px."""
MARKER_RADIUS, SPOT_RADIUS = 10, 6
LARGE_MARKER_PX = 150
"""An area between those of the markers of `SURE` and `UNSURE` in a crop."""

# A standing figure: offsets of the keypoints from the box's centre in px, in COCO's order; none touches the marker.
FIGURE = np.array(
    [
        (0, -84), (16, -92), (-16, -92), (32, -80), (-32, -80),
        (26, -52), (-26, -52), (42, -26), (-42, -26), (48, 4), (-48, 4),
        (18, 24), (-18, 24), (20, 54), (-20, 54), (22, 86), (-22, 86),
    ],
    np.float32,
)  # fmt: skip


COVARIANCE = CovarianceCalibration(
    offsets=tuple(0.1 * k for k in range(len(COCO17))), score_weight=1, score_curvature=0.05,
    spread_weight=1, size_weight=0, roundness=0.5, measured_on="nothing", pictures=1, samples=1, coverage=(0.5, 0.9),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """A person to paint.

    Attributes:
        center: Centre of the box, px; coordinates 8·n + 4 lie in the middle of the detector's cells.
        marker_radius: px; the smaller the marker, the lower the detector's score.
    """

    center: tuple[int, int]
    marker_radius: int = MARKER_RADIUS

    @property
    def keypoints(self) -> np.ndarray:
        """float32 (17, 2), image px."""
        return np.asarray(self.center, np.float32) + FIGURE

    @property
    def box_xywh(self) -> list[float]:
        """The detector's box, as COCO writes it."""
        (x, y), (half_w, half_h) = self.center, HALF_BOX
        return [x - half_w, y - half_h, 2 * half_w, 2 * half_h]


SURE, UNSURE = Person((180, 188)), Person((444, 164), marker_radius=4)


def paint(*people: Person, size: tuple[int, int] = DETECTOR_SIZE) -> Image:
    """Paint people on grey, uint8 (H, W, 3) RGB."""
    canvas = np.full((size[1], size[0], 3), BACKGROUND, np.uint8)
    for person in people:
        _spot(canvas, np.asarray(person.center, np.float32) - 0.5, person.marker_radius, MARKER)
        for point, color in zip(person.keypoints, COLORS, strict=True):
            _spot(canvas, point, SPOT_RADIUS, color)
    return canvas


def _spot(canvas: Image, center: np.ndarray, radius: float, color: tuple[int, int, int]) -> None:
    fixed = np.round(center * 16).astype(int).tolist()
    cv2.circle(canvas, fixed, round(radius * 16), color, -1, cv2.LINE_AA, 4)


def encode(pixels: np.ndarray, kind: str = "PNG", orientation: int | None = None, **options: Any) -> bytes:
    """Encode with Pillow, which shares no code with the service; ``orientation`` is written as EXIF."""
    if orientation is not None:
        exif = PillowImage.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    if kind == "WEBP":
        options = {"quality": 95} | options
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def stored_as(upright: Image, orientation: int) -> Image:
    """Rotate and mirror an upright image so that ``orientation`` makes it upright again (CIPA DC-008, 4.6.4)."""
    turns = {
        1: lambda it: it,
        2: lambda it: it[:, ::-1],
        3: lambda it: it[::-1, ::-1],
        4: lambda it: it[::-1],
        5: lambda it: it.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda it: np.rot90(it, 2).transpose(1, 0, 2),
        8: lambda it: np.rot90(it, -1),
    }
    return np.ascontiguousarray(turns[orientation](upright))


def exif(orientation: int, order: str, value: str) -> bytes:
    """Build EXIF's TIFF with one entry: an orientation, as a number of `struct`'s type ``value``."""
    kind = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9}[value]
    number = struct.pack(order + value, orientation).ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + number + bytes(4)


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    """Insert EXIF into a JPEG."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff + jpeg[2:]


@cache
def png_bomb(side: int = 12_000) -> bytes:
    """Build a valid PNG of ``side``² black pixels without holding them in memory; ``side`` is a multiple of 100."""
    compress, rows = zlib.compressobj(9, wbits=-zlib.MAX_WBITS), 100
    assert side % rows == 0
    part = compress.compress(bytes(rows * (1 + 3 * side))) + compress.flush(zlib.Z_FULL_FLUSH)
    checksum = (side * (1 + 3 * side) % 65_521 << 16) + 1  # Adler-32 of so many zeros
    packed = b"\x78\xda" + side // rows * part + b"\x03\x00" + struct.pack(">I", checksum)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def pose_network(shift_cells: int = 0, gain: float = 4.0, fails_on_sure: bool = False, mixed_up: bool = False) -> bytes:
    """Build uint8 (N, H, W, 3) -> heatmaps (N, 17, H/4, W/4).

    Args:
        shift_cells: Cells by which every keypoint is moved to the right.
        gain: Factor on the maps; at 4 every spot's peak is above 1, so that its score is exactly 1.
        fails_on_sure: Whether running the network raises for people whose marker is as large as `SURE`'s.
        mixed_up: Whether the keypoints come in the reverse order, as those of a bad model.
    """
    graph = Graph()
    seen = graph.likeness(COLORS[::-1] if mixed_up else COLORS)
    pooled = graph.add("AveragePool", [seen], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2)
    # Blurred by a Gaussian, so that the decoder finds a peak; moving the Gaussian in its window moves the peak.
    steps = np.arange(-3, 4, dtype=np.float32)
    along = np.exp(-(steps**2) / (2 * 1.2**2))
    moved = np.exp(-((steps + shift_cells) ** 2) / (2 * 1.2**2))
    kernel = along[:, None] * moved[None]
    kernel *= gain / (along.sum() ** 2)
    weights = np.broadcast_to(kernel, (len(COLORS), 1, 7, 7)).astype(np.float32)
    output = "" if fails_on_sure else "heatmaps"
    seen = graph.add("Conv", [pooled, graph.constant(weights)], output, group=len(COLORS), pads=[3] * 4)
    if fails_on_sure:
        # Gathers the output of image 0, or of image 1, which does not exist: networks run one image at a time.
        marked = graph.add("ReduceSum", [graph.likeness((MARKER,)), graph.constant(np.array([1, 2, 3]))], keepdims=0)
        large = graph.add("Greater", [marked, graph.constant(np.array([LARGE_MARKER_PX], np.float32))])
        graph.add("Gather", [seen, graph.add("Cast", [large], to=TensorProto.INT64)], "heatmaps")
    return graph.build({"heatmaps": ["n", len(COLORS), "h", "w"]})


def detector_network() -> bytes:
    """Build uint8 (N, H, W, 3) -> centers (N, 1, h, w) and distances (N, 4, h, w) for `service.pose.detector`."""
    graph = Graph()
    seen = graph.likeness((MARKER,))
    cells = graph.add("AveragePool", [seen], kernel_shape=[DETECTOR_STRIDE] * 2, strides=[DETECTOR_STRIDE] * 2)
    highest = graph.add("MaxPool", [cells], kernel_shape=[3, 3], pads=[1] * 4)
    peak = graph.add("Cast", [graph.add("Equal", [cells, highest])], to=TensorProto.FLOAT)
    graph.add("Mul", [cells, peak], "centers")
    sides = np.array([*HALF_BOX, *HALF_BOX], np.float32).reshape(1, 4, 1, 1)
    zeros = graph.add("Mul", [cells, graph.constant(np.zeros((1, 1, 1, 1), np.float32))])
    graph.add("Add", [zeros, graph.constant(sides)], "distances")
    return graph.build({"centers": ["n", 1, "h", "w"], "distances": ["n", 4, "h", "w"]})


class Graph:
    """Builder of an ONNX graph with the input ``pixels``."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def likeness(self, colors: tuple[tuple[int, int, int], ...], rgb: str = "", tolerance: float = TOLERANCE) -> str:
        """Add (N, C, H, W): max(0, 1 - |rgb - color|² / tolerance²) for each colour; ``rgb``: float (N, 3, H, W)."""
        if not rgb:
            rgb = self.add("Transpose", [self.add("Cast", ["pixels"], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
        squared = self.add("Mul", [rgb, rgb])
        palette = np.asarray(colors, np.float32)
        # |x - c|² = Σx² - 2 c·x + |c|²
        cross = self.add("Conv", [rgb, self.constant(2 * palette[:, :, None, None] / tolerance**2)])
        norm = self.add("Conv", [squared, self.constant(np.full((len(colors), 3, 1, 1), 1 / tolerance**2, np.float32))])
        offset = self.constant((1 - (palette**2).sum(axis=1) / tolerance**2).reshape(1, -1, 1, 1))
        return self.add("Relu", [self.add("Add", [self.add("Sub", [cross, norm]), offset])])

    def build(self, outputs: dict[str, list[int | str]]) -> bytes:
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "height", "width", 3])
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "spots", [pixels], results, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def write_pose_bundle(
    folder: Path,
    name: str,
    role: Literal["student", "teacher"],
    onnx_bytes: bytes | None = None,
    version: str = "1",
    covariance: CovarianceCalibration | None = None,
    **network: Any,
) -> Path:
    """Write a pose bundle; ``network`` are arguments of `pose_network`, unless ``onnx_bytes`` is given."""
    manifest = Manifest(
        name=name,
        version=version,
        role=role,
        files={},
        skeleton="coco17",
        input_size=POSE_SIZE,
        heatmap_size=(POSE_SIZE[0] // STRIDE, POSE_SIZE[1] // STRIDE),
        box_padding=1.25,
        decoder="heatmap",
        parameters=len(COLORS) * 3,
        gflops=0.01,
        metrics={"ap": 1.0},
        covariance=covariance,
    )
    content = pose_network(**network) if onnx_bytes is None else onnx_bytes
    return write(folder / name, manifest, content, f"# {name}\n").path


def write_detector_bundle(folder: Path, name: str = "detector", version: str = "1") -> Path:
    """Write the bundle of a detector."""
    manifest = Manifest(
        name=name,
        version=version,
        role="detector",
        files={},
        skeleton=None,
        input_size=DETECTOR_SIZE,
        heatmap_size=None,
        box_padding=None,
        decoder="detector",
        parameters=3,
        gflops=0.01,
    )
    return write(folder / name, manifest, detector_network(), f"# {name}\n").path


def write_models(folder: Path) -> Path:
    """Write a models folder: detector, student, and a teacher whose keypoints are one cell too far right.

    The student knows covariances, the teacher does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_detector_bundle(folder)
    write_pose_bundle(folder, "student-s", "student", covariance=COVARIANCE)
    write_pose_bundle(folder, "teacher", "teacher", shift_cells=1)
    return folder
