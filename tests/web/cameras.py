"""A camera on the network for the page's sources: Motion JPEG over HTTP that films a spot person without end."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests import spots
from tests.spots import SURE

PERIOD_S = 0.1
JPEG = spots.encode(spots.paint(SURE), "JPEG")
PART = b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(JPEG), JPEG)


class Camera:
    """A camera that can be switched off and on again, at the same address."""

    def __init__(self) -> None:
        self._off, self._closed = threading.Event(), threading.Event()
        camera = self

        class Connection(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if camera._off.is_set():
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
                self.end_headers()
                with suppress(OSError):
                    while not camera._off.is_set() and not camera._closed.wait(PERIOD_S):
                        self.wfile.write(PART)

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/live"

    def switch(self, *, on: bool) -> None:
        """Switch it off, which ends its connections, or on."""
        if on:
            self._off.clear()
        else:
            self._off.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


@contextmanager
def filming() -> Iterator[Camera]:
    """Run a camera until the block ends."""
    camera = Camera()
    with camera.running():
        yield camera
