"""/jobs: videos that are processed in the background."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from service.http import openapi_jobs
from service.http.job_result import send_file, send_lines
from service.http.routes.call import JSON
from service.http.routes.control import parse_body, read_body, require_same_site
from service.http.video_body import VideoForm, receive_video, video_form
from service.inference.state import Service
from service.jobs import transfer
from service.jobs.errors import JobsDisabled
from service.jobs.exports import Exports
from service.jobs.record import JobRecord, now
from service.jobs.store import JobStore
from service.jobs.transfer import IncomingVideo
from service.jobs.video_limits import check_video
from service.video.allowed_urls import AllowedUrls
from service.video.frames import require_av
from service.wire import documents
from service.wire.caller import CALLER_KEY, Caller
from service.wire.job import JobList, JobOptions, JobQuery, JobReply, JobRequest, ResultQuery
from service.wire.query import resolve

router = APIRouter()
_UNSAFE = re.compile(r"[^\w .()+-]")


@router.post("/jobs", **openapi_jobs.CREATE)
async def create_job(request: Request, query: Annotated[JobQuery, Query()]) -> Response:
    """Process a video in the background; the answer tells where to ask for it."""
    store = _store(request)
    require_same_site(request, JobsDisabled)
    require_av()
    form = video_form(request)
    await run_in_threadpool(store.require_place)
    record = await (_from_url(request, query) if form == "json" else _from_upload(request, query, form))
    request.app.state.job_runner.wake()
    location = f"{request.scope.get('root_path', '')}/jobs/{record.id}"
    return _reply(request, record, 202, {"Location": location})


@router.get("/jobs", **openapi_jobs.LIST)
async def list_jobs(request: Request) -> Response:
    """List the caller's jobs, the newest first."""
    store = _store(request)
    found = await run_in_threadpool(store.of, _owner(request))
    body = JobList(jobs=[_told(it, store) for it in found]).model_dump(mode="json")
    return Response(documents.to_json(body), media_type=JSON)


@router.get("/jobs/{job_id}", **openapi_jobs.SHOW)
async def show_job(request: Request, job_id: str) -> Response:
    """Show a job's state and progress."""
    return _reply(request, await _find(request, job_id))


@router.post("/jobs/{job_id}/cancel", **openapi_jobs.SHOW)
async def cancel_job(request: Request, job_id: str) -> Response:
    """Stop a job for good; the frames that are answered stay. An ended job stays as it is."""
    require_same_site(request, JobsDisabled)
    record = await _find(request, job_id)
    await run_in_threadpool(_store(request).cancel, record)
    request.app.state.job_runner.wake()
    return _reply(request, await _find(request, job_id))


@router.delete("/jobs/{job_id}", **openapi_jobs.DELETE)
async def delete_job(request: Request, job_id: str) -> Response:
    """Stop a job if it runs, and delete its video and its results."""
    require_same_site(request, JobsDisabled)
    await run_in_threadpool(_store(request).delete, await _find(request, job_id))
    return Response(status_code=204)


@router.get("/jobs/{job_id}/result", **openapi_jobs.RESULT)
async def job_result(request: Request, job_id: str, query: Annotated[ResultQuery, Query()]) -> Response:
    """Send the results in a format; lines of JSON also while the job runs."""
    store, record = _store(request), await _find(request, job_id)
    if query.format == "jsonl":
        return await send_lines(request, store, record, follow=query.follow)
    exports: Exports = request.app.state.job_exports
    return send_file(record, query.format, await exports.get(record, query, store.settings.keypoint_threshold))


def _store(request: Request) -> JobStore:
    store: JobStore | None = request.app.state.jobs
    if store is None:
        raise JobsDisabled(
            "expected a server that runs video jobs, got one without a folder for them; its operator sets --jobs-dir "
            "(POSEWRIGHT_JOBS_DIR)"
        )
    return store


def _owner(request: Request) -> str | None:
    """Name of the caller's API key; None where the server asks for none."""
    caller: Caller | None = request.scope.get(CALLER_KEY)
    return None if caller is None or caller.key is None else caller.key.name


async def _find(request: Request, job_id: str) -> JobRecord:
    return await run_in_threadpool(_store(request).find, job_id, _owner(request))


async def _from_upload(request: Request, query: JobQuery, form: VideoForm) -> JobRecord:
    """Receive a video, check it, and make its job."""
    store, service = _store(request), request.app.state.service
    options = _checked(JobOptions.model_validate(query.model_dump(exclude={"name"})), service)
    length = request.headers.get("content-length", "")
    with store.draft() as draft:
        opened = await run_in_threadpool(IncomingVideo, draft.video, store, int(length) if length.isdecimal() else 0)
        with opened as video:
            settings = store.settings
            budget = request.app.state.upload_budget
            file_name = await receive_video(request, video, form, budget, settings.job_upload_s)
        info = await run_in_threadpool(check_video, draft.video, settings)
        record = JobRecord(
            id=uuid.uuid4().hex,
            owner=_owner(request),
            name=_name(query.name or file_name),
            options=options,
            created=now(),
            total=info.frame_count or None,
        )
        await run_in_threadpool(store.publish, draft, record)
    return record


async def _from_url(request: Request, query: JobQuery) -> JobRecord:
    """Check an address and make the job of its video, which fetches it when its turn comes."""
    store, service = _store(request), request.app.state.service
    example = '{"url": "https://…/video.mp4"}'
    wanted = parse_body(JobRequest, await read_body(request), example, has_secrets=True)
    given = query.model_dump(exclude={"name"}, exclude_unset=True)
    given |= wanted.options.model_dump(exclude_unset=True)
    options = _checked(JobOptions.model_validate(given), service)
    allowed = AllowedUrls(store.settings.source_hosts)
    url = await run_in_threadpool(transfer.require_file, wanted.url, allowed)
    record = JobRecord(
        id=uuid.uuid4().hex,
        owner=_owner(request),
        name=_name(wanted.name or query.name or PurePosixPath(unquote(urlsplit(wanted.url).path)).name),
        url=wanted.url,
        shown_url=url.redacted,
        options=options,
        created=now(),
    )
    with store.draft() as draft:
        await run_in_threadpool(store.require_room, 0)
        await run_in_threadpool(store.publish, draft, record)
    return record


def _checked(options: JobOptions, service: Service) -> JobOptions:
    """Check that the models can answer with these options now, so that the caller learns it at once."""
    resolve(options, service.registry, service.settings)
    return options


def _name(given: str | None) -> str:
    """Make a name that is safe in file names and headers."""
    name = _UNSAFE.sub("_", (given or "").replace("\\", "/").rpartition("/")[2]).strip(" .")
    return name[:200] or "video"


def _told(record: JobRecord, store: JobStore) -> JobReply:
    values = record.model_dump(exclude={"layout", "owner", "url", "shown_url"})
    return JobReply(url=record.shown_url, expires=record.expires(store.settings.jobs_keep_hours), **values)


def _reply(
    request: Request, record: JobRecord, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    document: dict[str, Any] = _told(record, _store(request)).model_dump(mode="json")
    return Response(documents.to_json(document), status, dict(headers or {}), JSON)
