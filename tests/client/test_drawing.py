"""`draw` and `show`."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import posewright_client as pw
from posewright_client import KEYPOINTS, Keypoint, ModelRef, Pose, Prediction
from tests import spots
from tests.conftest import Running
from tests.spots import SURE

PIXELS = spots.paint(SURE)
HEIGHT, WIDTH, _ = PIXELS.shape


def pose(**fields: Any) -> Pose:
    keypoints = tuple(
        Keypoint(name, float(x), float(y), 0.9) for name, (x, y) in zip(KEYPOINTS, SURE.keypoints, strict=True)
    )
    x, y, width, height = SURE.box_xywh
    return Pose(**{"id": None, "score": 0.9, "box": (x, y, width, height), "keypoints": keypoints} | fields)


def prediction(*poses: Pose, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Prediction:
    return Prediction("id", ModelRef("m", "1", "student"), size, poses, {}, {})


def shoulder_changed(drawn: np.ndarray, scale: float = 1.0) -> bool:
    """Whether the line between the shoulders, where there is no spot, was drawn."""
    x, y = (SURE.keypoints[5] + SURE.keypoints[6]) / 2
    x, y = round(x * scale), round(y * scale)
    return bool(np.abs(drawn[y - 2 : y + 3, x].astype(int) - spots.BACKGROUND).max() > 40)


class TestDraw:
    def test_the_picture_stays_as_it_was(self) -> None:
        before = PIXELS.copy()
        drawn = pw.draw(PIXELS, prediction(pose()))
        assert shoulder_changed(drawn)
        assert np.array_equal(PIXELS, before)
        assert (drawn.shape, drawn.dtype) == (PIXELS.shape, np.uint8)

    def test_every_kind_of_picture_is_drawn_alike(self, tmp_path: Path) -> None:
        content = spots.encode(PIXELS)
        (tmp_path / "photo.png").write_bytes(content)
        expected = pw.draw(PIXELS, [pose()])
        pictures = (
            content,
            bytearray(content),
            tmp_path / "photo.png",
            str(tmp_path / "photo.png"),
            io.BytesIO(content),
        )
        for picture in pictures:
            assert np.array_equal(pw.draw(picture, [pose()]), expected)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_an_image_of_pillow_becomes_another_one_that_is_upright(self, orientation: int) -> None:
        stored = spots.encode(spots.stored_as(PIXELS, orientation), "PNG", orientation)
        image = Image.open(io.BytesIO(stored))
        drawn = pw.draw(image, prediction(pose()))
        assert isinstance(drawn, Image.Image)
        assert (drawn.mode, drawn.size) == ("RGB", (WIDTH, HEIGHT))
        assert np.array_equal(np.asarray(drawn), pw.draw(PIXELS, prediction(pose())))
        assert 0x0112 not in drawn.getexif()

    def test_nobody_is_drawn_below_the_threshold(self) -> None:
        assert np.array_equal(pw.draw(PIXELS, [pose()], threshold=0.95), PIXELS)
        assert np.array_equal(pw.draw(PIXELS, prediction()), PIXELS)

    def test_the_ids_of_tracked_people_are_written(self) -> None:
        assert not np.array_equal(pw.draw(PIXELS, [pose(id="7")]), pw.draw(PIXELS, [pose()]))

    def test_another_picture_than_the_predicted_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="predicted picture, of 384 x 640 px, got one of 640 x 384 px"):
            pw.draw(PIXELS, prediction(pose(), size=(HEIGHT, WIDTH)))

    def test_what_is_no_picture_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text.jpg").write_text("text")
        with pytest.raises(pw.PosewrightError, match=r"text\.jpg: OpenCV cannot read"):
            pw.draw(tmp_path / "text.jpg", [])
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) RGB"):
            pw.draw(PIXELS.astype(float), [])
        with pytest.raises(pw.PosewrightError, match="bytes"):
            pw.draw(b"", [])

    def test_what_the_server_found_is_drawn(self, server: Running) -> None:
        with pw.Client(server.url) as client:
            found = client.predict(PIXELS)
            (result,) = client.stream([pw.Frame(PIXELS)])
        assert shoulder_changed(pw.draw(PIXELS, found))
        assert shoulder_changed(pw.draw(PIXELS, result))
        assert not np.array_equal(pw.draw(PIXELS, result), pw.draw(PIXELS, found))  # an id is written


NOTEBOOK = """
from posewright_client import Client, show
with Client({url!r}) as client:
    prediction = client.predict({photo!r})
show({photo!r}, prediction)
show({photo!r}, prediction, longest_side=320)
"""


class TestShow:
    def test_a_notebook_shows_the_skeletons(self, server: Running, tmp_path: Path) -> None:
        pytest.importorskip("ipykernel", reason="needs ipykernel, which runs notebooks")
        nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which runs notebooks")
        nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
        photo = tmp_path / "photo.png"
        photo.write_bytes(spots.encode(PIXELS))
        source = NOTEBOOK.format(url=server.url, photo=str(photo))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])

        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()

        for output, scale in zip(notebook.cells[0].outputs, (1.0, 320 / WIDTH), strict=True):
            assert output.output_type == "display_data"
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"]))))
            assert shown.shape == (round(HEIGHT * scale), round(WIDTH * scale), 3)
            assert shoulder_changed(shown, scale)

    def test_without_ipython_it_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "IPython.display", None)
        with pytest.raises(pw.MissingExtra, match="pip install ipython"):
            pw.show(PIXELS, [])
