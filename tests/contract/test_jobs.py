"""/jobs: videos in, state and lines out, limits, keys."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from service.settings import Settings
from service.wire.job import JobReply
from tests.conftest import Running, serving
from tests.jobs import FPS, lines, people, submit, wait_for, write_video
from tests.spots import DETECTOR_SIZE
from tests.streaming import eventually

COUNT = 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "walk.mp4", COUNT)


@pytest.fixture(scope="module")
def jobs(models_dir: Path, tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Iterator[Running]:
    settings = Settings(
        models_dir=models_dir,
        jobs_dir=tmp_path_factory.mktemp("jobs") / "here",
        job_max_bytes=1_000_000,
        job_max_frames=60,
        job_max_duration_s=20,
        source_hosts=("127.0.0.1", f"file:{clip.parent}"),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def file_host(clip: Path) -> Iterator[str]:
    """A web server with the clip."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send a file; of ``/cut`` one half of what the head announces."""
            if self.path != "/cut":
                super().do_GET()
                return
            content = clip.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=clip.parent)) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()
        thread.join()


def problem_of(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith("/" + slug)
    return response.json()


def test_every_frame_has_a_line_with_its_time_and_its_people(jobs: Running, clip: Path) -> None:
    job = submit(jobs.http, clip, name="walk.mp4", smooth=False)
    done = wait_for(jobs.http, job["id"], "done")
    JobReply.model_validate(done)
    assert (done["frames"], done["position"], done["total"], done["progress"]) == (COUNT, COUNT, COUNT, 1.0)
    assert done["error"] is None
    assert done["started"] >= done["created"]
    assert done["expires"] > done["ended"] > done["started"]
    assert done["model"]["name"] == "student-s"
    assert (done["restarts"], done["name"]) == (0, "walk.mp4")
    found = lines(jobs.http, job["id"])
    assert [it["frame"] for it in found] == list(range(COUNT))
    assert [it["time_ms"] for it in found] == [pytest.approx(1000 * i / FPS, abs=0.01) for i in range(COUNT)]
    assert {(it["image"]["width"], it["image"]["height"]) for it in found} == {DETECTOR_SIZE}
    assert [len(it["poses"]) for it in found[:9]] == [1] * 9
    assert [len(found[i]["poses"]) for i in (19, 29)] == [2, 2], "the detector runs in every tenth frame at least"
    for i in [*range(20), *range(26, COUNT)]:  # in between one person is away
        for pose in found[i]["poses"]:
            x, y, *_ = pose["keypoints"][0]
            nearest = min(people(i), key=lambda it: abs(it.keypoints[0] - (x, y)).sum())
            assert abs(nearest.keypoints - [it[:2] for it in pose["keypoints"]]).max() < 3
    assert {pose["id"] for line in found for pose in line["poses"]} == {"1", "2"}


@pytest.mark.parametrize("form", ["multipart", "octets", "http", "file"])
def test_every_way_of_sending_gives_the_same_lines(jobs: Running, clip: Path, form: str, file_host: str) -> None:
    query = {"every": 10}
    if form == "multipart":
        response = jobs.http.post("/jobs", files={"video": ("C:\\dir\\walk 1.mp4", clip.read_bytes())}, params=query)
    elif form == "octets":
        pieces = (clip.read_bytes()[i : i + 5000] for i in range(0, clip.stat().st_size, 5000))
        response = jobs.http.post("/jobs", content=pieces, params=query)  # chunked, without a length or a type
    elif form == "file":
        response = jobs.http.post("/jobs", json={"url": clip.as_uri()}, params=query)
    else:
        url = f"{file_host}/walk.mp4?token=secret"
        response = jobs.http.post("/jobs", json={"url": url, "name": "a/b/c.mp4", "options": query})
    assert response.status_code == 202, response.text
    job = response.json()
    names = {"multipart": "walk 1.mp4", "octets": "video", "http": "c.mp4", "file": "walk.mp4"}
    assert job["name"] == names[form]
    assert "secret" not in json.dumps(job)
    wait_for(jobs.http, job["id"], "done")
    assert [it["frame"] for it in lines(jobs.http, job["id"])] == [0, 10, 20]


def test_max_fps_and_options_of_a_picture(jobs: Running, clip: Path) -> None:
    job = submit(jobs.http, clip, max_fps=5, track=False, max_people=1, model="teacher")
    done = wait_for(jobs.http, job["id"], "done")
    found = lines(jobs.http, job["id"])
    assert [it["frame"] for it in found] == [0, 5, 10, 15, 20, 25]
    assert {len(it["poses"]) for it in found} == {1}
    assert {it["id"] for line in found for it in line["poses"]} == {None}
    assert done["model"]["name"] == "teacher"
    assert done["options"]["max_people"] == 1
    assert "format" not in done["options"], "it has no effect"


def test_lines_can_be_read_as_they_come_and_in_parts(jobs: Running, clip: Path) -> None:
    job = submit(jobs.http, clip)
    with jobs.http.stream("GET", f"/jobs/{job['id']}/result", params={"follow": True}) as response:
        followed = [json.loads(it) for it in response.iter_lines()]
    assert [it["frame"] for it in followed] == list(range(COUNT))
    whole = jobs.http.get(f"/jobs/{job['id']}/result")
    assert 'filename="video.jsonl"' in whole.headers["content-disposition"]
    part = jobs.http.get(f"/jobs/{job['id']}/result", headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, whole.content[100:])
    more = jobs.http.get(f"/jobs/{job['id']}/result", headers={"Range": f"bytes={len(whole.content)}-"})
    assert more.status_code == 416  # nothing new


def test_what_is_sent_while_a_job_runs_is_the_beginning_of_the_whole(jobs: Running, clip: Path) -> None:
    sizes: set[int] = set()
    while len(sizes) < 4:  # of one job or several, on a machine where one is done before it is asked for
        job, seen = submit(jobs.http, clip), []
        while jobs.http.get(f"/jobs/{job['id']}").json()["state"] != "done":
            seen += [jobs.http.get(f"/jobs/{job['id']}/result") for _ in range(20)]
        whole = jobs.http.get(f"/jobs/{job['id']}/result").content
        for response in seen:
            assert response.status_code == 200
            assert whole.startswith(response.content)
            assert response.content[-1:] in {b"", b"\n"}
            sizes.add(len(response.content))


def test_a_cancelled_job_keeps_its_lines_and_a_deleted_one_nothing(jobs: Running, clip: Path) -> None:
    folder = jobs.app.state.jobs.path
    running, *others, waiting = (submit(jobs.http, clip) for _ in range(5))
    response = jobs.http.post(f"/jobs/{waiting['id']}/cancel")
    assert response.json()["state"] == "cancelled"
    assert wait_for(jobs.http, waiting["id"], "cancelled")["frames"] == 0
    assert jobs.http.post(f"/jobs/{waiting['id']}/cancel").status_code == 200
    assert jobs.http.delete(f"/jobs/{running['id']}").status_code == 204
    for job in others:
        jobs.http.delete(f"/jobs/{job['id']}")
    problem_of(jobs.http.get(f"/jobs/{running['id']}"), 404, "unknown-job")
    problem_of(jobs.http.delete(f"/jobs/{running['id']}"), 404, "unknown-job")
    listed = jobs.http.get("/jobs").json()["jobs"]
    assert waiting["id"] in [it["id"] for it in listed]
    assert [it["created"] for it in listed] == sorted((it["created"] for it in listed), reverse=True)
    time.sleep(0.2)
    assert not [it for it in folder.iterdir() if running["id"] in it.name]


def test_limits_are_told_at_once(jobs: Running, tmp_path: Path) -> None:
    def refused(status: int, slug: str, content: bytes) -> dict[str, Any]:
        before = sorted(it.name for it in jobs.app.state.jobs.path.iterdir())
        found = problem_of(
            jobs.http.post("/jobs", content=content, headers={"Content-Type": "video/mp4"}), status, slug
        )
        assert sorted(it.name for it in jobs.app.state.jobs.path.iterdir()) == before, "nothing is left half-written"
        return found

    assert refused(413, "video-too-large", bytes(1_000_001))["limit"] == "bytes"
    chunks = (bytes(100_000) for _ in range(11))
    assert refused(413, "video-too-large", chunks)["maximum"] == 1_000_000  # type: ignore[arg-type]
    long = write_video(tmp_path / "long.mp4", 61).read_bytes()
    assert refused(413, "video-too-large", long)["got"] == 61
    slow = write_video(tmp_path / "slow.mp4", 25, fps=1).read_bytes()
    assert refused(413, "video-too-large", slow)["limit"] == "seconds"
    refused(400, "empty-body", b"")
    refused(422, "video-unreadable", b"not a video" * 100)
    refused(422, "video-unreadable", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    cut = long[: len(long) // 2]
    refused(422, "video-unreadable", cut)


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [True, False])
def test_an_upload_that_stops_leaves_nothing(models_dir: Path, tmp_path: Path, leaves: bool) -> None:
    folder = tmp_path / "jobs"
    with (
        serving(Settings(models_dir=models_dir, jobs_dir=folder, upload_s=1)) as running,
        socket.create_connection(("127.0.0.1", httpx.URL(running.url).port)) as client,
    ):
        head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/mp4\r\nContent-Length: 3000000\r\n\r\n"
        client.sendall(head.encode() + bytes(1_500_000))
        eventually(lambda: any(it.name.startswith(".new-") for it in folder.iterdir()))
        if leaves:
            client.close()
        else:
            client.settimeout(30)
            assert client.recv(65_536).startswith(b"HTTP/1.1 408")
        eventually(lambda: not any(it.name.startswith(".new-") for it in folder.iterdir()))
        assert running.http.get("/jobs").json()["jobs"] == []


def test_bad_requests_are_told_at_once(jobs: Running, clip: Path) -> None:
    video = clip.read_bytes()

    def post(**request: Any) -> httpx.Response:
        return jobs.http.post("/jobs", **({"content": video, "headers": {"Content-Type": "video/mp4"}} | request))

    problem_of(post(params={"every": 0}), 422, "bad-parameter")
    problem_of(post(params={"frames": 1}), 422, "bad-parameter")
    detail = problem_of(post(params={"format": "coco"}), 422, "bad-parameter")["detail"]
    assert "'format': no format here" in detail
    assert "/jobs/{id}/result" in detail
    problem_of(post(params={"model": "nobody"}), 404, "unknown-model")
    problem_of(post(headers={"Content-Type": "text/plain"}), 415, "unsupported-type")
    problem_of(post(headers={"Content-Type": "video/mp4", "Content-Encoding": "gzip"}), 415, "unsupported-type")
    problem_of(post(headers={"Origin": "https://evil.example"}), 403, "jobs-disabled")
    problem_of(jobs.http.post("/jobs", files={"image": video}), 422, "bad-parameter")
    problem_of(jobs.http.post("/jobs", files=[("video", video), ("video", video)]), 400, "malformed-request")
    for slow in (b"\r\n--bx" * 90_000, b"\r\n--b" + b" " * 500_000):  # the parser would need the loop for long
        form = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n' + slow
        response = jobs.http.post("/jobs", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert "boundary, got" in problem_of(response, 400, "malformed-request")["detail"]
    headers = {"Content-Type": f"multipart/form-data; boundary={300 * 'b'}"}
    problem_of(jobs.http.post("/jobs", content=b"x", headers=headers), 400, "malformed-request")
    problem_of(
        jobs.http.post("/jobs", content=b"{", headers={"Content-Type": "application/json"}), 400, "malformed-request"
    )
    problem_of(jobs.http.post("/jobs", json={"uri": "x"}), 422, "bad-parameter")
    problem_of(jobs.http.post("/jobs", json={"url": "http://10.1.2.3/a.mp4"}), 403, "source-forbidden")
    problem_of(jobs.http.post("/jobs", json={"url": "rtsp://127.0.0.1/a"}), 422, "bad-parameter")
    problem_of(jobs.http.get("/jobs/nobody/result"), 404, "unknown-job")
    problem_of(jobs.http.get("/jobs/../jobs/x%2F..%2Fy"), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "said"), [("/cut", "Connection reset"), ("/none.mp4", "404"), ("http://127.0.0.1:9/a.mp4", "refused")]
)
def test_a_job_whose_video_cannot_be_fetched_fails_with_a_problem(
    jobs: Running, file_host: str, path: str, said: str
) -> None:
    url = path if path.startswith("http") else file_host + path
    job = jobs.http.post("/jobs", json={"url": url}).json()
    failed = wait_for(jobs.http, job["id"], "failed")
    assert failed["error"]["type"] == "/problems/video-unreadable"
    assert failed["error"]["instance"] == f"/jobs/{job['id']}"
    assert said in failed["error"]["detail"]
    assert lines(jobs.http, job["id"]) == []


def test_metrics_count_jobs_and_frames(jobs: Running, clip: Path) -> None:
    job = submit(jobs.http, clip, every=15)
    wait_for(jobs.http, job["id"], "done")
    jobs.app.state.job_runner.wake()
    time.sleep(0.3)
    text = jobs.http.get("/metrics").text
    assert 'posewright_jobs{state="done"}' in text
    assert 'posewright_running_calls{lane="background"} 0.0' in text
    (frames,) = (it for it in text.splitlines() if it.startswith("posewright_job_frames_total"))
    assert float(frames.split()[1]) >= 2


def test_without_a_folder_there_are_no_jobs(server: Running) -> None:
    for method, path in (("POST", "/jobs"), ("GET", "/jobs"), ("GET", "/jobs/x"), ("DELETE", "/jobs/x")):
        assert "--jobs-dir" in problem_of(server.http.request(method, path), 403, "jobs-disabled")["detail"]


def test_a_key_sees_its_own_jobs_only(models_dir: Path, tmp_path: Path, clip: Path) -> None:
    keys = {name: f"{name}-0123456789abcdef" for name in ("alpha", "beta")}
    listed = SecretStr(",".join(f"{name}:{key}" for name, key in keys.items()))
    with serving(Settings(models_dir=models_dir, jobs_dir=tmp_path / "jobs", api_keys=listed)) as running:
        assert running.http.get("/jobs").status_code == 401
        alpha, beta = (httpx.Client(base_url=running.url, headers={"X-API-Key": key}) for key in keys.values())
        with alpha, beta:
            job = submit(alpha, clip, every=10)
            wait_for(alpha, job["id"], "done")
            assert [it["id"] for it in alpha.get("/jobs").json()["jobs"]] == [job["id"]]
            assert beta.get("/jobs").json()["jobs"] == []
            for method, path in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
                problem_of(beta.request(method, f"/jobs/{job['id']}{path}"), 404, "unknown-job")
            assert alpha.delete(f"/jobs/{job['id']}").status_code == 204


def test_results_expire_and_the_disk_is_bounded(models_dir: Path, tmp_path: Path, clip: Path) -> None:
    size = clip.stat().st_size
    settings = Settings(models_dir=models_dir, jobs_dir=tmp_path / "jobs", jobs_max_bytes=3 * size, jobs_queue_size=2)
    with serving(settings) as running:
        job = submit(running.http, clip, every=10)
        wait_for(running.http, job["id"], "done")
        other = submit(running.http, clip, every=10)
        wait_for(running.http, other["id"], "done")
        full = running.http.post("/jobs", content=clip.read_bytes(), headers={"Content-Type": "video/mp4"})
        assert problem_of(full, 507, "jobs-disk-full")["max_bytes"] == 3 * size
        assert {it.name[0] for it in settings.jobs_dir.iterdir()} <= set("0123456789abcdefl")
    with serving(settings.model_copy(update={"jobs_keep_hours": 1e-6})) as running:
        deadline_s = time.monotonic() + 30
        while running.http.get("/jobs").json()["jobs"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert [it.name for it in settings.jobs_dir.iterdir()] == ["lock"]


@pytest.mark.slow
def test_a_stopping_server_ends_the_connections_that_follow_and_keeps_the_job(
    models_dir: Path, tmp_path: Path, clip: Path
) -> None:
    settings = Settings(models_dir=models_dir, jobs_dir=tmp_path / "jobs", stop_s=20)
    with serving(settings) as running:
        job = submit(running.http, clip)
        with running.http.stream("GET", f"/jobs/{job['id']}/result", params={"follow": True}) as response:
            followed = response.iter_lines()
            assert json.loads(next(followed))["frame"] == 0
            began_s = time.monotonic()
            running.stop()
            count = 1 + sum(1 for _ in followed)
    assert time.monotonic() - began_s < settings.stop_s - 5
    kept = json.loads((settings.jobs_dir / job["id"] / "job.json").read_text())  # type: ignore[operator]
    assert kept["state"] in {"queued", "done"}
    assert count <= kept["frames"]


def test_too_many_waiting_jobs_are_refused(models_dir: Path, tmp_path: Path, clip: Path) -> None:
    with serving(Settings(models_dir=models_dir, jobs_dir=tmp_path / "jobs", jobs_queue_size=1)) as running:
        submit(running.http, write_video(tmp_path / "long.mp4", 150))
        response = running.http.post("/jobs", content=clip.read_bytes(), headers={"Content-Type": "video/mp4"})
        assert problem_of(response, 503, "queue-full")["capacity"] == 1
        assert response.headers["Retry-After"]


def test_lines_have_covariances_when_asked(jobs: Running, tmp_path: Path) -> None:
    video = write_video(tmp_path / "short.mp4", 3)
    refused = jobs.http.post("/jobs", content=video.read_bytes(), params={"model": "teacher", "covariance": "true"})
    assert "expected a model whose manifest has a covariance, got 'teacher'" in refused.json()["detail"]
    job = submit(jobs.http, video, covariance="true")["id"]
    wait_for(jobs.http, job, "done")
    poses = [pose for line in lines(jobs.http, job) for pose in line["poses"]]
    assert [len(it["covariances"]) for it in poses] == [17] * 3
    assert all(xx * yy > xy**2 for it in poses for xx, xy, yy in it["covariances"])
