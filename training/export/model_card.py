"""Writes the model card of a bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from service.pose.bundle import Manifest
from service.pose.calibration import Calibration
from service.pose.covariance import CovarianceCalibration
from service.pose.skeleton import Skeleton
from training.networks.registry import BACKBONES
from training.recipe.recipe import Recipe

LIMITS = {
    "pose": """- Errors are largest for truncated or small people (below about 60 px), back views, crowds and people
  lying down.
- Every keypoint gets a position, even a hidden one: use its score.
- There is one person per box: if two people overlap, keypoints may jump to the other one.""",
    "detector": """- People below about 20 px of the network's input, and people in dense crowds, are missed.
- Boxes of people that the picture's edge truncates end at the edge.""",
}
FIGURES, SCORES, UNCERTAINTY = "## Figures", "## Scores", "## Uncertainty"
SCORES_UNKNOWN = [
    SCORES,
    "",
    "Not calibrated: use them for ranking only, or calibrate them (`posewright-train calibrate`).",
    "",
]
SCORES_KNOWN = {
    "expected_oks": """A keypoint's score is its expected similarity to a label (COCO's OKS of one keypoint), given that
the keypoint can be labelled. A person's score is the expected OKS, times the probability that a detected box contains
a person.""",
    "probability_of_person": "A box's score is the probability that the box contains a person.",
}


def write(manifest: Manifest, plan: Recipe, seen: str = "") -> str:
    """Write the card of a new bundle, of which no figures are measured yet.

    Args:
        manifest: Describes the bundle.
        plan: Its recipe.
        seen: Errors that a person has seen on pictures.
    """
    width, height = manifest.input_size
    trained_by = manifest.trained_by
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            f"A {manifest.role} of posewright: {plan.network.backbone}, {manifest.parameters / 1e6:.2f} M parameters,",
            f"input {width} x {height} (width x height), {manifest.gflops:.3f} G multiply-adds.",
            *_keypoints(manifest),
            *(["Its graph averages over the crop and its mirror image."] if trained_by["flip_test"] else []),
            "Apache-2.0, subject to the terms of the data below.",
            "",
            FIGURES,
            "",
            "None measured.",
            "",
            "## Training",
            "",
            f"Recipe sha256 `{trained_by['recipe_sha256']}`, seed {plan.seed}, {trained_by['steps']} steps,",
            f"revision `{trained_by['revision']}`.",
            *_start_lines(manifest, plan),
            "",
            *(f"- {name}" for name in trained_by["data"]),
            *_pictures(trained_by["pictures"]),
            "",
            *([*(f"Teacher: {teacher}." for teacher in trained_by["teachers"]), ""] if trained_by["teachers"] else []),
            "## Terms of the data",
            "",
            *(
                f"- {term}"
                for term in trained_by["terms"] or ["Not stated in the recipe: see the data sets themselves."]
            ),
            "",
            *SCORES_UNKNOWN,
            "## Limits",
            "",
            LIMITS[plan.network.kind],
            *([f"- Seen on drawn pictures: {seen}"] if seen else []),
            "",
        ]
    )


def _pictures(record: dict[str, Any]) -> list[str]:
    """Say which training pictures the manifest records, because `evaluate` refuses to measure on them."""
    lines = ["", f"Its manifest records the {record['count']:,} training pictures."] * bool(record["count"])
    if record["unrecorded"]:
        lines += ["", f"The training pictures of these are not recorded: {'; '.join(record['unrecorded'])}."]
    return lines


def _keypoints(manifest: Manifest) -> list[str]:
    """List the keypoints, unless the skeleton is COCO's."""
    if not isinstance(manifest.skeleton, Skeleton):
        return []
    return [f"Keypoints of `{manifest.skeleton.name}`: {', '.join(manifest.skeleton.keypoints)}."]


def _measured(on: str) -> str:
    return f"COCO AP (pycocotools), through the serving code, on {on}."


