"""Every kind of picture that a call accepts."""

from __future__ import annotations

import asyncio
import io
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import UploadFile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import posewright_client as pw
from posewright_client import _pictures
from service.inference import image as service_image
from tests import spots
from tests.client.conftest import Ask
from tests.client.test_rest import PICTURE, PIXELS, assert_exact
from tests.conftest import Running
from tests.spots import SURE, UNSURE

BOTH = (SURE, UNSURE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(PICTURE)
    return path


@pytest.fixture
def open_picture(request: pytest.FixtureRequest, file: Path) -> Iterator[Any]:
    """A picture's file behind an object with ``read()``."""
    opened: dict[str, Callable[[], Any]] = {
        "file": lambda: file.open("rb"),
        "unbuffered": lambda: file.open("rb", buffering=0),
        "memory": lambda: io.BytesIO(PICTURE),
        "temporary": _temporary,
        "socket": _socket,
        "response": lambda: _response(file),
    }
    picture = opened[request.param]()
    yield picture
    assert not picture.closed or request.param == "response"  # the caller's to close
    picture.close()


def _temporary() -> Any:
    stored = tempfile.SpooledTemporaryFile(max_size=16)  # noqa: SIM115 - the fixture closes it
    stored.write(PICTURE)
    stored.seek(0)
    return stored


def _socket() -> Any:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            theirs.sendall(PICTURE)

    threading.Thread(target=send).start()
    with ours:
        return ours.makefile("rb")


def _response(file: Path) -> Any:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=file.parent)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/photo.png")
        finally:
            server.shutdown()


class TestFiles:
    @pytest.mark.parametrize(
        "open_picture", ["file", "unbuffered", "memory", "temporary", "socket", "response"], indirect=True
    )
    def test_an_object_that_is_read_is_a_picture(self, ask: Ask, server: Running, open_picture: Any) -> None:
        assert_exact(ask(server.url, "predict", open_picture), *BOTH)

    def test_every_call_reads_files(self, ask: Ask, server: Running, file: Path) -> None:
        with file.open("rb") as one, file.open("rb") as two, file.open("rb") as three:
            first, second = ask(server.url, "predict_batch", [one, two])
            assert_exact(ask(server.url, "compare", three).student, *BOTH)
        assert_exact(first, *BOTH)
        assert_exact(second, *BOTH)

    def test_streams_read_files_images_and_tensors(self, server: Running, file: Path) -> None:
        with file.open("rb") as opened, pw.Client(server.url) as client:
            frames = [pw.Frame(opened, 0), pw.Frame(Image.open(file), 40_000), pw.Frame(bytearray(PICTURE), 80_000)]
            results = list(client.stream(frames, policy="all", smooth=False))
        assert [result.problem for result in results] == [None] * 3
        for result in results:
            assert_exact(result, *BOTH, within_px=1.0)
            assert len(result) == 2

    @pytest.mark.parametrize("kind", [bytearray, memoryview])
    def test_bytes_of_any_kind_are_accepted(self, ask: Ask, server: Running, kind: type) -> None:
        assert_exact(ask(server.url, "predict", kind(PICTURE)), *BOTH)

    def test_a_file_is_read_from_its_position(self, ask: Ask, server: Running) -> None:
        file = io.BytesIO(b"header" + PICTURE)
        file.seek(6)
        assert_exact(ask(server.url, "predict", file), *BOTH)
        with pytest.raises(ValueError, match=r"BytesIO has no bytes left.*seek\(0\)"):
            ask(server.url, "predict", file)

    def test_text_is_refused(self, ask: Ask, server: Running, file: Path) -> None:
        with (
            file.open(encoding="ascii") as opened,
            pytest.raises(TypeError, match=r'text mode; open it with open\(path, "rb"\)'),
        ):
            ask(server.url, "predict", opened)
        with pytest.raises(TypeError, match="StringIO in text mode"):
            ask(server.url, "predict", io.StringIO("text"))

    def test_an_address_is_no_path(self, ask: Ask, server: Running) -> None:
        with pytest.raises(ValueError, match=r"got the address 'https://x/a\.jpg'; pass urllib\.request\.urlopen"):
            ask(server.url, "predict", "https://x/a.jpg")

    def test_what_read_returns_must_be_bytes(self, ask: Ask, server: Running) -> None:
        class NothingYet:
            def read(self) -> None:
                return None

        with pytest.raises(TypeError, match=r"expected bytes from the read\(\) of NothingYet, got NoneType"):
            ask(server.url, "predict", NothingYet())


