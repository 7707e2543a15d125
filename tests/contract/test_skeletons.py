"""Models of other skeletons than COCO's: every format, streams, drawings, and what is refused between skeletons."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pycocotools.coco import COCO
from websockets.sync.client import connect

from posewright_client import Client
from posewright_client.formats.export import FORMATS, ExportOptions
from posewright_client.formats.recording import Recording
from service.inference.registry import open_registry
from service.pose import bundle
from service.pose.skeleton import COCO17, Skeleton
from service.settings import Settings
from service.streaming.close import CloseCode
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE, Person
from tests.streaming import frame, hear, hear_goodbye, say, streaming
from training.data.known_skeletons import KNOWN

HAND = Skeleton("hand3", ("wrist", "left_tip", "right_tip"), ((0, 1), (0, 2)), (0, 2, 1), (0.05, 0.03, 0.03))
SKELETONS = {"halpe26": KNOWN["halpe26"], "coco-wholebody133": KNOWN["coco-wholebody133"], "hand3": HAND}
PICTURE = spots.encode(spots.paint(SURE, UNSURE))
NEEDS = {"parquet": "pyarrow", "sleap": "sleap_io"}
FORMAT_KEYS = {"openpose": "people", "roboflow": "predictions"}


def spot_of(skeleton: Skeleton) -> list[int]:
    """The spot that stands for each keypoint: COCO's its own, all others those that come last."""
    return [k if k < len(COCO17) else 15 + k % 2 for k in range(len(skeleton))]


