"""People in every format of a reply."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Poses
from service.wire import documents
from service.wire.formats.coco import CocoResult
from service.wire.formats.openpose import OpenPosePerson
from service.wire.formats.posewright import CompactPose, Pose
from service.wire.formats.roboflow import RoboflowPerson
from service.wire.formats.tfjs import TfjsPose
from service.wire.poses import write_poses
from service.wire.query import Format
from training.data.known_skeletons import KNOWN

K = len(COCO17)


@st.composite
def poses(draw: st.DrawFn) -> Poses:
    n = draw(st.integers(0, 3))
    px = st.floats(-1e5, 1e5, width=32)
    unit = st.floats(0, 1, width=32)
    low = draw(arrays.arrays(np.float32, (n, 2), elements=px))
    size = draw(arrays.arrays(np.float32, (n, 2), elements=st.floats(1, 1e4, width=32)))
    return Poses(
        draw(arrays.arrays(np.float32, (n, K, 2), elements=px)),
        draw(arrays.arrays(np.float32, (n, K), elements=unit)),
        np.concatenate([low, low + size], axis=1),
        draw(arrays.arrays(np.float32, (n,), elements=unit)),
    )


@pytest.mark.parametrize(("layout", "model"), [("pose", Pose), ("compact", CompactPose), ("coco", CocoResult)])
@given(people=poses(), threshold=st.floats(0, 1))
def test_every_format_holds_the_rounded_values(layout: Format, model: type, people: Poses, threshold: float) -> None:
    rows = json.loads(documents.to_json(write_poses(people, COCO17, layout, threshold, image_id=9)))

    assert len(rows) == len(people)
    for row, points, scores in zip(rows, people.keypoints, people.scores, strict=True):
        model.model_validate(row)
        if layout == "pose":
            told = np.array([[point["x"], point["y"], point["score"]] for point in row["keypoints"]])
            assert [point["visible"] for point in row["keypoints"]] == (scores >= threshold).tolist()
        else:
            told = np.array(row["keypoints"]).reshape(K, 3)
        np.testing.assert_allclose(told[:, :2], points, rtol=0, atol=0.00501)
        np.testing.assert_allclose(told[:, 2], scores, rtol=0, atol=0.0000501)


def written(layout: Format, people: Poses, ids: list[int] | None = None) -> list[dict]:
    return json.loads(documents.to_json(write_poses(people, COCO17, layout, 0.3, track_ids=ids)))


def close(told: object, true: np.ndarray, decimals: int) -> None:
    np.testing.assert_allclose(np.array(told, float), true, rtol=1e-6, atol=1.01 * 10**-decimals)


@given(poses())
def test_tfjs_names_keypoints_and_sides(people: Poses) -> None:
    rows = written("tfjs", people)
    for i, row in enumerate(rows):
        TfjsPose.model_validate(row)
        assert [point["name"] for point in row["keypoints"]] == list(COCO17.keypoints)
        close([[point["x"], point["y"]] for point in row["keypoints"]], people.keypoints[i], 2)
        close([point["score"] for point in row["keypoints"]], people.scores[i], 4)
        close([row["box"][side] for side in ("xMin", "yMin", "xMax", "yMax")], people.boxes[i], 2)


@given(poses())
def test_roboflow_boxes_have_their_centre(people: Poses) -> None:
    for i, row in enumerate(written("roboflow", people)):
        RoboflowPerson.model_validate(row)
        assert [point["class"] for point in row["keypoints"]] == list(COCO17.keypoints)
        assert [point["class_id"] for point in row["keypoints"]] == list(range(K))
        close([[point["x"], point["y"]] for point in row["keypoints"]], people.keypoints[i], 2)
        close([point["confidence"] for point in row["keypoints"]], people.scores[i], 4)
        close([row["x"], row["y"]], (people.boxes[i, :2].astype(float) + people.boxes[i, 2:]) / 2, 2)
        close([row["width"], row["height"]], people.boxes[i, 2:] - people.boxes[i, :2], 2)


@given(poses())
def test_openpose_lists_body_25(people: Poses) -> None:
    """Names and order are those of OpenPose's documentation; neck and middle hip lie half way between two keypoints."""
    names = (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "middle_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
        "left_eye", "right_ear", "left_ear",
    )  # fmt: skip
    for i, row in enumerate(written("openpose", people)):
        OpenPosePerson.model_validate(row)
        told = np.array(row["pose_keypoints_2d"]).reshape(25, 3)
        points = dict(zip(COCO17.keypoints, np.c_[people.keypoints[i], people.scores[i]].astype(float), strict=True))
        for middle, part in (("neck", "shoulder"), ("middle_hip", "hip")):
            left, right = points[f"left_{part}"], points[f"right_{part}"]
            points[middle] = np.array([*(left[:2] + right[:2]) / 2, min(left[2], right[2])])
        close(told[:19], np.array([points[name] for name in names]), 2)
        assert not told[19:].any()  # toes and heels, which COCO does not label


