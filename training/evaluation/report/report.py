"""A training in one page: curves, AP, mistakes, reliability of the scores, the best and the worst people.

`write` leaves ``report.html``, which needs nothing but itself, ``report.json`` with the same figures, and for a run
``tensorboard/``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from training import files
from training.data import coco, holdout
from training.engine import tensorboard
from training.evaluation import coco_ap, error_analysis, predictions
from training.evaluation.bootstrap import Interval
from training.evaluation.error_analysis import KINDS
from training.evaluation.predictions import Predictions
from training.evaluation.report import html_page, plots, prediction_sheet, subject
from training.evaluation.report.subject import ReportSubject

HTML, JSON = "report.html", "report.json"


class ReportError(ValueError):
    """A report cannot be made of what was given."""


@dataclass(slots=True)
class _Report:
    """Grows section by section: html for people, numbers for programs."""

    html: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def write(
    folder: Path,
    out: Path | None = None,
    source: coco.Source | None = None,
    every: int = 1,
    *,
    allow_seen: bool = False,
) -> Path:
    """Write a report.

    Args:
        folder: A run folder or a bundle folder.
        out: Folder to write into; the run folder when None.
        source: Labelled pictures to look at; curves only without.
        every: Only pictures whose id this number divides.
        allow_seen: Look also at pictures that were learned from, and say so.

    Returns:
        The html file.

    Raises:
        ReportError: A bundle without ``out`` or without ``source``.
        OverlapError: Some of the pictures were learned from.
        BundleError, CheckpointError, HistoryError, ExportError, DatasetError: What was given cannot be read.
    """
    about = subject.read(folder)
    if about.plan is None and out is None:
        raise ReportError(f"{folder}: a bundle's folder is served as it is; name another one for the report with --out")
    if about.plan is None and source is None:
        raise ReportError(f"{folder}: a bundle has no curves; give --annotations and --images to look at its answers")
    report = _Report()
    _add_head(report, about)
    if source is not None:
        _add_overlap(report, about, source, every, allow_seen)
    if source is None:
        _add_curves(report, about)
    elif about.opened.manifest.role == "detector":
        _add_boxes(report, about, source, every)
        _add_curves(report, about)
    else:
        _add_poses(report, about, source, every)
    if about.logged is not None and len(about.logged.steps):
        tensorboard.export_events(folder)
    report.html += [html_page.heading("What it is"), html_page.facts(about.facts)]
    out = out or folder
    files.write(out / JSON, (json.dumps(report.numbers, indent=2) + "\n").encode())
    files.write(out / HTML, html_page.document(about.title, report.html).encode())
    return out / HTML


def _add_head(report: _Report, about: ReportSubject) -> None:
    manifest = about.opened.manifest
    report.html += [html_page.heading(manifest.name, 1)]
    report.html += [
        html_page.paragraph(f"{manifest.role}, {manifest.version if about.plan else f'bundle {manifest.version}'}")
    ]
    report.numbers |= {"name": manifest.name, "version": manifest.version, "facts": about.facts}


def _add_overlap(report: _Report, about: ReportSubject, source: coco.Source, every: int, allow: bool) -> None:
    """Say on top of the page where pictures below were learned from, or may have been."""
    detects = about.opened.manifest.detects
    shared = holdout.of_bundles([about.opened], source, every, complete=detects, allow=allow)
    report.numbers["overlap"] = asdict(shared)
    if shared.pictures:
        told = f"It learned from {shared.pictures:,} of the pictures below: its figures are too good for new ones."
        report.html.append(html_page.paragraph(told, "lead"))
    if shared.unchecked:
        told = f"Nobody recorded which pictures {', '.join(shared.unchecked)} learned from; some may be among these."
        report.html.append(html_page.paragraph(told, "note"))


def _add_curves(report: _Report, about: ReportSubject) -> None:
    """Add what was logged over steps and over samples; nothing for a bundle or without a log."""
    logged, plan = about.logged, about.plan
    if logged is None or plan is None:
        return
    report.html.append(html_page.heading("Curves"))
    if not len(logged.steps) or not logged.columns:
        report.html.append(html_page.paragraph("Nothing is logged yet."))
        return
    samples = logged.samples(plan)
    ends = np.cumsum([phase.steps for phase in plan.phases])[:-1].tolist()
    seen = [end for end in ends if end <= logged.steps[-1]]
    counted = "as logged" if "samples" in logged.columns else "one process's, from the recipe's batch sizes"
    note = f"Each point is a row of log.csv. Samples: {counted}."
    report.html += [
        html_page.paragraph(note + (" Dashed: a phase of the recipe ends." if seen else ""), "note"),
        html_page.image(plots.curves(logged, samples, seen), "what was logged, over steps and over samples"),
    ]
    report.numbers["log"] = {"step": logged.steps.tolist()} | {
        name: [value if np.isfinite(value) else None for value in values.tolist()]
        for name, values in ({"samples": samples} | logged.columns).items()
    }


def _add_boxes(report: _Report, about: ReportSubject, source: coco.Source, every: int) -> None:
    detector = PersonDetector(about.opened, OnnxRunner(about.opened.onnx, threads=1))
    score = coco_ap.score_boxes(source, detector, every)
    found = {"AP": score.ap, "AP50": score.ap50, "AP75": score.ap75, "AR": score.ar}
    intervals = {"AP": score.ap_interval, "AP50": score.ap50_interval, "AP75": score.ap75_interval}
    report.html += [
        html_page.heading("Average precision of the boxes"),
        html_page.paragraph(
            f"{score.pictures:,} pictures of {source.name}, {score.predictions:,} boxes; pycocotools. In brackets "
            "where 95 % of the figures lie that other pictures of the same kind would give (bootstrap over pictures).",
            "note",
        ),
        html_page.table(["figure", "value"], [[name, _cell(name, found, intervals)] for name in found]),
    ]
    report.numbers |= {"pictures": score.pictures, "figures": found, "intervals": intervals}


def _add_poses(report: _Report, about: ReportSubject, source: coco.Source, every: int) -> None:
    estimator = PoseEstimator(about.opened, OnnxRunner(about.opened.onnx, threads=1))
    found = predictions.collect(source, estimator, every)
    report.numbers |= {"pictures": len(found.picture_ids), "people": len(found), "mean_oks": float(found.oks.mean())}
    _add_precision(report, found, source)
    _add_curves(report, about)
    _add_mistakes(report, found)
    _add_reliability(report, found)
    _add_sheets(report, found, source)


def _add_precision(report: _Report, found: Predictions, source: coco.Source) -> None:
    """Add pycocotools' figures, as they are and with one kind of mistake mended at a time, and a summary on top."""
    truth = coco.load(source.annotations)
    measured, intervals = predictions.coco_figures(truth, found), predictions.coco_intervals(truth, found)
    mended = {
        KINDS[k]: predictions.coco_figures(truth, predictions.without(found, k))["AP"] for k in range(1, len(KINDS))
    }
    totals = error_analysis.shares(error_analysis.counts(found.kinds).sum(axis=0)).tolist()
    frequent = int(np.argmax(totals[1:])) + 1
    costly = max(mended, key=lambda kind: mended[kind])
    report.html += [
        html_page.paragraph(
            f"AP {_cell('AP', measured, intervals)} over {len(found):,} people on {len(found.picture_ids):,} pictures "
            f"of {source.name}, each in its labelled box. {totals[0]:.0%} of the labelled keypoints are good. The most "
            f"frequent mistake is {KINDS[frequent]} ({totals[frequent]:.0%}); the costliest is {costly}: with all of "
            f"those keypoints in their places, AP would be {_figure(mended[costly])}.",
            "lead",
        ),
        html_page.heading("Average precision"),
        html_page.paragraph(
            "pycocotools, keypoints. Medium people cover 32² to 96² px of the picture, large ones more; "
            "none where nobody of a size is labelled. In brackets where 95 % of the figures lie that other pictures of "
            "the same kind would give (bootstrap over pictures).",
            "note",
        ),
        html_page.table(["", "all", "OKS ≥ .50", "OKS ≥ .75", "medium", "large"], _precision_rows(measured, intervals)),
    ]
    report.numbers |= {"figures": measured, "intervals": intervals, "ap_if_mended": mended}


