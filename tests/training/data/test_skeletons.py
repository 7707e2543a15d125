"""Custom skeletons: read, refused, and from a TOML file through training, export and service to a client."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from posewright_client import Client
from service.errors import BadParameter
from service.pose.bundle import Bundle, read
from service.pose.skeleton import COCO17, Skeleton
from service.settings import Settings
from service.wire.formats.openpose import require_body_25
from tests import spots
from tests.conftest import Running, serving
from tests.training import stick_people
from tests.training.conftest import tiny_recipe
from training.__main__ import main
from training.cli import inputs
from training.data import augment, coco, crop_cache, pseudo_labels
from training.data.coco import DatasetError
from training.data.formats import check
from training.distillation import teachers
from training.distillation.pose_task import PoseTask
from training.engine import checkpoint
from training.evaluation import coco_ap, predictions
from training.networks.pose import OksBlur, mirror_maps
from training.recipe import chain, recipe, skeletons
from training.recipe.errors import RecipeError
from training.recipe.losses import Losses, Teacher
from training.recipe.skeletons import SkeletonError

STICK = skeletons.parse({"name": "stick12", "keypoints": list(stick_people.NAMES)}, "test")
RECIPE = """
name = "stick"
role = "student"
skeleton = "stick.toml"
network = { kind = "pose", backbone = "plain-s", decoder_width = 16, input_size = [64, 96] }
optimizer = { lr = 0.004, warmup_steps = 5, ema_decay = 0.9 }
data = [{ name = "stick people", path = "crops", share = 1 }]
phases = [{ steps = 60, batch = 12, size = [64, 96], augment = "light" }]
"""


@dataclass(frozen=True)
class Made:
    """A training from a TOML to a bundle."""

    folder: Path
    source: coco.Source
    bundle: Bundle


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """By the subcommands, as a user would; the TOML file is deleted before the export."""
    folder = tmp_path_factory.mktemp("stick")
    source = coco.Source("stick", stick_people.write_coco(folder / "data", 24), folder / "data" / "train")
    (folder / "stick.toml").write_text(stick_people.TOML)
    (folder / "stick-recipe.toml").write_text(RECIPE)
    where = ["--annotations", source.annotations, "--images", source.images]
    skeleton = ["--skeleton", folder / "stick.toml"]
    run("crops", *where, *skeleton, "--out", folder / "crops", "--height", 144)
    run("train", folder / "stick-recipe.toml", "--data", folder, "--out", folder / "run")
    toml = (folder / "stick.toml").rename(folder / "gone.toml")
    run("export", folder / "run" / "last.pt", "--out", folder / "bundles" / "stick")
    toml.rename(folder / "stick.toml")
    return Made(folder, source, read(folder / "bundles" / "stick"))


def run(*arguments: object) -> None:
    assert main([str(it) for it in arguments]) == 0


@pytest.fixture(scope="session")
def server(made: Made) -> Iterator[Running]:
    """A student with twelve keypoints, and a teacher with COCO's seventeen, which is no fallback for it."""
    spots.write_detector_bundle(made.folder / "bundles")
    spots.write_pose_bundle(made.folder / "bundles", "teacher", "teacher")
    with serving(Settings(models_dir=made.folder / "bundles", student="stick", fallback_score=1.0)) as running:
        yield running


def asked(made: Made) -> tuple[bytes, str, stick_people.Figure]:
    """A picture, its box as the query takes it, and the truth."""
    (figure,) = stick_people.figures(1)
    return (made.source.images / "001.png").read_bytes(), json.dumps([figure.box]), figure


@pytest.mark.slow
def test_the_service_answers_twelve_named_keypoints_where_they_are(made: Made, server: Running) -> None:
    content, box, figure = asked(made)
    reply = server.predict(content, boxes=box).json()
    assert (reply["skeleton"], reply["model"]["name"]) == ("stick12", "stick")
    assert reply["keypoints"] == list(stick_people.NAMES)
    assert reply["edges"] == [list(edge) for edge in stick_people.EDGES]
    (pose,) = reply["poses"]
    assert [it["name"] for it in pose["keypoints"]] == list(stick_people.NAMES)
    points = np.array([(it["x"], it["y"]) for it in pose["keypoints"]])
    apart = np.linalg.norm(points - figure.points, axis=1)
    assert apart.mean() < 30, "a few steps give a rough result"


