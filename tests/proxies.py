"""A proxy that serves another server under a path prefix, and removes the prefix from requests.

nginx does so with ``location /pose/ { proxy_pass http://server/; }``, Caddy with ``handle_path``, and
Traefik with ``StripPrefix``.
"""

from __future__ import annotations

import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def proxied(url: str, prefix: str, *, host: str | None = None) -> Iterator[str]:
    """Serve the server at ``url`` under ``prefix``; yields the address there.

    Args:
        url: Of the server.
        prefix: Such as ``/pose``.
        host: Sent to the server as Host instead of the visitor's.
    """
    upstream = (str(urlsplit(url).hostname), urlsplit(url).port or 80)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line, *headers = iter(lambda: self.rfile.readline().rstrip(b"\r\n"), b"")
            method, target, version = line.decode().split(" ")
            if target != prefix and not target.startswith((prefix + "/", prefix + "?")):
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            stripped = target.removeprefix(prefix)
            request = [f"{method} {stripped if stripped.startswith('/') else '/' + stripped} {version}".encode()]
            upgraded = any(it.lower().startswith(b"upgrade:") for it in headers)
            for header in headers:
                name = header.partition(b":")[0].lower()
                if name == b"host" and host is not None:
                    request.append(f"Host: {host}".encode())
                elif name != b"connection" or upgraded:
                    request.append(header)
            if not upgraded:
                request.append(b"Connection: close")
            with socket.create_connection(upstream) as server:
                server.sendall(b"\r\n".join(request) + b"\r\n\r\n")
                up = threading.Thread(target=self.forward_body, args=(server,))
                up.start()
                with suppress(OSError), server.makefile("rb", 0) as answer:
                    shutil.copyfileobj(answer, self.wfile)
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                up.join()

        def forward_body(self, server: socket.socket) -> None:
            with suppress(OSError):
                while piece := self.rfile.read1():
                    server.sendall(piece)
                server.shutdown(socket.SHUT_WR)

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}{prefix}"
        finally:
            proxy.shutdown()
            thread.join()
