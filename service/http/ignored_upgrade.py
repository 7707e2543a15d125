"""uvicorn's HTTP protocol, for clients that offer to go on in another protocol than HTTP/1.1."""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HOP_BY_HOP = (b"upgrade", b"http2-settings")


class UpgradeIgnoringHttp(HttpToolsProtocol):
    """Reads a request with ``Upgrade: h2c``, or any but WebSocket, as if it had no such header (RFC 9110, sec. 7.8).

    Java's HttpClient and ``curl --http2`` offer HTTP/2 that way. The parser stops at the end of such a head, so that
    uvicorn answers without the body, and loses what follows in the same piece of data. Here the rest is read by a new
    parser, behind the same head without the offer.
    """

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._unset_keepalive_if_required()
        left: bytes | None = data
        while left is not None:
            left = self._parse(left)

    def on_headers_complete(self) -> None:
        """Begin a call, unless its head is about to be read again."""
        if not self._ignores_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if not self._ignores_upgrade():
            super().on_message_complete()

    def _parse(self, data: bytes) -> bytes | None:
        """Parse a piece of data; return what is still to be parsed."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._ignores_upgrade():
                head = self._head_without_upgrade()
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                return head + data[upgrade.args[0] :]
        except HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
        return None

    def _ignores_upgrade(self) -> bool:
        """Whether the request offers a protocol that the server does not speak; CONNECT is none."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                options = [it for it in value.split(b",") if it.strip().lower() not in _HOP_BY_HOP]
                lines.append(name + b": " + b",".join(options))
            elif name not in _HOP_BY_HOP:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"
