"""A canary on a running server: who answers, what callers see when it fails, promotion and roll back."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.inference.trial import position
from service.settings import Settings
from service.wire.canary import CanaryReply
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import PATIENCE_S, connected, frame, hear, say

PICTURE = spots.encode(spots.paint(SURE, UNSURE), "JPEG")
ALONE = spots.encode(spots.paint(SURE), "JPEG")
"""`fails` raises for this picture."""
KEYS = [f"caller-{i}" for i in range(24)]


@pytest.fixture(scope="module")
def folder(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual models, and two candidates: one as good as the student, and one that raises."""
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("canary") / "models"))
    spots.write_pose_bundle(folder, "candidate", "student", gain=3.9)
    spots.write_pose_bundle(folder, "fails", "student", fails_on_sure=True)
    return folder


@pytest.fixture(scope="module")
def controlled(folder: Path) -> Iterator[Running]:
    """A server without a canary, on which one may be started."""
    with serving(Settings(models_dir=folder, model_control="explicit")) as running:
        yield running


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Running]]:
    """Make servers that end with the test."""
    stack = []

    def start(**settings: object) -> Running:
        settings = {"models_dir": folder, "model_control": "explicit"} | settings
        context = serving(Settings.model_validate(settings))
        stack.append(context)
        return context.__enter__()

    yield start
    for context in stack:
        context.__exit__(None, None, None)


def ask(running: Running, key: str, content: bytes = PICTURE, **query: str) -> httpx.Response:
    headers = {"Content-Type": "image/jpeg", "X-Canary-Key": key}
    return running.http.post("/predict", content=content, headers=headers, params=query)


def answering(running: Running, key: str, content: bytes = PICTURE, **query: str) -> str:
    response = ask(running, key, content, **query)
    assert response.status_code == 200, response.text
    return str(response.json()["model"]["name"])


def put(running: Running, model: str, share: float) -> dict:
    response = running.http.put("/canary", json={"model": model, "share": share})
    assert response.status_code == 200, response.text
    return response.json()


def state(running: Running) -> dict:
    reply = running.http.get("/canary").json()
    CanaryReply.model_validate(reply)
    return reply


