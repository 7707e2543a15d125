"""Adapt a student to a camera without labels: the teacher labels the footage, the student learns from it.

Everything lies under ``OUT/work`` and is made once: frames, shards of what the teacher saw, crops, the student's start,
the recipe, the training's checkpoints. Killed at any moment, the same command goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from training import files
from training.adapt import footage, pseudo_labels, rehearsal
from training.adapt import request as order_
from training.adapt.footage import Footage
from training.adapt.request import AdaptError, AdaptRequest, skeleton_of
from training.data import augment, coco, crop_cache, image_record
from training.data.image_record import PictureRecord
from training.distillation import teacher_cache
from training.engine import checkpoint, lineage, loop, profile
from training.engine.checkpoint import Checkpoint
from training.export import from_bundle
from training.recipe import recipe

MEASURED_SCORE = 0.65
"""Held-out joints are measured where the teacher is at least so sure."""
STATISTICS_CROPS = 96
LEAST_STEPS = 20
RESERVE = 0.12
"""Share of the minutes kept for export and the comparison."""
TRIED_FRAMES = 8
"""Frames that a dry run looks at."""


@dataclass(frozen=True, slots=True)
class TeacherLabels:
    """What the teacher gave.

    Attributes:
        footage: The frames.
        joints: Count that teach.
        people: Count of crops that teach.
        held_out: Frames to measure on, with what the teacher was sure of as labels.
        seconds: That this call took for it.
    """

    footage: Footage
    joints: int
    people: int
    held_out: coco.Source
    seconds: float


def train(order: AdaptRequest) -> tuple[Checkpoint, TeacherLabels]:
    """Label the footage and train on it, as far as that is not yet done.

    Raises:
        AdaptError: ``out`` holds a bundle or another adaptation, or nobody was seen.
        FootageError, BundleError, RecipeError, DatasetError: What was given cannot be read.
    """
    order_.require_sound(order)
    order_.remember(order)
    began = time.monotonic()
    lessons = label(order, order.frames)
    start = _start(order, lessons)
    plan_file = order.work / "recipe.json"
    if not plan_file.is_file():
        left = 60 * order.minutes * (1 - RESERVE) - (time.monotonic() - began)
        plan = order_.plan(
            order, start.recipe, order.steps or max(LEAST_STEPS, int(left / _seconds_a_step(order, start)))
        )
        files.write(plan_file, json.dumps(recipe.dump(plan)).encode())
    plan = recipe.parse(json.loads(plan_file.read_text()), str(plan_file))
    task = rehearsal.RehearsedTask(plan, start, order.work, torch.device("cpu"), order.work / "run")
    return loop.fit(plan, task, order.work / "run", torch.device("cpu"), save_every_s=30), lessons


def dry_run(order: AdaptRequest) -> str:
    """Try everything on a few frames, write nothing that stays, and say what an adaptation would do and take."""
    order_.require_sound(order)
    expected = footage.count(order.source, order.frames)
    with TemporaryDirectory() as folder:
        trial = replace(order, out=Path(folder), frames=TRIED_FRAMES)
        lessons = label(trial, TRIED_FRAMES)
        start = _start(trial, lessons)
        step_s = _seconds_a_step(trial, start)
    tried = len(lessons.footage.frames)
    label_s = lessons.seconds / tried * expected
    teaching = max(1, len(lessons.footage.part("train")))
    people = round(lessons.people / teaching * (1 - order.hold_out) * expected)
    left = 60 * order.minutes * (1 - RESERVE) - label_s
    steps = order.steps or max(LEAST_STEPS, int(left / step_s))
    total = (label_s + steps * step_s) / 60 / (1 - RESERVE)
    return (
        f"{order.source}: at most {expected} pictures, of which the last {order.hold_out:.0%} are held out; "
        f"{tried} were tried: {lessons.joints} joints of {lessons.people} people would teach\n"
        f"labelling by {order.teacher.manifest.name}: about {label_s / 60:.1f} minutes, about {people} crops\n"
        f"training {order.student.manifest.name}: {steps} steps of {step_s:.2f} s\n"
        f"in all about {total:.0f} minutes; nothing was written"
    )


def label(order: AdaptRequest, limit: int) -> TeacherLabels:
    """Have the teacher look at the footage, and cut whom it was sure of.

    Raises:
        AdaptError: Nobody, or nobody sure enough, was seen.
    """
    began = time.monotonic()
    frames = footage.collect(order.source, order.work / "frames", limit, order.hold_out)
    for name in frames.unreadable:
        print(f"{name}: no picture that OpenCV can read, left out")
    detector = PersonDetector(order.detector, OnnxRunner(order.detector.onnx, order.threads))
    teacher = PoseEstimator(order.teacher, OnnxRunner(order.teacher.onnx, order.threads))
    key = bundle.sha256(json.dumps(order_.identity(order)).encode())
    witness = pseudo_labels.Labeller(detector, teacher, order.gates)
    seen = pseudo_labels.label_all(witness, frames, order.work / "shards", key)
    sigmas = teacher.skeleton.sigma_array
    sure = pseudo_labels.passed(seen, frames, order.gates, sigmas)
    if not any(len(it.poses) for it in seen):
        raise AdaptError(
            f"{order.source}: expected people, the detector saw none on {len(seen)} pictures; check the footage, or give "
            "another --detector"
        )
    firm = [mask & (it.poses.scores >= MEASURED_SCORE) for mask, it in zip(sure, seen, strict=True)]
    place, skeleton = order.work / "labels", teacher.skeleton
    joints = pseudo_labels.write_coco(seen, sure, frames, "train", skeleton, place / "train.json")
    held = pseudo_labels.write_coco(seen, firm, frames, "held out", skeleton, place / "held-out.json", as_labels=True)
    if not joints or not held:
        part = "for training" if not joints else "in the held-out part"
        raise AdaptError(
            f"{order.source}: expected people whose joints the teacher is sure of, got none {part}; "
            "give more footage, or another --teacher"
        )
    canvases = order.work / "crops" / "footage"
    if not (canvases / "labels.npz").is_file():
        source = coco.Source(frames.name, place / "train.json", frames.images)
        crop_cache.build(source, canvases, size=_canvas_size(order), skeleton=skeleton)
    people = len(crop_cache.open_cache([canvases], skeleton)[0])
    held_out = coco.Source(f"{frames.name}, held out", place / "held-out.json", frames.images)
    return TeacherLabels(frames, joints, people, held_out, time.monotonic() - began)


def _canvas_size(order: AdaptRequest) -> tuple[int, int]:
    """(width, height) of canvases in px: as sharp as the student's crops, or that of the caches to rehearse."""
    if order.rehearse:
        known = crop_cache.open_cache(list(order.rehearse), skeleton_of(order.student))[0]
        return known.pixels.shape[2], known.pixels.shape[1]
    manifest = order.student.manifest
    return crop_cache.canvas_size(manifest.input_size, manifest.box_padding or crop_cache.BOX_PADDING)


