"""What can go wrong in a call, and its single mapping to RFC 9457 problem+json.

    ServiceError
    ├── BadRequest            400 malformed-request: JSON, base64 or multipart that cannot be taken apart
    │   └── EmptyBody         400 empty-body
    ├── UnknownModel          404 unknown-model
    ├── NotAcceptable         406 not-acceptable: no format that the Accept header allows
    ├── SlowUpload            408 slow-upload: the body took too long to arrive
    ├── TooLarge              413 image-too-large: bytes or pixels
    ├── UnsupportedType       415 unsupported-type: of the body, or of the picture itself
    ├── UnknownHost           421 unknown-host: a Host header that is none of the server's names
    ├── UndecodableImage      422 undecodable-image: no picture, or a damaged one
    ├── BadParameter          422 bad-parameter: query, boxes, unknown fields
    ├── Unavailable           503 model-unavailable
    │   ├── NotReady          503 not-ready: before the warm-up is over
    │   └── QueueFull         503 queue-full
    └── DeadlineExceeded      504 deadline-exceeded

Every message says what was expected, what came, and what to do; the extras carry the same facts as typed fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

PROBLEM_TYPE = "application/problem+json"


class ServiceError(Exception):
    """A call that cannot be answered, with all that a problem document needs."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **extras: Any) -> None:
        """Describe the failure.

        Args:
            detail: What was expected, what came, what to do.
            headers: To send with the problem, e.g. ``Retry-After``.
            extras: Typed facts, fields of their own in the document.
        """
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extras = extras


class BadRequest(ServiceError):
    """The body cannot be taken apart."""

    status, slug, title = 400, "malformed-request", "The request is malformed"


class EmptyBody(BadRequest):
    """There is no picture at all."""

    slug, title = "empty-body", "The request holds no picture"


class UnknownModel(ServiceError):
    """No such model is on the registry."""

    status, slug, title = 404, "unknown-model", "No such model"


class NotAcceptable(ServiceError):
    """The Accept header allows nothing that this call can answer with."""

    status, slug, title = 406, "not-acceptable", "No acceptable format"


class SlowUpload(ServiceError):
    """The body took too long to arrive."""

    status, slug, title = 408, "slow-upload", "The body took too long to arrive"


class TooLarge(ServiceError):
    """The picture has too many bytes or pixels."""

    status, slug, title = 413, "image-too-large", "The picture is too large"


class UnsupportedType(ServiceError):
    """The body, or the picture in it, is of a type that is not read."""

    status, slug, title = 415, "unsupported-type", "The type is not supported"


class UnknownHost(ServiceError):
    """The call is for a host that is none of the server's names."""

    status, slug, title = 421, "unknown-host", "The server is not known by this name"


class UndecodableImage(ServiceError):
    """The bytes are no picture, or a damaged one."""

    status, slug, title = 422, "undecodable-image", "The picture cannot be decoded"


class BadParameter(ServiceError):
    """A parameter is not what it must be."""

    status, slug, title = 422, "bad-parameter", "A parameter is not valid"


class Unavailable(ServiceError):
    """The model is known but cannot answer."""

    status, slug, title = 503, "model-unavailable", "The model is not available"


class NotReady(Unavailable):
    """The models are still warming up."""

    slug, title = "not-ready", "The service is not ready"


class QueueFull(Unavailable):
    """More calls wait than the queue may hold."""

    slug, title = "queue-full", "Too many calls are waiting"


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""

    status, slug, title = 504, "deadline-exceeded", "The answer took too long"


def internal_error() -> ServiceError:
    """Make the error that tells nothing of our insides."""
    return ServiceError("expected an answer, got an error inside the server; report the request id to its operator")


def stopping() -> Unavailable:
    """Make the error for calls that a stopping server leaves unanswered."""
    return Unavailable(
        "expected a running server, got one that is stopping; try another",
        headers={"Retry-After": "1"},
        retry_after_s=1,
    )


def problem(error: ServiceError, instance: str, request_id: str) -> dict[str, Any]:
    """Describe an error as a problem document (RFC 9457, sec. 3).

    Args:
        error: What happened.
        instance: Path of the call.
        request_id: As in ``X-Request-Id``.
    """
    document = _document(error.slug, error.title, error.status, error.detail, instance=instance, request_id=request_id)
    return document | error.extras


def http_problem(status: int, detail: str, instance: str, request_id: str) -> dict[str, Any]:
    """Describe an HTTP error of the framework, e.g. an unknown path, as a problem document."""
    title = HTTPStatus(status).phrase
    return _document(title.lower().replace(" ", "-"), title, status, detail, instance=instance, request_id=request_id)


def _document(slug: str, title: str, status: int, detail: str, **call: str) -> dict[str, Any]:
    kind = f"urn:posewright:problem:{slug}"
    return {"type": kind, "title": title, "status": status, "detail": detail, **call}


def validation_error(faults: Sequence[Any]) -> ServiceError:
    """Turn the framework's (pydantic's) validation faults into one of ours.

    Args:
        faults: As ``RequestValidationError.errors()`` gives them.
    """
    parameters = []
    for fault in faults:
        where, name = str(fault["loc"][0]), ".".join(str(part) for part in fault["loc"][1:])
        parameters.append({"in": where, "name": name, "expected": fault["msg"], "got": shown(fault.get("input"))})
    sentences = [f"{it['in']} parameter {it['name']!r}: {it['expected']}, got {it['got']}" for it in parameters]
    return BadParameter("; ".join(sentences) + "; see /docs for the parameters", parameters=parameters)


def shown(value: object, limit: int = 80) -> str:
    """Show what came, cut: a message must not echo megabytes."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
