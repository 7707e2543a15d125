"""Video files as sources: their pace, pauses and ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from posewright_client.formats.recording import Recording
from tests import cameras
from tests.conftest import Running
from tests.sources import add, steady, viewing, wait_for
from tests.spots import Person
from tests.streaming import hear_until


def test_every_frame_of_a_file_is_answered_with_policy_all(running: Running, videos: Path) -> None:
    source = add(running, (videos / "walk.mp4").as_uri(), options={"policy": "all"}, record=True)
    entry = wait_for(running, source, lambda it: it["state"] == "ended")
    wait_for(running, source, lambda it: it["record"]["delivered"] == 30)
    assert (entry["frames"], entry["answered"], entry["dropped"], entry["errors"]) == (30, 30, 0, 0)
    assert (entry["gaps"], entry["last_error"], entry["reconnects"]) == ([], None, 0)
    file = running.app.state.service.settings.source_record_dir / entry["record"]["file"]
    recorded = list(Recording(file).frames())
    assert [it.index for it in recorded] == list(range(30))
    assert [it.time_s for it in recorded] == pytest.approx([i / cameras.FPS for i in range(30)], abs=1e-3)
    for i, frame in enumerate(recorded):
        assert frame.size == (640, 384)
        (person,) = frame.people
        truth = Person((100 + 4 * i, 188)).keypoints
        assert person.track == 1
        assert np.abs(np.array(person.keypoints)[:, :2] - truth).mean() < 4


def test_a_file_is_read_at_its_own_pace(running: Running, videos: Path) -> None:
    source = add(running, (videos / "walk.mp4").as_uri())
    with viewing(running, source) as viewer:
        seen = hear_until(viewer, lambda it: it.get("state") == "ended")
    times = [(it["time_ms"], it["capture_us"] / 1e3) for it in seen if it["type"] == "result"]
    assert len(times) > 3
    (first_ms, first_at_ms), (last_ms, last_at_ms) = times[0], times[-1]
    assert -500 < (last_at_ms - first_at_ms) - (last_ms - first_ms) < 2000


def test_a_file_is_paused_where_it_is(running: Running, videos: Path) -> None:
    source = add(running, (videos / "long.mp4").as_uri(), options={"policy": "all"})
    wait_for(running, source, lambda it: it["answered"] > 10)
    paused = running.http.post(f"/sources/{source}/pause").json()
    assert paused["state"] == "paused"
    held = steady(running, source)
    assert held["answered"] < 300
    assert running.http.post(f"/sources/{source}/pause").status_code == 200
    assert running.http.post(f"/sources/{source}/resume").json()["state"] == "running"
    entry = wait_for(running, source, lambda it: it["answered"] > held["answered"])
    assert [it["reason"] for it in entry["gaps"]] == ["paused"]


@pytest.mark.parametrize("kind", ["broken.mp4", "none"])
def test_files_that_cannot_be_read_fail_and_say_why(running: Running, videos: Path, kind: str) -> None:
    if kind == "none":
        response = running.http.post("/sources", json={"url": (videos / "none.mp4").as_uri()})
        assert (response.status_code, response.json()["type"]) == (403, "/problems/source-forbidden")
        return
    source = add(running, (videos / kind).as_uri())
    entry = wait_for(running, source, lambda it: it["state"] == "failed")
    assert "cannot be opened" in entry["last_error"]
    for change in ("pause", "resume"):
        response = running.http.post(f"/sources/{source}/{change}")
        assert (response.status_code, response.json()["type"]) == (409, "/problems/source-conflict")
