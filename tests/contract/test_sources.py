"""/sources: cameras and files that the server reads, their viewers, and where their results go."""

from __future__ import annotations

import io
import itertools
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import ClientConnection, connect

from posewright_client.formats.recording import Recording
from service.app import create_app
from service.settings import Settings, SettingsError
from service.sources import messages
from service.streaming.close import CloseCode
from service.streaming.messages import FrameResult
from tests import cameras, spots
from tests.conftest import Running, serving
from tests.service.sources.test_deliveries import receiving
from tests.spots import Person
from tests.streaming import PATIENCE_S, SUBPROTOCOL, eventually, hear, hear_goodbye, hear_until, say

KEY = "camera-operator-0123456789"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    cameras.write_video(folder / "walk.mp4", cameras.walk(30))
    cameras.write_video(folder / "long.mp4", cameras.walk(300), fps=100)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def running(models_dir: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        models_dir=models_dir,
        source_hosts=("127.0.0.1", f"file:{videos}"),
        source_webhook_hosts=("127.0.0.1",),
        source_record_dir=tmp_path_factory.mktemp("results"),
        source_timeout_s=2,
        source_max=4,
        source_max_viewers=30,
    )
    with serving(settings) as it:
        yield it


@pytest.fixture(autouse=True)
def _no_source_stays(running: Running) -> Iterator[None]:
    yield
    for source in running.http.get("/sources").json()["sources"]:
        assert running.http.delete(f"/sources/{source['id']}").status_code == 204


def add(running: Running, url: str, **fields: Any) -> str:
    response = running.http.post("/sources", json={"url": url, **fields})
    assert response.status_code == 201, response.text
    entry = response.json()
    messages.SourceEntry.model_validate(entry)
    assert response.headers["location"] == f"/sources/{entry['id']}"
    return entry["id"]


def status(running: Running, source: str) -> dict[str, Any]:
    entry = running.http.get(f"/sources/{source}").json()
    messages.SourceEntry.model_validate(entry)
    return entry