def is_measured_on(text: str, measured_on: str) -> bool:
    """Tell whether the figures of a card were measured on these pictures."""
    section = text.partition(f"{FIGURES}\n")[2].partition("\n## ")[0]
    return _measured(measured_on) in section.splitlines()


def with_figures(text: str, manifest: Manifest, measured_on: str) -> str:
    """Replace the section on figures of a card.

    Args:
        text: The card.
        manifest: Holds the figures.
        measured_on: Names the pictures.
    """
    section = [
        _measured(measured_on),
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in manifest.metrics.items()),
    ]
    return _with_section(text, FIGURES, section)


def _start_lines(manifest: Manifest, plan: Recipe) -> list[str]:
    lines = [_start_line(it) for it in manifest.trained_by["started_from"]]
    if "blend" in manifest.trained_by:
        lines.append(
            f"Its weights are interpolated: {manifest.trained_by['blend']:g} of the way from the weights of the bundle "
            "that its training began with to the trained ones (arXiv 2109.01903)."
        )
    backbone = BACKBONES[plan.network.backbone]
    if backbone.pretrained:
        lines.append(f"The backbone began with {backbone.pretrained} ({backbone.licence}).")
    return lines


def _start_line(start: dict[str, Any]) -> str:
    if "imported" in start:
        return (
            f"It began with the weights of {start['origin']} ({start['licence']}), imported from "
            f"`{start['imported_from']}` (sha256 `{start['imported_sha256']}`), and was then changed and trained."
        )
    return (
        f"Its training began with `{start['recipe']}` (recipe sha256 `{start['recipe_sha256']}`) after "
        f"{start['steps']} steps."
    )


def with_scores(text: str, calibration: Calibration, bins: Iterable[tuple[float, float, int]]) -> str:
    """Replace the section on scores of a card.

    Args:
        text: The card.
        calibration: What the scores mean.
        bins: Mean score, observed mean and number of samples of each bin of scores, measured on pictures that the
            calibration was not fitted to.
    """
    observed = "similarity" if calibration.meaning == "expected_oks" else "people"
    section = [
        SCORES_KNOWN[calibration.meaning],
        "",
        f"Measured on {calibration.measured_on}: {calibration.samples:,} samples on {calibration.pictures} pictures.",
        "Each half of the pictures was measured with the calibration of the other half. The expected calibration error",
        f"is {calibration.error:.3f}; that of the uncalibrated scores is {calibration.error_before:.3f}.",
        "",
        f"| score | {observed} | count |",
        "|---|---|---|",
        *(f"| {score:.2f} | {mean:.2f} | {count:,} |" for score, mean, count in bins),
    ]
    return _with_section(text, SCORES, section)


def with_uncertainty(text: str, calibration: CovarianceCalibration, rows: Iterable[Iterable[str]]) -> str:
    """Replace the section on covariances of a card, which follows that on scores.

    Args:
        text: The card.
        calibration: What was fitted.
        rows: Name, count and coverage of 50 % and of 90 % ellipses of groups of keypoints, measured on pictures that
            the calibration was not fitted to.
    """
    section = [
        "With `covariance=true` every keypoint has the covariance of its error. How many labels, in percent, lay",
        f"within the ellipses that are to contain 50 and 90 % of them, on {calibration.measured_on}, each half of the",
        "pictures with the calibration of the other half; in brackets 95 % intervals. Labels are off themselves.",
        "",
        "| keypoints | count | within 50 % | within 90 % |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return _with_section(text, UNCERTAINTY, section, after=SCORES)


def _with_section(text: str, heading: str, lines: list[str], after: str = "") -> str:
    """Replace a section of a card; a new one comes behind the section ``after``, or at the end where there is none."""
    sections = [it.strip("\n") for it in re.split("^(?=## )", text, flags=re.MULTILINE)]
    headings = [it.partition("\n")[0] for it in sections]
    section = "\n".join([heading, "", *lines])
    if heading in headings:
        sections[headings.index(heading)] = section
    else:
        sections.insert(headings.index(after) + 1 if after in headings else len(sections), section)
    return "\n\n".join(filter(None, sections)) + "\n"
