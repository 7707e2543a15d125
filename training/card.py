"""The model card that travels with a bundle."""

from __future__ import annotations

from service.pose.bundle import Manifest
from service.pose.calibration import Calibration
from service.pose.skeleton import Skeleton
from training.answers import Reliability
from training.recipe import Recipe

TERMS = {
    "COCO": "COCO: annotations CC BY 4.0 (COCO Consortium); pictures under Flickr's terms of use.",
    "Stanford-40": "Stanford-40 Actions (Yao et al., ICCV 2011): research use.",
    "Leeds": "Leeds Sports Pose extended (Johnson and Everingham, BMVC 2010, CVPR 2011): research use.",
    "Clothing": "Clothing Co-Parsing (Yang, Luo, Lin, CVPR 2014): research use.",
    "PASCAL": "PASCAL VOC 2007-2012: pictures under Flickr's terms of use.",
    "Open Images": "Open Images: pictures CC BY 2.0, annotations CC BY 4.0.",
    "AI Challenger": "AI Challenger keypoint pictures (web pictures; collection CC BY 4.0): research use.",
    "MPII": "MPII Human Pose (Andriluka et al., CVPR 2014): research use.",
    "Yoga": "Yoga pictures from the web: research use.",
    "Workers": "Workers with helmets (web pictures, no licence stated): research use.",
    "Sports pictures": "Sports pictures from image search, six and twenty kinds: research use.",
    "Human action": "Human Action Recognition, 15 kinds (web pictures): research use.",
    "Pedestrians": "Pedestrian sets (TUD-Brussels, INRIA, Penn-Fudan and others, in one collection): research use.",
    "Surveillance": "Surveillance pictures (Kaggle's human detection set, no licence stated): research use.",
    "Indian dance": "Indian dance (web pictures): research use.",
    "People in streets": "People in streets (web pictures in a collection, no licence stated): research use.",
    "Flickr8k": "Flickr8k (Hodosh, Young, Hockenmaier, JAIR 2013): Flickr users' pictures, research use.",
    "OSIE": "OSIE (Xu et al., Journal of Vision 2014): research use.",
}
LIMITS = {
    "pose": """- Cut-off and small people (below about 60 px), back views, crowds and lying people are read worst.
- Every joint is answered, also hidden ones: read its score.
- One person a box: where two overlap, joints may jump to the neighbour.""",
    "finder": """- People below about 20 px of the network's input, and dense crowds, are missed.
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
GUIDES = {
    "PP-TinyPose": "PP-TinyPose 256x192 (PaddleDetection, Apache-2.0; itself trained on COCO and AI Challenger)",
    "tinypose": "PP-TinyPose 256x192 (PaddleDetection, Apache-2.0; itself trained on COCO and AI Challenger)",
    "RTMDet": "RTMDet-nano person 416 (OpenMMLab, Apache-2.0; itself trained on COCO and Objects365)",
    "simcc": "an imported network with SimCC outputs",
}


def guides(names: list[str]) -> list[str]:
    """Name those who taught: guides of the recipes, and those that labelled the sources whose names say so."""
    imported = [guide for key, guide in GUIDES.items() if any(key in name for name in names)]
    return list(dict.fromkeys(imported))


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
            "",
            *(f"Guide: {guide}." for guide in trained_by["guides"]),
            "",
            "## Terms of the data",
            "",
            *_terms(trained_by["data"]),
            "",
            *SCORES_UNKNOWN,
            "## Limits",
            "",
            LIMITS[plan.network.kind],
            *([f"- Seen on drawn pictures: {seen}"] if seen else []),
            "",
        ]
    )


def _keypoints(manifest: Manifest) -> list[str]:
    """Name the keypoints of a skeleton of one's own; COCO's are known."""
    if not isinstance(manifest.skeleton, Skeleton):
        return []
    return [f"Keypoints of `{manifest.skeleton.name}`: {', '.join(manifest.skeleton.keypoints)}."]


def _terms(data: list[str]) -> list[str]:
    known = [f"- {term}" for key, term in TERMS.items() if any(key in name for name in data)]
    return known or ["Not stated: they are those of the pictures named above."]


def _measured(on: str) -> str:
    return f"COCO AP (pycocotools), through the serving code, on {on}."


def tells_of(text: str, measured_on: str) -> bool:
    """Tell whether a card's figures are of these pictures."""
    return _measured(measured_on) in text.splitlines()


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
    ancestors = manifest.trained_by["started_from"]
    lines = [
        f"It went on from `{it['recipe']}` (recipe sha256 `{it['recipe_sha256']}`) after {it['steps']} steps."
        for it in ancestors
    ]
    if "blend" in manifest.trained_by:
        lines.append(
            f"Its weights lie {manifest.trained_by['blend']:g} of the way from those of the bundle that its "
            "training began with to the trained ones (arXiv 2109.01903)."
        )
    if plan.network.backbone.startswith("lite0"):
        lines.append("The backbone began with EfficientNet-Lite0's ImageNet weights (Apache-2.0).")
    return lines


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
