"""Makes a bundle of a third-party detector, whose own graph serves as it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from service.pose import bundle
from service.pose.bundle import Bundle, Manifest
from training.export import imported_card
from training.onnx import import_pose, wrap_detector
from training.onnx.detector_layout import DetectorLayout
from training.onnx.detector_probe import DetectorProbe
from training.onnx.wrap import NORMALISATIONS
from training.onnx.wrap_detector import DetectorConventions


@dataclass(frozen=True, slots=True)
class ThirdPartyDetector:
    """A third-party detector and how it is fed and read.

    Attributes:
        path: The ONNX file.
        model: The graph.
        found: Its inputs, and its outputs for one picture.
        layout: How its outputs are read.
        conventions: What it expects of its input.
        name: Name of the bundle.
        version: Version of the bundle.
        licence: Licence of the weights.
        origin: Authors and source of the model.
    """

    path: Path
    model: onnx.ModelProto
    found: DetectorProbe
    layout: DetectorLayout
    conventions: DetectorConventions
    name: str
    version: str
    licence: str
    origin: str

    @property
    def takes_bytes(self) -> bool:
        """Whether the input has whole numbers, so that pixels can only be 0..255."""
        return self.found.shape.takes_bytes


def usual_conventions(layout: DetectorLayout, found: DetectorProbe) -> DetectorConventions:
    """Return what detectors of a layout expect most often, to begin with.

    MMDetection and YOLOX take BGR in the corner of a letterbox, Ultralytics RGB 0..1 in its middle, and DETRs stretched
    RGB: RT-DETR's 80 classes 0..1, those with COCO's 91 category ids normalised as ImageNet's.
    """
    if found.shape.takes_bytes:
        return DetectorConventions("rgb", *NORMALISATIONS["bytes"], "center")
    if layout.maps or layout.name.startswith("dets"):
        return DetectorConventions("bgr", *NORMALISATIONS["imagenet"], "top_left")
    if found.size_inputs or (layout.is_final and layout.labels is None):
        is_rt = found.size_inputs or layout.class_count in {80, 365}
        return DetectorConventions("rgb", *NORMALISATIONS["unit" if is_rt else "imagenet"], "stretch")
    if layout.strides and layout.objectness is not None:
        return DetectorConventions("bgr", *NORMALISATIONS["bytes"], "top_left")
    return DetectorConventions("rgb", *NORMALISATIONS["unit"], "center")


def make(imported: ThirdPartyDetector, metrics: dict[str, float]) -> Bundle:
    """Make the bundle in memory; `bundle.write` writes it."""
    graph = wrap_detector.wrap(imported.model, imported.found, imported.layout, imported.conventions)
    manifest = describe(imported, metrics)
    return Bundle(Path(imported.name), manifest, graph, _card(manifest, imported))


def describe(imported: ThirdPartyDetector, metrics: dict[str, float]) -> Manifest:
    """Make the manifest."""
    found, conventions, layout = imported.found, imported.conventions, imported.layout
    return Manifest(
        name=imported.name,
        version=imported.version,
        role="detector",
        files={},
        skeleton=None,
        input_size=found.input_size,
        heatmap_size=None,
        box_padding=None,
        decoder="boxes",
        fitting=conventions.fitting,
        iou_threshold=1.0 if layout.is_final else None,
        parameters=import_pose.parameters(imported.model),
        gflops=round(import_pose.multiply_adds(imported.model, found.shape) / 1e9, 4),
        metrics=metrics,
        trained_by={
            "imported_from": imported.path.name,
            "imported_sha256": bundle.sha256(imported.path.read_bytes()),
            "origin": imported.origin,
            "licence": imported.licence,
            "conventions": asdict(conventions) | {"layout": layout.name, "person": layout.person},
        },
    )


def _card(manifest: Manifest, imported: ThirdPartyDetector) -> str:
    conventions, layout = imported.conventions, imported.layout
    told = {
        "Channels": conventions.colour.upper(),
        "Mean of pixels 0..255 (R, G, B)": conventions.mean,
        "Deviation": conventions.deviation,
        "Picture in the input": conventions.fitting,
        "Outputs": f"{layout.name}; people are class {layout.person}",
        "Boxes": f"{layout.box_format}, {layout.unit}",
    }
    return imported_card.write(manifest, "a detector of people", told, "how the picture is fitted into the input")