def _start(order: AdaptRequest, lessons: TeacherLabels) -> Checkpoint:
    """The student as a checkpoint, made once."""
    place = order.work / "start" / "last.pt"
    if not place.is_file():
        revived = from_bundle.revive(order.student, _some_crops(order, lessons))
        line = lineage.of_bundle(order.student.manifest)
        line = replace(line, pictures=line.pictures | _record(order, lessons.footage))
        checkpoint.save(place, replace(revived, lineage=line))
    return checkpoint.load(place)


def _record(order: AdaptRequest, frames: Footage) -> PictureRecord:
    """The footage's own pictures that teach: frames are renamed copies, and those of a video are files of no one's."""
    if frames.is_video:
        return PictureRecord(unrecorded=(f"frames of {frames.name}",))
    return PictureRecord.of(map(image_record.picture_id, footage.originals(frames, order.source, "train")))


def _some_crops(order: AdaptRequest, lessons: TeacherLabels) -> np.ndarray:
    """Crops of the footage, spread over it, uint8 (N, H, W, 3) of the student's input size."""
    cache = crop_cache.open_cache([order.work / "crops" / "footage"], skeleton_of(order.student))[0]
    size, padding = order.student.manifest.input_size, order.student.manifest.box_padding or crop_cache.BOX_PADDING
    rows = np.unique(np.linspace(0, lessons.people - 1, STATISTICS_CROPS).astype(int))
    view = np.repeat(teacher_cache.undisturbed(cache, size, padding)[None], len(rows), axis=0)
    canvases = torch.from_numpy(np.array(cache.pixels[rows]))
    return augment.to_bytes(augment.sample(canvases, torch.from_numpy(view), size)).numpy()


def _seconds_a_step(order: AdaptRequest, start: Checkpoint) -> float:
    plan = order_.plan(order, start.recipe, 1)
    task = rehearsal.RehearsedTask(plan, start, order.work, torch.device("cpu"), order.work / "run")
    return sum(profile.measure(plan, task, torch.device("cpu"), rounds=3).values()) / 1000
