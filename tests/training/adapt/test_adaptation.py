"""posewright-train adapt, with the shipped bundles on a clip of a real photograph that moves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from tests.training.adapt.test_parts import write_video
from tests.training.conftest import tiny_recipe
from training.__main__ import main
from training.adapt import adaptation, agreement, comparison, footage, request
from training.data import coco, crop_cache
from training.engine import checkpoint
from training.export import to_onnx
from training.networks import registry

pytestmark = pytest.mark.slow

FEW = ("--steps", "2", "--threads", "1", "--set", "phases.0.batch=4")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eileen Collins (NASA, public domain) goes past a camera."""
    portrait = cv2.resize(data.astronaut(), (400, 400), interpolation=cv2.INTER_AREA)
    frames = []
    for i in range(12):
        frame = np.full((400, 520, 3), 90, np.uint8)
        frame[:, 10 * i : 10 * i + 400] = portrait
        frames.append(frame)
    return write_video(tmp_path_factory.mktemp("clip") / "camera.avi", frames, rate=5)


def adapt(clip: Path, out: Path, *more: str) -> int:
    return main(["adapt", "--from", str(clip), "--student", "student-s", "--out", str(out), *FEW, *more])


@pytest.fixture(scope="module")
def adapted(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "out"
    assert adapt(clip, out) == 0
    return out


def new_bundle(out: Path) -> bundle.Bundle:
    return bundle.read(next(it.parent for it in out.glob(f"**/student-s/{bundle.MANIFEST}")))


def test_a_clip_becomes_a_bundle_and_a_report(adapted: Path) -> None:
    old, new = request.open_bundle("student-s"), new_bundle(adapted)
    assert new.manifest.version == f"{old.manifest.version}+adapt.1"
    assert new.manifest.name == "student-s"
    assert new.manifest.calibration is None, "the new weights have no calibration"
    assert new.manifest.trained_by["adapted_from"]["model_sha256"] == old.manifest.files[bundle.ONNX]
    assert new.manifest.trained_by["started_from"][0]["recipe_sha256"] == old.manifest.trained_by["recipe_sha256"]
    assert set(old.manifest.trained_by["data"]) < set(new.manifest.trained_by["data"])
    assert f"camera.avi, labelled by teacher {request.open_bundle('teacher').manifest.version}" in new.card
    unrecorded = [*old.manifest.trained_by["pictures"]["unrecorded"], "frames of camera.avi"]
    assert new.manifest.trained_by["pictures"]["unrecorded"] == unrecorded
    numbers = json.loads((adapted / "report.json").read_text())
    assert numbers["pictures"]["held out"] >= 2
    assert numbers["people"] == numbers["pictures"]["train"], "one person a frame"
    html = (adapted / "report.html").read_text()
    assert new.manifest.version in html
    assert html.count("<figure>") >= 2


def test_two_small_steps_change_the_student_but_hardly_its_predictions(adapted: Path) -> None:
    """Rebuilding a student from its bundle keeps its function; training changes its weights."""
    pixels = cv2.resize(data.astronaut(), new_bundle(adapted).manifest.input_size)[None]
    old, new = (
        OnnxRunner(it.onnx, threads=1).run(pixels)[0] for it in (request.open_bundle("student-s"), new_bundle(adapted))
    )
    assert 1e-6 < np.abs(new - old).max() < 0.2
    numbers = json.loads((adapted / "report.json").read_text())
    assert numbers["before"]["mean_oks"] > 0.5
    assert numbers["after"]["mean_oks"] == pytest.approx(numbers["before"]["mean_oks"], abs=0.02)


@pytest.mark.parametrize("better", [True, False])
def test_only_a_better_student_is_written_where_servers_look(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    """The verdict decides on the folder, on the words of the report, and on those that are printed."""
    out = tmp_path / "out"
    shutil.copytree(adapted, out)
    asked = request.AdaptRequest(
        out, out, request.open_bundle("student-s"), request.open_bundle("teacher"), request.open_bundle("detector")
    )
    frames = json.loads((out / "work" / "frames.json").read_text())
    frames_of = tuple(footage.FootageFrame(**it) for it in frames["frames"])
    kept = footage.Footage(frames["name"], out / "work" / "frames", frames_of, is_video=True)
    held_out = coco.Source("held out", out / "work" / "labels" / "held-out.json", kept.images)
    labels = adaptation.TeacherLabels(kept, joints=1, people=1, held_out=held_out, seconds=0)
    monkeypatch.setattr(agreement, "judge", lambda *_: agreement.Verdict(better, 0.1, 0.01, "as told"))
    printed = comparison.finish(asked, checkpoint.load(out / "work" / "run" / "last.pt"), labels, None)
    places = [it.parent.relative_to(out).as_posix() for it in out.glob(f"**/student-s/{bundle.MANIFEST}")]
    assert places == (["student-s"] if better else ["not-better/student-s"])
    html = (out / "report.html").read_text()
    assert ("Better: as told" in html) == better
    assert ("keep the old one: as told" in html) != better
    assert printed.count("NOT BETTER") == (not better)


@pytest.fixture(scope="module")
def close(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    """An untrained student in PP-TinyPose's layout, with little padding and the losses of squared errors."""
    network = {"kind": "pose", "backbone": "lite-hrnet", "norms": "folded", "input_size": [96, 128], "temperature": 10}
    plan = tiny_recipe(
        network={**network, "box_padding": 1.05, "sigma_cells": 2.0, "first_cell_px": 0},
        losses={"regression": 1.0, "classification": 0.0},
    )
    torch.manual_seed(0)
    weights = registry.build(plan, pretrained=False).state_dict()
    state = checkpoint.Checkpoint(1, weights, weights, {}, plan, "test")
    return to_onnx.export(state, tmp_path_factory.mktemp("close") / "tiny", "1")


def test_canvases_are_as_sharp_as_the_students_crops(
    clip: Path, close: bundle.Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student with little padding needs larger canvases; and its losses keep the form in which it was trained."""
    assert adapt(clip, tmp_path / "out", "--student", str(close.path)) == 0
    assert "canvases of" not in capsys.readouterr().err, "training warns about canvases that do not fit"
    (cache,) = crop_cache.open_cache([tmp_path / "out" / "work" / "crops" / "footage"])
    width, height = crop_cache.canvas_size((96, 128), 1.05)
    assert cache.pixels.shape[1:3] == (height, width)
    assert height > 1.15 * 128 * crop_cache.CANVAS_ZOOM
    trained = checkpoint.load(tmp_path / "out" / "work" / "run" / "last.pt").recipe
    assert (trained.losses.regression, trained.losses.classification, trained.losses.dense_form) == (1, 0, "squared")


def test_repeating_the_command_changes_nothing(adapted: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = new_bundle(adapted).manifest.files
    assert adapt(clip, adapted) == 0
    assert new_bundle(adapted).manifest.files[bundle.ONNX] == before[bundle.ONNX]
    assert "agreement with the teacher" in capsys.readouterr().out


def test_another_command_does_not_continue_the_adaptation(
    adapted: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(clip, adapted, "--hold-out", "0.4") == 1
    assert "another --hold-out" in capsys.readouterr().err


def test_a_dry_run_estimates_the_time_and_writes_nothing(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(clip, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "at most 12 pictures" in said
    assert "2 steps of" in said
    assert "nothing was written" in said
    assert not (tmp_path / "out").exists()


def test_bundles_that_are_served_are_never_overwritten(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    shutil.copytree(request.SHIPPED / "student-s", models / "student-s")
    for out in (models, models / "student-s"):
        assert adapt(clip, out) == 1
        assert "never overwritten" in capsys.readouterr().err
    assert [it.name for it in models.iterdir()] == ["student-s"]


def test_pictures_without_people_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        noise = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), noise)
    assert adapt(tmp_path / "photos", tmp_path / "out") == 1
    assert "expected people, got none on 5 pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--student", "nobody"), "expected a bundle's folder, or a shipped bundle of"),
        (("--student", "detector"), "expected a pose network"),
        (("--set", "optimizer.speed=3"), "optimizer.speed: unknown key"),
        (("--annotations", "a.json"), "expected --annotations and --images together"),
        (("--from", "none.mp4"), "none.mp4: expected a video file or a folder of pictures"),
    ],
    ids=["no student", "no pose network", "no such key", "annotations without images", "no footage"],
)
def test_mistakes_are_named(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str], message: str
) -> None:
    assert adapt(clip, tmp_path / "out", *more) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_an_adaptation_that_is_killed_repeatedly_gives_the_same_bundle(
    clip: Path, adapted: Path, tmp_path: Path
) -> None:
    """Killed while labelling, training and comparing; the weights are equal bit for bit."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training", "adapt", "--from", clip, "--student", "student-s", "--out", out, *FEW]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for landmark in ("frames.json", "shards/*.json", "start/last.pt", "run/last.pt"):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 300
            while not list((out / "work").glob(landmark)):
                assert process.poll() is None, f"ended before {landmark}"
                assert time.monotonic() < deadline, f"no {landmark}"
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
    assert new_bundle(out).manifest.files[bundle.ONNX] == new_bundle(adapted).manifest.files[bundle.ONNX]
