"""The parts of an adaptation: footage and its split, gates, verdict, and a bundle as the start of a training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import BundleError, read, write
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from tests import spots
from tests.training.export.test_to_onnx import fresh
from training.adapt import agreement, comparison, footage, pseudo_labels
from training.adapt.agreement import Agreement
from training.engine import from_bundle
from training.export import to_onnx
from training.networks import registry
from training.networks.served import TOLERANCE
from training.recipe import recipe

SIGMAS = COCO17.sigma_array


def write_video(path: Path, frames: list[np.ndarray], rate: float = 10) -> Path:
    """Write RGB frames as motion JPEG, which OpenCV brings along."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def test_only_changed_frames_of_a_video_are_kept(tmp_path: Path) -> None:
    moving = [spots.paint(spots.Person((150 + 10 * i, 190))) for i in range(20)]
    video = write_video(tmp_path / "clip.avi", [*[moving[0]] * 20, *moving])
    found = footage.collect(video, tmp_path / "frames", 100, 0.25)
    times = [frame.time_s for frame in found.frames]
    assert times[0] == 0
    assert not [t for t in times if 0 < t < 2], "nothing moves in the first two seconds"
    assert np.diff(times).min() >= footage.INTERVAL_S - 1e-6
    assert len(times) > 5
    assert found.is_video
    assert all((found.images / frame.file).is_file() for frame in found.frames)
    # The listing is complete, so the video is not needed any more.
    video.unlink()
    assert footage.collect(video, tmp_path / "frames", 100, 0.25) == found


