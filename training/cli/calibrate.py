"""What posewright-train calibrate does with its options."""

from __future__ import annotations

from argparse import Namespace

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from training.data import coco, holdout
from training.evaluation import calibration
from training.export import model_card


def run(options: Namespace) -> int:
    """See `calibration.measure`; the graph stays as it is, manifest and card say what its scores mean."""
    opened = bundle.read(options.bundle)
    source = coco.Source(options.annotations.stem, options.annotations, options.images)
    known = bundle.read(options.detector) if options.detector else None
    asked = [opened] if known is None else [opened, known]
    detects = opened.manifest.is_detector
    shared = holdout.of_bundles(asked, source, options.every, complete=detects, allow=options.allow_seen)
    detector = None if known is None else PersonDetector(known, OnnxRunner(known.onnx, threads=1))
    measured = calibration.measure(opened, source, detector, options.every, options.measured_on)
    told = shared.marked(measured.calibration.measured_on)
    found = measured.calibration.model_copy(update={"measured_on": told})
    manifest = opened.manifest.model_copy(update={"calibration": found})
    written = bundle.write(
        options.out, manifest, opened.onnx, model_card.with_scores(opened.card, found, measured.after)
    )
    what = "boxes" if manifest.is_detector else "labelled keypoints"
    print(
        f"{written.path}: {found.samples:,} {what} on {found.pictures} pictures; expected calibration error "
        f"{found.error_before:.3f} before, {found.error:.3f} after (each half by the curves of the other)"
    )
    return 0
