"""Makes an int8 copy of a bundle, if that is faster on this CPU and costs little accuracy.

The quantisation is static and per channel, with pairs of QuantizeLinear and DequantizeLinear
(onnxruntime.quantization). Ranges are averages over the inputs that the service would give the network. Decoder, head
and everything behind them stay float.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.pose import boxes as boxes_
from service.pose import bundle
from service.pose.backends.runner import OnnxRunner, Runner
from service.pose.bundle import Bundle, Manifest, Quantized
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from training.data import coco, images
from training.evaluation import bench, coco_ap
from training.export import model_card

MOST_LOST = 0.01
"""Largest loss of AP that is accepted."""
FLOAT = ("decoder", "head", "center", "distance")
"""Parts of this project's networks, by the names of their nodes, that stay float because int8 costs them accuracy."""
MOST_PICTURES = 64
"""Largest number of pictures to calibrate on."""
ROUNDS = 60
"""Calls of each network that are timed."""
RANGES: dict[str, Any] = {"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.05}


class QuantizeError(ValueError):
    """An int8 bundle cannot be made, or is no improvement."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Accuracy (AP, 0..1) and median time of a call in ms."""

    ap: float
    ms: float


class RecordingRunner:
    """A runner that records its inputs."""

    def __init__(self, runner: Runner) -> None:
        self.backend = runner.backend
        self.preferred_batch_size = runner.preferred_batch_size
        self.inputs: list[NDArray[np.uint8]] = []
        self._runner = runner

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Runner.run`."""
        self.inputs.append(pixels.copy())
        return self._runner.run(pixels)


class CalibrationInputs:
    """Gives inputs to onnxruntime's calibration, as its ``CalibrationDataReader`` does."""

    def __init__(self, name: str, inputs: list[NDArray[np.uint8]]) -> None:
        self._name = name
        self._left = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next input by its name in the graph; None at the end."""
        pixels = next(self._left, None)
        return None if pixels is None else {self._name: pixels}


def quantize(opened: Bundle, source: coco.Source, every: int, out: Path) -> Bundle:
    """Make an int8 bundle, measure both, and write it if it is an improvement.

    Args:
        opened: The float bundle.
        source: Labelled pictures.
        every: Pictures whose id this number divides are measured on, the others are for calibration.
        out: Bundle folder to create or replace; its name is the bundle's.

    Raises:
        QuantizeError: It is slower or loses more than `MOST_LOST`, or the arguments do not fit.
        DatasetError: The pictures cannot be read.
    """
    if opened.manifest.quantized is not None:
        raise QuantizeError(f"{opened.path}: expected a float bundle, got an int8 one; give the one it is made from")
    truth = coco.load(source.annotations)
    others = [i for i in sorted(truth.imgs) if i % every]
    if not others:
        raise QuantizeError(
            f"{source.annotations}: expected pictures whose id {every} does not divide, to calibrate on, got none; "
            "give --every 2 or more"
        )
    # The calibration of scores is that of the float graph, so both are measured without it.
    plain = replace(opened, manifest=opened.manifest.model_copy(update={"calibration": None}))
    inputs = served_inputs(plain, source, others[:: -(-len(others) // MOST_PICTURES)])
    small = replace(plain, onnx=to_int8(opened.onnx, inputs))
    measured = {"float": plain, "int8": small}
    ms = {name: float(np.median(times)) for name, times in _times(measured).items()}
    figures = {name: Figures(_ap(it, source, every), ms[name]) for name, it in measured.items()}
    require_gain(opened.manifest.name, figures["float"], figures["int8"])
    manifest = _manifest(opened, out.name, figures["float"], figures["int8"], len(inputs))
    return bundle.write(out, manifest, small.onnx, _card(opened, manifest))


def require_gain(name: str, plain: Figures, small: Figures) -> None:
    """Refuse an int8 bundle that is no improvement.

    Raises:
        QuantizeError: ``small`` is not faster, or loses more than `MOST_LOST`.
    """
    if small.ms < plain.ms and plain.ap - small.ap <= MOST_LOST:
        return
    raise QuantizeError(
        f"{name}: expected int8 to take less time and to lose at most {MOST_LOST} AP, got {small.ms / plain.ms:.2f} x "
        f"the time and AP {small.ap:.3f} against {plain.ap:.3f}; nothing was written, serve the float bundle"
    )


def served_inputs(opened: Bundle, source: coco.Source, ids: list[int]) -> list[NDArray[np.uint8]]:
    """Record the inputs of the network on some pictures: crops of labelled people, or resized whole pictures."""
    truth = coco.load(source.annotations)
    recorder = RecordingRunner(OnnxRunner(opened.onnx, threads=1))
    is_detector = opened.manifest.is_detector
    ask: Any = PersonDetector(opened, recorder) if is_detector else PoseEstimator(opened, recorder)
    for image_id in ids:
        image = images.read_labelled(source.images, truth.imgs[image_id])
        if is_detector:
            ask.detect(image)
        else:
            people = coco.people(truth, image_id, with_keypoints=True)
            ask.estimate(image, boxes_.from_xywh([a["bbox"] for a in people[:1]]))
    if not recorder.inputs:
        raise QuantizeError(f"{source.annotations}: expected labelled people to calibrate on, got none")
    return recorder.inputs


def to_int8(onnx: bytes, inputs: list[NDArray[np.uint8]]) -> bytes:
    """Quantise a graph's convolutions, except those in `FLOAT`, with the ranges that ``inputs`` give.

    Raises:
        QuantizeError: There is no convolution to quantise.
    """
    # Imported here, because they take a second and only this subcommand needs them.
    import onnx as onnx_  # noqa: PLC0415
    from onnxruntime import quantization  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    model = onnx_.load_from_string(onnx)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"  # float parts are found by name
    reader = CalibrationInputs(model.graph.input[0].name, inputs)
    with tempfile.TemporaryDirectory() as folder:
        raw, plain, small = (Path(folder) / f"{name}.onnx" for name in ("raw", "plain", "small"))
        onnx_.save(model, raw)
        quant_pre_process(str(raw), str(plain), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx_.load(plain).graph.node if node.op_type == "Conv"]
        kept = [name for name in convolutions if any(part in name for part in FLOAT)]
        if len(kept) == len(convolutions):
            raise QuantizeError("expected convolutions before decoder and head, got none; int8 has nothing to gain")
        quantization.quantize_static(
            str(plain),
            str(small),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options=RANGES,
        )
        return small.read_bytes()


def summary(manifest: Manifest) -> str:
    """Summarise the gain in one line."""
    known = manifest.metrics
    return f"{known['time_ratio']:.2f} x the time, AP {known['ap']:.3f} against {known['ap_float']:.3f} in float"


def _times(measured: dict[str, Bundle]) -> dict[str, list[float]]:
    picture, box = bench.timed_picture(), np.array([bench.BOX], np.float32)

    def call(opened: Bundle) -> Callable[[], object]:
        runner = OnnxRunner(opened.onnx, threads=1)
        if opened.manifest.is_detector:
            detector = PersonDetector(opened, runner)
            return lambda: detector.detect(picture)
        estimator = PoseEstimator(opened, runner)
        return lambda: estimator.estimate(picture, box)

    return bench.interleave({name: call(opened) for name, opened in measured.items()}, ROUNDS)


def _ap(opened: Bundle, source: coco.Source, every: int) -> float:
    runner = OnnxRunner(opened.onnx, threads=1)
    if opened.manifest.is_detector:
        return coco_ap.score_boxes(source, PersonDetector(opened, runner), every).ap
    return coco_ap.score_poses(source, PoseEstimator(opened, runner), every=every).ap


def _manifest(opened: Bundle, name: str, plain: Figures, small: Figures, inputs: int) -> Manifest:
    old = opened.manifest
    changes = {
        "name": name,
        "calibration": None,  # of the float graph's scores
        "covariance": None,
        "metrics": {"ap": small.ap, "ap_float": plain.ap, "time_ratio": small.ms / plain.ms},
        "quantized": Quantized(
            source=old.name, source_version=old.version, source_sha256=old.files[bundle.ONNX], inputs=inputs
        ).model_dump(),
    }
    try:
        return Manifest.model_validate(old.model_dump() | changes)
    except ValidationError as error:
        raise QuantizeError(f"--out: expected a folder whose name may be a bundle's, got {name!r}: {error}") from error


def _card(opened: Bundle, manifest: Manifest) -> str:
    made = manifest.quantized
    assert made is not None
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"An int8 copy of `{made.source}` {made.source_version}, sha256 of its graph `{made.source_sha256}`,",
        f"calibrated on {made.inputs} inputs; decoder and head are float. Against it, on held-back pictures and one",
        f"core of the machine that made it: {summary(manifest)}.",
        "",
        f"{model_card.FIGURES}\n\nNone measured besides.\n",
        *model_card.SCORES_UNKNOWN,
        f"## The card of `{made.source}` in float",
        "",
        "Its figures and scores are of the float graph.",
        "",
    ]
    # A level lower: what is measured later goes into the sections above.
    return "\n".join([*lines, re.sub(r"^#", "##", opened.card, flags=re.MULTILINE)])
