"""Frames of files and cameras, and that nothing waits for ever or leads elsewhere."""

from __future__ import annotations

import base64
import builtins
import hashlib
import http.server
import itertools
import logging
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ServiceError, TooLarge
from service.video.allowed_urls import AllowedUrls
from service.video.errors import SourceForbidden, VideoNotInstalled, VideoUnreadable
from service.video.frames import Video, VideoLimits, require_av
from service.video.rtsp_relay import RtspRelay
from tests import cameras
from tests.cameras import av

HERE = AllowedUrls(("127.0.0.1",))
QUICK = VideoLimits(open_s=2, read_s=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    cameras.write_video(folder / "walk.mp4", cameras.walk(20))
    return folder


def file_video(path: Path, **limits: Any) -> Video:
    allowed = AllowedUrls((f"file:{path.parent}",))
    return Video(allowed.require(path.as_uri()), allowed, VideoLimits(**limits))


def camera_video(url: str, limits: VideoLimits = QUICK) -> Video:
    return Video(HERE.require(url), HERE, limits)


def test_a_file_has_all_of_its_frames_with_their_times(folder: Path) -> None:
    video = file_video(folder / "walk.mp4")
    info = video.open()
    assert (info.live, info.fps, info.frame_count) == (False, cameras.FPS, 20)
    frames = list(video.frames())
    assert [it.index for it in frames] == list(range(20))
    assert [it.time_s for it in frames] == pytest.approx([i / cameras.FPS for i in range(20)], abs=1e-3)
    for frame, painted in zip(frames, cameras.walk(20), strict=True):
        pixels = frame.pixels()
        assert (pixels.shape, pixels.dtype) == (painted.shape, np.uint8)
        assert np.abs(pixels.astype(int) - painted).mean() < 6


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotated_video_is_upright(folder: Path, tmp_path: Path, quarters: int) -> None:
    """Telephones store pictures as the sensor lies, and a matrix in the track's header (ISO/IEC 14496-12, 8.3.2)."""
    (painted,) = cameras.walk(1)
    path = cameras.write_video(tmp_path / "rotated.mp4", [np.rot90(painted, quarters)])
    content = bytearray(path.read_bytes())
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarters]
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    video = file_video(path)
    video.open()
    (frame,) = video.frames()
    assert frame.pixels().shape == painted.shape
    assert np.abs(frame.pixels().astype(int) - painted).mean() < 6


def test_too_many_pixels_are_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match="640 x 384"):
        file_video(folder / "walk.mp4", max_pixels=100_000).open()


@pytest.mark.parametrize("content", [b"", b"no video", b"#EXTM3U\n#EXTINF:1\nfile:///etc/hostname\n"])
def test_other_files_are_unreadable_and_playlists_are_not_followed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoUnreadable):
        file_video(path).open()


def test_a_playlist_of_files_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {folder}/walk.mp4\n")
    with pytest.raises(VideoUnreadable):
        file_video(tmp_path / "list.mp4").open()


def test_a_damaged_file_gives_the_frames_that_it_has(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "walk.mp4").read_bytes())
    middle = content.index(b"mdat") + len(content) // 3
    content[middle : middle + 300] = bytes(300)
    (tmp_path / "damaged.mp4").write_bytes(content)
    video = file_video(tmp_path / "damaged.mp4")
    with suppress(VideoUnreadable):
        video.open()
        assert len(list(video.frames())) > 5


def test_an_mjpeg_camera_is_read_by_arrival_times() -> None:
    with cameras.mjpeg_camera() as camera:
        video = camera_video(camera.url)
        assert video.open().live
        frames = video.frames()
        seen = [next(frames) for _ in range(10)]
        assert seen[0].pixels().shape == (384, 640, 3)
        assert 0.2 < seen[-1].time_s - seen[0].time_s < 5
        video.close()
        assert list(frames) == []


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


