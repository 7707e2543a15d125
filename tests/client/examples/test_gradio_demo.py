"""``gradio_demo.py`` as a program, used through Gradio's HTTP API."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests import spots
from tests.client.examples.conftest import EXAMPLES
from tests.client.python310 import PYTHON310, environment, skip_without
from tests.conftest import PATIENCE_S, Running
from tests.spots import SURE

pytestmark = pytest.mark.slow


@pytest.fixture
def demo(server: Running, tmp_path: Path) -> Iterator[httpx.Client]:
    skip_without("gradio")
    variables = environment(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(tmp_path), PYTHONUNBUFFERED="1")
    command = [str(PYTHON310), str(EXAMPLES / "gradio_demo.py"), "--url", server.url]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)
            found = next((it for it in lines if it), None)
            assert found is not None, "the demo ended"
            with httpx.Client(base_url=found[0], timeout=PATIENCE_S) as http:
                yield http
        finally:
            process.terminate()


def ask(demo: httpx.Client, *inputs: Any) -> tuple[str, Any]:
    """Call the demo's function; returns the event that ends the call, and its data."""
    call = demo.post("/gradio_api/call/find_people", json={"data": inputs}).raise_for_status().json()
    stream = demo.get(f"/gradio_api/call/find_people/{call['event_id']}").raise_for_status().text
    *_, (event, data) = re.findall(r"event: (\w+)\ndata: (.*)", stream)
    return event, json.loads(data)


def test_a_picture_is_drawn_and_its_keypoints_are_listed(demo: httpx.Client) -> None:
    upload = demo.post("/gradio_api/upload", files={"files": ("photo.png", spots.encode(spots.paint(SURE)))})
    photo = {"path": upload.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}

    event, (picture, table) = ask(demo, photo, 0.3)

    assert event == "complete"
    content = demo.get(httpx.URL(picture["url"]).raw_path.decode()).raise_for_status().content
    drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == spots.paint().shape
    x, y = ((SURE.keypoints[5] + SURE.keypoints[6]) / 2).round().astype(int)  # between the shoulders
    assert np.abs(drawn[y, x].astype(int) - spots.BACKGROUND).max() > 60
    assert len(table["data"]) == 17
    nose = table["data"][0]
    assert nose[2] == "nose"
    assert np.abs(np.array(nose[3:5], float) - SURE.keypoints[0]).max() < 1.5
    assert ask(demo, None, 0.3)[0] == "error"
