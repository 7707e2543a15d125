"""The pictures of an MJPEG camera, whatever stands between them.

FFmpeg reads parts that begin with ``--``, are of the type ``image/jpeg``, and are as long as they say. Many cameras
send something else: an empty line first (ESP32-CAM), ``image/jpg``, no type, a boundary without dashes, a wrong length,
or texts between the pictures. So the pictures are found by their own markers (ITU-T T.81, annex B), and written again
in the one form that FFmpeg reads without waiting for what follows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

MAX_PICTURE = 64_000_000
"""Most bytes of a picture."""
CHUNK = 65_536
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_BEGIN = bytes((0xFF, _START, 0xFF))
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker that ends coded data: in these, FF is followed by 0 or by a restart marker."""


class MjpegParts:
    """The pictures of a response, as a file of multipart parts for FFmpeg."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Begin before the first picture.

        Args:
            read: Returns up to so many bytes of the response; none at its end.
        """
        self._read = read
        self._waiting = bytearray()  # begins with a picture once `_at` is not 0
        self._at = 0  # where the next marker is, or is looked for
        self._in_scan = False
        self._part = io.BytesIO()

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of a part; none at the end of the response.

        Raises:
            OSError: The connection broke, nothing came in time, or a picture is too large.
        """
        while not (read := self._part.read(size)):
            end = self._end_of_picture()
            if end:
                head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {end}\r\n\r\n"
                self._part = io.BytesIO(head.encode() + self._waiting[:end] + b"\r\n")
                self._skip(end)
                continue
            if len(self._waiting) > MAX_PICTURE:
                raise OSError(f"expected pictures of at most {MAX_PICTURE} bytes, got a larger one")
            more = self._read(CHUNK)
            if not more:
                return b""
            self._waiting += more
        return read

    def _end_of_picture(self) -> int:
        """Follow the markers of a picture as far as data has come; returns its end, or 0 while it is not whole."""
        data = self._waiting
        while self._at or self._begins():
            if self._in_scan:
                found = _AFTER_SCAN.search(data, self._at)
                if found is None:
                    self._at = max(self._at, len(data) - 1)
                    break
                self._at, self._in_scan = found.start(), False
            at = self._at
            if len(data) < at + 2:
                break
            code = data[at + 1]
            if data[at] != 0xFF or code in (0, _START):  # no picture, or one that breaks off
                self._skip(at)
            elif code == _END:
                return at + 2
            elif code == 0xFF:  # a filling byte
                self._at += 1
            elif len(data) < at + 4:
                break
            else:
                self._at += 2 + int.from_bytes(data[at + 2 : at + 4])
                self._in_scan = code == _SCAN
        return 0

    def _begins(self) -> bool:
        """Skip what stands before the next picture; returns whether there is one."""
        start = self._waiting.find(_BEGIN)
        self._skip(start if start >= 0 else max(0, len(self._waiting) - len(_BEGIN) + 1))
        self._at = 2 if start >= 0 else 0
        return start >= 0

    def _skip(self, count: int) -> None:
        del self._waiting[:count]
        self._at, self._in_scan = 0, False
