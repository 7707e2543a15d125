"""Pictures of MJPEG servers that separate them in ways of their own."""

from __future__ import annotations

import io
import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.video import mjpeg_parts
from service.video.allowed_urls import AllowedUrls
from service.video.errors import VideoUnreadable
from service.video.frames import Video, VideoLimits
from service.video.mjpeg_parts import MjpegParts

pytest.importorskip("av", reason="PyAV (pip install 'posewright[video]') is not installed")
HERE = AllowedUrls(("127.0.0.1",))
MIXED = "multipart/x-mixed-replace; boundary=frame"


def jpeg(grey: int, **options: object) -> bytes:
    """A picture with a gradient, whose first pixel tells which one it is, and with a thumbnail in it if asked."""
    pixels = np.full((48, 64, 3), grey, np.uint8)
    pixels[:, 32:] = np.arange(32, dtype=np.uint8)[:, None] * 8
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


GREYS = [0, 40, 80, 120, 160]
JPEGS = [jpeg(it) for it in GREYS]


def parts(
    boundary: str = "--frame", kind: str | None = "image/jpeg", length: int | None = 0, newline: str = "\r\n"
) -> bytes:
    """The pictures as parts; ``length`` is added to what Content-Length says, None leaves it out."""
    body = b""
    for picture in JPEGS:
        head = [boundary]
        head += [] if kind is None else [f"Content-Type: {kind}"]
        head += [] if length is None else [f"Content-Length: {len(picture) + length}"]
        body += newline.join([*head, "", ""]).encode() + picture + newline.encode()
    return body


def seen(body: bytes, kind: str = MIXED) -> tuple[list[int], str]:
    """What a camera that answers so is seen as: the first pixel of each frame, and why it ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + body)

        thread = threading.Thread(target=serve)
        thread.start()
        url = HERE.require(f"http://127.0.0.1:{listener.getsockname()[1]}/video")
        video = Video(url, HERE, VideoLimits(open_s=5, read_s=5))
        found: list[int] = []
        try:
            assert video.open().live
            found += [int(it.pixels()[0, 0, 0]) for it in video.frames()]
        except VideoUnreadable as error:
            return found, error.detail
        finally:
            thread.join(30)
        return found, ""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (parts(length=None), MIXED),
        (parts(length=None, newline="\n"), MIXED),
        (parts(boundary="frame"), MIXED),
        (parts(boundary="--frame"), "multipart/x-mixed-replace; boundary=--frame"),
        (parts(), "multipart/x-mixed-replace"),
        (parts(kind="image/jpg"), MIXED),
        (parts(kind="image/jpeg; charset=utf-8"), MIXED),
        (parts(kind=None), MIXED),
        (b"\r\n" + parts(), MIXED),
        (b"a preamble\r\n" + parts(), MIXED),
        (parts() + b"--frame--\r\n", MIXED),
        (parts(length=-10), MIXED),
        (parts(length=10), MIXED),
        (parts().replace(b"--frame", b"--frame\r\nContent-Type: text/plain\r\n\r\nhello\r\n--frame"), MIXED),
        (b"".join(JPEGS), MIXED),
        (b"".join(JPEGS), "video/x-motion-jpeg"),
    ],
    ids=[
        "no length", "no length, LF", "no dashes", "dashes in the name", "no boundary named", "image/jpg", "parameters",
        "no type", "an empty line first", "a preamble", "a last boundary", "too short a length", "too long a length",
        "texts between", "no parts", "no parts, no multipart",
    ],
)  # fmt: skip
def test_all_pictures_are_found(body: bytes, kind: str) -> None:
    assert seen(body, kind) == (GREYS, "")


def test_a_picture_that_breaks_off_is_left_out() -> None:
    body = parts(length=None).replace(JPEGS[2], JPEGS[2][: len(JPEGS[2]) * 2 // 3])
    assert seen(body) == (GREYS[:2] + GREYS[3:], "")


def from_pieces(body: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    file, waiting = io.BytesIO(body), iter(sizes)
    return lambda size: file.read(min(size, next(waiting, 65_536)))


@given(
    between=st.lists(
        st.sampled_from([b"", b"\r\n", b"--x\r\n\r\n", b"\xff", b"\xff\xd8", b"\xff\xd9\xff"]), min_size=3
    ),
    sizes=st.lists(st.integers(1, 900), max_size=20),
    ends=st.sampled_from([b"", b"\xff\xd8\xff\xe0\x00\x10JFIF"]),
)
def test_pictures_do_not_depend_on_where_the_connection_cuts_them(
    between: list[bytes], sizes: list[int], ends: bytes
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a picture in a picture " + JPEGS[0].decode("latin-1")
    pictures = [JPEGS[1], jpeg(7, progressive=True), jpeg(9, exif=exif.tobytes())]
    body = b"".join(noise + picture for noise, picture in zip(between, pictures, strict=False)) + ends
    file = MjpegParts(from_pieces(body, sizes))
    written = b"".join(iter(lambda: file.read(1000), b""))
    expected = b""
    for picture in pictures:
        expected += b"--picture\r\nContent-Type: image/jpeg\r\n"
        expected += f"Content-Length: {len(picture)}\r\n\r\n".encode() + picture + b"\r\n"
    assert written == expected


def test_a_picture_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mjpeg_parts, "MAX_PICTURE", 1000)
    pieces = itertools.chain([JPEGS[0][:-10]], itertools.repeat(bytes(100)))
    file = MjpegParts(lambda _: next(pieces))
    with pytest.raises(OSError, match="at most 1000 bytes"):
        file.read(10)
