"""posewright-train calibrate."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.pose import bundle
from training.cli import inputs
from training.cli.arguments import add_measured_pictures
from training.data import holdout
from training.evaluation import calibration
from training.export import model_card


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("bundle", type=Path)
    add_measured_pictures(parser)
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; may be the same")
    parser.add_argument(
        "--detector", type=Path, help="calibrated detector bundle: weigh the score of its box against that of the pose"
    )
    parser.add_argument("--measured-on", default="", help="description of the pictures, for manifest and card")


def run(options: Namespace) -> int:
    """Write the bundle with calibrated scores and covariances; its graph stays as it is. See `calibration.measure`."""
    opened = bundle.read(options.bundle)
    source = inputs.source(options)
    known = bundle.read(options.detector) if options.detector else None
    asked = [opened] if known is None else [opened, known]
    detects = opened.manifest.is_detector
    overlap = holdout.of_bundles(asked, source, options.every, complete=detects, allow=options.allow_seen)
    detector = None if known is None else inputs.detector(known)
    measured = calibration.measure(opened, source, detector, options.every, options.measured_on)
    measured_on = overlap.marked(measured.calibration.measured_on)
    found = measured.calibration.model_copy(update={"measured_on": measured_on})
    changes: dict[str, object] = {"calibration": found}
    after = measured.after
    bins = zip(after.scores.tolist(), after.similarities.tolist(), after.keypoints.tolist(), strict=True)
    card = model_card.with_scores(opened.card, found, bins)
    if measured.covariance is not None:
        covariance = measured.covariance.calibration.model_copy(update={"measured_on": measured_on})
        changes["covariance"] = covariance
        card = model_card.with_uncertainty(card, covariance, (row.cells for row in measured.covariance.rows))
    manifest = opened.manifest.model_copy(update=changes)
    written = bundle.write(options.out, manifest, opened.onnx, card)
    what = "boxes" if manifest.is_detector else "labelled keypoints"
    print(
        f"{written.path}: {found.samples:,} {what} on {found.pictures} pictures; expected calibration error "
        f"{found.error_before:.3f} before, {found.error:.3f} after (each half by the curves of the other)"
    )
    if measured.covariance is not None:
        print("labels within the ellipses of 50 and 90 % (likewise):")
        for row in measured.covariance.rows:
            print("  " + "  ".join(row.cells))
    return 0
