"""Sections of a report on a pose network: precision, mistakes, reliability of the scores, and people."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from training.data import coco
from training.evaluation import coverage, error_analysis, predictions
from training.evaluation.bootstrap import Interval
from training.evaluation.error_analysis import KINDS
from training.evaluation.predictions import Predictions
from training.evaluation.report import html_page, plots, prediction_sheet
from training.evaluation.report.page_parts import ReportPage, cell, figure


def add_precision(report: ReportPage, found: Predictions, source: coco.Source) -> None:
    """Add a summary and pycocotools' figures, also with one kind of mistake corrected at a time."""
    truth = coco.load(source.annotations)
    measured, intervals = predictions.coco_figures(truth, found), predictions.coco_intervals(truth, found)
    corrected = {
        KINDS[k]: predictions.coco_figures(truth, predictions.with_mistake_corrected(found, k))["AP"]
        for k in range(1, len(KINDS))
    }
    totals = error_analysis.shares(error_analysis.counts(found.kinds).sum(axis=0)).tolist()
    frequent = int(np.argmax(totals[1:])) + 1
    costly = max(corrected, key=lambda kind: corrected[kind])
    report.html += [
        html_page.paragraph(
            f"AP {cell('AP', measured, intervals)} over {len(found):,} people on {len(found.picture_ids):,} pictures "
            f"of {source.name}, each in its labelled box. {totals[0]:.0%} of the labelled keypoints are good. The most "
            f"frequent mistake is {KINDS[frequent]} ({totals[frequent]:.0%}); the costliest is {costly}: with all of "
            f"those keypoints at their labels, AP would be {figure(corrected[costly])}.",
            "lead",
        ),
        html_page.heading("Average precision"),
        html_page.paragraph(
            "pycocotools, keypoints. Medium people cover 32² to 96² px of the picture, large ones more; "
            "none where nobody of a size is labelled. In brackets: 95 % confidence "
            "intervals (bootstrap over pictures).",
            "note",
        ),
        html_page.table(["", "all", "OKS ≥ .50", "OKS ≥ .75", "medium", "large"], _precision_rows(measured, intervals)),
    ]
    report.numbers |= {"figures": measured, "intervals": intervals, "ap_if_corrected": corrected}


def _precision_rows(measured: dict[str, float], intervals: dict[str, Interval | None]) -> list[list[str]]:
    return [
        [name, *(cell(f"{kind}{column}", measured, intervals) for column in ("", "50", "75", " medium", " large"))]
        for name, kind in (("precision (AP)", "AP"), ("recall (AR)", "AR"))
    ]


def add_mistakes(report: ReportPage, found: Predictions) -> None:
    """Add the shares of good, jitter, inversion, swap and miss, of all keypoints and of each."""
    names = found.skeleton.keypoints
    counted = error_analysis.counts(found.kinds)
    everything = {"all keypoints": counted.sum(axis=0)} | dict(zip(names, counted, strict=True))
    corrected, inverted = report.numbers["ap_if_corrected"], error_analysis.inversions(counted, found.skeleton)
    report.numbers["inversions"] = inverted
    report.html += [
        html_page.heading("Mistakes"),
        html_page.paragraph(
            "After Ronchi and Perona (ICCV 2017), by the similarity ks of the predicted keypoint to labelled joints. "
            "Good: ks ≥ .85 to its own joint. Jitter: nearest to its own, .5 ≤ ks < .85. Inversion: nearest to the "
            "mirror partner of its joint, left confused with right. Swap: nearest to that joint of someone else. Miss: "
            "ks < .5 to all of them.",
            "note",
        ),
        html_page.image(plots.breakdown(counted, names), "shares of good keypoints and of each mistake, by keypoint"),
        html_page.heading("What each mistake costs", 3),
        html_page.paragraph(
            "AP with every keypoint of one kind moved to its label: the upper limit of what correcting it can bring.",
            "note",
        ),
        html_page.table(
            ["corrected", "AP", "gain"],
            [[k, figure(ap), f"{ap - report.numbers['figures']['AP']:+.3f}"] for k, ap in corrected.items()],
        ),
        html_page.heading("Left and right confused", 3),
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


def add_reliability(report: ReportPage, found: Predictions) -> None:
    """Add the reliability diagram of the scores, and the distribution of people over OKS."""
    measured = predictions.reliability(found)
    report.html += [
        html_page.heading("Scores and people"),
        html_page.paragraph(
            "Left: labelled keypoints in bins of their score; on the dashed line, scores equal the similarity. "
            "Right: people by OKS.",
            "note",
        ),
        html_page.beside(
            html_page.image(plots.reliability(measured), "mean keypoint similarity over mean score"),
            html_page.image(plots.people(found.oks, found.areas), "people by OKS"),
        ),
    ]
    report.numbers["reliability"] = {
        "expected_calibration_error": measured.error,
        "bins": [
            {"score": score, "similarity": similarity, "keypoints": count}
            for score, similarity, count in zip(
                measured.scores.tolist(), measured.similarities.tolist(), measured.keypoints.tolist(), strict=True
            )
        ],
    }


def add_coverage(report: ReportPage, found: Predictions) -> None:
    """Add how many labels lie within the ellipses of the covariances, if the bundle knows covariances."""
    if found.poses.covariances is None or np.isnan(found.poses.covariances).any():
        return
    rows = coverage.measure(found)
    report.html += [
        html_page.heading("Uncertainty"),
        html_page.paragraph(
            "Labels within the ellipses of the keypoints' covariances that are to contain 50 and 90 % of them, in "
            "percent. In brackets: 95 % confidence intervals (bootstrap over pictures).",
            "note",
        ),
        html_page.table(["keypoints", "labelled", "within 50 %", "within 90 %"], [row.cells for row in rows]),
    ]
    report.numbers["coverage"] = [asdict(row) for row in rows]


def add_examples(report: ReportPage, found: Predictions, source: coco.Source) -> None:
    """Add the best, median and worst people."""
    report.html += [
        html_page.heading("People"),
        html_page.paragraph(
            f"People with at least {prediction_sheet.MIN_LABELLED} labelled keypoints; only labelled ones are drawn. "
            "Thin white: the label. Bold: the prediction, left side blue, right side orange, middle green.",
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