@pytest.mark.parametrize(("layout", "count"), [("compact", 12), ("tfjs", 12), ("roboflow", 12), ("coco", 36)])
def test_formats_without_joint_names_accept_any_skeleton(made: Made, server: Running, layout: str, count: int) -> None:
    content, box, _ = asked(made)
    reply = server.predict(content, boxes=box, format=layout).json()
    people = reply if isinstance(reply, list) else reply.get("poses") or reply["predictions"]
    assert len(people[0]["keypoints"]) == count


def test_formats_and_comparisons_that_need_cocos_joints_are_refused(made: Made, server: Running) -> None:
    content, box, _ = asked(made)
    reply = server.predict(content, boxes=box, format="openpose")
    assert reply.status_code == 422
    assert "expected a model with all of COCO's keypoints for openpose" in reply.json()["detail"]
    headers = {"Content-Type": "image/png"}
    reply = server.http.post("/compare", content=content, params={"boxes": box}, headers=headers)
    assert reply.status_code == 422
    assert "the teacher's skeleton 'coco17' to compare, got 'stick' of 'stick12'" in reply.json()["detail"]
    require_body_25(COCO17)
    with pytest.raises(BadParameter, match="openpose"):
        require_body_25(STICK)


def test_models_name_their_keypoints(server: Running) -> None:
    entries = {it["name"]: it["skeleton"] for it in server.http.get("/models").json()["models"]}
    assert entries["detector"] is None
    assert entries["teacher"]["name"] == "coco17"
    assert entries["stick"]["keypoints"] == list(stick_people.NAMES)
    assert "skeleton" in server.http.get("/openapi.json").text


def test_the_drawing_shows_the_skeleton(made: Made, server: Running) -> None:
    content, box, _ = asked(made)
    query = {"boxes": box, "keypoint_threshold": 0}
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    drawn = server.http.post("/predict", content=content, params=query, headers=headers)
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.content != content


def test_clients_get_names_and_edges(made: Made, server: Running) -> None:
    content, box, _ = asked(made)
    with Client(server.url) as client:
        prediction = client.predict(content, boxes=json.loads(box))
    (pose,) = prediction.poses
    assert pose.edges == stick_people.EDGES
    assert pose["left_hand"].name == "left_hand"
    keypoints, scores = prediction.to_numpy()
    assert (keypoints.shape, scores.shape) == ((1, 12, 2), (1, 12))


def test_a_stream_begins_with_the_keypoints(server: Running) -> None:
    with connect(server.url.replace("http", "ws") + "/stream", subprotocols=["pose.v1.json"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "hello"}))
        ready = json.loads(socket.recv(10))
        assert (ready["skeleton"], ready["keypoints"]) == ("stick12", list(stick_people.NAMES))
        assert ready["edges"] == [list(edge) for edge in stick_people.EDGES]


def test_checkpoint_and_bundle_describe_themselves(made: Made) -> None:
    plan = checkpoint.load(made.folder / "run" / "last.pt").recipe
    assert plan.skeleton == made.bundle.manifest.known_skeleton == skeletons.load(made.folder / "stick.toml")
    assert plan.skeleton.upper == tuple(range(6))
    assert plan.skeleton.sigmas[:2] == (0.03, skeletons.SIGMA)
    assert made.bundle.manifest.trained_by["recipe_sha256"] == recipe.digest(plan)
    assert recipe.parse(recipe.dump(plan), "again") == plan


def test_scores_and_report_use_the_skeletons_sigmas(made: Made) -> None:
    estimator = inputs.estimator(made.bundle)
    score = coco_ap.score_poses(made.source, estimator)
    assert (score.pictures, score.predictions) == (24, 24)
    found = predictions.collect(made.source, estimator)
    # pycocotools' oracle: its recall at OKS .5 counts the very people whose OKS, by our sigmas, is above .5.
    figures = predictions.coco_figures(coco.load(made.source.annotations), found)
    assert figures["AR50"] == pytest.approx((found.oks > 0.5).mean(), abs=1e-6)
    strict = replace(estimator.skeleton, sigmas=(0.001,) * 12)
    estimator.skeleton = strict
    assert coco_ap.score_poses(made.source, estimator).ap < max(0.05, score.ap)
    run("report", made.bundle.path, "--annotations", made.source.annotations, "--images", made.source.images,
        "--allow-seen", "--out", made.folder / "report")  # fmt: skip
    page = json.loads((made.folder / "report" / "report.json").read_text())
    assert set(page["mistakes"]) == {"all keypoints", *stick_people.NAMES}