def _precision_rows(measured: dict[str, float], intervals: dict[str, Interval | None]) -> list[list[str]]:
    return [
        [name, *(_cell(f"{kind}{column}", measured, intervals) for column in ("", "50", "75", " medium", " large"))]
        for name, kind in (("precision (AP)", "AP"), ("recall (AR)", "AR"))
    ]


def _cell(name: str, measured: dict[str, float], intervals: dict[str, Interval | None]) -> str:
    return _figure(measured[name]) + _between(intervals.get(name))


def _add_mistakes(report: _Report, found: Predictions) -> None:
    """Add the shares of good, jitter, inversion, swap and miss, of all keypoints and of each."""
    names = found.skeleton.keypoints
    counted = error_analysis.counts(found.kinds)
    everything = {"all keypoints": counted.sum(axis=0)} | dict(zip(names, counted, strict=True))
    mended, inverted = report.numbers["ap_if_mended"], error_analysis.inversions(counted, found.skeleton)
    report.numbers["inversions"] = inverted
    report.html += [
        html_page.heading("Mistakes"),
        html_page.paragraph(
            "After Ronchi and Perona (ICCV 2017), by the similarity ks of the answered keypoint to labelled joints. "
            "Good: ks ≥ .85 to its own joint. Jitter: nearest to its own, .5 ≤ ks < .85. Inversion: nearest to the "
            "mirror partner of its joint, left taken for right. Swap: nearest to that joint of someone else. Miss: "
            "ks < .5 to all of them.",
            "note",
        ),
        html_page.image(plots.breakdown(counted, names), "shares of good keypoints and of each mistake, by keypoint"),
        html_page.heading("What each mistake costs", 3),
        html_page.paragraph(
            "AP with every keypoint of one kind moved to its label: the most that mending it can bring.", "note"
        ),
        html_page.table(
            ["mended", "AP", "gain"],
            [[k, _figure(ap), f"{ap - report.numbers['figures']['AP']:+.3f}"] for k, ap in mended.items()],
        ),
        html_page.heading("Left taken for right", 3),
        html_page.paragraph("Inversions among the labelled keypoints that have a mirror partner.", "note"),
        html_page.table(["joints", "inversion %"], [[name, f"{100 * share:.1f}"] for name, share in inverted.items()]),
        html_page.heading("By keypoint", 3),
        html_page.table(
            ["keypoint", "labelled", *(f"{kind} %" for kind in KINDS)],
            [
                [
                    name.replace("_", " "),
                    f"{row.sum():,}",
                    *(f"{100 * s:.1f}" for s in error_analysis.shares(row).tolist()),
                ]
                for name, row in everything.items()
            ],
        ),
    ]
    report.numbers["mistakes"] = {
        name: {"labelled": int(row.sum())} | dict(zip(KINDS, row.tolist(), strict=True))
        for name, row in everything.items()
    }


