"""Sends the results of a job: the journal as it is or as it grows, or a file in another format."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path, PurePath

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response, StreamingResponse

from service.http.upload_budget import UploadBudget
from service.jobs import journal
from service.jobs.errors import UnknownJob
from service.jobs.exports import ENDINGS
from service.jobs.record import JobRecord
from service.jobs.store import JobStore
from service.wire.job import ResultFormat

LINES = "application/x-ndjson"
FOLLOW_EVERY_S = 0.3
"""Interval at which new lines are looked for, seconds."""
BLOCK = 1_000_000


def send_file(record: JobRecord, name: ResultFormat, path: Path) -> Response:
    """Send a file that `Exports` has written, or the part of it that the caller asks for by Range."""
    ending, media_type = ENDINGS[name]
    return FileResponse(path, media_type=media_type, filename=PurePath(record.name).stem + ending)


async def send_lines(request: Request, store: JobStore, record: JobRecord, *, follow: bool) -> Response:
    """Send the whole lines of a journal.

    Args:
        request: Its header Range asks for a part, such as what is new.
        store: The jobs.
        record: The job.
        follow: Whether to go on until the job ends.
    """
    path = store.folder(record.id).results
    name = PurePath(record.name).stem + ".jsonl"
    if follow:
        budget: UploadBudget = request.app.state.upload_budget
        disposition = {"Content-Disposition": f'attachment; filename="{record.id}.jsonl"'}
        return StreamingResponse(_grow(path, store, record, budget), media_type=LINES, headers=disposition)
    try:
        size = await run_in_threadpool(journal.whole_size, path)
        status = list(path.stat())
    except FileNotFoundError:
        return Response(b"", media_type=LINES)
    status[6] = size  # st_size: a line that is just being written is left out
    if not record.has_ended and "range" not in request.headers:
        # `FileResponse` would send what is written meanwhile, too, beyond the length that it has announced.
        return StreamingResponse(_first(path, size), media_type=LINES, headers={"Content-Length": str(size)})
    return FileResponse(path, media_type=LINES, filename=name, stat_result=os.stat_result(status))


async def _first(path: Path, size: int) -> AsyncIterator[bytes]:
    """Yield the first ``size`` bytes of a file."""
    sent = 0
    while sent < size:
        data = await run_in_threadpool(_read_from, path, sent, min(BLOCK, size - sent))
        if not data:  # the job has begun again meanwhile
            raise OSError(f"{path} is shorter than before")
        sent += len(data)
        yield data


async def _grow(path: Path, store: JobStore, record: JobRecord, budget: UploadBudget) -> AsyncIterator[bytes]:
    """Yield the lines, and further ones as they come, until the job ends or the server stops."""
    sent = 0
    while True:
        try:
            ended = (await run_in_threadpool(store.find, record.id, record.owner)).has_ended
            data = await run_in_threadpool(_lines_from, path, sent)
        except (UnknownJob, FileNotFoundError):
            data, ended = b"", not store.folder(record.id).path.exists()
        sent += len(data)
        if data:
            yield data
        elif ended or budget.closing:
            return
        else:
            await asyncio.sleep(FOLLOW_EVERY_S)


def _lines_from(path: Path, start: int) -> bytes:
    data = _read_from(path, start, BLOCK)
    return data[: data.rfind(b"\n") + 1]


def _read_from(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)
