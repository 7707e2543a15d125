"""What posewright-train calibrate does with its options."""

from __future__ import annotations

from argparse import Namespace

from service.pose import bundle
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner
from training import calibration, card, coco, seen


def run(options: Namespace) -> int:
    """See `calibration.measure`; the graph stays as it is, manifest and card say what its scores mean."""
    opened = bundle.read(options.bundle)
    source = coco.Source(options.annotations.stem, options.annotations, options.images)
    detects, allowed = opened.manifest.detects, options.seen_too
    count = seen.require_unseen(opened, source, options.every, complete=detects, seen_too=allowed)
    finder = None
    if options.finder:
        known = bundle.read(options.finder)
        count = max(count, seen.require_unseen(known, source, options.every, complete=True, seen_too=allowed))
        finder = PersonFinder(known, OnnxRunner(known.onnx, threads=1))
    measured_on = seen.marked(options.measured_on or f"pictures of {source.name}", count)
    measured = calibration.measure(opened, source, finder, options.every, measured_on if count else options.measured_on)
    found = measured.calibration
    manifest = opened.manifest.model_copy(update={"calibration": found})
    written = bundle.write(options.out, manifest, opened.onnx, card.with_scores(opened.card, found, measured.after))
    what = "boxes" if manifest.detects else "labelled keypoints"
    print(
        f"{written.path}: {found.samples:,} {what} on {found.pictures} pictures; expected calibration error "
        f"{found.error_before:.3f} before, {found.error:.3f} after (each half by the curves of the other)"
    )
    return 0
