"""Comparison of a student before and after an adaptation: agreement on the held-out part, AP, pictures, a verdict."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle, Manifest
from service.pose.estimator import PoseEstimator
from training import files
from training.adapt import agreement, rehearsal
from training.adapt.adaptation import TeacherLabels
from training.adapt.agreement import Agreement, Verdict
from training.adapt.request import AdaptRequest
from training.data import coco, holdout
from training.data import images as pictures
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint
from training.evaluation import coco_ap, predictions
from training.evaluation.predictions import Predictions
from training.evaluation.report import html_page, prediction_sheet
from training.evaluation.report.report import HTML, JSON
from training.export import model_card, to_onnx

NOT_BETTER = "not-better"
"""Folder for a bundle that should not be served; servers do not look for bundles there."""
SHOWN = 8
"""People in each list of examples."""


@dataclass(frozen=True, slots=True)
class EvaluatedStudent:
    """A student, measured on the held-out part.

    Attributes:
        opened: Its bundle.
        predicted: Its predictions, with the teacher's joints as labels.
        agreed: Its agreement with the teacher.
        score: Its COCO figures on labelled pictures; None without any.
    """

    opened: Bundle
    predicted: Predictions
    agreed: Agreement
    score: coco_ap.Score | None


def finish(
    request: AdaptRequest, state: Checkpoint, labels: TeacherLabels, truth: coco.Source | None, every: int = 1
) -> str:
    """Write the new bundle and the report; returns a summary to print.

    Args:
        request: The request.
        state: The trained student.
        labels: The teacher's labels.
        truth: Labelled pictures to measure AP on; None to measure agreement only.
        every: Only pictures whose id is divisible by this.
    """
    start = checkpoint.load(request.work / "start" / "last.pt")
    blended = rehearsal.blend(start, state, request.blend)
    exported = to_onnx.export(blended, request.work / "exported", next_version(request.student.manifest.version))
    shared = None if truth is None else holdout.of_bundles([exported], truth, every, allow=True)
    before = _evaluate(request.student, labels, truth, every)
    after = _evaluate(exported, labels, truth, every)
    aps = [None if side.score is None else side.score.ap for side in (before, after)]
    verdict = agreement.judge(before.agreed, after.agreed, *aps)
    name = exported.manifest.name
    good, bad = request.out / name, request.out / NOT_BETTER / name
    place, other = (good, bad) if verdict.better else (bad, good)
    shutil.rmtree(other, ignore_errors=True)  # of an earlier call that measured on other pictures
    manifest = _manifest(request, exported.manifest, state, labels, before, after)
    written = bundle.write(place, manifest, exported.onnx, _card(manifest, state, request, labels))
    numbers = _numbers(request, labels, before, after, verdict)
    numbers["overlap"] = shared and asdict(shared)
    files.write(request.out / JSON, (json.dumps(numbers, indent=2) + "\n").encode())
    html = html_page.document(f"{name} {manifest.version}", _html(request, labels, before, after, verdict))
    files.write(request.out / HTML, html.encode())
    return _text(request, written, before, after, verdict)


def next_version(version: str) -> str:
    """Return the version after an adaptation: ``1+adapt.1`` for ``1``, ``1+adapt.2`` for ``1+adapt.1``."""
    stem, mark, number = version.rpartition("+adapt.")
    return f"{stem}+adapt.{int(number) + 1}" if mark and number.isdigit() else f"{version}+adapt.1"


def _evaluate(opened: Bundle, labels: TeacherLabels, truth: coco.Source | None, every: int) -> EvaluatedStudent:
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    found = predictions.collect(labels.held_out, estimator)
    score = None if truth is None else coco_ap.score_poses(truth, estimator, every=every)
    return EvaluatedStudent(opened, found, agreement.measure(found), score)


def _manifest(
    request: AdaptRequest,
    made: Manifest,
    state: Checkpoint,
    labels: TeacherLabels,
    before: EvaluatedStudent,
    after: EvaluatedStudent,
) -> Manifest:
    """Return the exported manifest with the history of the student before the adaptation."""
    old = request.student.manifest
    known = old.trained_by
    ancestors = [
        {
            "recipe": old.name,
            "recipe_sha256": str(known.get("recipe_sha256", "unknown")),
            "steps": known.get("steps", 0),
        },
        *known.get("started_from", []),
    ]
    teacher = request.teacher.manifest
    trained_by = made.trained_by | {
        "started_from": ancestors,
        "teachers": [*known.get("teachers", []), f"{teacher.name} {teacher.version} labelled {request.source.name}"],
        "data": list(dict.fromkeys([*known.get("data", []), *(it.name for it in state.recipe.data)])),
        "adapted_from": {"version": old.version, "model_sha256": old.files[bundle.ONNX]},
        "adapted_to": {
            "pictures": len(labels.footage.part("train")),
            "people": labels.people,
            "blend": request.blend,
            "teacher_sha256": teacher.files[bundle.ONNX],
        },
    }
    metrics = {
        "agreement_oks_before": float(before.agreed.oks.mean()),
        "agreement_oks": float(after.agreed.oks.mean()),
        "agreement_near_before": before.agreed.near,
        "agreement_near": after.agreed.near,
    }
    metrics |= {f"ap_{when}": side.score.ap for when, side in (("before", before), ("after", after)) if side.score}
    return made.model_copy(update={"trained_by": trained_by, "metrics": metrics})


def _card(manifest: Manifest, state: Checkpoint, request: AdaptRequest, labels: TeacherLabels) -> str:
    measured = (
        f"labelled pictures (the rows `ap`), and on {len(labels.footage.part('held out'))} held-out pictures of "
        f"{request.source.name} as agreement with {request.teacher.manifest.name}, which is not accuracy"
    )
    return model_card.with_figures(model_card.write(manifest, state.recipe), manifest, measured)


def _numbers(
    request: AdaptRequest, labels: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> dict[str, Any]:
    def side(it: EvaluatedStudent) -> dict[str, Any]:
        return {
            "version": it.opened.manifest.version,
            "mean_oks": float(it.agreed.oks.mean()),
            "near": it.agreed.near,
            "labelled": None if it.score is None else asdict(it.score),
        }

    return {
        "footage": labels.footage.name,
        "pictures": {part: len(labels.footage.part(part)) for part in ("train", "gap", "held out")},
        "people": labels.people,
        "joints": labels.joints,
        "held_out_people": len(before.predicted),
        "teacher": request.teacher.manifest.name,
        "before": side(before),
        "after": side(after),
        "verdict": asdict(verdict),
    }


def _rows(before: EvaluatedStudent, after: EvaluatedStudent) -> list[list[str]]:
    """Return name, before, after and gain of each figure."""
    pairs = {
        "agreement with the teacher, mean OKS": (before.agreed.oks.mean(), after.agreed.oks.mean()),
        f"joints within {agreement.NEAR:.0%} of the box's height": (before.agreed.near, after.agreed.near),
    }
    if before.score and after.score:
        pairs |= {
            "AP on labelled pictures": (before.score.ap, after.score.ap),
            "AP50 on labelled pictures": (before.score.ap50, after.score.ap50),
        }
    return [[name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}"] for name, (old, new) in pairs.items()]


def _text(
    request: AdaptRequest, written: Bundle, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> str:
    lines = [f"{name}: {old} -> {new} ({gain})" for name, old, new, gain in _rows(before, after)]
    verdict_text = "BETTER" if verdict.better else "NOT BETTER, keep the old one"
    lines += [
        f"{verdict_text}: {verdict.why}",
        f"{written.path}: version {written.manifest.version}",
        str(request.out / HTML),
    ]
    return "\n".join(lines)


def _html(
    request: AdaptRequest, labels: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> list[str]:
    new, skeleton = after.opened.manifest, before.predicted.skeleton
    by_joint = zip(skeleton.keypoints, before.agreed.near_by_joint, after.agreed.near_by_joint, strict=True)
    counts = {part: len(labels.footage.part(part)) for part in ("train", "gap", "held out")}
    facts = {
        "footage": f"{labels.footage.name}, {sum(counts.values()):,} pictures: {counts['train']:,} to train on, "
        f"{counts['gap']:,} in the gap, {counts['held out']:,} held out",
        "labelled by": f"{request.teacher.manifest.name} {request.teacher.manifest.version}",
        "trained on": f"{labels.joints:,} joints; {labels.people:,} people had enough of them",
        "gates": f"detector's score {request.gates.box_score:g}, joint's score {request.gates.joint_score:g}, "
        f"two inferences within {request.gates.disagreement:g} OKS widths"
        + (", no jump away and back" if labels.footage.is_video else ""),
        "model.onnx sha256, before": request.student.manifest.files[bundle.ONNX],
        "model.onnx sha256, after": new.files[bundle.ONNX],
    }
    return [
        html_page.heading(f"{new.name}: {request.student.manifest.version} and {new.version}", 1),
        html_page.paragraph(("Better: " if verdict.better else "Not better, keep the old one: ") + verdict.why, "lead"),
        html_page.paragraph(
            "Agreement is measured where the teacher was sure, on pictures that were not trained on. It is not "
            "accuracy: a mistake of the teacher that the student copies counts as agreement.",
            "note",
        ),
        html_page.table(["", "before", "after", "gain"], _rows(before, after)),
        html_page.heading("By joint"),
        html_page.table(
            ["keypoint", "near before", "near after"],
            [[name.replace("_", " "), _share(old), _share(now)] for name, old, now in by_joint],
        ),
        html_page.heading("Before and after"),
        html_page.paragraph(
            "Held-out people in their boxes, before (left) and after (right). Thin white: the teacher. Bold: the "
            "student.",
            "note",
        ),
        *_examples(labels, before, after),
        html_page.heading("Details"),
        html_page.facts(facts),
    ]


def _share(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.1%}"


def _examples(labels: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent) -> list[str]:
    gains = after.agreed.oks - before.agreed.oks
    ranking = np.argsort(-gains, kind="stable")
    count = min(SHOWN, max(1, len(ranking) // 2))
    images = coco.load(labels.held_out.annotations).imgs
    parts = []
    for title, chosen in (("Gained most", ranking[:count]), ("Lost most", ranking[::-1][:count])):
        tiles = []
        for i in chosen.tolist():
            image = pictures.read(labels.held_out.images / images[int(before.predicted.image_ids[i])]["file_name"])
            both = np.concatenate([prediction_sheet.draw(image, side.predicted, i) for side in (before, after)], axis=1)
            caption = f"OKS {before.agreed.oks[i]:.2f} to {after.agreed.oks[i]:.2f}"
            tiles.append(html_page.tile(prediction_sheet.to_jpeg(both), caption, caption, []))
        parts += [html_page.heading(title, 3), html_page.grid(tiles)]
    return parts
