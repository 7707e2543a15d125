"""A camera on the network (Motion JPEG over HTTP) that disconnects."""

from __future__ import annotations

import itertools
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests import spots
from tests.client.hosts import PATIENCE_S
from tests.spots import SURE

JPEG = spots.encode(spots.paint(SURE), "JPEG")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"
PART = b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(JPEG), JPEG)


@contextmanager
def network_camera(*frames: int, pause_s: float = 0.0) -> Iterator[str]:
    """Send ``frames[i]`` frames to connection i, then disconnect; after the last connection, accept none."""
    numbers = itertools.count()

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            with suppress(OSError):
                self.request.sendall(HEAD)
                for _ in range(frames[next(numbers)]):
                    self.request.sendall(PART)
                    time.sleep(pause_s)

    class Host(socketserver.TCPServer):
        allow_reuse_address = True

    def serve() -> None:
        for _ in frames:
            host.handle_request()
        host.server_close()

    with Host(("127.0.0.1", 0), Connection) as host:
        host.timeout = PATIENCE_S
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{host.server_address[1]}/"
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
