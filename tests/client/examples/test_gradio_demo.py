"""``gradio_demo.py`` as a program, used through Gradio's own client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import spots
from tests.client.examples.conftest import EXAMPLES
from tests.conftest import Running
from tests.spots import SURE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Gradio's own


@pytest.fixture
def address(server: Running, tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("gradio", reason="needs gradio")
    environment = os.environ | {
        "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    command = [sys.executable, str(EXAMPLES / "gradio_demo.py"), "--url", server.url]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(
                (match for line in process.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line))), None
            )
            assert found is not None, "the demo ended"
            yield found[0]
        finally:
            process.terminate()


def test_a_picture_is_drawn_and_its_keypoints_are_listed(address: str, tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    photo = tmp_path / "photo.png"
    photo.write_bytes(spots.encode(spots.paint(SURE)))
    client = gradio_client.Client(address, verbose=False, download_files=str(tmp_path))

    drawn_path, table = client.predict(gradio_client.handle_file(str(photo)), 0.3, api_name="/find_people")

    drawn = np.asarray(Image.open(drawn_path).convert("RGB"))
    assert drawn.shape == spots.paint().shape
    x, y = ((SURE.keypoints[5] + SURE.keypoints[6]) / 2).round().astype(int)  # between the shoulders
    assert np.abs(drawn[y, x].astype(int) - spots.BACKGROUND).max() > 60
    assert len(table["data"]) == 17
    nose = table["data"][0]
    assert nose[2] == "nose"
    assert np.abs(np.array(nose[3:5], float) - SURE.keypoints[0]).max() < 1.5

    with pytest.raises(gradio_client.exceptions.AppError, match="Choose a picture"):
        client.predict(None, 0.3, api_name="/find_people")
