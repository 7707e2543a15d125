"""``posewright-client convert``, from the results of real predictions to the programs that read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from posewright_client.formats.export import FORMATS
from tests import spots
from tests.client.cli.clips import person, write_clip
from tests.client.cli.conftest import Run
from tests.conftest import Running
from tests.spots import SURE
from training.__main__ import main as train
from training.data import coco, images
from training.data.images import LabelFrame

WITHIN_PX = 2.5  # lossy video
FRAMES = 4


@pytest.fixture
def clip(run: Run, server: Running, tmp_path: Path) -> Path:
    """Results of a video of a walking person, beside it."""
    video = write_clip(tmp_path / "clip.avi", FRAMES, walking=True)
    assert run("video", video, "--url", server.url, "--quiet") == 0
    return video.with_suffix(".jsonl")


def test_the_frames_of_a_video_become_a_data_set_that_can_be_trained_on(
    run: Run, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, pictures, video = tmp_path / "people.json", tmp_path / "pictures", clip.with_suffix(".avi")
    command = ["convert", clip, "--to", "coco", "--out", labels, "--video", video, "--pictures", pictures]
    assert run(*command) == 0
    assert run(*command) == 1
    assert "exists already" in capsys.readouterr().err
    assert run(*command, "--overwrite") == 0
    assert not list(tmp_path.glob(".*"))

    assert train(["check", str(labels), "--images", str(pictures)]) == 0
    assert train(
        ["crops", "--annotations", str(labels), "--images", str(pictures), "--out", str(tmp_path / "crops")]
    ) == 0  # fmt: skip

    data = coco.load(labels)
    assert coco.picture_ids(data) == [1, 2, 3, 4]
    for i in range(FRAMES):
        pixels = images.read(pictures / data.imgs[i + 1]["file_name"])
        assert pixels.shape[:2] == (data.imgs[i + 1]["height"], data.imgs[i + 1]["width"])
        (found,) = coco.people(data, i + 1, with_keypoints=True)
        points = np.array(found["keypoints"]).reshape(17, 3)
        assert np.abs(points[:, :2] - person(i).keypoints).max() < WITHIN_PX


def test_a_turned_photo_is_labelled_upright(run: Run, server: Running, tmp_path: Path, capsys) -> None:
    photo = tmp_path / "turned.jpg"
    photo.write_bytes(spots.encode(spots.stored_as(spots.paint(SURE), 3), "JPEG", 3))
    assert run("predict", photo, "--json", "--url", server.url) == 0
    results = tmp_path / "photos.jsonl"
    results.write_text(capsys.readouterr().out)
    assert run("convert", results, "--to", "coco") == 0
    labels = tmp_path / "photos.coco.json"
    assert train(["check", str(labels), "--images", str(tmp_path)]) == 0
    data = coco.load(labels)
    info = data.imgs[1]
    assert info["upright"] is True
    pixels = images.read(tmp_path / info["file_name"], LabelFrame.of(info).upright)
    (found,) = coco.people(data, 1)
    assert np.abs(np.array(found["keypoints"]).reshape(17, 3)[:, :2] - SURE.keypoints).max() < 2
    assert np.abs(pixels.astype(int) - spots.paint(SURE)).mean() < 3


def test_a_cameras_results_have_times_and_boxes(run: Run, server: Running, tmp_path: Path, capsys) -> None:
    assert run("webcam", "--device", write_clip(tmp_path / "camera.avi", 8), "--url", server.url) == 0
    (tmp_path / "live.jsonl").write_text(capsys.readouterr().out)
    assert run("convert", tmp_path / "live.jsonl", "--to", "csv", "--out", tmp_path / "live.csv") == 0
    with (tmp_path / "live.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = [float(it["time_s"]) for it in rows]
    assert times == sorted(times)
    assert times[0] == 0 < times[-1]
    assert {it["track"] for it in rows} == {rows[0]["track"]} != {""}
    assert run("convert", tmp_path / "live.jsonl", "--to", "coco") == 0
    data = coco.load(tmp_path / "live.coco.json")
    assert len(data.anns) * 17 == len(rows)
    assert all(it["bbox"][2] == 2 * spots.HALF_BOX[0] for it in list(data.anns.values())[:1])


def test_video_writes_formats_itself(run: Run, server: Running, tmp_path: Path, capsys) -> None:
    video = write_clip(tmp_path / "clip.avi", FRAMES)
    command = ["video", video, "--url", server.url, "--to", "csv", "--to", "openpose", "--to", "label-studio"]
    assert run(*command) == 0
    assert {it.name for it in tmp_path.iterdir()} == {
        "clip.avi", "clip.jsonl", "clip.csv", "clip_json", "clip.label-studio.json", "clip.label-studio.xml",
    }  # fmt: skip
    assert len(list((tmp_path / "clip_json").glob("clip_*_keypoints.json"))) == FRAMES
    (tmp_path / "clip.jsonl").unlink()
    assert run(*command) == 1
    assert "clip.csv exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_file_leaves_nothing_behind(run: Run, tmp_path: Path, capsys, name: str) -> None:
    pytest.importorskip({"parquet": "pyarrow", "sleap": "sleap_io"}.get(name, "json"), reason="an extra of the client")
    results = tmp_path / "a.jsonl"
    results.write_text(json.dumps({"frame": 0, "image": {"width": 9, "height": 9}, "poses": []}) + '\n{"frame": 1}\n')
    assert run("convert", results, "--to", name) == 1
    assert "line 2: expected a result of" in capsys.readouterr().err
    assert [it.name for it in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--pictures", "x"], "expected --video with it"),
        (["--out", "none/a.json"], "expected a folder that exists"),
        (["--out", "a.jsonl", "--overwrite"], "exists already"),
        ([], "give --size WIDTHxHEIGHT"),
        (["--video", "none.mp4"], "there is no such file"),
    ],
)
def test_wrong_calls_are_explained(run: Run, tmp_path: Path, capsys, monkeypatch, options, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"frame": 0, "poses": []}\n')
    assert run("convert", "a.jsonl", "--to", "coco", *options) == 1
    assert expected in capsys.readouterr().err
    assert Path("a.jsonl").read_text() == '{"frame": 0, "poses": []}\n'


def test_pictures_of_another_video_are_refused(run: Run, clip: Path, tmp_path: Path, capsys) -> None:
    short = write_clip(tmp_path / "short.avi", FRAMES - 1)
    assert run("convert", clip, "--to", "coco", "--video", short, "--pictures", tmp_path / "pictures") == 1
    assert "ends before it; give the video that the results are of" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_nothing_that_convert_did_not_write_is_replaced(run: Run, clip: Path, tmp_path: Path, capsys) -> None:
    video, folder = clip.with_suffix(".avi"), tmp_path / "holiday"
    folder.mkdir()
    (folder / "beach.jpg").write_bytes(b"x")
    command = ["convert", clip, "--to", "coco", "--video", video, "--pictures", folder, "--overwrite"]
    assert run(*command) == 1
    assert "expected a folder of nothing but" in capsys.readouterr().err
    assert (folder / "beach.jpg").read_bytes() == b"x"
    interface = tmp_path / "tasks.xml"
    interface.write_text("mine")
    assert run("convert", clip, "--to", "label-studio", "--out", tmp_path / "tasks.json") == 1
    assert "tasks.xml exists already" in capsys.readouterr().err
    assert interface.read_text() == "mine"


def test_photos_are_never_overwritten_by_frames(run: Run, clip: Path, tmp_path: Path, capsys) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    results = tmp_path / "photos.jsonl"
    results.write_text(json.dumps({"file": str(photo), "poses": []}) + "\n")
    command = ["convert", results, "--to", "coco", "--video", clip.with_suffix(".avi"), "--pictures", tmp_path / "new"]
    assert run(*command) == 1
    assert "it is a photo, not a frame of a video" in capsys.readouterr().err
    assert photo.read_bytes() == b"x"
