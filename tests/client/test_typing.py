"""What type checkers say about programs that use the client, and about the examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.examples.conftest import EXAMPLES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ABSENT = ("IPython", "fiftyone", "gradio", "rclpy", "sensor_msgs", "std_msgs")
"""What the examples use, and may be installed or not: the same findings with and without them."""

RIGHT = """
import io
from pathlib import Path
from typing import assert_type

import numpy as np
from fastapi import UploadFile
from numpy.typing import NDArray
from PIL import Image
from posewright_client import AsyncClient, Client, Frame, Options, Pose, Prediction, ProblemError, StreamResult
from posewright_client import draw, show

pixels = np.zeros((4, 4, 3), np.uint8)
with Client() as client, open("photo.jpg", "rb") as file:
    prediction = client.predict("photo.jpg", model="student-s", min_score=0.5, boxes=[[1, 2, 3, 4]], max_people=None)
    assert_type(prediction, Prediction)
    assert_type(prediction[0], Pose)
    assert_type(prediction[:2], tuple[Pose, ...])
    assert_type([pose for pose in prediction], list[Pose])
    pictures = (Path("a"), bytearray(), memoryview(b""), file, io.BytesIO(), pixels, Image.open("a"))
    assert_type(client.predict_batch(pictures), list[Prediction | ProblemError])
    client.predict(Image.new("L", (1, 1)), **Options(max_people=1))
    client.compare(pixels, keypoint_threshold=0.2)
    for result in client.stream([Frame(pixels), Frame(Image.new("L", (1, 1)))], policy="all", max_fps=None):
        assert_type(result, StreamResult)
        assert_type(draw(pixels, result), NDArray[np.uint8])
    assert_type(draw(Image.new("L", (1, 1)), prediction), Image.Image)
    assert_type(draw(Image.open("a.jpg"), prediction), Image.Image)
    assert_type(draw("photo.jpg", prediction.poses), NDArray[np.uint8])
    show("photo.jpg", prediction)


async def upload(client: AsyncClient, file: UploadFile) -> Prediction:
    return await client.predict(file)
"""
WRONG = {
    'client.predict("a", min_scor=0.5)': "min_scor",
    'client.predict("a", max_people="1")': "max_people",
    'client.predict(open("a"))': "TextIOWrapper",
    "client.predict(3)": "int",
    "client.stream([], polcy='all')": "polcy",
    "client.stream([], policy='some')": "policy",
}


def check(tmp_path: Path, *programs: Path) -> list[str]:
    """Run mypy as a user would, without the project's settings; returns the errors."""
    api = pytest.importorskip("mypy.api", reason="needs mypy")
    settings = tmp_path / "mypy.ini"
    skipped = [f"[mypy-{name}.*]\nignore_missing_imports = true\nfollow_imports = skip\n" for name in ABSENT]
    settings.write_text("[mypy]\nstrict = true\ndisallow_subclassing_any = false\n" + "".join(skipped))
    cache = ROOT / ".mypy_cache" / "users"
    said, failed, _ = api.run([f"--config-file={settings}", f"--cache-dir={cache}", *map(str, programs)])
    assert not failed
    return [line for line in said.splitlines() if ": error:" in line]


def test_a_program_of_a_user_is_typed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RIGHT)
    assert check(tmp_path, program) == []


def test_mistakes_are_found(tmp_path: Path) -> None:
    program = tmp_path / "mistakes.py"
    program.write_text("from posewright_client import Client\nclient = Client()\n" + "\n".join(WRONG))
    errors = check(tmp_path, program)
    for i, word in enumerate(WRONG.values()):
        assert any(f"mistakes.py:{3 + i}: error:" in line and word in line for line in errors), errors


def test_the_examples_are_typed(tmp_path: Path) -> None:
    assert "\n".join(check(tmp_path, *sorted(EXAMPLES.glob("*.py")))) == ""
