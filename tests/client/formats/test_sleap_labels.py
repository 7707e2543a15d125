"""SLEAP's labels, loaded again by sleap-io, and from there as DeepLabCut's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from posewright_client import EDGES, KEYPOINTS
from posewright_client.formats import sleap_labels
from posewright_client.formats.recording import Recording
from tests.client.formats.results import SIZE, all_points, person_ids, videos, write_lines

sio = pytest.importorskip("sleap_io", reason="sleap-io is an extra of the client with large dependencies")


def loaded(folder: Path, lines: list[dict], **options: Any) -> Any:
    sleap_labels.write(Recording(write_lines(folder / "clip.jsonl", lines)), folder / "clip.slp", **options)
    assert {it.name for it in folder.iterdir()} == {"clip.jsonl", "clip.slp"}
    return sio.load_slp(str(folder / "clip.slp"), open_videos=False)


@settings(max_examples=20)
@given(lines=videos())
def test_sleap_io_reads_every_number(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    labels = loaded(tmp_path_factory.mktemp("any"), lines, video=Path("clip.mp4"))
    assert [it.frame_idx for it in labels.labeled_frames] == [it["frame"] for it in lines]
    instances = [it for frame in labels.labeled_frames for it in frame.instances]
    expected = [np.array(it) for it in all_points(lines)]
    for instance, points in zip(instances, expected, strict=True):
        assert np.abs(instance.numpy() - points[:, :2]).max() < 0.01
        assert instance.points["score"] == pytest.approx(points[:, 2], abs=1e-6)
    ids = [None if name is None else f"{session}{name}" for _, session, name in person_ids(lines)]
    names = [None if it.track is None else it.track.name for it in instances]
    assert len(set(zip(names, ids, strict=True))) == len(set(ids)) == len(set(names))
    assert labels.videos[0].filename == "clip.mp4"
    assert tuple(labels.videos[0].shape[1:3]) == (SIZE["height"], SIZE["width"])


def test_skeleton_and_symmetries(tmp_path: Path) -> None:
    pose = {"id": "1", "score": 0.5, "box": [0, 0, 10, 20], "keypoints": [[1.5, 2.5, 0.9]] * 17}
    line = {"frame": 0, "time_ms": 0, "image": SIZE, "session": "a", "poses": [pose]}
    skeleton = loaded(tmp_path, [line]).skeleton
    assert skeleton.node_names == list(KEYPOINTS)
    assert [tuple(it) for it in skeleton.edge_inds] == list(EDGES)
    assert ("left_wrist", "right_wrist") in {tuple(sorted(it)) for it in skeleton.symmetry_names}
    assert len(skeleton.symmetries) == 8


def test_photos_are_a_video_of_pictures(tmp_path: Path) -> None:
    labels = loaded(tmp_path, [{"file": it, "image": SIZE, "poses": []} for it in ("a.jpg", "b.jpg")])
    assert labels.videos[0].filename == ["a.jpg", "b.jpg"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sleap-io calls pynwb and ndx-pose as they were before
def test_sleap_io_writes_deeplabcut_and_nwb_from_them(tmp_path: Path) -> None:
    pose = {"id": "1", "score": 0.5, "box": [0, 0, 10, 20], "keypoints": [[1.5, 2.5, 0.9]] * 17}
    lines = [{"frame": i, "time_ms": 40 * i, "image": SIZE, "session": "a", "poses": [pose]} for i in range(3)]
    labels = loaded(tmp_path, lines)
    sio.save_csv(labels, str(tmp_path / "dlc.csv"), format="dlc")
    rows = [it.split(",") for it in (tmp_path / "dlc.csv").read_text().splitlines()]
    assert [it[0] for it in rows[:3]] == ["scorer", "bodyparts", "coords"]  # of one animal
    assert {it[1] for it in rows[1:2]} == {"nose"}
    assert [it[1:3] for it in rows[3:]] == [["1.5", "2.5"]] * 3
    sio.save_nwb(labels, str(tmp_path / "clip.nwb"))
    again = sio.load_nwb(str(tmp_path / "clip.nwb"))
    assert [it.instances[0].numpy()[0].tolist() for it in again.labeled_frames] == [[1.5, 2.5]] * 3