def test_labels_of_another_skeleton_are_refused_everywhere(made: Made, painted: coco.Source, tmp_path: Path) -> None:
    estimator = inputs.estimator(made.bundle)
    with pytest.raises(DatasetError, match=r"expected 36 numbers a person for 'stick12', got 51"):
        coco_ap.score_poses(painted, estimator)
    with pytest.raises(DatasetError, match=r"expected the keypoints of 'coco17'.*got category 'stick' with 12"):
        crop_cache.build(made.source, tmp_path / "crops")
    with pytest.raises(DatasetError, match=r"expected the keypoints of 'coco17'"):
        pseudo_labels.label(made.source, tmp_path / "out.json", pose_teacher=None, box_teacher=None)  # type: ignore[arg-type]
    with pytest.raises(
        DatasetError, match=r"expected crops of the recipe's skeleton 'coco17' \(17 keypoints\), got 12"
    ):
        crop_cache.open_cache([made.folder / "crops"])
    assert not list(tmp_path.iterdir())


def test_teachers_of_another_skeleton_are_refused(made: Made, data_root: Path) -> None:
    path = str(made.folder / "run" / "last.pt")
    losses = {"dense": 1, "teachers": [{"name": "stick", "kind": "checkpoint", "path": path}]}
    with pytest.raises(DatasetError, match=r"teacher 'stick' .* expected one for 'coco17'.*got one for 'stick12'"):
        PoseTask(tiny_recipe(losses=losses), data_root, torch.device("cpu"), made.folder / "other")
    assert teachers.NetworkTeacher(Path(path), torch.device("cpu")).skeleton.name == "stick12"


def test_a_custom_skeleton_can_be_distilled(made: Made) -> None:
    """Its maps are mirrored by the skeleton's own partners: half of a batch is mirrored."""
    plan = checkpoint.load(made.folder / "run" / "last.pt").recipe
    teacher = Teacher("stick", "checkpoint", str(made.folder / "run" / "last.pt"), flip=True)
    guided = replace(plan, losses=Losses(dense=1.0, teachers=(teacher,)))
    task = PoseTask(guided, made.folder, torch.device("cpu"), made.folder / "other")
    targets = task.batch(0, 0, plan.phases[0]).targets
    assert targets.teachers.shape == (1, 12, 12, 24, 16)
    assert targets.maps.shape == (12, 12, 24, 16)


def test_a_detector_has_no_skeleton() -> None:
    with pytest.raises(RecipeError, match="expected no skeleton for a detector"):
        tiny_recipe("detector", skeleton=recipe.asdict(STICK))


def test_mirroring_twice_is_the_identity_and_partners_are_exchanged() -> None:
    maps = torch.rand(2, 12, 6, 4)
    once = mirror_maps(maps, STICK)
    assert torch.equal(mirror_maps(once, STICK), maps)
    assert torch.equal(once[:, 2], maps[:, 3].flip(2))
    assert torch.equal(once[:, 0], maps[:, 0].flip(2))
    assert OksBlur(STICK, (4, 6), 1.5, 1.25)(maps).shape == maps.shape


@pytest.mark.parametrize("upper", [(), (0, 1, 2, 3, 4, 5)])
def test_half_bodies_are_the_skeletons_halves(upper: tuple[int, ...]) -> None:
    keypoints = np.zeros((200, 12, 2), np.float32)
    keypoints[:, :6] = np.random.default_rng(0).uniform([20, 20], [100, 60], (200, 6, 2))
    keypoints[:, 6:] = np.random.default_rng(1).uniform([20, 90], [100, 130], (200, 6, 2))
    only_halves = replace(augment.LIGHT, half_body_chance=1.0, rotation_chance=0, zoom=(1.0, 1.0), shift=0.0)
    view = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    weights = np.ones((200, 12), np.float32)
    placed, _ = augment.place(keypoints, weights, view, 1.25, (96, 128), only_halves, np.random.default_rng(0), upper)
    middles = placed[:, 1, :2] @ [48, 64] + placed[:, 1, 2]
    if upper:
        assert ((middles < 75) | (middles > 75)).all()
        assert 0.4 < (middles < 75).mean() < 0.8
        assert np.ptp(middles) > 20
    else:
        assert np.allclose(middles, 64)


