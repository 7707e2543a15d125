"""posewright-train evaluate."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from service.pose import bundle
from service.pose.bundle import Bundle
from training.cli import inputs
from training.cli.arguments import add_measured_pictures
from training.data import holdout
from training.evaluation import coco_ap
from training.export import model_card

METRICS = ("ap", "ap50", "ap75")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("bundle", type=Path)
    add_measured_pictures(parser)
    parser.add_argument(
        "--detector", type=Path, help="bundle of a detector: measure on whole pictures instead of in labelled boxes"
    )
    recorded_or_flipped = parser.add_mutually_exclusive_group()
    recorded_or_flipped.add_argument(
        "--flip-test", action="store_true", help="average with the mirrored crop, as the server can"
    )
    recorded_or_flipped.add_argument(
        "--record", metavar="PICTURES", help="write AP into manifest and card, with this description of the pictures"
    )


def run(options: Namespace) -> int:
    """Measure AP and print one line of json; see `coco_ap.score_poses` and `coco_ap.score_boxes`."""
    opened = bundle.read(options.bundle)
    detects = opened.manifest.is_detector
    finds = opened.manifest.kind == "one_stage"
    detector = bundle.read(options.detector) if options.detector and not (detects or finds) else None
    measured = [opened] if detector is None else [opened, detector]
    source, whole = inputs.source(options), detects or finds or detector is not None
    overlap = holdout.of_bundles(measured, source, options.every, complete=whole, allow=options.allow_seen)
    if detects:
        score, name = coco_ap.score_boxes(source, inputs.detector(opened), options.every), "box_{}"
    else:
        estimator = inputs.estimator(opened, flip_test=options.flip_test)
        boxes = inputs.detector(detector) if detector else None
        score = coco_ap.score_poses(source, estimator, boxes, options.every)
        name = "{}_whole_picture" if whole else "{}_ground_truth_boxes"
    print(json.dumps({"bundle": opened.manifest.name, **asdict(score), "overlap": asdict(overlap)}))
    if options.record:
        name += "_seen" * bool(overlap.pictures)
        figures = {name.format(metric): round(getattr(score, metric), 4) for metric in METRICS}
        _record(opened, options.bundle, figures, overlap.marked(options.record))
    return 0


def _record(opened: Bundle, folder: Path, figures: dict[str, float], pictures: str) -> None:
    """Write figures into manifest and card; those of other pictures go, as the card names one set of pictures."""
    known = opened.manifest.metrics if model_card.is_measured_on(opened.card, pictures) else {}
    manifest = opened.manifest.model_copy(update={"metrics": {**known, **figures}})
    bundle.write(folder, manifest, opened.onnx, model_card.with_figures(opened.card, manifest, pictures))