class TestAsynchronousFiles:
    def test_the_asynchronous_client_reads_uploads_and_streams(self, server: Running) -> None:
        async def main() -> None:
            reader = asyncio.StreamReader()
            reader.feed_data(PICTURE)
            reader.feed_eof()
            async with pw.AsyncClient(server.url) as client:
                assert_exact(await client.predict(UploadFile(io.BytesIO(PICTURE))), *BOTH)
                assert_exact(await client.predict(reader), *BOTH)
                (first,) = await client.predict_batch([UploadFile(io.BytesIO(PICTURE))])
                assert_exact(first, *BOTH)
                assert_exact((await client.compare(UploadFile(io.BytesIO(PICTURE)))).student, *BOTH)

        asyncio.run(main())

    def test_the_blocking_client_says_what_to_do(self) -> None:
        upload = UploadFile(io.BytesIO(PICTURE))
        with pw.Client() as client, pytest.raises(TypeError, match=r"UploadFile is asynchronous; use .* AsyncClient"):
            client.predict(upload)
        assert _pictures.load(upload.file) == PICTURE


class TestPillow:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_orientation_is_applied_once(self, ask: Ask, server: Running, orientation: int) -> None:
        stored = spots.encode(spots.stored_as(PIXELS, orientation), "JPEG", orientation)
        image = Image.open(io.BytesIO(stored))
        prediction = ask(server.url, "predict", image)
        assert prediction.image_size == (640, 384)
        assert_exact(prediction, *BOTH)
        assert image.getexif()[0x0112] == orientation  # the caller's image is unchanged

    @given(
        mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
        orientation=st.integers(1, 8),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        seed=st.integers(0, 2**32 - 1),
        transparent=st.booleans(),
    )
    def test_its_pixels_are_those_that_the_server_would_decode(
        self, mode: str, orientation: int, size: tuple[int, int], seed: int, transparent: bool
    ) -> None:
        rng, (width, height) = np.random.default_rng(seed), size
        if mode == "I;16":
            image = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
        else:
            image = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8)).convert(mode)
        options: dict[str, Any] = {"transparency": 0} if mode == "P" and transparent else {}
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = io.BytesIO()
        image.save(stream, "PNG", exif=exif, **options)
        opened = Image.open(io.BytesIO(stream.getvalue()))
        expected = service_image.decode(stream.getvalue(), 10_000).pixels
        pixels = _pictures.to_pixels(opened)
        assert pixels.dtype == np.uint8
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).max() <= 1

    def test_other_modes_of_colour_are_converted(self, ask: Ask, server: Running) -> None:
        for mode in ("CMYK", "YCbCr", "HSV", "RGBX", "PA", "RGBa"):
            image = Image.fromarray(PIXELS).convert("RGBA" if mode == "RGBa" else "RGB")
            if mode == "PA":
                image = image.quantize(200).convert("PA")
            assert_exact(ask(server.url, "predict", image.convert(mode)), *BOTH)

    @pytest.mark.parametrize("mode", ["F", "I"])
    def test_numbers_without_a_range_are_refused(self, mode: str) -> None:
        with pytest.raises(ValueError, match=f"got {mode}, whose numbers have no fixed range"):
            _pictures.load(Image.new(mode, (3, 3)))

    def test_a_side_that_jpeg_cannot_hold_is_refused(self) -> None:
        with pytest.raises(pw.PosewrightError, match=r"\(65501, 1\) px as JPEG"):
            _pictures.load(Image.new("L", (65_501, 1)))

    def test_opencv_is_not_needed(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_pictures, "require_cv2", lambda _: pytest.fail("OpenCV was asked for"))
        with pw.Client(server.url) as client:
            assert_exact(client.predict(Image.fromarray(PIXELS)), *BOTH)


class TestArrays:
    def test_bgr_becomes_rgb_by_a_view(self, ask: Ask, server: Running) -> None:
        bgr = np.ascontiguousarray(PIXELS[..., ::-1])
        assert_exact(ask(server.url, "predict", bgr[..., ::-1]), *BOTH)

    def test_a_tensor_has_its_channels_first(self, ask: Ask, server: Running) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
        assert_exact(ask(server.url, "predict", tensor), *BOTH)
        for other in (tensor.float() / 255, torch.from_numpy(PIXELS), tensor[0]):
            with pytest.raises(ValueError, match=r"expected uint8 \(3, H, W\) RGB"):
                ask(server.url, "predict", other)
