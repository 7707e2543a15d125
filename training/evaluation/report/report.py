"""A report on a training or a bundle: curves, AP, mistakes, reliability of the scores, the best and the worst people.

`write` writes ``report.html``, a self-contained page, ``report.json`` with the same figures, and ``tensorboard/`` for a
run.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.estimators import open_estimator
from training import files
from training.data import coco, holdout
from training.engine import tensorboard
from training.evaluation import coco_ap, predictions
from training.evaluation.report import html_page, plots, pose_sections, subject
from training.evaluation.report.page_parts import ReportPage, cell
from training.evaluation.report.subject import ReportSubject

HTML, JSON = "report.html", "report.json"


class ReportError(ValueError):
    """A report cannot be made from the given inputs; the message says what is missing."""


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
        out: Folder to write; the run folder when None.
        source: Labelled pictures to measure on; None for curves only.
        every: Only pictures whose id is divisible by this.
        allow_seen: Measure also on pictures that were trained on, and mark them.

    Returns:
        The HTML file.

    Raises:
        ReportError: ``folder`` is a bundle, and ``out`` or ``source`` is missing.
        OverlapError: Some of the pictures were trained on.
        BundleError, CheckpointError, HistoryError, ExportError, DatasetError: An input cannot be read.
    """
    about = subject.read(folder)
    if about.plan is None and out is None:
        raise ReportError(
            f"{folder}: expected --out for a bundle, whose own folder is not written; name another folder"
        )
    if about.plan is None and source is None:
        raise ReportError(f"{folder}: expected --annotations and --images for a bundle, which has no curves; give both")
    report = ReportPage()
    _add_head(report, about)
    if source is not None:
        _add_overlap(report, about, source, every, allow_seen)
    if source is None:
        _add_curves(report, about)
    elif about.opened.manifest.is_detector:
        _add_boxes(report, about, source, every)
        _add_curves(report, about)
    else:
        _add_poses(report, about, source, every)
    if about.logged is not None and len(about.logged.steps):
        tensorboard.export_events(folder)
    report.html += [html_page.heading("Facts"), html_page.facts(about.facts)]
    out = out or folder
    files.write(out / JSON, (json.dumps(report.numbers, indent=2) + "\n").encode())
    files.write(out / HTML, html_page.document(about.title, report.html).encode())
    return out / HTML


def _add_head(report: ReportPage, about: ReportSubject) -> None:
    manifest = about.opened.manifest
    report.html += [html_page.heading(manifest.name, 1)]
    report.html += [
        html_page.paragraph(f"{manifest.role}, {manifest.version if about.plan else f'bundle {manifest.version}'}")
    ]
    report.numbers |= {"name": manifest.name, "version": manifest.version, "facts": about.facts}


def _add_overlap(report: ReportPage, about: ReportSubject, source: coco.Source, every: int, allow: bool) -> None:
    """Add a warning if the pictures were trained on, or may have been."""
    detects = about.opened.manifest.is_detector
    shared = holdout.of_bundles([about.opened], source, every, complete=detects, allow=allow)
    report.numbers["overlap"] = asdict(shared)
    if shared.pictures:
        text = f"It was trained on {shared.pictures:,} of the pictures below: expect worse figures on new ones."
        report.html.append(html_page.paragraph(text, "lead"))
    if shared.unchecked:
        text = f"The training pictures of {', '.join(shared.unchecked)} are not recorded; some may be among these."
        report.html.append(html_page.paragraph(text, "note"))


def _add_curves(report: ReportPage, about: ReportSubject) -> None:
    """Add the logged curves over steps and samples; nothing for a bundle or without a log."""
    logged, plan = about.logged, about.plan
    if logged is None or plan is None:
        return
    report.html.append(html_page.heading("Curves"))
    if not len(logged.steps) or not logged.columns:
        report.html.append(html_page.paragraph("Nothing has been logged yet."))
        return
    samples = logged.samples(plan)
    ends = np.cumsum([phase.steps for phase in plan.phases])[:-1].tolist()
    ended = [end for end in ends if end <= logged.steps[-1]]
    counted = "as logged" if "samples" in logged.columns else "one process's, from the recipe's batch sizes"
    note = f"Each point is a row of log.csv. Samples: {counted}."
    report.html += [
        html_page.paragraph(note + (" Dashed: end of a phase of the recipe." if ended else ""), "note"),
        html_page.image(plots.curves(logged, samples, ended), "logged values over steps and samples"),
    ]
    report.numbers["log"] = {"step": logged.steps.tolist()} | {
        name: [value if np.isfinite(value) else None for value in values.tolist()]
        for name, values in ({"samples": samples} | logged.columns).items()
    }


def _add_boxes(report: ReportPage, about: ReportSubject, source: coco.Source, every: int) -> None:
    detector = PersonDetector(about.opened, OnnxRunner(about.opened.onnx, threads=1))
    score = coco_ap.score_boxes(source, detector, every)
    found = {"AP": score.ap, "AP50": score.ap50, "AP75": score.ap75, "AR": score.ar}
    intervals = {"AP": score.ap_interval, "AP50": score.ap50_interval, "AP75": score.ap75_interval}
    report.html += [
        html_page.heading("Average precision of the boxes"),
        html_page.paragraph(
            f"{score.pictures:,} pictures of {source.name}, {score.predictions:,} boxes; pycocotools. In brackets: "
            "95 % confidence intervals (bootstrap over pictures).",
            "note",
        ),
        html_page.table(["figure", "value"], [[name, cell(name, found, intervals)] for name in found]),
    ]
    report.numbers |= {"pictures": score.pictures, "figures": found, "intervals": intervals}


def _add_poses(report: ReportPage, about: ReportSubject, source: coco.Source, every: int) -> None:
    estimator = open_estimator(about.opened, OnnxRunner(about.opened.onnx, threads=1))
    found = predictions.collect(source, estimator, every, covariance=True)
    report.numbers |= {"pictures": len(found.picture_ids), "people": len(found), "mean_oks": float(found.oks.mean())}
    pose_sections.add_precision(report, found, source)
    _add_curves(report, about)
    pose_sections.add_mistakes(report, found)
    pose_sections.add_reliability(report, found)
    pose_sections.add_coverage(report, found)
    pose_sections.add_examples(report, found, source)
