"""An adapted student beside the one that it was: agreement on the held-out part, AP, pictures, a verdict."""

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
"""Folder for a bundle that should not serve: no server finds it there."""
SHOWN = 8
"""People a sheet."""


@dataclass(frozen=True, slots=True)
class EvaluatedStudent:
    """A student and what it answers on the held-out part.

    Attributes:
        opened: Its bundle.
        answered: Its answers; the teacher's joints stand in the place of the labels.
        agreed: How far it agrees with the teacher.
        score: COCO's figures on labelled pictures, where there are any.
    """

    opened: Bundle
    answered: Predictions
    agreed: Agreement
    score: coco_ap.Score | None


def finish(
    order: AdaptRequest, state: Checkpoint, lessons: TeacherLabels, truth: coco.Source | None, every: int = 1
) -> str:
    """Write the new bundle and the report; returns what to print.

    Args:
        order: What was asked for.
        state: The trained student.
        lessons: What the teacher gave.
        truth: Labelled pictures that AP is measured on, where there are any.
        every: Only those whose id this number divides.
    """
    start = checkpoint.load(order.work / "start" / "last.pt")
    blended = rehearsal.blend(start, state, order.blend)
    exported = to_onnx.export(blended, order.work / "exported", next_version(order.student.manifest.version))
    shared = None if truth is None else holdout.of_bundles([exported], truth, every, allow=True)
    before = _side(order.student, lessons, truth, every)
    after = _side(exported, lessons, truth, every)
    aps = [None if side.score is None else side.score.ap for side in (before, after)]
    verdict = agreement.judge(before.agreed, after.agreed, *aps)
    name = exported.manifest.name
    good, bad = order.out / name, order.out / NOT_BETTER / name
    place, other = (good, bad) if verdict.better else (bad, good)
    shutil.rmtree(other, ignore_errors=True)  # of an earlier call, which measured on other pictures
    manifest = _manifest(order, exported.manifest, state, lessons, before, after)
    written = bundle.write(place, manifest, exported.onnx, _card(manifest, state, order, lessons))
    numbers = _numbers(order, lessons, before, after, verdict)
    numbers["overlap"] = shared and asdict(shared)
    files.write(order.out / JSON, (json.dumps(numbers, indent=2) + "\n").encode())
    html = html_page.document(f"{name} {manifest.version}", _html(order, lessons, before, after, verdict))
    files.write(order.out / HTML, html.encode())
    return _text(order, written, before, after, verdict)


def next_version(version: str) -> str:
    """``1`` becomes ``1+adapt.1``, ``1+adapt.1`` becomes ``1+adapt.2``."""
    stem, mark, number = version.rpartition("+adapt.")
    return f"{stem}+adapt.{int(number) + 1}" if mark and number.isdigit() else f"{version}+adapt.1"


def _side(opened: Bundle, lessons: TeacherLabels, truth: coco.Source | None, every: int) -> EvaluatedStudent:
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    found = predictions.collect(lessons.held_out, estimator)
    score = None if truth is None else coco_ap.score_poses(truth, estimator, every=every)
    return EvaluatedStudent(opened, found, agreement.measure(found), score)


