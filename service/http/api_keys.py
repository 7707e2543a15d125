"""API keys: which ones the server accepts, and the check of the one that a request brings.

Only hashes are kept. All of them are compared, each in constant time, so that the time of an answer tells nothing
about the keys. SHA-256 without salt is enough, because keys are long and random, unlike passwords.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from starlette.datastructures import Headers

from service.errors import Unauthorized
from service.settings import PREFIX, Settings, SettingsError
from service.streaming.messages import BEARER_SUBPROTOCOL
from service.wire.caller import ApiKey

log = logging.getLogger(__name__)

WATCH_S = 1.0
"""Interval between two looks at the file of keys, seconds."""
# A key must be a token (RFC 9110, sec. 5.6.2), because a WebSocket subprotocol is one.
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<key>[A-Za-z0-9!#$%&'*+.^_`|~-]{16,256})")
_EXPECTED = (
    "expected name:key, with a name of letters, digits and ._- and a key of 16 to 256 letters, digits and "
    "!#$%&'*+.^_`|~-; `openssl rand -hex 32` makes one"
)


class ApiKeys:
    """The keys from ``api_keys`` and ``api_keys_file``. Used on the event loop's thread only.

    Attributes:
        required: Whether calls need a key.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the keys.

        Raises:
            SettingsError: An entry is not valid, or the file cannot be read. The message quotes no entry.
        """
        self._path = settings.api_keys_file
        secret = settings.api_keys.get_secret_value() if settings.api_keys is not None else ""
        entries = [it for it in re.split(r"[,\s]+", secret) if it]
        self._fixed = _parse(f"{PREFIX}API_KEYS, entry", enumerate(entries, 1))
        self.required = settings.api_keys is not None or self._path is not None
        self._seen = self._stamp()
        self._keys = self._read()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keys that are accepted now."""
        return tuple(it.name for it in self._keys)

    def identify(self, headers: Headers, subprotocols: Sequence[str] = ()) -> ApiKey | None:
        """Find the key of a request; None if the server asks for none.

        Args:
            headers: Of the request: ``X-API-Key`` or ``Authorization: Bearer``.
            subprotocols: That a stream offers; ``bearer.KEY`` is read if there is no header.

        Raises:
            Unauthorized: There is no key, or a wrong one.
        """
        if not self.required:
            return None
        given = _given(headers, subprotocols)
        if given is None:
            raise Unauthorized(
                "expected an API key, got none; send the header X-API-Key: KEY or Authorization: Bearer KEY (streams "
                "from browsers: the subprotocol bearer.KEY)",
                headers={"WWW-Authenticate": "Bearer"},
            )
        digest, found = _digest(given), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        if found is None:
            raise Unauthorized(
                "expected an API key that this server accepts, got another one; ask the server's operator for a key",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        return found

    def accepts(self, key: ApiKey | None) -> bool:
        """Whether a key from `identify` is still accepted."""
        return not self.required or key in self._keys

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Read the file again whenever it changes, until cancelled; a file that is not valid changes nothing.

        Args:
            on_change: Called after the keys have changed.
        """
        while self._path is not None:
            await asyncio.sleep(WATCH_S)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                self._keys = await asyncio.to_thread(self._read)
            except SettingsError as error:
                log.error("the API keys stay as they were: %s", error)  # noqa: TRY400 - a traceback says nothing more
                continue
            log.info("read the API keys again: %s", ", ".join(self.names))
            on_change()

    def _stamp(self) -> tuple[int, ...]:
        """What changes whenever the file does, also where a link to it is replaced; empty if there is no file."""
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return ()
        return () if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)

    def _read(self) -> tuple[ApiKey, ...]:
        keys = self._fixed
        if self._path is not None:
            keys += _parse(f"{self._path}, line", _lines(self._path))
        if self.required and not keys:
            raise SettingsError(f"{self._path or PREFIX + 'API_KEYS'}: expected at least one API key, got none")
        for attribute in ("name", "digest"):
            if len({getattr(it, attribute) for it in keys}) < len(keys):
                raise SettingsError("API keys: expected another name and another key in each entry, got one twice")
        return keys


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path}: expected a readable file of API keys: {reason}") from None
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return [(i, line) for i, line in lines if line and not line.startswith("#")]


def _parse(place: str, entries: Iterable[tuple[int, str]]) -> tuple[ApiKey, ...]:
    keys = []
    for number, entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise SettingsError(f"{place} {number}: {_EXPECTED}")
        keys.append(ApiKey(match["name"], _digest(match["key"])))
    return tuple(keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _given(headers: Headers, subprotocols: Sequence[str]) -> str | None:
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    offered = (it.removeprefix(BEARER_SUBPROTOCOL) for it in subprotocols if it.startswith(BEARER_SUBPROTOCOL))
    return next(offered, None)