def write_bundle(models: Path, name: str, skeleton: Skeleton) -> None:
    """Write a student that answers `spot_of` for each keypoint."""
    source = bundle.read(models / "student-s")
    model = onnx.load_from_string(source.onnx)
    model.graph.initializer.append(numpy_helper.from_array(np.array(spot_of(skeleton)), "order"))
    model.graph.node.append(helper.make_node("Gather", ["heatmaps", "order"], ["more"], axis=1))
    del model.graph.output[:]
    shape = ["n", len(skeleton), "h", "w"]
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, shape))
    manifest = source.manifest.model_copy(update={"name": name, "skeleton": skeleton, "files": {}, "covariance": None})
    bundle.write(models / name, manifest, model.SerializeToString(), f"# {name}\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = spots.write_models(tmp_path_factory.mktemp("skeletons") / "models")
    for name, skeleton in SKELETONS.items():
        write_bundle(models, name, skeleton)
    jobs = tmp_path_factory.mktemp("jobs")
    with serving(Settings(models_dir=models, student="halpe26", fallback_score=0.9, jobs_dir=jobs)) as running:
        yield running


def points_of(skeleton: Skeleton, person: Person) -> np.ndarray:
    return np.asarray(person.keypoints[spot_of(skeleton)])


@pytest.mark.parametrize("name", SKELETONS)
def test_replies_name_the_skeleton_and_hold_its_keypoints(server: Running, name: str) -> None:
    skeleton = SKELETONS[name]
    reply = server.predict(PICTURE, model=name).json()
    assert reply["skeleton"] == name
    assert (tuple(reply["keypoints"]), reply["edges"]) == (skeleton.keypoints, [list(it) for it in skeleton.edges])
    for pose, person in zip(reply["poses"], (SURE, UNSURE), strict=True):
        assert [it["name"] for it in pose["keypoints"]] == list(skeleton.keypoints)
        found = np.array([[it["x"], it["y"]] for it in pose["keypoints"]])
        assert np.abs(found - points_of(skeleton, person)).max() < 2
    listed = {it["name"]: it["skeleton"] for it in server.http.get("/models").json()["models"]}
    assert listed[name]["keypoints"] == list(skeleton.keypoints)


@pytest.mark.parametrize("layout", ["compact", "coco", "tfjs", "roboflow", "openpose"])
@pytest.mark.parametrize("name", SKELETONS)
def test_every_format_that_is_defined_has_the_people(server: Running, name: str, layout: str) -> None:
    response = server.predict(PICTURE, model=name, format=layout)
    if (name, layout) == ("hand3", "openpose"):
        assert response.status_code == 422
        problem, wanted = response.json(), "without nose, left_eye, right_eye, …; ask for pose, compact, coco, tfjs or"
        assert problem["type"].endswith("bad-parameter")
        assert wanted in problem["detail"]
        return
    found = response.json()
    people = found if isinstance(found, list) else found[FORMAT_KEYS.get(layout, "poses")]
    assert len(people) == 2
    with streaming(server, track=False, format=layout, model=name) as connection:
        connection.send(PICTURE)
        assert hear(connection)["poses"] == people


@pytest.mark.parametrize("name", SKELETONS)
def test_people_keep_their_ids_in_streams(server: Running, name: str) -> None:
    """OKS with the skeleton's own sigmas tells two people apart while they move."""
    skeleton = SKELETONS[name]
    with streaming(server, policy="all", model=name) as connection:
        for i in range(12):
            people = (Person((100 + 8 * i, 190)), Person((520, 190 - 2 * i)))
            connection.send(frame(spots.encode(spots.paint(*people), "JPEG"), i, 1_000_000 + 33_333 * i))
            result = hear(connection)
            by_id = {pose["id"]: np.array(pose["keypoints"])[:, :2] for pose in result["poses"]}
            assert sorted(by_id) == ["1", "2"]
        ends = sorted(by_id.values(), key=lambda it: it[0, 0])
        for found, person in zip(ends, people, strict=True):
            assert np.abs(found - points_of(skeleton, person)).max() < 12  # smoothed


def test_viewers_of_a_source_cannot_ask_for_a_format_without_its_keypoints(server: Running) -> None:
    pytest.importorskip("av", reason="PyAV (pip install 'posewright[video]') is not installed")
    models = server.app.state.service.settings.models_dir
    with serving(Settings(models_dir=models, student="halpe26", source_hosts=("127.0.0.1",))) as running:
        wanted = {"url": "http://127.0.0.1:9/", "options": {"model": "hand3"}}
        source = running.http.post("/sources", json=wanted).json()["id"]
        with connect(f"{running.url.replace('http', 'ws')}/sources/{source}/stream") as viewer:
            say(viewer, type="hello", format="openpose")
            assert "openpose" in hear_goodbye(viewer, CloseCode.BAD_HELLO)["reason"]


def test_skeletons_are_not_mixed(server: Running) -> None:
    """A teacher of another skeleton neither replaces people of the student nor is compared with it."""
    for pose in server.predict(PICTURE).json()["poses"]:
        assert len(pose["keypoints"]) == 26
        assert "fallback" not in pose
    response = server.http.post("/compare", content=PICTURE, headers={"Content-Type": "image/png"})
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert "expected one with the teacher's skeleton 'coco17' to compare, got 'halpe26' of 'halpe26'" in detail


def test_a_fallback_between_skeletons_is_reported_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = spots.write_models(tmp_path / "models")
    write_bundle(models, "hand3", HAND)
    open_registry(Settings(models_dir=models, student="hand3", fallback_score=0.9))
    assert "fallback_score has no effect" in caplog.text
    assert "got 'hand3' of hand3 and 'teacher' of coco17" in caplog.text
    caplog.clear()
    open_registry(Settings(models_dir=models, student="student-s", fallback_score=0.9))
    assert "fallback_score" not in caplog.text


@pytest.mark.parametrize("name", ["halpe26", "coco-wholebody133"])
def test_a_picture_comes_back_with_the_whole_skeleton_drawn(server: Running, name: str) -> None:
    headers = {"Accept": "image/png", "Content-Type": "image/png"}
    picture = spots.paint(SURE)
    response = server.http.post("/predict", params={"model": name}, content=spots.encode(picture), headers=headers)
    drawn = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    difference = np.abs(drawn.astype(int) - picture).max(axis=2)
    x, y = (SURE.keypoints[5] + SURE.keypoints[6]).astype(int) // 2
    assert difference[y - 3 : y + 4, x].max() > 60
    assert np.median(difference[:, 400:]) < 5


@pytest.mark.parametrize("name", SKELETONS)
def test_the_client_converts_results_to_every_format(server: Running, name: str, tmp_path: Path) -> None:
    """What the client read from the server goes through every exporter, and the labels load in pycocotools."""
    skeleton = SKELETONS[name]
    with Client(server.url) as client:
        prediction = client.predict(PICTURE, model=name)
    assert tuple(it.name for it in prediction.poses[0].keypoints) == skeleton.keypoints
    assert prediction.poses[0].edges == skeleton.edges
    reply = server.predict(PICTURE, model=name, format="compact").json() | {"file": "picture.png"}
    lines = tmp_path / "results.jsonl"
    lines.write_text(json.dumps(reply) + "\n")
    for kind, layout in FORMATS.items():
        if kind in NEEDS and find_spec(NEEDS[kind]) is None:  # the other formats are worth a test all the same
            continue
        options = ExportOptions(layout="own" if name == "hand3" else "body25", threshold=0)
        layout.write(Recording(lines), tmp_path / f"out{layout.ending}", options)
    labels = COCO(str(next(tmp_path.glob("out*coco*.json"))))
    (category,) = labels.loadCats(labels.getCatIds())
    assert tuple(category["keypoints"]) == skeleton.keypoints
    assert [tuple(np.subtract(it, 1)) for it in category["skeleton"]] == list(skeleton.edges)
    assert {len(it["keypoints"]) for it in labels.anns.values()} == {3 * len(skeleton)}


def test_a_video_job_of_a_whole_body_model_is_exported(server: Running, tmp_path: Path) -> None:
    jobs = pytest.importorskip("tests.jobs", reason="PyAV is an extra: pip install 'posewright[video]'")
    skeleton, name = SKELETONS["coco-wholebody133"], "coco-wholebody133"
    video = jobs.write_video(tmp_path / "walk.mp4", 3)
    job = jobs.submit(server.http, video, model=name, keypoint_threshold=0)["id"]
    jobs.wait_for(server.http, job, "done")
    for line in jobs.lines(server.http, job):
        assert line["keypoints"] == list(skeleton.keypoints)
        assert [len(it["keypoints"]) for it in line["poses"]] == [133]
    files = {it: jobs.result(server.http, job, format=it).content for it in ("coco", "openpose", "label-studio", "mp4")}
    labels = json.loads(files["coco"])
    assert labels["categories"][0]["keypoints"] == list(skeleton.keypoints)
    assert {it["num_keypoints"] for it in labels["annotations"]} == {133}
    with zipfile.ZipFile(io.BytesIO(files["openpose"])) as archive:
        (person,) = json.loads(archive.read(archive.namelist()[0]))["people"]
    sizes = [len(person[f"{it}_keypoints_2d"]) // 3 for it in ("pose", "face", "hand_left", "hand_right")]
    assert sizes == [25, 70, 21, 21]
