"""The model card that travels with a bundle."""

from __future__ import annotations

from typing import Any

from service.pose.bundle import Manifest
from service.pose.calibration import Calibration
from service.pose.skeleton import Skeleton
from training.evaluation.predictions import Reliability
from training.recipe.recipe import Recipe

LIMITS = {
    "pose": """- Cut-off and small people (below about 60 px), back views, crowds and lying people are read worst.
- Every joint is answered, also hidden ones: read its score.
- One person a box: where two overlap, joints may jump to the neighbour.""",
    "detector": """- People below about 20 px of the network's input, and dense crowds, are missed.
- Boxes of people cut by the picture's edge end there.""",
}
FIGURES, SCORES = "## Figures", "## Scores"
SCORES_UNKNOWN = [SCORES, "", "A concentration of belief, not calibrated (`posewright-train calibrate`).", ""]
SCORES_KNOWN = {
    "expected_oks": """A keypoint's score is the similarity to its label to expect of it (COCO's OKS of one keypoint),
given that it can be labelled; a person's is the OKS to expect, in a found box times how probably it shows a person.""",
    "probability_of_person": "A box's score is how probably it shows a person.",
}
OLD_LINES = (" Scores are a concentration of belief, not calibrated.", "- Scores are not calibrated.\n")
"""What cards said before they had the section."""


def write(manifest: Manifest, plan: Recipe, seen: str = "") -> str:
    """Write the card: what it is, training, data and terms, limits and what was seen; nothing is measured yet."""
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
            *_start(manifest, plan),
            "",
            *(f"- {name}" for name in trained_by["data"]),
            *_pictures(trained_by["pictures"]),
            "",
            *(f"Teacher: {teacher}." for teacher in trained_by["teachers"]),
            "",
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
    """Say whose pictures the manifest records: `evaluate` refuses these."""
    lines = ["", f"Its manifest records the {record['count']:,} pictures that it learned from."] * bool(record["count"])
    if record["unrecorded"]:
        lines += ["", f"Nobody recorded which pictures these learned from: {'; '.join(record['unrecorded'])}."]
    return lines


def _keypoints(manifest: Manifest) -> list[str]:
    """Name the keypoints of a skeleton of one's own; COCO's are known."""
    if not isinstance(manifest.skeleton, Skeleton):
        return []
    return [f"Keypoints of `{manifest.skeleton.name}`: {', '.join(manifest.skeleton.keypoints)}."]


def _measured(on: str) -> str:
    return f"COCO AP (pycocotools), through the serving code, on {on}."


def tells_of(text: str, measured_on: str) -> bool:
    """Tell whether a card's figures are of these pictures."""
    section = text.partition(f"{FIGURES}\n")[2].partition("\n## ")[0]
    return _measured(measured_on) in section.splitlines()


def with_figures(text: str, manifest: Manifest, measured_on: str) -> str:
    """Say in a card what was measured, in the place of what it said of that.

    Args:
        text: The card.
        manifest: Holds the figures.
        measured_on: What pictures they are of.
    """
    head, _, rest = text.partition(f"{FIGURES}\n")
    section = [
        FIGURES,
        "",
        _measured(measured_on),
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in manifest.metrics.items()),
    ]
    behind = rest[rest.index("\n## ") :] if "\n## " in rest else ""
    return head + "\n".join(section) + "\n" + behind


def _start(manifest: Manifest, plan: Recipe) -> list[str]:
    lines = [_begun(it) for it in manifest.trained_by["started_from"]]
    if "blend" in manifest.trained_by:
        lines.append(
            f"Its weights lie {manifest.trained_by['blend']:g} of the way from those of the bundle that its "
            "training began with to the trained ones (arXiv 2109.01903)."
        )
    if plan.network.backbone.startswith("lite0"):
        lines.append("The backbone began with EfficientNet-Lite0's ImageNet weights (Apache-2.0).")
    return lines


def _begun(start: dict[str, Any]) -> str:
    if "imported" in start:
        return (
            f"It began with the weights of {start['origin']} ({start['licence']}), imported from "
            f"`{start['imported_from']}` (sha256 `{start['imported_sha256']}`), and was then changed and trained."
        )
    return (
        f"It went on from `{start['recipe']}` (recipe sha256 `{start['recipe_sha256']}`) after {start['steps']} steps."
    )


def with_scores(text: str, calibration: Calibration, told: Reliability) -> str:
    """Say in a card what the scores mean, in the place of what it said of them.

    Args:
        text: The card.
        calibration: What they mean.
        told: How far they told it, on halves of the pictures that were not fitted.
    """
    for line in OLD_LINES:
        text = text.replace(line, "")
    head, _, rest = text.partition(f"{SCORES}\n")
    behind = rest[rest.index("\n## ") + 1 :] if "\n## " in rest else ""
    if not rest and "## Limits\n" in text:
        head, _, limits = text.partition("## Limits\n")
        behind = f"## Limits\n{limits}"
    observed = "similarity" if calibration.meaning == "expected_oks" else "people"
    rows = zip(told.scores.tolist(), told.similarities.tolist(), told.keypoints.tolist(), strict=True)
    section = [
        SCORES,
        "",
        SCORES_KNOWN[calibration.meaning],
        "",
        f"Measured on {calibration.measured_on}: {calibration.samples:,} samples on {calibration.pictures} pictures,",
        "each half scored by what the other half taught. Expected calibration error",
        f"{calibration.error:.3f}; of the heights that the scores are made of, {calibration.error_before:.3f}.",
        "",
        f"| score | {observed} | count |",
        "|---|---|---|",
        *(f"| {score:.2f} | {seen:.2f} | {count:,} |" for score, seen, count in rows),
        "",
    ]
    return "\n".join([head.rstrip("\n"), "", *section, behind]).rstrip("\n") + "\n"
