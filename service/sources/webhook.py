"""Results of a source as HTTP POSTs, signed by the Standard Webhooks specification (www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from service.errors import ServiceError
from service.sources.backoff import backoff_s
from service.sources.outbox import DeliveryFailed
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.http_body import CheckedConnection, open_socket

TIMEOUT_S = 10.0
MAX_ATTEMPTS = 8
MAX_BACKOFF_S = 30.0
MAX_ANSWER = 65_536
"""Bytes of an answer that are read; what it says does not matter."""
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of secrets, not a secret


class Webhook:
    """Posts batches of events over one connection. Used by one thread."""

    def __init__(self, url: VideoUrl, allowed: AllowedUrls, secret: str | None, head: bytes) -> None:
        """Prepare; nothing is connected before the first event.

        Args:
            url: An HTTP or HTTPS URL.
            allowed: Checks every connection.
            secret: Key of the signature: any text, or ``whsec_`` and base64; None for no signature.
            head: What each body begins with, up to the list of events.
        """
        self._url, self._allowed, self._head = url, allowed, head
        self._key = None if secret is None else _key_of(secret)
        parts = urlsplit(url.url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        self._connection: CheckedConnection | None = None

    def deliver(self, events: Sequence[bytes], closing: threading.Event) -> None:
        """Post events in one body; tries again with back-off.

        Args:
            events: JSON objects.
            closing: Once it is set there is no further attempt.

        Raises:
            DeliveryFailed: The receiver did not take them.
        """
        body = self._head + b"[" + b",".join(events) + b"]}"
        identifier = f"msg_{uuid.uuid4().hex}"  # the same in each attempt, so that the receiver can tell repetitions
        for attempt in range(MAX_ATTEMPTS):
            reason, again = self._post(body, identifier)
            if reason is None:
                return
            if not again or closing.is_set() or attempt == MAX_ATTEMPTS - 1:
                raise DeliveryFailed(reason)
            closing.wait(backoff_s(attempt, MAX_BACKOFF_S))

    def _post(self, body: bytes, identifier: str) -> tuple[str | None, bool]:
        """Make one attempt; returns why it failed (None: it did not), and whether another one may succeed."""
        try:
            status = self._exchange(body, self._headers(body, identifier))
        except ServiceError as error:
            self.close()
            return error.detail, True
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = getattr(error, "strerror", None) or type(error).__name__
            return f"expected an answer of the webhook, got: {reason}", True
        if 200 <= status < 300:
            return None, False
        return f"expected an answer 2xx of the webhook, got {status}", status in _TRY_AGAIN

    def _exchange(self, body: bytes, headers: dict[str, str]) -> int:
        if self._connection is None:
            self._connection = CheckedConnection(
                self._url.host,
                scheme=self._url.scheme,
                port=self._url.port,
                opened_by=lambda url, encrypted: open_socket(url, self._allowed, encrypted, TIMEOUT_S),
                timeout=TIMEOUT_S,
            )
        self._connection.request("POST", self._target, body, headers)
        response = self._connection.getresponse()
        rest = response.read(MAX_ANSWER)
        if len(rest) == MAX_ANSWER:
            self.close()
        return response.status

    def _headers(self, body: bytes, identifier: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "posewright", "webhook-id": identifier}
        headers["webhook-timestamp"] = str(int(time.time()))
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, identifier, headers["webhook-timestamp"], body)
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        return headers

    def close(self) -> None:
        """Close the connection; a later event opens another one."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
            self._connection = None


def sign(key: bytes, identifier: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a message: version 1, HMAC-SHA256 of its id, its time and its body."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _key_of(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        with suppress(ValueError):
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()
