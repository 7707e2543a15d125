"""The description of the routes below /jobs."""

from __future__ import annotations

from typing import Any

from service.errors import (
    BadParameter,
    BadRequest,
    EmptyBody,
    JobsDisabled,
    JobsDiskFull,
    JobUnfinished,
    MissingPackage,
    NotReady,
    QueueFull,
    ResultPending,
    ResultRefused,
    ServiceError,
    SlowUpload,
    SourceForbidden,
    TooLarge,
    Unavailable,
    UnknownJob,
    UnknownModel,
    UnsupportedType,
    VideoNotInstalled,
    VideoTooLarge,
    VideoUnreadable,
)
from service.http.openapi import _problems, _ref
from service.http.routes.call import JSON
from service.jobs.exports import ENDINGS
from service.wire.job import JobList, JobReply, JobRequest

_BINARY = {"type": "string", "format": "binary"}
_HEADERS = {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}


def _route(reply: dict[str, Any], *problems: type[ServiceError]) -> dict[str, Any]:
    return {
        "response_model": None,
        "responses": {200: {"description": "The answer.", "content": reply}, **_problems(*problems)},
    }


_JOB = {JSON: {"schema": _ref(JobReply)}}
CREATE: dict[str, Any] = {
    "response_model": None,
    "status_code": 202,
    "responses": {
        202: {"description": "The job, which waits.", "content": _JOB, "headers": _HEADERS},
        **_problems(
            EmptyBody, BadRequest, JobsDisabled, SourceForbidden, UnknownModel, SlowUpload, VideoTooLarge, TooLarge,
            UnsupportedType, BadParameter, VideoUnreadable, VideoNotInstalled, NotReady, Unavailable, QueueFull,
            JobsDiskFull,
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "A video: its bytes, or a multipart field `video`, or JSON with its address.",
            "content": {
                "video/*": {"schema": _BINARY},
                "application/octet-stream": {"schema": _BINARY},
                "multipart/form-data": {
                    "schema": {"type": "object", "required": ["video"], "properties": {"video": _BINARY}}
                },
                JSON: {"schema": _ref(JobRequest)},
            },
        }
    },
}  # fmt: skip
LIST = _route({JSON: {"schema": _ref(JobList)}}, JobsDisabled)
SHOW = _route(_JOB, JobsDisabled, UnknownJob)
DELETE: dict[str, Any] = {
    "response_model": None,
    "status_code": 204,
    "responses": {204: {"description": "It is gone."}, **_problems(JobsDisabled, UnknownJob)},
}
RESULT = _route(
    {"application/x-ndjson": {"schema": {"type": "string"}}}
    | {media_type: {"schema": _BINARY} for _, media_type in ENDINGS.values()},
    JobsDisabled, UnknownJob, JobUnfinished, BadParameter, ResultRefused, MissingPackage, ResultPending, JobsDiskFull,
)  # fmt: skip
