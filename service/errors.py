"""`ServiceError`, and the problems that any call can get; `service.wire.problem_documents` writes them.

Each class is one problem type. Problems with the things of one room are in its ``errors.py``, such as
`service.jobs.errors`, and all types are listed in `service.http.problem_types`. The class attributes are the only
source of the page ``/problems/{slug}`` and of ``docs/errors.md``. Each message says what was expected, what came, and
what to do; the extra fields of a document carry the same facts typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

RETRY_AFTER = {"retry_after_s": "Seconds to wait before the next attempt, as in the header `Retry-After`."}
"""Field of the problems that pass by themselves."""


class ServiceError(Exception):
    """A call that fails, with everything that its problem document needs.

    Attributes:
        status: HTTP status code.
        slug: Last part of the problem's type; never changes.
        title: The problem in a few words.
        meaning: What happened, for the problem's page.
        advice: What the caller or the operator can do, for the problem's page.
        fields: Extra fields that a document of this type may have, with their meaning.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"
    meaning: ClassVar[str] = "An error in the server itself prevented an answer."
    advice: ClassVar[str] = (
        "Report the `request_id` to the operator, who finds the error under this id in the server's log. The same "
        "request may succeed when it is sent again."
    )
    fields: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **extras: Any) -> None:
        """Describe one failure.

        Args:
            detail: What was expected, what came, what to do.
            headers: HTTP headers of the response, such as ``Retry-After``.
            extras: Values of `fields`.
        """
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extras = extras


class BadRequest(ServiceError):
    """The request's body, or a stream's message, cannot be parsed."""

    status, slug, title = 400, "malformed-request", "The request is malformed"
    meaning = (
        "The body is not valid JSON, base64 or multipart, its compression is damaged, it holds the wrong number of "
        "pictures, or a stream's message is neither a frame nor a known text message."
    )
    advice = (
        "Compare the request with the examples at `/docs`. Let the HTTP library write the Content-Type and the "
        "boundary of a multipart body."
    )
    fields: ClassVar[Mapping[str, str]] = {
        "images": "Number of pictures in the body.",
        "max_batch": "Maximum number of pictures in one call.",
        "seq": "Sequence number of the frame, in streams.",
    }


class EmptyBody(BadRequest):
    """The request has no picture."""

    slug, title = "empty-body", "The request holds no picture"
    meaning = "The body, its field `image`, or a stream's frame has no bytes."
    advice = "Send the bytes of a JPEG, PNG or WebP file. Check that the file was read before it was sent."
    fields: ClassVar[Mapping[str, str]] = {}


class Unauthorized(ServiceError):
    """The request has no API key, or a wrong one."""

    status, slug, title = 401, "unauthorized", "An API key is needed"
    meaning = (
        "The server answers callers with an API key only, and the request had none, or one that it does not accept."
    )
    advice = (
        "Ask the server's operator for a key. Send it as `X-API-Key: KEY` or `Authorization: Bearer KEY`; streams from "
        "browsers offer it as the subprotocol `bearer.KEY`."
    )


class UnknownPath(ServiceError):
    """The server has nothing at the path."""

    status, slug, title = 404, "not-found", "Not Found"
    meaning = "The server has nothing at this path."
    advice = "See `/docs` for all paths. Check the prefix if a proxy stands in front of the server."


class WrongMethod(ServiceError):
    """The path exists but does not allow the HTTP method."""

    status, slug, title = 405, "method-not-allowed", "Method Not Allowed"
    meaning = "The path exists, but not for this HTTP method."
    advice = "Use one of the methods in the header `Allow`. Pictures are sent with POST."


class NotAcceptable(ServiceError):
    """The Accept header allows no format that the call can answer with."""

    status, slug, title = 406, "not-acceptable", "No acceptable format"
    meaning = "The Accept header allows no format that this call can answer with, or a JPEG cannot be that large."
    advice = "Ask for one of the types in `offered`, or leave the Accept header out to get JSON."
    fields: ClassVar[Mapping[str, str]] = {
        "offered": "Media types that the call can answer with.",
        "got": "The Accept header.",
    }


class SlowUpload(ServiceError):
    """The body took too long to arrive."""

    status, slug, title = 408, "slow-upload", "The body took too long to arrive"
    meaning = "The whole body did not arrive within the server's time limit for uploads."
    advice = "Send a smaller picture. The operator can raise the limit with `--upload-s`."
    fields: ClassVar[Mapping[str, str]] = {
        "bytes": "Bytes that arrived in time.",
        "upload_s": "The time limit in seconds.",
    }


class TooLarge(ServiceError):
    """The picture or the body has too many bytes or pixels."""

    status, slug, title = 413, "image-too-large", "The picture is too large"
    meaning = "The picture has more bytes or pixels than the server accepts, or the body has too many bytes."
    advice = (
        "Scale the picture down. Larger pictures seldom give better poses. The operator can raise the limits with "
        "`--max-bytes`, `--max-pixels` and `--max-batch-bytes`."
    )
    fields: ClassVar[Mapping[str, str]] = {
        "bytes": "Size of the picture or body, as far as it was read.",
        "max_bytes": "Maximum size in bytes.",
        "width": "Width of the picture in pixels.",
        "height": "Height of the picture in pixels.",
        "pixels": "Width times height.",
        "max_pixels": "Maximum number of pixels of a picture of this kind.",
    }


