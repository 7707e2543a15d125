"""Videos of people made of spots, and what tests of video jobs ask a server for."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.pose.types import Image
from tests import spots
from tests.spots import Person

av = pytest.importorskip("av", reason="PyAV is an extra: pip install 'posewright[video]'")
PATIENCE_S = 60.0
FPS = 25


def people(i: int) -> list[Person]:
    """One person walks all the time; another one comes in frame 9, is away in frames 20 to 22, and leaves."""
    found = [Person((100 + 2 * (i % 150), 188))]
    if 9 <= i < 60 and not 20 <= i < 23:
        found.append(Person((540 - 2 * i, 164)))
    return found


def picture(i: int) -> Image:
    return spots.paint(*people(i))


def write_video(path: Path, count: int, *, codec: str = "mpeg4", fps: int = FPS, every: int = 1) -> Path:
    """Write a video; the suffix decides the container. Frame i is shown at ``every`` * i / fps seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = spots.DETECTOR_SIZE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 6_000_000
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i * every, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def submit(http: httpx.Client, video: Path | bytes, **query: Any) -> dict[str, Any]:
    """Start a job; returns its first status."""
    content = video if isinstance(video, bytes) else video.read_bytes()
    response = http.post("/jobs", content=content, params=query, headers={"Content-Type": "video/mp4"})
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/jobs/{response.json()['id']}"
    assert response.json()["state"] == "queued"
    return response.json()


def wait_for(http: httpx.Client, job_id: str, *states: str, frames: int = 0) -> dict[str, Any]:
    """Wait until a job is in one of the states, or has ended, and has so many frames."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        found = http.get(f"/jobs/{job_id}").json()
        assert found["state"] in {"queued", "running", *states}, found
        if found["state"] in states and found["frames"] >= frames:
            return found
        assert time.monotonic() < end_s, found
        time.sleep(0.05)


def result(http: httpx.Client, job_id: str, **query: Any) -> httpx.Response:
    """Ask for a result until it is no longer pending."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        response = http.get(f"/jobs/{job_id}/result", params=query)
        if response.status_code != 503:
            return response
        assert time.monotonic() < end_s


def lines(http: httpx.Client, job_id: str, **query: Any) -> list[dict[str, Any]]:
    """Read the lines of a job."""
    response = http.get(f"/jobs/{job_id}/result", params=query)
    assert response.status_code == 200, response.text
    return [json.loads(it) for it in response.text.splitlines()]
