"""Cameras as sources: their people, their gaps, and how they are connected again."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from service.sources import messages
from service.streaming.messages import FrameResult
from tests import cameras
from tests.conftest import Running
from tests.sources import add, metric, results, status, viewing, wait_for
from tests.streaming import eventually, hear_until


def test_a_camera_is_read_and_its_people_are_tracked(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url.replace("//", "//user:s3cret@") + "?token=s3cret", name="door")
        with viewing(running, source) as viewer:
            seen = results(viewer, 10)
        entry = wait_for(running, source, lambda it: it["fps"] > 2)
    for result in seen:
        FrameResult.model_validate(result)
        assert [pose["id"] for pose in result["poses"]] == ["1"]
    assert all(a["seq"] < b["seq"] and a["capture_us"] < b["capture_us"] for a, b in itertools.pairwise(seen))
    assert (entry["name"], entry["state"], entry["gaps"], entry["reconnects"]) == ("door", "running", [], 0)
    assert entry["answered"] + entry["dropped"] + 2 >= entry["frames"] >= 10
    assert entry["age_ms"] is not None
    assert entry["url"] == camera.url.replace("//", "//***@") + "?token=***"
    assert "s3cret" not in running.http.get("/sources").text


def test_a_camera_is_disconnected_by_a_pause_and_connected_again(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url)
        wait_for(running, source, lambda it: it["answered"] > 3)
        running.http.post(f"/sources/{source}/pause")
        eventually(lambda: not camera._connections)
        before = status(running, source)
        running.http.post(f"/sources/{source}/resume")
        entry = wait_for(running, source, lambda it: it["answered"] > before["answered"] + 3)
    assert (entry["state"], entry["reconnects"], entry["last_error"]) == ("running", 0, None)
    assert [(it["reason"], it["to"] is not None) for it in entry["gaps"]] == [("paused", True)]


@pytest.mark.slow
def test_a_broken_connection_and_a_silent_camera_are_gaps_with_reasons(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url)
        with viewing(running, source) as viewer:
            results(viewer, 3)
            camera.drop()
            gap = hear_until(viewer, lambda it: it["type"] == "gap")[-1]
            results(viewer, 3)
            camera.silent = True
            wait_for(running, source, lambda it: it["state"] == "reconnecting")
            camera.silent = False
            second = hear_until(viewer, lambda it: it["type"] == "gap")[-1]
            results(viewer, 3)
        entry = status(running, source)
    messages.GapMessage.model_validate(gap)
    assert [{"type": "gap", **it} for it in entry["gaps"]] == [gap, second]
    assert "camera ended" in gap["reason"] or "broke off" in gap["reason"]
    assert (
        "no data came in time" in second["reason"]
        or "no whole picture came" in second["reason"]
        or "timed out" in second["reason"]
    )
    assert all(it["from"] < it["to"] for it in entry["gaps"])
    assert entry["reconnects"] == 2
    assert metric(running, "posewright_source_reconnects_total") >= 2


@pytest.mark.slow
def test_an_rtsp_camera_dies_and_comes_back(running: Running, videos: Path) -> None:
    with cameras.rtsp_camera(videos / "walk.mp4") as camera:
        source = add(running, camera.url)
        with viewing(running, source) as viewer:
            before = results(viewer, 5)
            camera.kill()
            wait_for(running, source, lambda it: it["state"] == "reconnecting")
            camera.start()
            gap = hear_until(viewer, lambda it: it["type"] == "gap")[-1]
            after = results(viewer, 5)
        entry = wait_for(running, source, lambda it: it["state"] == "running")
    assert [{"type": "gap", **it} for it in entry["gaps"]] == [gap]
    assert entry["reconnects"] == 1
    seqs = [it["seq"] for it in before + after]
    assert seqs == sorted(set(seqs))
    assert after[0]["time_ms"] - before[-1]["time_ms"] > 0, "the source has one clock"
    assert after[0]["time_ms"] - before[-1]["time_ms"] == pytest.approx(
        (after[0]["capture_us"] - before[-1]["capture_us"]) / 1e3, abs=1500
    )


def test_a_camera_that_is_away_is_tried_again_and_again(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    source = add(running, f"http://user:s3cret@127.0.0.1:{cameras.free_port()}/")
    entry = wait_for(running, source, lambda it: it["state"] == "reconnecting")
    time.sleep(2)  # more attempts, of which the log says nothing new
    (line,) = [it for it in caplog.messages if "tries to connect again" in it]
    assert "refused" in line
    assert "s3cret" not in line
    assert entry["reconnects"] == 0
    assert "refused" in entry["last_error"]
    assert [(it["to"], "refused" in it["reason"]) for it in entry["gaps"]] == [(None, True)]


def test_max_fps_slows_inference_down(running: Running) -> None:
    with cameras.mjpeg_camera(fps=30) as camera:
        source = add(running, camera.url, options={"max_fps": 3})
        entry = wait_for(running, source, lambda it: it["frames"] >= 60)
    assert entry["answered"] < entry["frames"] / 3
    assert entry["dropped"] > entry["frames"] / 2