@given(poses(), st.integers(0, 2**32 - 1))
def test_covariances_are_where_each_format_has_them(people: Poses, seed: int) -> None:
    """The last person's model knows none."""
    roots = np.random.default_rng(seed).uniform(-30, 30, (len(people), K, 2, 2)).astype(np.float32)
    covariances = roots @ roots.swapaxes(2, 3)
    covariances[-1:] = np.nan
    asked = replace(people, covariances=covariances)
    rows = zip(*(written(layout, asked) for layout in ("pose", "compact", "roboflow")), covariances, strict=True)
    for pose, compact, roboflow, true in rows:
        Pose.model_validate(pose)
        CompactPose.model_validate(compact)
        RoboflowPerson.model_validate(roboflow)
        told = [point["covariance"] for point in pose["keypoints"]]
        assert told == [point["covariance"] for point in roboflow["keypoints"]]
        if np.isnan(true).any():
            assert told == compact["covariances"] == [None] * K
            continue
        np.testing.assert_allclose(told, true, rtol=1e-6, atol=0.00051)
        assert compact["covariances"] == [[xx, xy, yy] for (xx, xy), (_, yy) in told]


@given(poses())
def test_nothing_is_said_of_covariances_that_nobody_asked_for(people: Poses) -> None:
    for layout in ("pose", "compact", "roboflow"):
        assert "covariance" not in json.dumps(written(layout, people))


def test_track_ids_are_where_each_format_has_them() -> None:
    one = Poses(*(np.full(shape, 0.5, np.float32) for shape in ((1, K, 2), (1, K), (1, 4), (1,))))
    for layout, key, tracked, alone in (
        ("pose", "id", "7", None), ("compact", "id", "7", None), ("tfjs", "id", 7, "-"),
        ("openpose", "person_id", [7], [-1]), ("roboflow", "tracker_id", 7, "-"),
    ):  # fmt: skip
        assert written(layout, one, [7])[0][key] == tracked
        assert written(layout, one)[0].get(key, "-") == alone


def test_rounded_numbers_are_written_without_noise() -> None:
    one = Poses(*(np.full(shape, 0.1, np.float32) for shape in ((1, K, 2), (1, K), (1, 4), (1,))))
    text = documents.to_json(write_poses(one, COCO17, "compact", 0.3)).decode()
    assert "[0.1,0.1,0.1]" in text


def test_stages_are_written_as_a_server_timing_header() -> None:
    assert documents.server_timing({"queue": 0.123, "total": 4}) == "queue;dur=0.12, total;dur=4.00"


def many(skeleton: Skeleton) -> Poses:
    """One person whose keypoint k lies at (k, 1000 + k), with different scores."""
    count = len(skeleton)
    points = np.stack([np.arange(count), 1000 + np.arange(count)], axis=1).astype(np.float32)
    scores = np.linspace(0.2, 0.9, count, dtype=np.float32)
    box = np.array([[0, 0, 100, 200]], np.float32)
    return Poses(points[None], scores[None], box, np.ones(1, np.float32))


@pytest.mark.parametrize("name", ["halpe26", "coco-wholebody133"])
def test_openpose_has_the_feet_face_and_hands_of_larger_skeletons(name: str) -> None:
    """Points keep their own places; numbers of face and hands are those of OpenPose's documentation."""
    skeleton = KNOWN[name]
    people = many(skeleton)
    (row,) = json.loads(documents.to_json(write_poses(people, skeleton, "openpose", 0.3)))
    OpenPosePerson.model_validate(row)
    body = np.array(row["pose_keypoints_2d"]).reshape(25, 3)
    feet = (
        "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"
    )  # fmt: skip
    for place, wanted in zip(range(19, 25), feet, strict=True):
        assert body[place, 0] == skeleton.keypoints.index(wanted)
    if name == "halpe26":
        assert (body[1, 0], body[8, 0]) == (skeleton.keypoints.index("neck"), skeleton.keypoints.index("hip"))
        assert row["face_keypoints_2d"] == row["hand_left_keypoints_2d"] == row["hand_right_keypoints_2d"] == []
        return
    assert body[1, 0] == (5 + 6) / 2
    face = np.array(row["face_keypoints_2d"]).reshape(70, 3)
    assert face[:68, 0].tolist() == list(range(23, 91))
    assert not face[68:].any()  # the pupils
    for side, first in (("left", 91), ("right", 112)):
        hand = np.array(row[f"hand_{side}_keypoints_2d"]).reshape(21, 3)
        assert hand[:, 0].tolist() == list(range(first, first + 21))
        np.testing.assert_allclose(hand[:, 2], people.scores[0, first : first + 21], atol=1e-4)


@pytest.mark.parametrize("layout", ["pose", "compact", "coco", "tfjs", "roboflow", "openpose"])
@pytest.mark.parametrize("name", ["halpe26", "coco-wholebody133"])
def test_all_keypoints_of_larger_skeletons_are_in_every_format(name: str, layout: Format) -> None:
    skeleton = KNOWN[name]
    (row,) = json.loads(documents.to_json(write_poses(many(skeleton), skeleton, layout, 0.3)))
    if layout == "openpose":
        told = {x for key in row if key.endswith("_2d") for x in row[key][0::3]}
        assert set(map(float, range(len(skeleton)))) - told <= {17.0}  # Halpe's top of the head
    else:
        rows = row["keypoints"]
        xs = rows[0::3] if layout == "coco" else [it[0] if layout == "compact" else it["x"] for it in rows]
        assert xs == list(range(len(skeleton)))
    if layout in {"pose", "tfjs"}:
        assert [it["name"] for it in row["keypoints"]] == list(skeleton.keypoints)