def _manifest(
    order: AdaptRequest,
    made: Manifest,
    state: Checkpoint,
    lessons: TeacherLabels,
    before: EvaluatedStudent,
    after: EvaluatedStudent,
) -> Manifest:
    """The exported manifest, with the old student's history in the place of what `revival` could not know."""
    old = order.student.manifest
    known = old.trained_by
    ancestors = [
        {
            "recipe": old.name,
            "recipe_sha256": str(known.get("recipe_sha256", "unknown")),
            "steps": known.get("steps", 0),
        },
        *known.get("started_from", []),
    ]
    teacher = order.teacher.manifest
    trained_by = made.trained_by | {
        "started_from": ancestors,
        "teachers": [*known.get("teachers", []), f"{teacher.name} {teacher.version} labelled {order.source.name}"],
        "data": list(dict.fromkeys([*known.get("data", []), *(it.name for it in state.recipe.data)])),
        "adapted_from": {"version": old.version, "model_sha256": old.files[bundle.ONNX]},
        "adapted_to": {
            "pictures": len(lessons.footage.part("train")),
            "people": lessons.people,
            "blend": order.blend,
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


def _card(manifest: Manifest, state: Checkpoint, order: AdaptRequest, lessons: TeacherLabels) -> str:
    measured = (
        f"labelled pictures (the rows `ap`), and on {len(lessons.footage.part('held out'))} held-out pictures of "
        f"{order.source.name} as agreement with {order.teacher.manifest.name}, which is no truth"
    )
    return model_card.with_figures(model_card.write(manifest, state.recipe), manifest, measured)


def _numbers(
    order: AdaptRequest, lessons: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> dict[str, Any]:
    def side(it: EvaluatedStudent) -> dict[str, Any]:
        return {
            "version": it.opened.manifest.version,
            "mean_oks": float(it.agreed.oks.mean()),
            "near": it.agreed.near,
            "labelled": None if it.score is None else asdict(it.score),
        }

    return {
        "footage": lessons.footage.name,
        "pictures": {part: len(lessons.footage.part(part)) for part in ("train", "gap", "held out")},
        "people": lessons.people,
        "joints": lessons.joints,
        "held_out_people": len(before.answered),
        "teacher": order.teacher.manifest.name,
        "before": side(before),
        "after": side(after),
        "verdict": asdict(verdict),
    }


def _rows(before: EvaluatedStudent, after: EvaluatedStudent) -> list[list[str]]:
    """Name, before, after, gain of each figure."""
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
    order: AdaptRequest, written: Bundle, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> str:
    lines = [f"{name}: {old} -> {new} ({gain})" for name, old, new, gain in _rows(before, after)]
    say = "BETTER" if verdict.better else "NOT BETTER, keep the old one"
    lines += [f"{say}: {verdict.why}", f"{written.path}: version {written.manifest.version}", str(order.out / HTML)]
    return "\n".join(lines)


def _html(
    order: AdaptRequest, lessons: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent, verdict: Verdict
) -> list[str]:
    new, skeleton = after.opened.manifest, before.answered.skeleton
    by_joint = zip(skeleton.keypoints, before.agreed.near_by_joint, after.agreed.near_by_joint, strict=True)
    counts = {part: len(lessons.footage.part(part)) for part in ("train", "gap", "held out")}
    facts = {
        "footage": f"{lessons.footage.name}, {sum(counts.values()):,} pictures: {counts['train']:,} to learn from, "
        f"{counts['gap']:,} in the gap, {counts['held out']:,} held out",
        "labelled by": f"{order.teacher.manifest.name} {order.teacher.manifest.version}, nobody else",
        "learned from": f"{lessons.joints:,} joints; {lessons.people:,} people had enough of them",
        "gates": f"detector's score {order.gates.box_score:g}, joint's score {order.gates.joint_score:g}, "
        f"two looks within {order.gates.apart:g} OKS widths"
        + (", no jump away and back" if lessons.footage.is_video else ""),
        "model.onnx sha256, before": order.student.manifest.files[bundle.ONNX],
        "model.onnx sha256, after": new.files[bundle.ONNX],
    }
    return [
        html_page.heading(f"{new.name}: {order.student.manifest.version} and {new.version}", 1),
        html_page.paragraph(("Better: " if verdict.better else "Not better, keep the old one: ") + verdict.why, "lead"),
        html_page.paragraph(
            "Agreement is measured where the teacher was sure, on pictures that nothing was learned from. It is no "
            "truth: a mistake of the teacher's that the student copies counts as agreement.",
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
            "Held-out people in their boxes; left before, right after. Thin white: the teacher. Bold: the student.",
            "note",
        ),
        *_sheets(lessons, before, after),
        html_page.heading("What was done"),
        html_page.facts(facts),
    ]


def _share(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.1%}"


def _sheets(lessons: TeacherLabels, before: EvaluatedStudent, after: EvaluatedStudent) -> list[str]:
    gains = after.agreed.oks - before.agreed.oks
    order = np.argsort(-gains, kind="stable")
    count = min(SHOWN, max(1, len(order) // 2))
    images = coco.load(lessons.held_out.annotations).imgs
    parts = []
    for title, chosen in (("Gained most", order[:count]), ("Lost most", order[::-1][:count])):
        tiles = []
        for i in chosen.tolist():
            image = pictures.read(lessons.held_out.images / images[int(before.answered.image_ids[i])]["file_name"])
            both = np.concatenate([prediction_sheet.draw(image, side.answered, i) for side in (before, after)], axis=1)
            said = f"OKS {before.agreed.oks[i]:.2f} to {after.agreed.oks[i]:.2f}"
            tiles.append(html_page.tile(prediction_sheet.to_jpeg(both), said, said, []))
        parts += [html_page.heading(title, 3), html_page.grid(tiles)]
    return parts