def test_a_skeleton_survives_writing_and_reading(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(stick_people.TOML)
    first = skeletons.load(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text(skeletons.to_toml(first))
    assert skeletons.load(tmp_path / "b.toml") == first
    assert skeletons.parse({"name": "x", "keypoints": list(COCO17.keypoints)}, "x").flip == COCO17.flip
    assert skeletons.parse({"name": "x", "keypoints": list(COCO17.keypoints)}, "x").sigmas == COCO17.sigmas


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, 'name: expected text such as "hand21", got 3'),
        ({"name": "Two Words"}, "expected lower-case letters"),
        ({"name": "coco17"}, "is COCO's own skeleton; choose another name"),
        ({"keypoints": "a b"}, "keypoints: expected a list of keypoints' names"),
        ({"keypoints": []}, "expected keypoints of different names"),
        ({"keypoints": ["a", "a"]}, "expected keypoints of different names"),
        ({"edges": [["a"]]}, r"edges\[0\]: expected two different keypoints"),
        ({"edges": [["a", "z"]]}, r"edges\[0\]: expected one of a, b, c, got 'z'"),
        ({"flip": [["a", "a"]]}, r"flip\[0\]: expected two different keypoints"),
        ({"flip": [["a", "b"], ["b", "c"]]}, "expected each keypoint in one pair, got 'b' in two"),
        ({"upper": ["z"]}, "upper: expected one of a, b, c, got 'z'"),
        ({"sigmas": {"z": 0.1}}, "sigmas: expected one of a, b, c, got 'z'"),
        ({"sigmas": {"a": 0}}, "sigmas must be positive"),
        ({"sigmas": [0.1]}, "sigmas: expected a table"),
        ({"colour": "red"}, "colour: unknown key; expected name, keypoints, edges, flip, upper, sigmas"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else None,
)
def test_errors_in_a_toml_file_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        skeletons.parse({"name": "abc", "keypoints": ["a", "b", "c"], **change}, "own.toml")


def test_recipes_and_chains_find_the_toml_file_beside_them(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"stick\.toml: expected a skeleton's TOML, got No such file"):
        recipe.load(tmp_path / "r.toml")
    (tmp_path / "stick.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"stick\.toml: not valid TOML"):
        recipe.load(tmp_path / "r.toml")
    (tmp_path / "stick.toml").write_text(stick_people.TOML)
    plan = recipe.load(tmp_path / "r.toml")
    assert plan.skeleton.edges == stick_people.EDGES
    inline = RECIPE.replace('"stick.toml"', '{ name = "pair", keypoints = ["left_end", "right_end"] }')
    (tmp_path / "i.toml").write_text(inline)
    assert recipe.load(tmp_path / "i.toml").skeleton.flip == (1, 0)
    (tmp_path / "c.toml").write_text(
        '[defaults]\nskeleton = "stick.toml"\n[[stages]]\n' + RECIPE.replace('skeleton = "stick.toml"\n', "")
    )
    (staged,) = chain.load(tmp_path / "c.toml")
    assert staged == plan


def test_the_skeleton_and_the_recipe_of_the_manual_are_valid(tmp_path: Path) -> None:
    """docs/your-labels.md: its recipe names its skeleton; its table lists every key."""
    page = (Path(__file__).parents[3] / "docs" / "your-labels.md").read_text()
    skeleton, plan = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine-skeleton.toml").write_text(skeleton)
    (tmp_path / "mine.toml").write_text(plan)
    assert recipe.load(tmp_path / "mine.toml").skeleton.name == "hand6"
    keys = re.findall(r"^\| `(\w+)` \| ", page.partition("| key |")[2], flags=re.MULTILINE)
    assert keys == ["name", "keypoints", "edges", "flip", "upper", "sigmas"]
    quoted = " ".join(re.findall(r"`([^`\n]+)`", page))
    for kind in ("left and right", "the same picture twice", "box outside", "keypoint far from its box", "LEAK"):
        assert kind in quoted
        assert kind in "".join(it.read_text() for it in Path(check.__file__).parent.glob("*.py"))


def test_cocos_own_skeleton_changes_no_digest(tmp_path: Path) -> None:
    without = RECIPE.replace('skeleton = "stick.toml"\n', "")
    (tmp_path / "a.toml").write_text(without)
    (tmp_path / "b.toml").write_text('skeleton = "coco17"\n' + without)
    (tmp_path / "stick.toml").write_text(stick_people.TOML)
    (tmp_path / "c.toml").write_text(RECIPE)
    a, b, c = (recipe.digest(recipe.load(tmp_path / f"{name}.toml")) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": (0, 5)}, "flip partners must name keypoints"),
        ({"flip": (1, 1)}, "flip partners must be mutual"),
        ({"edges": ((0, 2),)}, "edges must name keypoints"),
        ({"upper": (-1,)}, "upper must name keypoints"),
        ({"sigmas": (0.1,)}, "expected 2 flip partners and sigmas"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else None,
)
def test_an_invalid_skeleton_is_refused(change: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"name": "x", "keypoints": ("a", "b"), "edges": (), "flip": (0, 1), "sigmas": (0.1, 0.1)}
    with pytest.raises(ValueError, match=message):
        Skeleton(**{**parts, **change})
