"""Viewers of sources: what they get, and how they are told that something is wrong."""

from __future__ import annotations

import io
import json
import struct
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from service.streaming.close import CloseCode
from tests import cameras, spots
from tests.conftest import Running
from tests.sources import add, metric, results, status, steady, viewing
from tests.streaming import PATIENCE_S, eventually, hear, hear_goodbye, hear_until, say


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


def test_twenty_viewers_cost_one_inference_a_frame_and_a_slow_one_harms_nobody(running: Running) -> None:
    inferences = ("posewright_model_inferences_total", {"name": "student-s"})
    with cameras.mjpeg_camera(fps=10) as camera, ExitStack() as stack:
        source = add(running, camera.url)
        running.http.post(f"/sources/{source}/pause")
        answered = steady(running, source)["answered"]
        before = metric(running, inferences[0], **inferences[1])
        running.http.post(f"/sources/{source}/resume")
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
        running.http.post(f"/sources/{source}/pause")
        entry = steady(running, source)
        spent = metric(running, inferences[0], **inferences[1]) - before
        assert spent == entry["answered"] - answered, "each answered frame was computed once"
        assert slow.protocol.state.name == "OPEN"
    total = {seq for seqs in seen.values() for seq in seqs}
    assert len(total) < 3 * 20, "all watched the same frames"
    for seqs in seen.values():
        assert seqs == sorted(set(seqs))


def test_a_viewers_format_decides_about_covariances(running: Running) -> None:
    with cameras.mjpeg_camera() as camera:
        source = add(running, camera.url, options={"covariance": True})
        for form, expected in (("compact", True), ("tfjs", False)):
            with connect(f"{running.url.replace('http', 'ws')}/sources/{source}/stream", max_size=None) as viewer:
                say(viewer, type="hello", format=form)
                assert hear(viewer)["covariance"] is expected
                (result,) = results(viewer, 1)
                assert all(("covariances" in pose) is expected for pose in result["poses"])


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


def test_a_viewer_may_ping_and_send_no_frames(running: Running) -> None:
    source = add(running, f"http://127.0.0.1:{cameras.free_port()}/")
    with viewing(running, source) as viewer:
        say(viewer, type="ping")
        assert hear_until(viewer, lambda it: it["type"] != "state")[-1] == {"type": "pong"}
        viewer.send(b"\xff\xd8")
        error = hear_until(viewer, lambda it: it["type"] != "state")[-1]
        assert (error["type"], error["problem"]["status"]) == ("error", 400)
