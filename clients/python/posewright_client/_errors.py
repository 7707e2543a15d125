"""What can go wrong, as one tree.

    PosewrightError
    ├── TransportError            no answer came
    │   ├── ConnectError          nobody listens, or the connection broke
    │   ├── Timeout               the answer was not there in time
    │   └── BadReply              an answer came that is not of the wire, e.g. a proxy's page
    ├── ProblemError              the server's own problem document (RFC 9457)
    │   ├── MalformedRequest      400 malformed-request
    │   │   └── EmptyBody         400 empty-body
    │   ├── Unauthorized          401 unauthorized: no key, or a wrong one
    │   ├── Forbidden             403 forbidden
    │   ├── NotFound              404 not-found
    │   │   └── UnknownModel      404 unknown-model
    │   ├── NotAcceptable         406 not-acceptable
    │   ├── SlowUpload            408 slow-upload: the body took too long to arrive
    │   ├── ImageTooLarge         413 image-too-large: bytes or pixels
    │   ├── UnsupportedType       415 unsupported-type
    │   ├── UnknownHost           421 unknown-host: the server is not known by the name it was asked by
    │   ├── UndecodableImage      422 undecodable-image
    │   ├── BadParameter          422 bad-parameter
    │   ├── RateLimited           429
    │   ├── Unavailable           503 model-unavailable
    │   │   ├── NotReady          503 not-ready: warming up
    │   │   └── QueueFull         503 queue-full
    │   └── DeadlineExceeded      504 deadline-exceeded
    ├── StreamClosed              the server closed a stream, with a code of WebSocket
    └── MissingExtra              a library is missing that is not installed by default (an ImportError, too)

A problem of a type that this version does not know becomes the class of its status, or a plain `ProblemError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

PREFIX = "urn:posewright:problem:"
_STANDARD = {"type", "title", "status", "detail", "instance", "request_id"}


class PosewrightError(Exception):
    """Whatever goes wrong in this package."""


class TransportError(PosewrightError):
    """No answer came that could be used."""


class ConnectError(TransportError):
    """Nobody listens at the address, or the connection broke."""


class Timeout(TransportError):
    """The answer was not there in time."""


class BadReply(TransportError):
    """What answers at the address does not speak posewright's wire."""


class ProblemError(PosewrightError):
    """The server refused, and says why.

    Attributes:
        status: Of HTTP.
        type: URN of the kind of problem, e.g. ``urn:posewright:problem:image-too-large``.
        title: The kind in words.
        detail: What was expected, what came, what to do.
        request_id: To find the call in the server's logs; None where there was none.
        retry_after_s: Seconds after which the server may be asked again, where it says so.
        extras: Further fields of the problem: the facts of the detail, typed.
    """

    slug: ClassVar[str] = ""
    default_status: ClassVar[int] = 0

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - the wire's name
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
        """Read a problem document; absent and unknown fields are no error.

        Args:
            document: RFC 9457, parsed.
            retry_after_s: Of the header ``Retry-After``.
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
        # Exceptions are rebuilt from `args`, the message alone; process pools need the whole.
        return _rebuild, (type(self), vars(self))


def _rebuild(kind: type[ProblemError], fields: Mapping[str, Any]) -> ProblemError:
    return kind(**fields)


class MalformedRequest(ProblemError):
    """The body could not be taken apart."""

    slug, default_status = "malformed-request", 400


class EmptyBody(MalformedRequest):
    """There was no picture."""

    slug = "empty-body"


class Unauthorized(ProblemError):
    """No key was given, or a wrong one."""

    slug, default_status = "unauthorized", 401


class Forbidden(ProblemError):
    """The key, or the origin, is not allowed to."""

    slug, default_status = "forbidden", 403


class NotFound(ProblemError):
    """There is nothing at the path."""

    slug, default_status = "not-found", 404


class UnknownModel(NotFound):
    """No such model is on the server's registry."""

    slug = "unknown-model"


class NotAcceptable(ProblemError):
    """The server cannot answer in the format asked for."""

    slug, default_status = "not-acceptable", 406


class SlowUpload(ProblemError):
    """The picture took too long to arrive."""

    slug, default_status = "slow-upload", 408


class ImageTooLarge(ProblemError):
    """The picture has too many bytes or pixels."""

    slug, default_status = "image-too-large", 413


class UnsupportedType(ProblemError):
    """The picture is none of the formats that the server reads."""

    slug, default_status = "unsupported-type", 415


class BadParameter(ProblemError):
    """A parameter is not what it must be."""

    slug, default_status = "bad-parameter", 422


class UnknownHost(ProblemError):
    """The server is not known by the name that it was asked by: see its ``--allowed-hosts``."""

    slug, default_status = "unknown-host", 421


class UndecodableImage(ProblemError):
    """The bytes are no picture, or a damaged one."""

    slug = "undecodable-image"


class RateLimited(ProblemError):
    """Too many calls in too short a time."""

    slug, default_status = "rate-limited", 429


class Unavailable(ProblemError):
    """The model is known but cannot answer."""

    slug, default_status = "model-unavailable", 503


class NotReady(Unavailable):
    """The models are still warming up."""

    slug = "not-ready"


class QueueFull(Unavailable):
    """More calls wait than the server's queue may hold."""

    slug = "queue-full"


class DeadlineExceeded(ProblemError):
    """The server's own deadline passed before the answer was there."""

    slug, default_status = "deadline-exceeded", 504


class StreamClosed(PosewrightError):
    """The stream ended before all frames were answered, and may not or could not be opened again.

    Attributes:
        code: Of the WebSocket close, e.g. 1009 for a frame too large, 4401 for credentials, 1006 for a broken line.
        reason: In the server's words.
        problem: Behind it, e.g. an `UnknownModel` behind 4400; None where the server named none.
    """

    def __init__(self, code: int, reason: str = "", problem: ProblemError | None = None) -> None:
        super().__init__(code, reason, problem)
        self.code = code
        self.reason = reason
        self.problem = problem

    def __str__(self) -> str:
        return f"the server closed the stream with code {self.code}" + (f": {self.reason}" if self.reason else "")


class MissingExtra(PosewrightError, ImportError):
    """A library is missing that is not installed by default."""


def _leaves(kind: type[ProblemError]) -> list[type[ProblemError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _leaves(child))]


def _class_for(kind: str, status: int) -> type[ProblemError]:
    known = _leaves(ProblemError)[1:]
    by_slug = {PREFIX + it.slug: it for it in known}
    # Subclasses inherit the status: the first of a family, its general member, stands for it.
    by_status = {it.default_status: it for it in reversed(known) if "default_status" in vars(it)}
    return by_slug.get(kind) or by_status.get(status) or ProblemError
