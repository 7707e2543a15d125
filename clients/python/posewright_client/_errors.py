"""The exceptions of this package, as one tree.

    PosewrightError
    ├── TransportError            no usable reply
    │   ├── ConnectError          no server at the address, or the connection broke
    │   ├── Timeout               no reply in time
    │   └── BadReply              the reply is not of the wire format, e.g. an error page of a proxy
    ├── ProblemError              the server refused, with a problem document (RFC 9457)
    │   ├── MalformedRequest      400 malformed-request
    │   │   ├── EmptyBody         400 empty-body
    │   │   └── ModelControlFailed  400 model-control-failed
    │   ├── Unauthorized          401 unauthorized: no API key, or a wrong one
    │   ├── Forbidden             403 forbidden
    │   │   ├── BundleFilesForbidden   403 bundle-files-forbidden
    │   │   └── ModelControlForbidden  403 model-control-forbidden
    │   ├── NotFound              404 not-found
    │   │   └── UnknownModel      404 unknown-model
    │   ├── MethodNotAllowed      405 method-not-allowed
    │   ├── NotAcceptable         406 not-acceptable
    │   ├── SlowUpload            408 slow-upload: the body took too long to arrive
    │   ├── NoCanary              409 no-canary
    │   ├── ImageTooLarge         413 image-too-large: bytes or pixels
    │   ├── UnsupportedType       415 unsupported-type
    │   ├── UnknownHost           421 unknown-host: the server does not accept this host name
    │   ├── UndecodableImage      422 undecodable-image
    │   ├── BadParameter          422 bad-parameter
    │   ├── RateLimited           429 rate-limited
    │   ├── Unavailable           503 model-unavailable
    │   │   ├── NotReady          503 not-ready: the models are still loading
    │   │   └── QueueFull         503 queue-full
    │   └── DeadlineExceeded      504 deadline-exceeded
    ├── StreamClosed              the server closed a stream, with a WebSocket close code
    └── MissingExtra              an optional library is not installed (also an ImportError)

A problem of an unknown type becomes the class of its status, or a plain `ProblemError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

_STANDARD = {"type", "title", "status", "detail", "instance", "request_id"}


class PosewrightError(Exception):
    """Base class of the exceptions of this package."""


class TransportError(PosewrightError):
    """There was no usable reply."""


class ConnectError(TransportError):
    """There is no server at the address, or the connection broke."""


class Timeout(TransportError):
    """There was no reply in time."""


class BadReply(TransportError):
    """The reply is not of posewright's wire format."""


