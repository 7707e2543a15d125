"""Adapt a student to a camera without labels: a teacher labels the footage, and the student learns from it.

Everything lies in ``OUT/work`` and is made once: frames, shards of pseudo-labels, crops, the student's start, the
recipe and the training's checkpoints. After an interruption, the same command continues.
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
from training.adapt import request as request_
from training.adapt.footage import Footage
from training.adapt.request import AdaptError, AdaptRequest, skeleton_of
from training.data import augment, coco, crop_cache, image_record
from training.data.image_record import PictureRecord
from training.engine import checkpoint, from_bundle, lineage, loop, profile
from training.engine.checkpoint import Checkpoint
from training.recipe import recipe

MEASURED_SCORE = 0.65
"""Minimum score of a teacher's joint that agreement is measured on."""
STATISTICS_CROPS = 96
"""Crops from which the norms of a student that is rebuilt from a bundle get their statistics."""
LEAST_STEPS = 20
RESERVE = 0.12
"""Share of the time that is reserved for the export and the comparison."""
TRIED_FRAMES = 8
"""Frames that a dry run labels."""


@dataclass(frozen=True, slots=True)
class TeacherLabels:
    """The teacher's labels of the footage.

    Attributes:
        footage: The frames.
        joints: Count of joints to train on.
        people: Count of crops to train on.
        held_out: Frames to measure on; joints that the teacher is sure of are their labels.
        seconds: Time that this call took.
    """

    footage: Footage
    joints: int
    people: int
    held_out: coco.Source
    seconds: float


def train(request: AdaptRequest) -> tuple[Checkpoint, TeacherLabels]:
    """Label the footage and train on it, where an earlier call has not done so.

    Raises:
        AdaptError: ``out`` holds a bundle or another adaptation, or nobody was detected.
        FootageError, BundleError, RecipeError, DatasetError: An input cannot be read.
    """
    request_.require_sound(request)
    request_.remember(request)
    began = time.monotonic()
    labels = label(request, request.frames)
    start = _start(request, labels)
    plan_file = request.work / "recipe.json"
    if not plan_file.is_file():
        left = 60 * request.minutes * (1 - RESERVE) - (time.monotonic() - began)
        plan = request_.plan(
            request, start.recipe, request.steps or max(LEAST_STEPS, int(left / _seconds_a_step(request, start)))
        )
        files.write(plan_file, json.dumps(recipe.dump(plan)).encode())
    plan = recipe.parse(json.loads(plan_file.read_text()), str(plan_file))
    task = rehearsal.RehearsedTask(plan, start, request.work, torch.device("cpu"), request.work / "run")
    return loop.fit(plan, task, request.work / "run", torch.device("cpu"), save_every_s=30), labels


def dry_run(request: AdaptRequest) -> str:
    """Try every step on a few frames and return what an adaptation would do and how long; keeps no files."""
    request_.require_sound(request)
    expected = footage.count(request.source, request.frames)
    with TemporaryDirectory() as folder:
        trial = replace(request, out=Path(folder), frames=TRIED_FRAMES)
        labels = label(trial, TRIED_FRAMES)
        start = _start(trial, labels)
        step_s = _seconds_a_step(trial, start)
    tried = len(labels.footage.frames)
    label_s = labels.seconds / tried * expected
    teaching = max(1, len(labels.footage.part("train")))
    people = round(labels.people / teaching * (1 - request.hold_out) * expected)
    left = 60 * request.minutes * (1 - RESERVE) - label_s
    steps = request.steps or max(LEAST_STEPS, int(left / step_s))
    total = (label_s + steps * step_s) / 60 / (1 - RESERVE)
    return (
        f"{request.source}: at most {expected} pictures, of which the last {request.hold_out:.0%} are held out; "
        f"{tried} were tried and gave {labels.joints} joints of {labels.people} people to train on\n"
        f"labelling by {request.teacher.manifest.name}: about {label_s / 60:.1f} minutes, about {people} crops\n"
        f"training {request.student.manifest.name}: {steps} steps of {step_s:.2f} s\n"
        f"in all about {total:.0f} minutes; nothing was written"
    )


