"""Where the results of sources go: webhooks and recordings."""

from __future__ import annotations

import json
import time
from pathlib import Path

from service.settings import Settings
from service.streaming.close import CloseCode
from tests import cameras
from tests.conftest import Running, serving
from tests.service.sources.test_deliveries import receiving
from tests.sources import add, metric, results, status, viewing, wait_for
from tests.streaming import eventually, hear_until


def test_results_and_gaps_are_posted_to_a_webhook(running: Running) -> None:
    with cameras.mjpeg_camera() as camera, receiving(200) as (url, receiver):
        webhook = {"url": url + "&key=s3cret", "secret": "s3cret-0123456789"}
        source = add(running, camera.url, name="yard", options={"format": "pose"}, webhook=webhook)
        wait_for(running, source, lambda it: it["webhook"]["delivered"] > 5)
        camera.drop()
        wait_for(running, source, lambda it: it["gap_count"] == 1)
        entry = wait_for(running, source, lambda it: it["webhook"]["delivered"] > 15)
        assert running.http.delete(f"/sources/{source}").status_code == 204
        bodies = [json.loads(body) for _, body in receiver.got]
    assert all(it["source"] == {"id": source, "name": "yard"} for it in bodies)
    events = [event for body in bodies for event in body["events"]]
    seqs = [it["seq"] for it in events if it["type"] == "result"]
    assert seqs == sorted(set(seqs))
    assert len(seqs) >= 10
    assert [it["type"] for it in events].count("gap") == 1
    assert all("webhook-signature" in headers for headers, _ in receiver.got)
    assert entry["webhook"]["url"].endswith("key=***")
    assert "s3cret" not in json.dumps(entry)
    assert metric(running, "posewright_source_webhook_events_total", outcome="delivered") >= len(events)


def test_covariances_reach_viewers_and_recordings_and_are_refused_where_they_do_not_fit(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url, options={"covariance": True}, record=True)
        with viewing(running, source, format="pose") as viewer:
            (result,) = results(viewer, 1)
        (xx, xy), (yx, yy) = result["poses"][0]["keypoints"][0]["covariance"]
        assert xy == yx
        assert xx * yy > xy**2
        wait_for(running, source, lambda it: it["record"]["delivered"] > 0)
        file = status(running, source)["record"]["file"]
        folder = running.app.state.service.settings.source_record_dir
        assert running.http.delete(f"/sources/{source}").status_code == 204
        line = json.loads((folder / file).read_text().splitlines()[0])
        assert len(line["poses"][0]["covariances"]) == 17
        for options in ({"covariance": True, "format": "coco"}, {"covariance": True, "model": "teacher"}):
            response = running.http.post("/sources", json={"url": camera.url, "options": options})
            assert response.status_code == 422, options


def test_a_stopping_server_frees_cameras_and_delivers_what_it_has(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, source_hosts=("127.0.0.1",), source_webhook_hosts=("127.0.0.1",))
    with cameras.mjpeg_camera() as camera, receiving(200) as (url, receiver):
        with serving(settings) as running:
            source = add(running, camera.url, webhook={"url": url})
            with viewing(running, source) as viewer:
                results(viewer, 3)
                began_s = time.monotonic()
                running.stop()
                bye = hear_until(viewer, lambda it: it["type"] == "bye")[-1]
        assert time.monotonic() - began_s < 3 * settings.stop_s
        assert bye["code"] in (CloseCode.SERVICE_RESTART, CloseCode.NO_SOURCE)
        eventually(lambda: not camera._connections)
        assert sum(len(json.loads(body)["events"]) for _, body in receiver.got) >= 3