def wait_for(running: Running, source: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    def met() -> bool:
        time.sleep(0.05)
        return condition(status(running, source))

    eventually(met)
    return status(running, source)


@contextmanager
def viewing(running: Running, source: str, **hello: Any) -> Iterator[ClientConnection]:
    url = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
    with connect(url, subprotocols=[SUBPROTOCOL], compression=None, max_size=None, close_timeout=1) as connection:  # type: ignore[list-item] # the package's own alias of str
        say(connection, type="hello", **hello)
        ready = hear(connection)
        messages.ViewerReady.model_validate(ready)
        assert (ready["type"], ready["source"]) == ("ready", source)
        yield connection


def results(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Receive so many results; other messages are left out."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += [it for it in [hear(connection)] if it["type"] == "result"]
    return found


def metric(running: Running, series: str, **labels: str) -> float:
    families = text_string_to_metric_families(running.http.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == series and labels.items() <= sample.labels.items()
    )


def people(result: dict[str, Any]) -> list[list[float]]:
    return [pose["keypoints"][0][:2] for pose in result["poses"]]


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


def test_a_viewer_gets_the_picture_before_its_result(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url)
        with viewing(running, source, pictures=True, format="pose") as viewer:
            for _ in range(5):
                message = viewer.recv(PATIENCE_S)
                while not isinstance(message, bytes):
                    assert json.loads(message)["type"] == "state"
                    message = viewer.recv(PATIENCE_S)
                version, _, _, seq, capture_us = struct.unpack_from(">BBHIQ", message)
                result = hear(viewer)
                assert (version, seq, capture_us) == (1, result["seq"], result["capture_us"])
                picture = np.asarray(Image.open(io.BytesIO(message[16:])))
                assert picture.shape == (384, 640, 3)
                ((pose),) = result["poses"]
                expected = min(
                    (np.array([it["x"], it["y"]]) for it in pose["keypoints"] if it["name"] == "nose"), key=len
                )
                color = picture[round(expected[1]), round(expected[0])].astype(int)
                assert np.abs(color - spots.COLORS[0]).max() < 90, "the nose is where the result says"


def test_every_frame_of_a_file_is_answered_with_policy_all(running: Running, videos: Path) -> None:
    began_s = time.monotonic()
    source = add(running, (videos / "walk.mp4").as_uri(), options={"policy": "all"}, record=True)
    entry = wait_for(running, source, lambda it: it["state"] == "ended")
    wait_for(running, source, lambda it: it["record"]["delivered"] == 30)
    assert time.monotonic() - began_s < PATIENCE_S
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
    assert last_at_ms - first_at_ms == pytest.approx(last_ms - first_ms, abs=500)


def test_a_file_is_paused_where_it_is(running: Running, videos: Path) -> None:
    source = add(running, (videos / "long.mp4").as_uri(), options={"policy": "all"})
    wait_for(running, source, lambda it: it["answered"] > 10)
    paused = running.http.post(f"/sources/{source}/pause").json()
    assert paused["state"] == "paused"
    time.sleep(0.5)
    held = status(running, source)
    time.sleep(0.5)
    assert status(running, source)["answered"] == held["answered"] < 300
    assert running.http.post(f"/sources/{source}/pause").status_code == 200
    assert running.http.post(f"/sources/{source}/resume").json()["state"] == "running"
    entry = wait_for(running, source, lambda it: it["answered"] > held["answered"])
    assert [it["reason"] for it in entry["gaps"]] == ["paused"]


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


def test_twenty_viewers_cost_one_inference_a_frame_and_a_slow_one_harms_nobody(running: Running) -> None:
    inferences = ("posewright_model_inferences_total", {"name": "student-s"})
    with cameras.mjpeg_camera(fps=10) as camera, ExitStack() as stack:
        source = add(running, camera.url)
        before = metric(running, inferences[0], **inferences[1])
        answered = status(running, source)["answered"]
        viewers = [stack.enter_context(viewing(running, source, pictures=i % 4 == 0)) for i in range(19)]
        slow = stack.enter_context(viewing(running, source, pictures=True))  # never reads
        assert status(running, source)["viewers"] == 20
        seen: dict[int, list[int]] = {}

        def watch(number: int, viewer: ClientConnection) -> None:
            seqs: list[int] = []
            while len(seqs) < 20:
                message = viewer.recv(PATIENCE_S)
                if isinstance(message, str) and (document := json.loads(message))["type"] == "result":
                    seqs.append(document["seq"])
            seen[number] = seqs

        threads = [threading.Thread(target=watch, args=it) for it in enumerate(viewers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(seen) == 19
        entry = running.http.post(f"/sources/{source}/pause").json()
        time.sleep(0.5)
        entry = status(running, source)
        spent = metric(running, inferences[0], **inferences[1]) - before
        assert spent == entry["answered"] - answered, "each answered frame was computed once"
        assert slow.protocol.state.name == "OPEN"
    total = {seq for seqs in seen.values() for seq in seqs}
    assert len(total) < 3 * 20, "all watched the same frames"
    for seqs in seen.values():
        assert seqs == sorted(set(seqs))


def test_max_fps_slows_inference_down(running: Running) -> None:
    with cameras.mjpeg_camera(fps=30) as camera:
        source = add(running, camera.url, options={"max_fps": 3})
        entry = wait_for(running, source, lambda it: it["frames"] >= 60)
    assert entry["answered"] < entry["frames"] / 3
    assert entry["dropped"] > entry["frames"] / 2


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


@pytest.mark.parametrize(
    ("body", "status_code", "told"),
    [
        ({}, 422, "url"),
        ({"url": "rtsp://10.0.0.1/"}, 403, "--source-hosts"),
        ({"url": "ftp://127.0.0.1/"}, 422, "rtsp"),
        ({"url": "http://127.0.0.1/", "nmae": "a"}, 422, "nmae"),
        ({"url": "http://127.0.0.1/", "name": "../a"}, 422, "name"),
        ({"url": "http://127.0.0.1/", "options": {"max_fps": 0}}, 422, "max_fps"),
        ({"url": "http://127.0.0.1/", "options": {"model": "nobody"}}, 404, "nobody"),
        ({"url": "rtsp://127.0.0.1/", "options": {"policy": "all"}}, 422, "policy"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "http://10.0.0.1/"}}, 403, "--source-webhook-hosts"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "file:///etc/passwd"}}, 422, "webhook.url"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "http://127.0.0.1/", "secret": "s3cret"}}, 422, "secret"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    running: Running, body: dict[str, Any], status_code: int, told: str
) -> None:
    response = running.http.post("/sources", json=body)
    assert response.status_code == status_code, response.text
    assert told in response.json()["detail"]
    assert "s3cret" not in response.text
    assert running.http.get("/sources").json() == {"sources": []}


def test_a_body_that_is_no_object_is_named_as_a_whole(running: Running) -> None:
    response = running.http.post("/sources", json=[])
    assert response.status_code == 422
    assert response.json()["detail"].startswith("body: Input should be an object, got")


def test_a_viewers_format_decides_about_covariances(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url, options={"covariance": True})
        for form, expected in (("compact", True), ("tfjs", False)):
            with connect(f"{running.url.replace('http', 'ws')}/sources/{source}/stream", max_size=None) as viewer:
                say(viewer, type="hello", format=form)
                assert hear(viewer)["covariance"] is expected
                (result,) = results(viewer, 1)
                assert all(("covariances" in pose) is expected for pose in result["poses"])


def test_bodies_that_are_no_json_or_too_large_are_refused(running: Running) -> None:
    for content in (b"", b"{", b"[1]", b'{"url":"http://u:s3cret@127.0.0.1/"', b" " * 100_000):
        response = running.http.post("/sources", content=content)
        assert response.status_code in (400, 422)
        assert "s3cret" not in response.text


def test_the_number_of_sources_is_limited_and_names_are_unique(running: Running) -> None:
    url = f"http://127.0.0.1:{cameras.free_port()}/"
    add(running, url, name="a")
    response = running.http.post("/sources", json={"url": url, "name": "a"})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/source-conflict")
    for name in "bcd":
        add(running, url, name=name)
    response = running.http.post("/sources", json={"url": url})
    assert (response.status_code, response.json()["max_sources"]) == (409, 4)


