"""A video on its way to the disk, from an upload or an address: counted, bounded, and whole or not there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from service.errors import BadParameter, SlowUpload, UnsupportedType
from service.jobs import files
from service.jobs.errors import VideoTooLarge
from service.jobs.store import JobStore
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import VideoUnreadable
from service.video.http_body import HttpBody

CHECK_EVERY_BYTES = 64_000_000
"""The room on the disk is looked at again after so many bytes."""
CHUNK = 1_000_000
FILE_SCHEMES = ("http", "https", "file")


class IncomingVideo:
    """A file that is being written. It appears under its name when `finish` has put all of it on the disk."""

    def __init__(self, path: Path, store: JobStore, announced: int = 0) -> None:
        """Open the file under another name.

        Args:
            path: What it will be named.
            store: Knows the limits.
            announced: Bytes that are expected; 0 if unknown.

        Raises:
            VideoTooLarge: The announced size is over the limit.
            JobsDiskFull: There is no room for it.
        """
        self.bytes = 0
        self._path, self._store = path, store
        self._part = path.with_name(f".{path.name}.part")
        self._announced, self._checked = announced, CHECK_EVERY_BYTES
        self._require_bytes(announced)
        store.require_room(announced)
        self._file: BinaryIO = self._part.open("wb")

    def write(self, data: bytes) -> None:
        """Append bytes. Slow: not for the event loop.

        Raises:
            VideoTooLarge: There are too many.
            JobsDiskFull: The disk has no room for them.
        """
        self.bytes += len(data)
        self._require_bytes(self.bytes)
        if self.bytes > self._checked:
            coming = self._announced - self.bytes if self._announced else CHECK_EVERY_BYTES
            self._store.require_room(max(0, min(coming, CHECK_EVERY_BYTES)))
            self._checked = self.bytes + CHECK_EVERY_BYTES
        with files.full_disk_told():
            self._file.write(data)

    def finish(self) -> None:
        """Put the whole file on the disk, under its name."""
        with files.full_disk_told():
            self._file.flush()
            files.sync(self._file.fileno())
            self._file.close()
        self._part.replace(self._path)
        files.sync_folder(self._path.parent)

    def close(self) -> None:
        """Close the file, and delete it unless it is finished."""
        with suppress(OSError):  # what is left of a full disk's last block
            self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_bytes(self, count: int) -> None:
        maximum = self._store.settings.job_max_bytes
        if count > maximum:
            raise VideoTooLarge(
                f"expected a video of at most {maximum} bytes, got {count} or more; cut it into parts or compress it "
                "further",
                limit="bytes",
                maximum=maximum,
                got=count,
            )


def require_file(url: str, allowed: AllowedUrls) -> VideoUrl:
    """Check the address of a video file. Slow: it may resolve a name.

    Raises:
        BadParameter: It is no address, or that of a camera.
        SourceForbidden: The operator has not allowed it.
    """
    checked = allowed.require(url)
    if checked.scheme not in FILE_SCHEMES:
        raise BadParameter(
            f"url: expected the address of a video file, {', '.join(FILE_SCHEMES)}, got {checked.redacted}; a camera "
            "never ends: follow it with POST /sources"
        )
    return checked


def fetch(url: VideoUrl, path: Path, store: JobStore, allowed: AllowedUrls, check: Callable[[], None]) -> None:
    """Copy a video file from its address to the disk.

    Args:
        url: From `require_file`.
        path: Where to.
        store: Knows the limits.
        allowed: Checks every connection.
        check: Called now and then; raises if the job must stop.

    Raises:
        ServiceError: The file is too large, not there, not allowed, or too slow.
    """
    settings = store.settings
    ends_s = time.monotonic() + settings.job_upload_s
    body: HttpBody | None = None
    read: Callable[[int], bytes]
    try:
        if url.scheme == "file":
            source = allowed.open_file(url)
            read, close = source.read, source.close
        else:
            body = HttpBody(url, allowed, settings.upload_s, settings.upload_s)
            read, close = body.read, body.free
            if body.open().startswith("multipart/"):
                raise UnsupportedType(
                    "expected a video file, got the endless pictures of a camera; follow it with POST /sources",
                    expected=["video/*"],
                    got="multipart/x-mixed-replace",
                )
        try:
            with IncomingVideo(path, store) as video:
                while True:
                    check()
                    if body is not None:
                        body.expect_data()
                    data = read(CHUNK)
                    if not data:
                        break
                    video.write(data)
                    if time.monotonic() > ends_s:
                        raise SlowUpload(
                            f"expected the whole video within {settings.job_upload_s:g} s, got {video.bytes} bytes",
                            bytes=video.bytes,
                            upload_s=settings.job_upload_s,
                        )
                video.finish()
        finally:
            close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "the connection failed"
        raise VideoUnreadable(f"expected a video at {url.redacted}, got none: {reason}") from error
