"""A relay on this machine between FFmpeg and an RTSP camera.

FFmpeg resolves names itself, follows every RTSP redirect, does not check certificates, and cannot be stopped by another
thread. So it connects to a relay instead, which connects to the camera by the allow-list, encrypts with checked
certificates, and ends both connections when it is told to, or when the camera tries to redirect.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import threading
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from service.video.allowed_urls import AllowedUrls, VideoUrl

CHUNK = 65_536
MAX_HEAD = 262_144
"""Most bytes that a camera may send before the first PLAY; descriptions have a few thousand."""
_STATUS = re.compile(rb"RTSP/\S*\s+(\S*)\s")
_NO_REDIRECT = re.compile(rb"[1245]\d\d")
_PLAY = re.compile(rb"(?:\A|\r\n\r\n)PLAY ")


class RtspRelay:
    """Relays one RTSP session over TCP."""

    def __init__(self, url: VideoUrl, allowed: AllowedUrls, timeout_s: float) -> None:
        """Connect to the camera.

        Args:
            url: An ``rtsp`` or ``rtsps`` URL.
            allowed: Checks the connection.
            timeout_s: For connecting and encrypting.

        Raises:
            SourceForbidden: The connection is not allowed.
            OSError: The camera cannot be reached, or its certificate is not valid.
        """
        self.redirected = False
        self._timeout_s = timeout_s
        self._head: bytearray | None = bytearray()  # what the camera sent before the first PLAY
        self._camera = allowed.connect(url, timeout_s)
        try:
            if url.scheme == "rtsps":
                context = ssl.create_default_context()
                self._camera = context.wrap_socket(self._camera, server_hostname=url.host)
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        except BaseException:
            self._camera.close()
            raise
        self._player: socket.socket | None = None
        self._closed = False
        self._lock = threading.Lock()
        parts = urlsplit(url.url)
        credentials, at, _ = parts.netloc.rpartition("@")
        here = f"{credentials}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(("rtsp", here, parts.path, parts.query, ""))
        """What FFmpeg has to open, with the camera's credentials."""
        self._listener.settimeout(timeout_s)
        threading.Thread(target=self._run, name="rtsp-relay", daemon=True).start()

    def close(self) -> None:
        """End both connections; from any thread."""
        with self._lock:
            self._closed = True
            for connection in (self._camera, self._player):
                if connection is not None:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                self._listener.close()

    free = close

    def _run(self) -> None:
        try:
            player, _ = self._listener.accept()
            self._listener.close()  # one session only
            with self._lock:
                self._player = player
            if not self._closed:
                self._relay(player)
        except OSError:
            pass  # either side has closed; FFmpeg sees the end of its connection
        finally:
            self.close()
            self._camera.close()
            if self._player is not None:
                self._player.close()

    def _relay(self, player: socket.socket) -> None:
        """Copy bytes both ways until one side ends.

        FFmpeg sends little, so that a blocking send to either side holds up nothing that matters. Data that a TLS
        connection has already decrypted is not seen by a selector, hence `pending`; and what a selector sees may hold
        no data at all (TLS session tickets), hence a read that does not wait.
        """
        player.settimeout(None)
        with selectors.DefaultSelector() as selector:
            selector.register(player, selectors.EVENT_READ)
            selector.register(self._camera, selectors.EVENT_READ)
            while not self._closed:
                pending = isinstance(self._camera, ssl.SSLSocket) and self._camera.pending()
                ready = {key.fileobj for key, _ in selector.select(0 if pending else None)}
                if player in ready:
                    request = player.recv(CHUNK)
                    if not request:
                        return
                    if _PLAY.search(request):
                        self._head = None  # FFmpeg follows redirects only before it plays
                    self._camera.settimeout(self._timeout_s)
                    self._camera.sendall(request)
                if pending or self._camera in ready:
                    self._camera.settimeout(0)
                    try:
                        data = self._camera.recv(CHUNK)
                    except (BlockingIOError, ssl.SSLWantReadError):
                        continue
                    if not data or not self._harmless(data):
                        return
                    player.sendall(data)

    def _harmless(self, data: bytes) -> bool:
        """Whether the camera does not redirect.

        FFmpeg ignores carriage returns and reads a status as C's ``atoi`` does, so every status that is not three
        digits of another class counts as a redirect, wherever it stands.
        """
        if self._head is None:
            return True
        self._head += data.replace(b"\r", b"")
        # A status whose end is still on its way is checked with its end, without which FFmpeg does nothing.
        self.redirected = not all(_NO_REDIRECT.fullmatch(it) for it in _STATUS.findall(self._head))
        return not self.redirected and len(self._head) <= MAX_HEAD