def metric(running: Running, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(running.http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def test_without_a_canary_there_is_none(server: Running) -> None:
    reply = state(server)
    assert (reply["stable"], reply["candidate"], reply["share"], reply["verdict"]) == ("student-s", None, 0, None)
    assert reply["models"] == []
    assert metric(server, "posewright_canary_share") == 0


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/canary"), ("POST", "/canary/promote"), ("POST", "/canary/rollback")]
)
def test_changes_are_refused_unless_the_operator_allows_them(server: Running, method: str, path: str) -> None:
    response = server.http.request(method, path, json={"model": "teacher", "share": 1} if method == "PUT" else None)
    assert (response.status_code, response.json()["type"]) == (403, "/problems/model-control-forbidden")


def test_callers_keep_their_model_and_the_share_grows_at_run_time(serve: Callable[..., Running]) -> None:
    running, other = serve(canary="candidate", canary_share=0.2), serve(canary="candidate", canary_share=0.2)
    first = {key: answering(running, key) for key in KEYS}
    assert Counter(first.values()).keys() == {"candidate", "student-s"}
    assert first == {key: "candidate" if position("candidate", key) < 0.2 else "student-s" for key in KEYS}
    assert all(answering(other, key) == first[key] for key in KEYS[:10])
    on_candidate = [key for key in KEYS if first[key] == "candidate"]
    assert {answering(running, on_candidate[0], model="student") for _ in range(3)} == {"student-s"}
    put(running, "candidate", 0.6)
    grown = {key: answering(running, key) for key in KEYS}
    assert all(grown[key] == "candidate" for key in on_candidate)
    assert len([key for key in KEYS if grown[key] == "candidate"]) > len(on_candidate)
    reply = state(running)
    assert (reply["candidate"], reply["share"]) == ("candidate", 0.6)
    assert sum(it["calls"] for it in reply["models"]) == 2 * len(KEYS)
    assert metric(running, "posewright_canary_share") == 0.6
    counted = [metric(running, "posewright_canary_requests_total", model=it["model"]) for it in reply["models"]]
    assert counted == [it["calls"] for it in reply["models"]]
    for entry in reply["models"]:
        assert 0 < entry["pose_ms"]["p50"] <= entry["pose_ms"]["p95"]
        assert entry["people_per_picture"] == 2
        assert 0 < entry["mean_score"] <= 1


def test_a_caller_without_a_key_is_known_by_the_address(serve: Callable[..., Running]) -> None:
    running = serve(canary="candidate", canary_share=position("candidate", "127.0.0.1") + 0.01)
    assert running.predict(PICTURE, "image/jpeg").json()["model"]["name"] == "candidate"
    put(running, "candidate", position("candidate", "127.0.0.1") - 0.01)
    assert running.predict(PICTURE, "image/jpeg").json()["model"]["name"] == "student-s"


def test_callers_see_no_error_of_a_candidate_that_fails(serve: Callable[..., Running]) -> None:
    running = serve(canary="fails", canary_share=1)
    assert answering(running, "x", spots.encode(spots.paint(), "JPEG")) == "fails"
    plain = ask(running, "x", ALONE, model="student-s").json()
    rescued = ask(running, "x", ALONE)
    assert rescued.status_code == 200
    assert rescued.json()["model"]["name"] == "student-s"
    assert rescued.json()["poses"] == plain["poses"]
    boxes = json.dumps([SURE.box_xywh])
    assert answering(running, "x", ALONE, boxes=boxes) == "student-s"
    batch = running.http.post("/predict/batch", files=[("image", ALONE)] * 2)
    assert [entry["model"]["name"] for entry in batch.json()] == ["student-s"] * 2
    stable, candidate = state(running)["models"]
    assert (candidate["calls"], candidate["errors"]) == (5, 4)
    assert (stable["calls"], stable["errors"]) == (4, 0)
    assert metric(running, "posewright_canary_requests_total", model="fails", outcome="failed") == 4
    assert metric(running, "posewright_canary_requests_total", model="student-s", outcome="answered") == 4
    assert state(running)["verdict"] == "not enough data"
    for _ in range(6):
        assert answering(running, "x", ALONE) == "student-s"
    reply = state(running)
    assert reply["verdict"] == "worse"
    assert "errors: 10 of 11 calls failed" in reply["reasons"][0]


def test_bad_pictures_count_against_nobody(serve: Callable[..., Running]) -> None:
    running = serve(canary="candidate", canary_share=1)
    assert ask(running, "x", b"no picture").status_code == 422
    assert [entry["calls"] for entry in state(running)["models"]] == [0, 0]


def test_a_failing_candidate_is_rolled_back_by_the_verdict(serve: Callable[..., Running]) -> None:
    running = serve(canary="fails", canary_share=1, canary_auto_rollback=True)
    replies = [ask(running, f"caller-{i}", ALONE) for i in range(12)]
    assert {reply.status_code for reply in replies} == {200}
    reply = state(running)
    assert (reply["candidate"], reply["last_event"]["change"], reply["last_event"]["cause"]) == (
        None, "rolled_back", "verdict",
    )  # fmt: skip
    assert reply["last_event"]["reasons"][0].startswith("errors: ")
    assert metric(running, "posewright_canary_rollbacks_total", cause="verdict") == 1
    assert metric(running, "posewright_canary_share") == 0


def test_one_call_rolls_back_under_load(serve: Callable[..., Running]) -> None:
    """No reply to a request that was sent after the roll back names the candidate, and none fails."""
    running = serve(canary="candidate", canary_share=1, inference_threads=2)
    stop, after = threading.Event(), threading.Event()
    names: list[tuple[bool, str]] = []

    def load(i: int) -> None:
        while not stop.is_set():
            sent_after = after.is_set()
            names.append((sent_after, answering(running, f"caller-{i}")))

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load, i) for i in range(6)]
        while len(names) < 30:
            stop.wait(0.01)
        response = running.http.post("/canary/rollback")
        after.set()
        seen = len(names)
        while len(names) < seen + 30:
            stop.wait(0.01)
        stop.set()
        for it in loads:
            it.result()
    assert response.status_code == 200
    assert {name for sent_after, name in names if sent_after} == {"student-s"}
    assert {name for sent_after, name in names[:20]} == {"candidate"}
    assert metric(running, "posewright_canary_rollbacks_total", cause="operator") == 1
    again = running.http.post("/canary/rollback")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/no-canary")


