"""Cameras for tests: video files, an RTSP server of somebody else in a process of its own, and MJPEG over HTTP."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests import spots
from tests.spots import Person

av = pytest.importorskip("av", reason="PyAV (pip install 'posewright[video]') is not installed")

PATIENCE_S = 30.0
FPS = 20
_SERVE = """
import asyncio, sys
from aio_rtsp_toolkit.server import serve
asyncio.run(serve(sys.argv[1], "127.0.0.1", int(sys.argv[2])))
"""


def walk(frames: int) -> Iterator[np.ndarray]:
    """A person who walks to the right, uint8 (H, W, 3) RGB."""
    for i in range(frames):
        yield spots.paint(Person((100 + 4 * (i % 100), 188)))


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: int = FPS) -> Path:
    """Write H.264 without B-frames, with a key frame every second."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "12", "bf": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        stream.gop_size = fps
        for i, picture in enumerate(pictures):
            if i == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


class RtspCamera:
    """The RTSP server of the package aio-rtsp-toolkit, which plays a file again and again. It can die and come back."""

    def __init__(self, video: Path) -> None:
        self._video, self.port = video, free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/{video.name}?play_count=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", _SERVE, str(self._video.parent), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "the RTSP server has ended"
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def rtsp_camera(video: Path) -> Iterator[RtspCamera]:
    """Run an RTSP server while the block runs."""
    pytest.importorskip("aio_rtsp_toolkit", reason="aio-rtsp-toolkit, an RTSP server, is not installed")
    camera = RtspCamera(video)
    camera.start()
    try:
        yield camera
    finally:
        camera.kill()


@contextmanager
def encrypted(port: int, certificate: Path) -> Iterator[int]:
    """A port that speaks TLS and passes everything on to another one, as a proxy in front of a camera does."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            connection,
            context.wrap_socket(connection, server_side=True) as player,
            socket.create_connection(("127.0.0.1", port)) as camera,
        ):
            while True:  # in one thread: an encrypted socket must not be read and written at the same time
                waiting = [player] if player.pending() else select.select([player, camera], [], [])[0]
                for it in waiting:
                    content = it.recv(65_536)
                    if not content:
                        return
                    (camera if it is player else player).sendall(content)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=(connection,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(PATIENCE_S)


class MjpegCamera:
    """Sends JPEGs over HTTP (multipart/x-mixed-replace) to everybody who connects.

    Attributes:
        requests: Heads of the requests that came; with ``credentials`` they must contain these.
        silent: While true, connections stay open and nothing is sent.
    """

    def __init__(self, jpegs: list[bytes], fps: float = FPS, credentials: str | None = None) -> None:
        self._jpegs, self._fps, self._credentials = jpegs, fps, credentials
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/video"
        self.requests: list[str] = []
        self.silent = False
        self._closed = False
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def drop(self) -> None:
        """Break all connections."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self._connections.add(connection)
        with suppress(OSError), connection:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                received = connection.recv(4096)
                if not received:
                    return
                request += received
            self.requests.append(request.decode("latin-1"))
            if self._credentials is not None and self._credentials not in self.requests[-1]:
                challenge = 'Basic realm="camera"'
                if self._credentials.startswith("response="):
                    challenge = 'Digest realm="camera", nonce="1234", algorithm=MD5'
                answer = f"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n"
                connection.sendall(answer.encode())
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            i = 0
            while not self._closed:
                if not self.silent:
                    jpeg = self._jpegs[i % len(self._jpegs)]
                    part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    connection.sendall(part.encode() + jpeg + b"\r\n")
                    i += 1
                time.sleep(1 / self._fps)
        self._connections.discard(connection)


@contextmanager
def mjpeg_camera(fps: float = FPS, credentials: str | None = None) -> Iterator[MjpegCamera]:
    """Run a camera that shows a person who walks."""
    camera = MjpegCamera([spots.encode(it, "JPEG") for it in walk(40)], fps, credentials)
    try:
        yield camera
    finally:
        camera.close()
