"""The description of the routes below /jobs."""

from __future__ import annotations

from service.errors import (
    BadParameter,
    BadRequest,
    EmptyBody,
    NotReady,
    QueueFull,
    SlowUpload,
    TooLarge,
    Unavailable,
    UnsupportedType,
)
from service.http.openapi import problem_responses, ref, route
from service.http.routes.call import JSON
from service.inference.errors import UnknownModel
from service.jobs.errors import (
    JobsDisabled,
    JobsDiskFull,
    JobUnfinished,
    MissingPackage,
    ResultPending,
    ResultRefused,
    UnknownJob,
    VideoTooLarge,
)
from service.jobs.exports import ENDINGS
from service.video.errors import SourceForbidden, VideoNotInstalled, VideoUnreadable
from service.wire.job import JobList, JobReply, JobRequest

_BINARY = {"type": "string", "format": "binary"}
_JOB = {JSON: ref(JobReply)}
CREATE = route(
    _JOB,
    problem_responses(
        EmptyBody, BadRequest, JobsDisabled, SourceForbidden, UnknownModel, SlowUpload, VideoTooLarge, TooLarge,
        UnsupportedType, BadParameter, VideoUnreadable, VideoNotInstalled, NotReady, Unavailable, QueueFull,
        JobsDiskFull,
    ),
    {
        "requestBody": {
            "required": True,
            "description": "A video: its bytes, or a multipart field `video`, or JSON with its address.",
            "content": {
                "video/*": {"schema": _BINARY},
                "image/gif": {"schema": _BINARY},
                "application/octet-stream": {"schema": _BINARY},
                "multipart/form-data": {
                    "schema": {"type": "object", "required": ["video"], "properties": {"video": _BINARY}}
                },
                JSON: {"schema": ref(JobRequest)},
            },
        }
    },
    status=202,
)  # fmt: skip
CREATE["responses"][202]["headers"] = {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}}
LIST = route({JSON: ref(JobList)}, problem_responses(JobsDisabled))
SHOW = route(_JOB, problem_responses(JobsDisabled, UnknownJob))
DELETE = route({}, problem_responses(JobsDisabled, UnknownJob), status=204)
RESULT = route(
    {"application/x-ndjson": {"type": "string"}} | {media_type: _BINARY for _, media_type in ENDINGS.values()},
    problem_responses(
        JobsDisabled, UnknownJob, JobUnfinished, BadParameter, ResultRefused, MissingPackage, ResultPending,
        JobsDiskFull,
    ),
)  # fmt: skip
