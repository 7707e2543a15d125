"""Lines of results, and what is wrong with lines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from posewright_client import KEYPOINTS
from posewright_client.formats.recording import Recording, ResultsError
from tests.client.formats.results import SIZE, person_ids, videos, write_lines

POINTS = [[float(k), 2.0 * k, 0.5] for k in range(17)]


def line(frame: int, *ids: str | None, **more: Any) -> dict[str, Any]:
    poses = [{"id": it, "score": 0.5, "box": [0, 0, 16, 32], "keypoints": POINTS} for it in ids]
    return {"frame": frame, "time_ms": frame * 40.0, "image": SIZE, "session": "a", "poses": poses} | more


def read(tmp_path: Path, *lines: dict[str, Any], **options: Any) -> Recording:
    return Recording(write_lines(tmp_path / "clip.jsonl", list(lines)), **options)


@given(lines=videos())
def test_a_track_is_one_person_of_one_session(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    frames = list(read(tmp_path_factory.mktemp("any"), *lines).frames())
    assert [it.index for it in frames] == [it["frame"] for it in lines]
    tracks = [person.track for frame in frames for person in frame.people]
    people = person_ids(lines)
    assert len(tracks) == len(people)
    by_track: dict[int, set] = {}
    for track, (_, session, name) in zip(tracks, people, strict=True):
        assert (track is None) == (name is None)
        if track is not None:
            by_track.setdefault(track, set()).add((session, name))
    assert all(len(it) == 1 for it in by_track.values())
    assert len(by_track) == len({it[1:] for it in people if it[2] is not None})


def test_ids_of_the_first_session_stay(tmp_path: Path) -> None:
    frames = read(tmp_path, line(0, "7", "2"), line(1, "2", session="b"), line(2, "9", session="b")).frames()
    assert [[it.track for it in frame.people] for frame in frames] == [[7, 2], [8], [9]]


def test_lines_of_older_versions_are_read(tmp_path: Path) -> None:
    """``webcam`` wrote no boxes, times and sizes."""
    old = {"seq": 4, "latency_ms": 3.0, "poses": [{"id": "1", "score": 0.5, "keypoints": POINTS}]}
    recording = read(tmp_path, old)
    (frame,) = recording.frames()
    assert (frame.index, frame.time_s, frame.size) == (4, None, None)
    assert frame.people[0].box == (0, 0, 16, 32)
    with pytest.raises(ResultsError, match="give --size"):
        recording.size_of(frame)
    (frame,) = read(tmp_path, old, size=(640, 360)).frames()
    assert frame.size == (640, 360)


def test_times_of_a_camera_start_at_0(tmp_path: Path) -> None:
    lines = [{"seq": i, "capture_us": 10**15 + 40_000 * i, "poses": []} for i in (3, 5)]
    assert [it.time_s for it in read(tmp_path, *lines).frames()] == [0, 0.08]


def test_a_skeleton_of_ones_own_is_named_by_the_lines(tmp_path: Path) -> None:
    own = {"keypoints": ["head", "tail"], "edges": [[0, 1]]}
    pose = {"id": None, "score": 1, "box": [0, 0, 1, 1], "keypoints": [[0, 0, 1], [1, 1, 1]]}
    recording = read(tmp_path, {"frame": 0, "time_ms": 0, "poses": [pose], **own})
    list(recording.frames())
    assert recording.skeleton.keypoints == ("head", "tail")
    assert recording.skeleton.edges == ((0, 1),)
    reply = [{"name": name, "x": 0, "y": 0, "score": 1, "visible": True} for name in ("head", "tail")]
    recording = read(tmp_path, {"file": "a.jpg", "poses": [pose | {"keypoints": reply}]})
    list(recording.frames())
    assert recording.skeleton.keypoints == ("head", "tail")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "got an empty file"),
        (['{"frame": 0, "poses": [\n'], "line 1: expected a result of"),
        (['{"frame": 0, "poses": ['], "the line is incomplete"),
        (["[]\n"], "which is an object with `poses`, got no object"),
        (['{"image_id": 1, "keypoints": []}\n'], "got an object with image_id, keypoints"),
        ([json.dumps(line(3)) + "\n", json.dumps(line(0)) + "\n"], "line 2: expected a frame after 3, got 0"),
        (['{"frame": 0, "poses": [{"id": null}]}\n'], "line 1: expected a result of .* KeyError: 'keypoints'"),
        (['{"frame": 0, "poses": 3}\n'], "line 1: .* TypeError"),
        ([json.dumps(line(0, None)).replace("32.0", "NaN") + "\n"], "expected finite numbers"),
        ([json.dumps(line(0, None)).replace("[16.0, 32.0, 0.5]", "[0, 0, 1], [0, 0, 1]") + "\n"], "names of 18 keyp"),
        (
            [json.dumps(line(0, None)) + "\n", json.dumps(line(1, None, keypoints=[*KEYPOINTS[:16], "tail"])) + "\n"],
            "line 2: expected the 17 keypoints of the lines before",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, lines: list[str], expected: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("".join(lines))
    with pytest.raises(ResultsError, match=expected) as raised:
        list(Recording(path).frames())
    assert str(raised.value).startswith(str(path))