BASIC = "Basic " + base64.b64encode(b"user:p@ss").decode()
DIGEST = 'response="' + md5(md5("user:camera:p@ss") + ":1234:" + md5("GET:/video")) + '"'
"""The answer to the challenge of `cameras.MjpegCamera` (RFC 2617, sec. 3.2.2.1)."""


@pytest.mark.parametrize("expected", [BASIC, DIGEST])
def test_credentials_are_sent_to_the_camera_and_shown_to_nobody(
    caplog: pytest.LogCaptureFixture, expected: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with cameras.mjpeg_camera(credentials=expected) as camera:
        video = camera_video(camera.url.replace("//", "//user:p%40ss@"))
        assert video.open().live
        video.close()
        list(video.frames())
        with pytest.raises(VideoUnreadable, match="401") as caught:
            camera_video(camera.url.replace("//", "//user:wr0ngs3cret@")).open()
    with pytest.raises(VideoUnreadable) as refused:
        camera_video("rtsp://user:wr0ngs3cret@127.0.0.1:1/wr0ngs3cret").open()
    for told in (caught.value.detail, refused.value.detail, caplog.text):
        assert "wr0ngs3cret" not in told


@pytest.mark.slow
def test_an_rtsp_camera_is_read(folder: Path) -> None:
    with cameras.rtsp_camera(folder / "walk.mp4") as camera:
        video = camera_video(camera.url, VideoLimits(open_s=10, read_s=5))
        assert video.open().live
        frames = video.frames()
        seen = [next(frames) for _ in range(25)]  # the file has 20
        assert seen[0].pixels().shape == (384, 640, 3)
        assert all(a.time_s < b.time_s for a, b in itertools.pairwise(seen))
        camera.kill()
        with suppress(VideoUnreadable):  # FFmpeg may also see a proper end
            assert len(list(frames)) < 25


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "camera.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += [
        "-subj",
        "/CN=camera",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(path),
        "-out",
        str(path),
    ]
    key = path.with_suffix(".key")
    command[command.index("-keyout") + 1] = str(key)
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_encrypted_cameras_need_a_valid_certificate(
    folder: Path, certificate: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = VideoLimits(open_s=10, read_s=5)
    with ExitStack() as stack:
        if scheme == "https":
            plain = stack.enter_context(cameras.mjpeg_camera()).port, "/"
        else:
            camera = stack.enter_context(cameras.rtsp_camera(folder / "walk.mp4"))
            plain = camera.port, camera.url.partition(str(camera.port))[2]
        port = stack.enter_context(cameras.encrypted(plain[0], certificate))
        url = f"{scheme}://127.0.0.1:{port}{plain[1]}"
        with pytest.raises(VideoUnreadable, match="certificate"):
            camera_video(url, limits).open()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        video = camera_video(url, limits)
        assert video.open().live
        frames = video.frames()
        assert next(frames).pixels().shape == (384, 640, 3)
        video.close()
        list(frames)


def test_the_relay_does_not_wait_for_data_that_encryption_alone_has_sent(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS 1.3 sends session tickets after the handshake, which are no data of the camera's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        talking(lambda it: it.sendall(b"RTSP/1.0 200 " + it.recv(100))) as plain,
        cameras.encrypted(plain, certificate) as port,
    ):
        relay = RtspRelay(HERE.require(f"rtsps://127.0.0.1:{port}/"), HERE, 5)
        try:
            with socket.create_connection(("127.0.0.1", urlsplit(relay.url).port), 10) as player:
                time.sleep(0.3)
                player.sendall(b"OPTIONS")
                assert player.recv(100) == b"RTSP/1.0 200 OPTIONS"
        finally:
            relay.close()


@contextmanager
def talking(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that answers one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_never_answers_is_given_up(scheme: str) -> None:
    done = threading.Event()
    with talking(lambda _: done.wait(20) and None) as port:
        began_s = time.monotonic()
        with pytest.raises(VideoUnreadable):
            camera_video(f"{scheme}://127.0.0.1:{port}/").open()
        assert time.monotonic() - began_s < 15
        done.set()


def test_a_camera_that_falls_silent_is_given_up() -> None:
    with cameras.mjpeg_camera() as camera:
        video = camera_video(camera.url)
        video.open()
        frames = video.frames()
        next(frames)
        camera.silent = True
        began_s = time.monotonic()
        with pytest.raises(VideoUnreadable, match="broke off"):
            list(frames)
        assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_another_thread_ends_the_opening(scheme: str) -> None:
    done = threading.Event()
    with talking(lambda _: done.wait(20) and None) as port:
        video = camera_video(f"{scheme}://127.0.0.1:{port}/", VideoLimits(open_s=60, read_s=60))
        timer = threading.Timer(0.3, video.close)
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(VideoUnreadable):
            video.open()
        assert time.monotonic() - began_s < 15
        done.set()


class Redirect(http.server.BaseHTTPRequestHandler):
    target = ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.target)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def redirecting(target: str) -> Iterator[str]:
    handler = type("To", (Redirect,), {"target": target})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_redirects_are_followed_to_allowed_hosts_only() -> None:
    with cameras.mjpeg_camera() as camera:
        with redirecting(camera.url) as url:
            video = camera_video(url)
            assert video.open().live
            video.close()
            list(video.frames())
        before = len(camera.requests)
        for target in (camera.url.replace("127.0.0.1", "127.0.0.2"), "file:///etc/passwd", "rtsp://127.0.0.1/"):
            with redirecting(target) as url, pytest.raises(ServiceError) as caught:
                camera_video(url).open()
            assert isinstance(caught.value, SourceForbidden | VideoUnreadable)
        assert len(camera.requests) == before


STATUS_LINES = st.sampled_from(
    [
        "RTSP/1.0 302 Moved", "RTSP/1.0  301 Moved", " RTSP/1.0 302 Moved", "R\rTSP/1.0 302 Moved", "RTSP/1.0 +302 x",
        "RTSP/1.0 0302 x", "RTSP/1.0 302x y", "RTSP/1.0\t303 See", "RTSP/2.0 307 Moved", "RTSP/1.0 4294967598 x",
    ]
)  # fmt: skip


@given(line=STATUS_LINES, cut=st.integers(1, 60), skipped=st.booleans())
def test_an_rtsp_camera_cannot_redirect_ffmpeg(line: str, cut: int, skipped: bool) -> None:
    """However it writes the status, FFmpeg connects to no other server."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        target = f"rtsp://127.0.0.1:{elsewhere.getsockname()[1]}/"

        def answer(connection: socket.socket) -> None:
            connection.settimeout(2)
            request = connection.recv(4096).decode()
            number = request.partition("CSeq: ")[2].partition("\r\n")[0]
            told = f"{line}\r\nCSeq: {number}\r\nLocation: {target}\r\n\r\n".encode()
            if skipped:  # an interleaved packet, which FFmpeg skips, before the answer
                told = b"$\x00\x00\x04abcd" + told
            connection.sendall(told[:cut])
            time.sleep(0.02)
            connection.sendall(told[cut:])
            connection.recv(4096)

        with talking(answer) as port, pytest.raises(VideoUnreadable):
            camera_video(f"rtsp://127.0.0.1:{port}/", VideoLimits(open_s=1, read_s=1)).open()
        elsewhere.settimeout(0)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_without_the_relay_ffmpeg_would_follow() -> None:
    """The defence that the test above shows is needed."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        target = f"rtsp://127.0.0.1:{elsewhere.getsockname()[1]}/"

        def answer(connection: socket.socket) -> None:
            connection.recv(4096)
            connection.sendall(f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: {target}\r\n\r\n".encode())

        with talking(answer) as port, suppress(av.FFmpegError):
            av.open(f"rtsp://127.0.0.1:{port}/", timeout=1)
        elsewhere.settimeout(5)
        elsewhere.accept()[0].close()


def test_without_pyav_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av.logging":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VideoNotInstalled, match=r"pip install 'posewright\[video\]'"):
        require_av()
