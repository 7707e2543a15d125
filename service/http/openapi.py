"""The description of every route for /docs: request bodies, replies and problems.

The routes read bodies and write replies themselves, so FastAPI cannot derive their types. They are added to the
document here, and tests validate replies against them.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.errors import (
    BadParameter,
    BadRequest,
    DeadlineExceeded,
    EmptyBody,
    NotAcceptable,
    NotReady,
    QueueFull,
    ServiceError,
    SlowUpload,
    TooLarge,
    Unavailable,
    UnsupportedType,
)
from service.http.openapi_security import describe_access
from service.inference.errors import (
    BundleFilesForbidden,
    ModelControlFailed,
    ModelControlForbidden,
    NoCanary,
    UndecodableImage,
    UnknownModel,
)
from service.sources.errors import SourceConflict, UnknownSource
from service.sources.messages import SourceEntry, SourceList, SourceRequest
from service.video.errors import SourceForbidden, VideoNotInstalled
from service.wire import open_inference
from service.wire import reply as wire
from service.wire.canary import CanaryReply, CanaryRequest
from service.wire.formats.coco import CocoResult
from service.wire.formats.openpose import OpenPoseDocument
from service.wire.formats.roboflow import RoboflowDocument
from service.wire.formats.tfjs import TfjsPose
from service.wire.job import JobList, JobReply, JobRequest
from service.wire.problem_documents import PROBLEM_TYPE

_REF = "#/components/schemas/"
_TYPES = (
    wire.Reply, CocoResult, wire.ComparisonReply, wire.Models, wire.ModelDetail, wire.State, wire.Problem, CanaryReply,
    CanaryRequest, wire.BatchFault, TfjsPose, OpenPoseDocument, RoboflowDocument, open_inference.ModelControl,
    open_inference.RepositoryEntry, open_inference.InferenceError, open_inference.ServerMetadata,
    open_inference.ModelMetadata, open_inference.InferRequest, open_inference.InferReply,
    SourceEntry, SourceList, JobReply, JobList, JobRequest,
)  # fmt: skip

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_MULTIPART_FILE = {"type": "string", "format": "binary"}
_RAW_FORMS = {"image/jpeg": _BINARY, "image/png": _BINARY, "image/webp": _BINARY}
_ONE_PICTURE = {
    "requestBody": {
        "required": True,
        "description": "One picture: its bytes, or a multipart field `image`, or base64 in JSON.",
        "content": {
            **_RAW_FORMS,
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["image"], "properties": {"image": _MULTIPART_FILE}}
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {"image": {"type": "string", "contentEncoding": "base64"}},
                }
            },
        },
    }
}
_SEVERAL_PICTURES = {
    "requestBody": {
        "required": True,
        "description": "Several multipart fields `image`.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": _MULTIPART_FILE}},
                }
            }
        },
    }
}


def ref(model: type) -> dict[str, str]:
    """Refer to the schema of a model among those that `describe` adds."""
    return {"$ref": _REF + model.__name__}


def problem_responses(
    *errors: type[ServiceError], media_type: str = PROBLEM_TYPE, document: type = wire.Problem
) -> dict[int | str, Any]:
    """Describe the problems of a route, grouped by status."""
    responses: dict[int | str, Any] = {}
    for error in errors:
        line = f"`{error.slug}`: {error.title}."
        known = responses.get(error.status)
        if known:
            known["description"] += " " + line
        else:
            responses[error.status] = {"description": line, "content": {media_type: {"schema": ref(document)}}}
    return responses


def route(
    reply: dict[str, Any], problems: dict[int | str, Any], body: dict[str, Any] | None = None, status: int = 200
) -> dict[str, Any]:
    """Make the arguments of a route's decorator.

    Args:
        reply: Schemas by media type.
        problems: From `problem_responses`.
        body: Description of the request body.
        status: Of an answer without problems.
    """
    content = {media_type: {"schema": schema} for media_type, schema in reply.items()}
    answered: dict[str, Any] = {"description": "The answer."} | ({"content": content} if content else {})
    return {
        "response_model": None,
        "status_code": status,
        "responses": {status: answered, **problems},
        "openapi_extra": body or {},
    }


_JSON = "application/json"
_PICTURE_PROBLEMS = problem_responses(
    EmptyBody, BadRequest, UnknownModel, NotAcceptable, SlowUpload, TooLarge, UnsupportedType, UndecodableImage,
    BadParameter, NotReady, Unavailable, QueueFull, DeadlineExceeded,
)  # fmt: skip
_COCO = {"type": "array", "items": ref(CocoResult)}
_TFJS = {"type": "array", "items": ref(TfjsPose)}
_ANSWER = {"anyOf": [ref(wire.Reply), _COCO, _TFJS, ref(OpenPoseDocument), ref(RoboflowDocument)]}

PREDICT = route(
    {
        _JSON: _ANSWER,
        "image/jpeg": _BINARY["schema"],
        "image/png": _BINARY["schema"],
        "text/csv": {"type": "string"},
    },
    _PICTURE_PROBLEMS,
    _ONE_PICTURE,
)
BATCH = route(
    {_JSON: {"type": "array", "items": {"anyOf": [*_ANSWER["anyOf"], ref(wire.BatchFault)]}}},
    _PICTURE_PROBLEMS,
    _SEVERAL_PICTURES,
)
COMPARE = route({_JSON: ref(wire.ComparisonReply)}, _PICTURE_PROBLEMS, _ONE_PICTURE)
MODELS = route({_JSON: ref(wire.Models)}, {})
MODEL = route({_JSON: ref(wire.ModelDetail)}, problem_responses(UnknownModel))
BUNDLE_MANIFEST = route({_JSON: {"type": "object"}}, problem_responses(BundleFilesForbidden, UnknownModel))
BUNDLE_GRAPH = route(
    {"application/octet-stream": _BINARY["schema"]}, problem_responses(BundleFilesForbidden, UnknownModel, Unavailable)
)
CANARY = route({_JSON: ref(CanaryReply)}, {})
CANARY_START = route(
    {_JSON: ref(CanaryReply)},
    problem_responses(
        BadRequest, ModelControlForbidden, UnknownModel, SlowUpload, BadParameter, Unavailable, QueueFull
    ),
    {"requestBody": {"required": True, "content": {_JSON: {"schema": ref(CanaryRequest)}}}},
)
CANARY_CHANGE = route(
    {_JSON: ref(CanaryReply)}, problem_responses(ModelControlForbidden, NoCanary, UnknownModel, Unavailable)
)
SOURCES = route({_JSON: ref(SourceList)}, problem_responses(SourceForbidden))
SOURCE = route({_JSON: ref(SourceEntry)}, problem_responses(SourceForbidden, UnknownSource))
SOURCE_ADD = route(
    {_JSON: ref(SourceEntry)},
    problem_responses(
        BadRequest, SourceForbidden, UnknownModel, SlowUpload, SourceConflict, BadParameter, VideoNotInstalled,
        NotReady, Unavailable, QueueFull,
    ),
    {"requestBody": {"required": True, "content": {_JSON: {"schema": ref(SourceRequest)}}}},
    status=201,
)  # fmt: skip
SOURCE_CHANGE = route({_JSON: ref(SourceEntry)}, problem_responses(SourceForbidden, UnknownSource, SourceConflict))
SOURCE_REMOVE = route({}, problem_responses(SourceForbidden, UnknownSource), status=204)
METRICS = route({"text/plain": {"type": "string"}}, {})
HEALTHZ = route({_JSON: ref(wire.State)}, {})
READYZ = route({_JSON: ref(wire.State)}, problem_responses(NotReady))


def _errors(*errors: type[ServiceError]) -> dict[int | str, Any]:
    """Describe the errors of a route below /v2."""
    return problem_responses(*errors, media_type=_JSON, document=open_inference.InferenceError)


_CONTROL = {"requestBody": {"content": {_JSON: {"schema": ref(open_inference.ModelControl)}}}}
REPOSITORY_INDEX = route(
    {_JSON: {"type": "array", "items": ref(open_inference.RepositoryEntry)}},
    _errors(BadRequest, ModelControlForbidden, SlowUpload, QueueFull),
    _CONTROL,
)
REPOSITORY_CHANGE = route(
    {_JSON: ref(open_inference.RepositoryEntry)},
    _errors(BadRequest, ModelControlFailed, ModelControlForbidden, UnknownModel, SlowUpload, NotReady, QueueFull),
    _CONTROL,
)
_HEALTH = {_JSON: {"type": "object"}}
SERVER_METADATA = route({_JSON: ref(open_inference.ServerMetadata)}, {})
SERVER_LIVE = route(_HEALTH, {})
SERVER_READY = route(_HEALTH, _errors(NotReady))
MODEL_METADATA = route({_JSON: ref(open_inference.ModelMetadata)}, _errors(UnknownModel, Unavailable))
MODEL_READY = route(_HEALTH, _errors(UnknownModel, Unavailable, NotReady))
INFER = route(
    {_JSON: ref(open_inference.InferReply), "application/octet-stream": _BINARY["schema"]},
    _errors(
        EmptyBody, BadRequest, UnknownModel, SlowUpload, TooLarge, UnsupportedType, UndecodableImage, BadParameter,
        NotReady, Unavailable, QueueFull, DeadlineExceeded,
    ),
    {
        "requestBody": {
            "required": True,
            "description": "JSON; or JSON and binary tensor data, with the size of the JSON in the header "
            f"`{open_inference.HEADER_LENGTH}`.",
            "content": {_JSON: {"schema": ref(open_inference.InferRequest)}, "application/octet-stream": _BINARY},
        }
    },
)  # fmt: skip


def describe(app: FastAPI, *, public_metrics: bool = False) -> None:
    """Add the types of requests and replies to the document of ``app``, and remove FastAPI's own error type.

    Args:
        app: The application.
        public_metrics: Whether ``/metrics`` needs no API key.
    """
    write = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = write()
            types: list[tuple[type[BaseModel], Literal["validation", "serialization"]]]
            types = [(model, "serialization") for model in _TYPES] + [(SourceRequest, "validation")]
            _, definitions = models_json_schema(types, ref_template=_REF + "{model}")
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            for path in document["paths"].values():
                for operation in path.values():
                    if "HTTPValidationError" in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            describe_access(
                document,
                keys=app.state.api_keys.required,
                limits=bool(app.state.rate_limits),
                public_metrics=public_metrics,
            )
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
