"""The body of POST /jobs: a video, written to the disk as it arrives, or the address of one as JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from service.errors import BadParameter, BadRequest, EmptyBody, SlowUpload, UnsupportedType
from service.http.multipart import MAX_PADDING, boundary_of, require_few_delimiters
from service.http.upload_budget import UploadBudget
from service.jobs.transfer import CHUNK, IncomingVideo

if TYPE_CHECKING:  # the library defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

VideoForm = Literal["raw", "json", "multipart"]
_EXPECTED = ["video/*", "image/gif", "application/octet-stream", "multipart/form-data", "application/json"]


def video_form(request: Request) -> VideoForm:
    """Tell the form of the body from the headers.

    Raises:
        UnsupportedType: The Content-Type is not one of them, or the body is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedType(
            f"expected a video without Content-Encoding, got {encoding[:80]!r}; videos are compressed already",
            expected=["identity"],
            got=encoding[:80],
        )
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return "json"
    if media_type == "multipart/form-data":
        return "multipart"
    if media_type.startswith("video/") or media_type.endswith("/octet-stream") or media_type == "image/gif":
        return "raw"
    raise UnsupportedType(
        f"expected a Content-Type of {', '.join(_EXPECTED)}, got {media_type[:80]!r}; send the video's file",
        expected=_EXPECTED,
        got=media_type[:80],
    )


async def receive_video(
    request: Request, video: IncomingVideo, form: VideoForm, budget: UploadBudget, upload_s: float
) -> str | None:
    """Write the video of a request to the disk.

    Args:
        request: The request.
        video: Where to write.
        form: Form of the body, raw or multipart.
        budget: Limits the time, and knows when the server stops.
        upload_s: Maximum time in seconds.

    Returns:
        The file's name, if the client told it.

    Raises:
        EmptyBody: There are no bytes.
        BadRequest: The multipart body is damaged.
        BadParameter: It has another field.
        SlowUpload: It takes too long, or nothing comes for `UploadBudget.upload_s`.
        VideoTooLarge: It has too many bytes.
        JobsDiskFull: There is no room for it.
        Unavailable: The server stops.
    """
    parts = _VideoPart(request.headers.get("content-type")) if form == "multipart" else None
    waiting = bytearray()
    stream = request.stream()
    try:
        async with budget.arrival(upload_s):
            while True:
                async with asyncio.timeout(budget.upload_s):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                waiting += chunk if parts is None else parts.feed(chunk)
                if len(waiting) >= CHUNK:
                    await run_in_threadpool(video.write, bytes(waiting))
                    waiting.clear()
    except TimeoutError:
        raise SlowUpload(
            f"expected the whole video within {upload_s:g} s, and some of it every {budget.upload_s:g} s, got "
            f"{video.bytes} bytes by then",
            bytes=video.bytes,
            upload_s=upload_s,
        ) from None
    await run_in_threadpool(video.write, bytes(waiting))
    if parts is not None:
        parts.require_one()
    if not video.bytes:
        raise EmptyBody("expected a video in the body, got 0 bytes; check that the file was read before it was sent")
    await run_in_threadpool(video.finish)
    return None if parts is None else parts.file_name


class _VideoPart:
    """Takes the one part named ``video`` out of a multipart body that arrives in chunks."""

    def __init__(self, content_type: str | None) -> None:
        boundary = boundary_of(content_type)
        self.file_name: str | None = None
        self._parts = 0
        self._ended = False
        self._header, self._value = b"", b""
        self._data = bytearray()
        self._boundary, self._tail = boundary, b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> bytes:
        """Parse a chunk and return what of it belongs to the video."""
        seen = self._tail + chunk  # a delimiter may lie in two chunks
        self._tail = seen[-(len(self._boundary) + MAX_PADDING + 8) :]
        require_few_delimiters(seen, self._boundary, max_count=10)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"expected multipart/form-data (RFC 7578), got a body where: {error}; see /docs") from None
        data = bytes(self._data)
        self._data.clear()
        return data

    def require_one(self) -> None:
        """Check that the body was complete."""
        if not self._ended:
            raise BadRequest("expected multipart/form-data to its last boundary, got a body that breaks off")
        if self._parts != 1:
            raise BadRequest(f"expected one multipart field 'video', got {self._parts}")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise BadRequest("expected one multipart field 'video', got more; make a job for each video")

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            name = options.get(b"name", b"").decode(errors="replace")
            if name != "video":
                raise BadParameter(
                    f"expected a multipart field named 'video', got {name[:80]!r}; options go into the query",
                    got=name[:80],
                )
            self.file_name = options.get(b"filename", b"").decode(errors="replace") or None
        self._header, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _on_end(self) -> None:
        self._ended = True