def test_a_promoted_candidate_answers_everyone_until_that_is_undone(serve: Callable[..., Running]) -> None:
    running = serve()
    put(running, "candidate", 0.5)
    promoted = running.http.post("/canary/promote").json()
    assert (promoted["stable"], promoted["candidate"]) == ("candidate", None)
    assert {answering(running, key) for key in KEYS[:10]} == {"candidate"}
    listed = running.http.get("/models").json()["models"]
    assert [entry["name"] for entry in listed if entry["default"]] == ["candidate"]
    assert running.http.post("/canary/rollback").json()["stable"] == "student-s"
    assert {answering(running, key) for key in KEYS[:10]} == {"student-s"}


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"model": "nobody", "share": 0.5}, 404, "unknown-model"),
        ({"model": "detector", "share": 0.5}, 404, "unknown-model"),
        ({"model": "student-s", "share": 0.5}, 422, "bad-parameter"),
        ({"model": "candidate", "share": 1.5}, 422, "bad-parameter"),
        ({"model": "candidate"}, 422, "bad-parameter"),
        ({"model": "candidate", "share": 0.1, "more": 1}, 422, "bad-parameter"),
    ],
)
def test_a_bad_canary_is_refused(controlled: Running, body: dict, status: int, slug: str) -> None:
    response = controlled.http.put("/canary", json=body)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")
    assert state(controlled)["candidate"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"x" * 70_000])
def test_a_body_that_is_no_request_is_refused(controlled: Running, content: bytes) -> None:
    response = controlled.http.put("/canary", content=content)
    assert (response.status_code, response.json()["type"]) == (400, "/problems/malformed-request")