def label(request: AdaptRequest, limit: int) -> TeacherLabels:
    """Label the footage with the teacher and cut out the people whose joints it is sure of.

    Raises:
        AdaptError: Nobody was detected, or the teacher was sure of nobody.
    """
    began = time.monotonic()
    frames = footage.collect(request.source, request.work / "frames", limit, request.hold_out)
    for name in frames.unreadable:
        print(f"{name}: not a picture that OpenCV can read; left out")
    detector = PersonDetector(request.detector, OnnxRunner(request.detector.onnx, request.threads))
    teacher = PoseEstimator(request.teacher, OnnxRunner(request.teacher.onnx, request.threads))
    key = bundle.sha256(json.dumps(request_.identity(request)).encode())
    labeller = pseudo_labels.Labeller(detector, teacher, request.gates)
    found = pseudo_labels.label_all(labeller, frames, request.work / "shards", key)
    sigmas = teacher.skeleton.sigma_array
    sure = pseudo_labels.passing(found, frames, request.gates, sigmas)
    if not any(len(it.poses) for it in found):
        raise AdaptError(
            f"{request.source}: expected people, got none on {len(found)} pictures; check the footage, or give another "
            "--detector"
        )
    surest = [mask & (it.poses.scores >= MEASURED_SCORE) for mask, it in zip(sure, found, strict=True)]
    place, skeleton = request.work / "labels", teacher.skeleton
    joints = pseudo_labels.write_coco(found, sure, frames, "train", skeleton, place / "train.json")
    held = pseudo_labels.write_coco(
        found, surest, frames, "held out", skeleton, place / "held-out.json", as_labels=True
    )
    if not joints or not held:
        part = "for training" if not joints else "in the held-out part"
        raise AdaptError(
            f"{request.source}: expected people whose joints the teacher is sure of, got none {part}; "
            "give more footage, or another --teacher"
        )
    canvases = request.work / "crops" / "footage"
    if not (canvases / "labels.npz").is_file():
        source = coco.Source(frames.name, place / "train.json", frames.images)
        crop_cache.build(source, canvases, size=_canvas_size(request), skeleton=skeleton)
    people = len(crop_cache.open_cache([canvases], skeleton)[0])
    held_out = coco.Source(f"{frames.name}, held out", place / "held-out.json", frames.images)
    return TeacherLabels(frames, joints, people, held_out, time.monotonic() - began)


def _canvas_size(request: AdaptRequest) -> tuple[int, int]:
    """Return the (width, height) of canvases in px: of the caches to rehearse, else as sharp as the student's crops."""
    if request.rehearse:
        known = crop_cache.open_cache(list(request.rehearse), skeleton_of(request.student))[0]
        return known.pixels.shape[2], known.pixels.shape[1]
    manifest = request.student.manifest
    return crop_cache.canvas_size(manifest.input_size, manifest.box_padding or crop_cache.BOX_PADDING)


def _start(request: AdaptRequest, labels: TeacherLabels) -> Checkpoint:
    """Return the student as a checkpoint, which is made once."""
    place = request.work / "start" / "last.pt"
    if not place.is_file():
        rebuilt = from_bundle.as_checkpoint(request.student, _some_crops(request, labels))
        line = lineage.of_bundle(request.student.manifest)
        line = replace(line, pictures=line.pictures | _record(request, labels.footage))
        checkpoint.save(place, replace(rebuilt, lineage=line))
    return checkpoint.load(place)


def _record(request: AdaptRequest, frames: Footage) -> PictureRecord:
    """Return the record of the footage's pictures to train on, by the original files; a video has none."""
    if frames.is_video:
        return PictureRecord(unrecorded=(f"frames of {frames.name}",))
    return PictureRecord.of(map(image_record.picture_id, footage.originals(frames, request.source, "train")))


def _some_crops(request: AdaptRequest, labels: TeacherLabels) -> np.ndarray:
    """Return crops spread over the footage, uint8 (N, H, W, 3) of the student's input size."""
    cache = crop_cache.open_cache([request.work / "crops" / "footage"], skeleton_of(request.student))[0]
    size, padding = request.student.manifest.input_size, request.student.manifest.box_padding or crop_cache.BOX_PADDING
    rows = np.unique(np.linspace(0, labels.people - 1, STATISTICS_CROPS).astype(int))
    to_canvas = torch.from_numpy(cache.crop_to_canvas(rows, size, padding))
    canvases = torch.from_numpy(np.array(cache.pixels[rows]))
    return augment.to_bytes(augment.sample(canvases, to_canvas, size)).numpy()


def _seconds_a_step(request: AdaptRequest, start: Checkpoint) -> float:
    plan = request_.plan(request, start.recipe, 1)
    task = rehearsal.RehearsedTask(plan, start, request.work, torch.device("cpu"), request.work / "run")
    return sum(profile.measure(plan, task, torch.device("cpu"), rounds=3).values()) / 1000