class ProblemError(PosewrightError):
    """The server refused the request, and said why.

    Attributes:
        status: HTTP status.
        type: URI of the kind of problem, e.g. ``/problems/image-too-large``.
        title: The kind of problem in words.
        detail: What was expected, what was received, and what to do.
        request_id: Id of the request in the server's logs, or None.
        retry_after_s: Seconds after which the server accepts a retry, or None.
        extras: Extension members of the problem document, e.g. limits.
        slug: Last part of the ``type`` that belongs to the class.
    """

    slug: ClassVar[str] = ""
    default_status: ClassVar[int] = 0

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - the name in RFC 9457
        title: str,
        detail: str,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.extras = dict(extras or {})

    @classmethod
    def from_document(cls, document: Mapping[str, Any], retry_after_s: float | None = None) -> ProblemError:
        """Read a problem document; missing and unknown fields are accepted.

        Args:
            document: A problem document (RFC 9457).
            retry_after_s: Value of the header ``Retry-After``.
        """
        kind = str(document.get("type", "about:blank"))
        status = document.get("status")
        status = status if isinstance(status, int) else 0
        return _class_for(kind, status)(
            status,
            kind,
            str(document.get("title", "Problem")),
            str(document.get("detail", "no detail given")),
            request_id=None if document.get("request_id") is None else str(document["request_id"]),
            retry_after_s=retry_after_s,
            extras={name: value for name, value in document.items() if name not in _STANDARD},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, exceptions are unpickled from `args`, which holds the message only.
        return _rebuild, (type(self), vars(self))


def _rebuild(kind: type[ProblemError], fields: Mapping[str, Any]) -> ProblemError:
    return kind(**fields)


class MalformedRequest(ProblemError):
    """The body could not be parsed."""

    slug, default_status = "malformed-request", 400


class EmptyBody(MalformedRequest):
    """The request had no picture."""

    slug = "empty-body"


class ModelControlFailed(MalformedRequest):
    """A model was not loaded, unloaded or rolled back."""

    slug = "model-control-failed"


class Unauthorized(ProblemError):
    """The request had no API key, or a wrong one."""

    slug, default_status = "unauthorized", 401


class Forbidden(ProblemError):
    """The API key or the origin is not allowed."""

    slug, default_status = "forbidden", 403


class BundleFilesForbidden(Forbidden):
    """The server does not send the files of its models."""

    slug = "bundle-files-forbidden"


class ModelControlForbidden(Forbidden):
    """The server does not let this caller change its models."""

    slug = "model-control-forbidden"


class NotFound(ProblemError):
    """The path does not exist."""

    slug, default_status = "not-found", 404


class UnknownModel(NotFound):
    """The server does not have this model."""

    slug = "unknown-model"


class MethodNotAllowed(ProblemError):
    """The path exists, but not for this HTTP method."""

    slug, default_status = "method-not-allowed", 405


class NotAcceptable(ProblemError):
    """The server cannot reply in the requested format."""

    slug, default_status = "not-acceptable", 406


class SlowUpload(ProblemError):
    """The picture took too long to arrive."""

    slug, default_status = "slow-upload", 408


class NoCanary(ProblemError):
    """There is no canary to promote or to roll back."""

    slug, default_status = "no-canary", 409


class ImageTooLarge(ProblemError):
    """The picture has too many bytes or pixels."""

    slug, default_status = "image-too-large", 413


class UnsupportedType(ProblemError):
    """The picture has a format that the server does not read."""

    slug, default_status = "unsupported-type", 415


class BadParameter(ProblemError):
    """A parameter has an invalid value."""

    slug, default_status = "bad-parameter", 422


class UnknownHost(ProblemError):
    """The server does not accept the host name of the request: see its ``--allowed-hosts``."""

    slug, default_status = "unknown-host", 421


class UndecodableImage(ProblemError):
    """The bytes are not a picture, or a damaged one."""

    slug = "undecodable-image"


class RateLimited(ProblemError):
    """There were too many requests in a short time."""

    slug, default_status = "rate-limited", 429


class Unavailable(ProblemError):
    """The model exists but cannot be used now."""

    slug, default_status = "model-unavailable", 503


class NotReady(Unavailable):
    """The models are still loading."""

    slug = "not-ready"


class QueueFull(Unavailable):
    """The server's queue is full."""

    slug = "queue-full"


class DeadlineExceeded(ProblemError):
    """The server's deadline passed before the result was ready."""

    slug, default_status = "deadline-exceeded", 504


class StreamClosed(PosewrightError):
    """The stream ended before all frames were answered, and could not be reopened.

    Attributes:
        code: WebSocket close code, e.g. 1009: frame too large, 4401: bad credentials, 1006: broken connection.
        reason: The server's explanation.
        problem: The problem that caused the close, e.g. an `UnknownModel` with code 4400; or None.
    """

    def __init__(self, code: int, reason: str = "", problem: ProblemError | None = None) -> None:
        super().__init__(code, reason, problem)
        self.code = code
        self.reason = reason
        self.problem = problem

    def __str__(self) -> str:
        return f"the server closed the stream with code {self.code}" + (f": {self.reason}" if self.reason else "")


class MissingExtra(PosewrightError, ImportError):
    """An optional library is not installed."""


def slug_of(uri: str) -> str:
    """Return the last part of a problem type, after ``:`` or ``/``."""
    return re.split("[:/]", uri)[-1]


def _with_subclasses(kind: type[ProblemError]) -> list[type[ProblemError]]:
    return [kind, *(it for child in kind.__subclasses__() for it in _with_subclasses(child))]


def _class_for(kind: str, status: int) -> type[ProblemError]:
    known = _with_subclasses(ProblemError)[1:]
    by_slug = {it.slug: it for it in known}
    # Subclasses inherit the status, so only the class that defines it represents it.
    by_status = {it.default_status: it for it in reversed(known) if "default_status" in vars(it)}
    return by_slug.get(slug_of(kind)) or by_status.get(status) or ProblemError