def _add_reliability(report: _Report, found: Predictions) -> None:
    """Add how far a score tells what a keypoint is worth, and how the people spread over OKS."""
    told = predictions.reliability(found)
    report.html += [
        html_page.heading("Scores and people"),
        html_page.paragraph(
            "Left: labelled keypoints in bins of their score; on the dashed line a score would be the similarity to "
            "expect. Right: people by OKS.",
            "note",
        ),
        html_page.beside(
            html_page.image(plots.reliability(told), "mean keypoint similarity over mean score"),
            html_page.image(plots.people(found.oks, found.areas), "people by OKS"),
        ),
    ]
    report.numbers["reliability"] = {
        "expected_calibration_error": told.error,
        "bins": [
            {"score": score, "similarity": similarity, "keypoints": count}
            for score, similarity, count in zip(
                told.scores.tolist(), told.similarities.tolist(), told.keypoints.tolist(), strict=True
            )
        ],
    }


def _add_sheets(report: _Report, found: Predictions, source: coco.Source) -> None:
    """Add the best, median and worst people."""
    report.html += [
        html_page.heading("People"),
        html_page.paragraph(
            f"People with at least {prediction_sheet.MIN_LABELLED} labelled keypoints; only those are drawn. Thin white: the "
            "label. Bold: the answer, left side blue, right side orange, joints across green.",
            "note",
        ),
    ]
    report.numbers["people_shown"] = {}
    for name, chosen in prediction_sheet.choose(found.oks, found.labelled.sum(axis=1)).items():
        tiles = prediction_sheet.tiles(source, found, chosen)
        report.html += [html_page.heading(f"{name.capitalize()} by OKS", 3), html_page.grid(map(_tile, tiles))]
        kept = [{key: value for key, value in asdict(tile).items() if key != "jpeg"} for tile in tiles]
        report.numbers["people_shown"][name] = kept


def _tile(tile: prediction_sheet.Tile) -> str:
    wrong = ", ".join(f"{count} {kind}" for kind, count in tile.mistakes.items()) or "all good"
    alt = f"picture {tile.image_id}, person {tile.annotation_id}"
    lines = [f"picture {tile.image_id}", f"{tile.labelled} labelled: {wrong}"]
    return html_page.tile(tile.jpeg, alt, f"OKS {tile.oks:.2f}", lines)


def _figure(value: float) -> str:
    return "none" if value < 0 else f"{value:.3f}"


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