class UnsupportedType(ServiceError):
    """The server does not read the type of the body, its compression, or the picture."""

    status, slug, title = 415, "unsupported-type", "The type is not supported"
    meaning = "The server does not read this Content-Type, this Content-Encoding, or this kind of picture."
    advice = (
        "Send one still picture as JPEG, PNG or WebP. Convert other formats. Send videos to `/jobs` where the "
        "server runs video jobs; otherwise split them into frames."
    )
    fields: ClassVar[Mapping[str, str]] = {
        "expected": "The types that the server reads.",
        "got": "The type that came.",
    }


class UnknownHost(ServiceError):
    """The Host header names another server."""

    status, slug, title = 421, "unknown-host", "The server is not known by this name"
    meaning = (
        "The Host header has a name that is not one of this server's names. The server refuses such calls because a "
        "web page can make its own name resolve to this server (DNS rebinding)."
    )
    advice = (
        "If the name belongs to this server, the operator adds it with `--allowed-hosts`. IP addresses and "
        "`localhost` always work."
    )
    fields: ClassVar[Mapping[str, str]] = {"host": "The Host header."}


class BadParameter(ServiceError):
    """A parameter or a field has an invalid value."""

    status, slug, title = 422, "bad-parameter", "A parameter is not valid"
    meaning = "A parameter in the query, a field of the body, or a field of a stream's first message is not valid."
    advice = "The `detail` names the parameter, the expected value and what came. `/docs` lists all parameters."
    fields: ClassVar[Mapping[str, str]] = {
        "parameters": "Every invalid parameter with `in`, `name`, `expected` and `got`.",
        "index": "Index of the invalid box in `boxes`; null if the whole list is invalid.",
        "box": "The invalid box, `[x, y, width, height]` in pixels.",
        "width": "Width of the upright picture in pixels.",
        "height": "Height of the upright picture in pixels.",
        "model": "The model that was asked for.",
        "skeleton": "The skeleton of that model.",
        "format": "The format that was asked for.",
        "unknown": "Names of unknown fields in the body.",
        "got": "Name of the unknown multipart field.",
    }


class RateLimited(ServiceError):
    """The caller made too many calls in a short time."""

    status, slug, title = 429, "rate-limited", "Too many calls"
    meaning = "One API key, or one address, made more calls, or opened more streams, in a short time than it may."
    advice = (
        "Wait for `retry_after_s` seconds and try again. The headers `RateLimit` and `RateLimit-Policy` of each "
        "answer tell how many calls are left. The operator can raise the limits with `--rate-limit-per-key` and "
        "`--rate-limit-per-address`."
    )
    fields: ClassVar[Mapping[str, str]] = RETRY_AFTER | {
        "limit": "Maximum number of calls in the window.",
        "window_s": "Length of the window in seconds.",
        "counted_by": "What the limit counts by: `key` or `address`.",
    }


class Unavailable(ServiceError):
    """The model exists but cannot answer, or the server is stopping."""

    status, slug, title = 503, "model-unavailable", "The model is not available"
    meaning = "The server has the model but cannot run it, or the server is stopping."
    advice = "Ask for another model. If the document has `retry_after_s`, wait that long and try again."
    fields: ClassVar[Mapping[str, str]] = {"model": "The model that was asked for."} | RETRY_AFTER


class NotReady(Unavailable):
    """The models are still warming up."""

    slug, title = "not-ready", "The service is not ready"
    meaning = "The server has just started and its models are still warming up, or none of them can run."
    advice = "Try again in a second. `/readyz` answers with status 200 as soon as the server is ready."
    fields: ClassVar[Mapping[str, str]] = RETRY_AFTER


class QueueFull(Unavailable):
    """More calls, or more bytes, wait than the server allows."""

    slug, title = "queue-full", "Too many calls are waiting"
    meaning = "More calls are waiting than the queue holds, or their bodies take more memory than the server allows."
    advice = (
        "Wait for `retry_after_s` seconds and try again; send fewer calls at once. The operator can raise the limits "
        "with `--queue-size` and `--max-bodies-bytes`."
    )
    fields: ClassVar[Mapping[str, str]] = RETRY_AFTER | {
        "capacity": "Maximum number of calls that wait or run.",
        "max_bodies_bytes": "Maximum size of all bodies together, in bytes.",
    }


class DeadlineExceeded(ServiceError):
    """The answer was not ready in time."""

    status, slug, title = 504, "deadline-exceeded", "The answer took too long"
    meaning = "The server could not answer before its deadline, because of a long queue or a slow model."
    advice = "Send fewer calls at once, or smaller pictures. The operator can raise the limit with `--deadline-s`."
    fields: ClassVar[Mapping[str, str]] = {"deadline_s": "The deadline in seconds."}


def internal_error() -> ServiceError:
    """Make the error that a caller sees for any exception that the server did not expect."""
    return ServiceError("expected an answer, got an error inside the server; report the request id to its operator")


def stopping() -> Unavailable:
    """Make the error for calls that a stopping server does not answer."""
    return Unavailable(
        "expected a running server, got one that is stopping; try another",
        headers={"Retry-After": "1"},
        retry_after_s=1,
    )


def shown(value: object, limit: int = 80) -> str:
    """Return the ``repr`` of a value, cut to ``limit`` characters: a message must not repeat megabytes of input."""
    if isinstance(value, str | bytes):  # the `repr` of a long text takes many times its memory
        value = value[: limit + 1]
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
