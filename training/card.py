"""The model card that travels with a bundle."""

from __future__ import annotations

from service.pose.bundle import Manifest
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
}
LIMITS = {
    "pose": """- Cut-off and small people (below about 60 px), back views, crowds and lying people are read worst.
- Every joint is answered, also hidden ones: read its score. Scores are a concentration of belief, not calibrated.
- One person a box: where two overlap, joints may jump to the neighbour.""",
    "finder": """- People below about 20 px of the network's input, and dense crowds, are missed.
- Boxes of people cut by the picture's edge end there.
- Scores are not calibrated.""",
}


def write(manifest: Manifest, plan: Recipe) -> str:
    """Write the card: what it is, figures, data and terms, limits."""
    kind = plan.network.kind
    guide = "PP-TinyPose 256x192 (PaddleDetection)" if kind == "pose" else "RTMDet-nano person (OpenMMLab)"
    figures = [f"| {name} | {value:.3f} |" for name, value in manifest.metrics.items()] or ["| none measured | |"]
    terms = [f"- {term}" for key, term in TERMS.items() if any(key in data.name for data in plan.data)]
    data = [f"- {data.name}, share {data.share:g}" for data in plan.data]
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            f"A {manifest.role} of posewright: {plan.network.backbone}, {manifest.parameters / 1e6:.2f} M parameters,",
            f"input {manifest.input_size[0]} x {manifest.input_size[1]} (width x height),",
            f"{manifest.gflops:.3f} G multiply-adds. Apache-2.0, subject to the terms of the data below.",
            "",
            "## Figures",
            "",
            "Measured on 250 COCO val2017 pictures that no training saw, pycocotools, through the serving code.",
            "",
            "| figure | value |",
            "|---|---|",
            *figures,
            "",
            "## Training",
            "",
            f"Recipe sha256 `{manifest.trained_by['recipe_sha256']}`, seed {plan.seed},",
            f"{manifest.trained_by['steps']} steps, revision `{manifest.trained_by['revision']}`.",
            "The backbone starts from EfficientNet-Lite0's ImageNet weights (Apache-2.0).",
            f"Where nobody had labelled, {guide}, Apache-2.0, did; its own training data",
            "(COCO, AI Challenger, Objects365) has terms of its own.",
            "",
            *data,
            "",
            "## Terms of the data",
            "",
            *terms,
            "",
            "## Limits",
            "",
            LIMITS[kind],
            "",
        ]
    )