def test_a_body_is_not_read_where_changes_are_not_allowed(server: Running) -> None:
    """Not even the budget of bodies would bound it otherwise."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as connection:
        connection.sendall(
            f"PUT /canary HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 9999999999\r\n\r\n".encode()
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")


def test_pages_of_other_sites_change_nothing(serve: Callable[..., Running]) -> None:
    running = serve(canary="candidate", canary_share=1, cors_origins=("https://ops.example",))
    foreign = running.http.post("/canary/rollback", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert state(running)["candidate"] == "candidate"
    assert running.http.post("/canary/promote", headers={"Origin": "https://ops.example"}).status_code == 200
    assert running.http.post("/canary/rollback", headers={"Origin": running.url}).status_code == 200


def test_processes_with_one_file_follow_each_other(serve: Callable[..., Running], tmp_path: Path) -> None:
    file = tmp_path / "canary.json"
    one, two = serve(canary_file=file), serve(canary_file=file)
    put(one, "candidate", 1)
    assert answering(two, "x") == "candidate"
    with connected(two) as connection:
        say(connection, type="hello", policy="all")
        assert hear(connection)["model"]["name"] == "candidate"
        assert TestStreams.result(connection, 0)["model"] == "candidate"
        assert one.http.post("/canary/rollback").status_code == 200
        # The frame that is recorded shows the roll back to this stream; a call would too.
        assert [TestStreams.result(connection, i)["model"] for i in (1, 2)][-1] == "student-s"
    assert answering(two, "x") == "student-s"
    assert state(two)["last_event"] == state(one)["last_event"]
    put(two, "candidate", 0.5)
    assert one.http.post("/canary/promote").json()["stable"] == "candidate"
    assert answering(two, "x") == "candidate"
    later = serve(canary_file=file, canary="fails", canary_share=1)
    assert answering(later, "x", ALONE) == "candidate"
    assert two.http.post("/canary/rollback").json()["stable"] == "student-s"
    assert {answering(it, "x") for it in (one, two, later)} == {"student-s"}


def test_a_damaged_file_changes_nothing(serve: Callable[..., Running], tmp_path: Path) -> None:
    file = tmp_path / "canary.json"
    running = serve(canary_file=file)
    put(running, "candidate", 1)
    for text in ("", "{}", '{"student": "nobody", "previous": null, "candidate": 7, "share": 2}'):
        file.write_text(text)
        assert answering(running, "x") == "candidate"
    file.unlink()
    assert answering(running, "x") == "candidate"
    assert running.http.post("/canary/rollback").status_code == 200
    assert json.loads(file.read_text())["event"]["change"] == "rolled_back"


class TestStreams:
    @pytest.mark.parametrize("track", [True, False])
    def test_a_stream_keeps_its_model_until_a_roll_back(self, serve: Callable[..., Running], track: bool) -> None:
        running = serve(canary="candidate", canary_share=1)
        with connected(running) as connection:
            say(connection, type="hello", policy="all", track=track)
            assert hear(connection)["model"]["name"] == "candidate"
            assert [self.result(connection, i)["model"] for i in range(3)] == ["candidate"] * 3
            put(running, "candidate", 0)
            before = self.result(connection, 3)
            assert before["model"] == "candidate"
            running.http.post("/canary/rollback")
            back = self.result(connection, 4)
            assert back["model"] == "student-s"
            assert [it["id"] for it in back["poses"]] == [it["id"] for it in before["poses"]]
            assert [it["id"] is not None for it in back["poses"]] == [track] * 2

    def test_a_stream_on_the_stable_model_is_not_moved_to_the_candidate(self, serve: Callable[..., Running]) -> None:
        running = serve(canary="candidate", canary_share=0)
        with connected(running) as connection:
            say(connection, type="hello", policy="all")
            assert hear(connection)["model"]["name"] == "student-s"
            put(running, "candidate", 1)
            assert self.result(connection, 0)["model"] == "student-s"
            running.http.post("/canary/promote")
            assert self.result(connection, 1)["model"] == "student-s"

    def test_a_stream_goes_on_when_its_candidate_fails(self, serve: Callable[..., Running]) -> None:
        running = serve(canary="fails", canary_share=1)
        with connected(running) as connection:
            say(connection, type="hello", policy="all")
            assert hear(connection)["model"]["name"] == "fails"
            replies = [self.result(connection, i, ALONE) for i in range(4)]
        assert [it["type"] for it in replies] == ["result"] * 4
        assert [it["model"] for it in replies] == ["student-s"] * 4
        assert {it["poses"][0]["id"] for it in replies} == {"1"}
        stable, candidate = state(running)["models"]
        assert (candidate["errors"], stable["errors"], stable["calls"]) == (1, 0, 4)

    def test_the_key_of_a_stream_is_the_header_of_its_handshake(self, serve: Callable[..., Running]) -> None:
        running = serve(canary="candidate", canary_share=0.5)
        for key in KEYS[:8]:
            with connected(running, additional_headers={"X-Canary-Key": key}) as connection:
                say(connection, type="hello")
                expected = "candidate" if position("candidate", key) < 0.5 else "student-s"
                assert hear(connection)["model"]["name"] == expected

    @staticmethod
    def result(connection, seq: int, content: bytes = PICTURE) -> dict:
        connection.send(frame(content, seq, seq * 33_000))
        reply = json.loads(connection.recv(PATIENCE_S))
        assert reply["seq"] == seq
        return reply
