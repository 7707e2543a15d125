"""The OpenPose folder, read as Pose2Sim reads it, and compared with the service's own OpenPose replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from posewright_client import KEYPOINTS
from posewright_client.formats import openpose_folder
from posewright_client.formats.recording import Recording, ResultsError
from service.wire.formats import openpose as served
from service.wire.formats.record import PoseRecord
from tests.client.formats.results import all_points, videos, write_lines
from training.data.known_skeletons import KNOWN


def written(folder: Path, lines: list[dict], **options: Any) -> list[Path]:
    openpose_folder.write(Recording(write_lines(folder / "clip.jsonl", lines)), folder / "json", **options)
    return sorted((folder / "json").iterdir())


def people_of(files: list[Path]) -> list[dict[str, Any]]:
    return [it for path in files for it in json.loads(path.read_text())["people"]]


def frame(points: list[list[float]], **more: Any) -> dict[str, Any]:
    pose = {"id": None, "score": 1, "box": [0, 0, 1, 1], "keypoints": points}
    return {"frame": 0, "time_ms": 0, "session": "a", "poses": [pose], **more}


@given(lines=videos())
def test_every_frame_has_a_file_equal_to_the_services(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict]
) -> None:
    files = written(tmp_path_factory.mktemp("any"), lines)
    assert [it.name for it in files] == [f"clip_{it['frame']:012d}_keypoints.json" for it in lines]
    people = people_of(files)
    poses = [it for line in lines for it in line.get("poses", ())]
    for person, pose in zip(people, poses, strict=True):
        record = PoseRecord(KEYPOINTS, None, 0, 1, pose["box"], pose["keypoints"], [], None)
        assert person["pose_keypoints_2d"] == served.write_pose(record)["pose_keypoints_2d"]
        assert person["person_id"] == [-1] or person["person_id"][0] >= 1


@given(lines=videos())
def test_pose2sim_reads_the_skeletons_own_order(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    reader = pytest.importorskip("Pose2Sim.personAssociation", reason="Pose2Sim needs OpenSim, Qt and OpenVINO")
    files = written(tmp_path_factory.mktemp("any"), lines, layout="own")
    read = [person for path in files for person in reader.read_json(path)]
    expected = [[number for point in pose for number in point] for pose in all_points(lines)]
    assert read == expected


def test_coco18_has_its_neck_between_the_shoulders(tmp_path: Path) -> None:
    points = [[float(k), 10.0 * k, 0.1 + k / 100] for k in range(17)]
    (person,) = people_of(written(tmp_path, [frame(points)], layout="coco18"))
    table = np.array(person["pose_keypoints_2d"]).reshape(18, 3)
    assert table[0].tolist() == points[0]
    assert table[1].tolist() == [5.5, 55, pytest.approx(0.15)]
    assert table[8].tolist() == points[12]
    assert table[17].tolist() == points[3]


def test_feet_face_and_hands_are_written_where_the_skeleton_has_them(tmp_path: Path) -> None:
    skeleton = KNOWN["coco-wholebody133"]
    points = [[float(k), 0.0, 1.0] for k in range(133)]
    (person,) = people_of(written(tmp_path, [frame(points, keypoints=skeleton.keypoints, edges=skeleton.edges)]))
    body = person["pose_keypoints_2d"][::3]
    assert body[19:] == [17, 18, 19, 20, 21, 22]
    face = np.array(person["face_keypoints_2d"]).reshape(70, 3)
    assert face[:68, 0].tolist() == list(range(23, 91))
    assert not face[68:].any()
    assert person["hand_left_keypoints_2d"][::3] == list(range(91, 112))
    assert person["hand_right_keypoints_2d"][::3] == list(range(112, 133))


def test_a_skeleton_without_cocos_keypoints_needs_its_own_order(tmp_path: Path) -> None:
    line = frame([[1, 2, 1], [3, 4, 1]], keypoints=["head", "tail"], edges=[])
    with pytest.raises(ResultsError, match=r"without nose, .* --layout own"):
        written(tmp_path, [line])
    assert [it.name for it in tmp_path.iterdir()] == ["clip.jsonl"]
    (person,) = people_of(written(tmp_path, [line], layout="own"))
    assert person["pose_keypoints_2d"] == [1, 2, 1, 3, 4, 1]


def test_photos_keep_their_names(tmp_path: Path) -> None:
    photos = [{"file": f"{it}.jpg", "poses": []} for it in ("x/a", "x/b")]
    assert [it.name for it in written(tmp_path, photos)] == ["a_keypoints.json", "b_keypoints.json"]
    with pytest.raises(ResultsError, match="two photos"):
        written(tmp_path, [*photos, {"file": "y/a.png", "poses": []}])


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "thesis.txt").write_text("x")
    with pytest.raises(ResultsError, match=r"nothing but \*_keypoints.json"):
        written(tmp_path, [{"frame": 0, "poses": []}])
    assert (tmp_path / "json" / "thesis.txt").read_text() == "x"