def test_an_unknown_source_is_a_problem_everywhere(running: Running) -> None:
    for method, path in [
        ("GET", "/sources/x"), ("DELETE", "/sources/x"), ("POST", "/sources/x/pause"), ("POST", "/sources/x/resume"),
    ]:  # fmt: skip
        response = running.http.request(method, path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/unknown-source")
    with connect(running.url.replace("http", "ws") + "/sources/x/stream") as connection:
        hear_goodbye(connection, CloseCode.NO_SOURCE)


def test_viewers_are_told_when_the_source_is_removed(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url)
        with viewing(running, source) as viewer:
            results(viewer, 2)
            assert running.http.delete(f"/sources/{source}").status_code == 204
            bye = hear_until(viewer, lambda it: it["type"] == "bye")[-1]
        assert (bye["code"], bye["reason"]) == (CloseCode.NO_SOURCE, "the source was removed")
        eventually(lambda: not camera._connections)
        assert metric(running, "posewright_source_viewers") == 0


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("{}", "type"),
        ('{"type":"hello","picturs":true}', "picturs"),
        ('{"type":"hello","format":"x"}', "format"),
        ("x", "JSON"),
        (b"\xff\xd8", "hello"),
    ],
)
def test_a_bad_hello_of_a_viewer_is_refused(running: Running, first: str | bytes, told: str) -> None:
    source = add(running, f"http://127.0.0.1:{cameras.free_port()}/")
    with connect(f"{running.url.replace('http', 'ws')}/sources/{source}/stream") as connection:
        connection.send(first)
        assert told in hear_goodbye(connection, CloseCode.BAD_HELLO)["reason"]


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


def test_a_viewer_may_ping_and_send_no_frames(running: Running) -> None:
    source = add(running, f"http://127.0.0.1:{cameras.free_port()}/")
    with viewing(running, source) as viewer:
        say(viewer, type="ping")
        assert hear_until(viewer, lambda it: it["type"] != "state")[-1] == {"type": "pong"}
        viewer.send(b"\xff\xd8")
        error = hear_until(viewer, lambda it: it["type"] != "state")[-1]
        assert (error["type"], error["problem"]["status"]) == ("error", 400)


def test_pages_of_other_sites_may_not_let_the_server_open_anything(running: Running) -> None:
    headers = {"Origin": "https://evil.example"}
    response = running.http.post("/sources", json={"url": "http://127.0.0.1/"}, headers=headers)
    assert (response.status_code, response.json()["type"]) == (403, "/problems/source-forbidden")
    source = add(running, f"http://127.0.0.1:{cameras.free_port()}/")
    for method, path in [("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")]:
        assert running.http.request(method, f"/sources/{source}{path}", headers=headers).status_code == 403
    url = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
    with connect(url, origin="https://evil.example") as connection:  # type: ignore[arg-type] # the package's own alias of str
        hear_goodbye(connection, CloseCode.POLICY_VIOLATION)
    assert running.http.get(f"/sources/{source}", headers={"Origin": running.url}).status_code == 200


def test_sources_are_off_by_default(server: Running) -> None:
    for method, path in [
        ("GET", "/sources"), ("POST", "/sources"), ("GET", "/sources/x"), ("DELETE", "/sources/x"),
        ("POST", "/sources/x/pause"), ("POST", "/sources/x/resume"),
    ]:  # fmt: skip
        response = server.http.request(method, path, json={"url": "http://127.0.0.1/"} if method == "POST" else None)
        assert response.status_code == 403, (method, path)
        assert "--source-hosts" in response.json()["detail"]
    with connect(server.url.replace("http", "ws") + "/sources/x/stream") as connection:
        hear_goodbye(connection, CloseCode.FORBIDDEN)


def test_sources_and_their_viewers_need_a_key(models_dir: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"operator:{KEY}\n")
    with serving(Settings(models_dir=models_dir, source_hosts=("127.0.0.1",), api_keys_file=keys)) as running:
        url = f"http://127.0.0.1:{cameras.free_port()}/"
        assert running.http.post("/sources", json={"url": url}).status_code == 401
        running.http.headers["X-API-Key"] = KEY
        source = add(running, url)
        stream = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
        with connect(stream) as connection:
            hear_goodbye(connection, CloseCode.UNAUTHORIZED)
        with connect(stream, additional_headers={"X-API-Key": KEY}) as connection:
            say(connection, type="hello")
            assert hear(connection)["type"] == "ready"
            keys.write_text("other:other-operator-0123456789\n")
            bye = hear_until(connection, lambda it: it["type"] == "bye")[-1]
            assert bye["code"] == CloseCode.UNAUTHORIZED


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


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"workers": 2}, "workers"),
        ({"source_record_dir": "/nowhere"}, "--source-record-dir"),
        ({"source_webhook_hosts": ("file:/srv",)}, "--source-webhook-hosts"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_start(
    models_dir: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        create_app(Settings(models_dir=models_dir, source_hosts=("127.0.0.1",), **settings))