def test_a_long_video_is_sampled_evenly(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", [spots.paint(spots.Person((150 + 8 * i, 190))) for i in range(40)])
    assert footage.count(video, 7) <= 7
    times = [frame.time_s for frame in footage.collect(video, tmp_path / "frames", 7, 0.25).frames]
    assert 5 <= len(times) <= 7
    assert times[-1] >= 3


def test_pictures_of_a_folder_are_turned_upright_and_unreadable_ones_named(tmp_path: Path) -> None:
    (tmp_path / "photos" / "more").mkdir(parents=True)
    upright = spots.paint(spots.SURE)
    for i in range(5):
        content = spots.encode(spots.stored_as(upright, 6), "JPEG", orientation=6)
        (tmp_path / "photos" / "more" / f"{i}.jpg").write_bytes(content)
    (tmp_path / "photos" / "torn.jpg").write_bytes(b"\xff\xd8 not a picture")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    found = footage.collect(tmp_path / "photos", tmp_path / "frames", 100, 0.4)
    assert found.unreadable == ("torn.jpg",)
    assert len(found.frames) == 5
    kept = cv2.imread(str(found.images / found.frames[0].file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert kept is not None
    assert np.abs(kept[..., ::-1].astype(int) - upright).mean() < 3
    assert found.part("held out") == [3, 4]
    teaching = [tmp_path / "photos" / "more" / f"{i}.jpg" for i in found.part("train")]
    assert footage.originals(found, tmp_path / "photos", "train") == teaching != []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none.mp4", "got nothing there"),
        (lambda path: (path / "text.mp4").write_text("no video") and path / "text.mp4", "a video that OpenCV reads"),
        (lambda path: path, "expected pictures"),
        (
            lambda path: write_video(path / "still.avi", [spots.paint(spots.SURE)] * 30),
            "at least 4 pictures that differ",
        ),
    ],
    ids=["missing", "no video", "empty folder", "nothing moves"],
)
def test_unusable_footage_is_refused(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(footage.FootageError, match=message):
        footage.collect(make(tmp_path), tmp_path / "out" / "frames", 50, 0.25)


@settings(max_examples=50)
@given(
    gaps=st.lists(st.floats(0.2, 60), min_size=3, max_size=200),
    hold_out=st.floats(0.05, 0.5),
    longest=st.floats(0.1, 9),
)
def test_the_end_is_held_out_behind_a_gap(gaps: list[float], hold_out: float, longest: float) -> None:
    times = np.cumsum(gaps).tolist()
    parts = footage.split(times, hold_out, longest)
    assert parts == sorted(parts, key=["train", "gap", "held out"].index)
    assert parts[0] == "train"
    assert parts[-1] == "held out"
    train = max(t for t, part in zip(times, parts, strict=True) if part == "train")
    held = min(t for t, part in zip(times, parts, strict=True) if part == "held out")
    assert held - train >= min(longest, footage.GAP_SHARE * (times[-1] - times[0])) - 1e-6


def walk(step: float) -> Poses:
    """Two people, the first of whom goes to the right."""
    people = [spots.Person((200, 200)), spots.Person((450, 200))]
    keypoints = np.stack([person.keypoints for person in people])
    keypoints[0, :, 0] += step
    boxes = np.array([[140 + step, 100, 260 + step, 300], [390, 100, 510, 300]], np.float32)
    return Poses(keypoints, np.ones((2, 17), np.float32), boxes, np.ones(2, np.float32))


@settings(max_examples=30)
@given(joint=st.integers(0, 16), person=st.integers(0, 1), pace=st.floats(-20, 20), angle=st.floats(0, 6.3))
def test_a_joint_that_jumps_away_and_back_is_dropped_alone(joint: int, person: int, pace: float, angle: float) -> None:
    before, now, after = walk(-pace), walk(0), walk(pace)
    assert not pseudo_labels.jumps(before, now, after, 3.0, SIGMAS).any()
    now.keypoints[person, joint] += 130 * np.array([np.cos(angle), np.sin(angle)], np.float32)
    expected = np.zeros((2, 17), bool)
    expected[person, joint] = True
    assert (pseudo_labels.jumps(before, now, after, 3.0, SIGMAS) == expected).all()
    # A joint that stays where it went is a movement.
    after.keypoints[person, joint] = 2 * now.keypoints[person, joint] - before.keypoints[person, joint]
    assert not pseudo_labels.jumps(before, now, after, 3.0, SIGMAS).any()


def agreed(oks: np.ndarray) -> Agreement:
    return Agreement(oks.astype(np.float32), 0.5, np.full(17, 0.5))


def test_better_means_a_significant_gain_without_a_loss_of_ap() -> None:
    rng = np.random.default_rng(0)
    old = rng.uniform(0.5, 0.9, 400)
    noise = rng.normal(0, 0.05, 400)
    sure = agreement.judge(agreed(old), agreed(old + 0.03 + noise), None, None)
    assert sure.better
    assert sure.gain == pytest.approx(0.03, abs=0.01)
    assert not agreement.judge(agreed(old), agreed(old + noise - noise.mean()), None, None).better
    assert not agreement.judge(agreed(old), agreed(old - 0.03), None, None).better
    assert not agreement.judge(agreed(old), agreed(old + 0.03), 0.40, 0.38).better
    assert agreement.judge(agreed(old), agreed(old + 0.03 + noise), 0.40, 0.395).better
    assert not agreement.judge(agreed(old[:1]), agreed(old[:1] + 0.1), None, None).better, (
        "one person has no standard error"
    )


def test_versions_count_adaptations() -> None:
    assert comparison.next_version("1") == "1+adapt.1"
    assert comparison.next_version("1+adapt.1") == "1+adapt.2"
    assert comparison.next_version("2024.5+adapt.9") == "2024.5+adapt.10"


@pytest.mark.parametrize(
    ("backbone", "flip_test"),
    [
        pytest.param("plain-s", False, id="plain", marks=pytest.mark.slow),
        pytest.param("plain-s", True, id="plain, flip test", marks=pytest.mark.slow),
        pytest.param("lite0-stride16-narrow", False, id="lite0"),
        pytest.param("lite0-context", False, id="lite0 with context", marks=pytest.mark.slow),
    ],
)
def test_a_revived_network_answers_as_its_bundle_and_learns(tmp_path: Path, backbone: str, flip_test: bool) -> None:
    network = {"kind": "pose", "backbone": backbone, "decoder_width": 16, "input_size": [96, 128], "sigma_cells": 1.7}
    network |= {"box_padding": 1.1}
    written = to_onnx.export(fresh(network=network), tmp_path / "tiny", "1", flip_test)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8, 16, 12, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    state = from_bundle.as_checkpoint(written, pixels)
    assert state.recipe.network.backbone == backbone
    assert state.recipe.network.sigma_cells == pytest.approx(1.7, abs=1e-3)
    assert state.recipe.network.box_padding == written.manifest.box_padding == 1.1
    closer = to_onnx.export(state, tmp_path / "closer", "2", flip_test, padding=1.05).manifest
    assert closer.box_padding == 1.05
    assert closer.trained_by["recipe_sha256"] == recipe.digest(state.recipe)
    again = to_onnx.export(state, tmp_path / "again", "2", flip_test)
    old, new = (OnnxRunner(it.onnx, threads=1).run(pixels)[0] for it in (written, again))
    assert np.abs(old - new).max() <= TOLERANCE * old.max()
    # With the statistics of the very crops, training mode answers as evaluation mode: no norm starts with a jolt.
    learner = registry.build(state.recipe, pretrained=False)
    learner.load_state_dict(state.ema)
    crops = torch.from_numpy(pixels)
    with torch.no_grad():
        calm = learner.eval()(crops)
    lively = learner.train()(crops)
    assert (calm - lively).abs().max() < 0.02 * calm.abs().max()
    lively.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in learner.parameters()) > 20


def test_a_bundle_whose_teachers_have_names_of_earlier_versions_is_revived(tmp_path: Path) -> None:
    written = to_onnx.export(fresh(), tmp_path / "tiny", "1")
    by = written.manifest.trained_by
    teacher = {"name": "tinypose", "kind": "tinypose", "path": "pose.onnx", "cached": True, "flip": False, "origin": ""}
    tree = {**by["recipe"], "losses": {**by["recipe"]["losses"], "dense": 1.0, "teachers": [teacher]}}
    manifest = written.manifest.model_copy(update={"trained_by": {**by, "recipe": tree}})
    old = write(tmp_path / "old", manifest, written.onnx, written.card)
    assert from_bundle.as_checkpoint(old).recipe.network == from_bundle.as_checkpoint(written).recipe.network


def test_a_foreign_graph_is_not_revived(tmp_path: Path) -> None:
    opened = read(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    with pytest.raises(BundleError, match="expected a network of this project"):
        from_bundle.as_checkpoint(opened, np.zeros((2, 256, 192, 3), np.uint8))
