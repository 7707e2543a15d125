"""The REST calls without I/O: what to send, how to parse the reply, and when to retry.

`exchange` is a generator that `Client` and `AsyncClient` both drive: it yields requests and waits, and receives
responses and failures. Retries and errors are therefore implemented once for both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from numpy.typing import NDArray

from posewright_client import _parsing
from posewright_client._errors import BadReply, ConnectError, PosewrightError, ProblemError, Timeout, TransportError
from posewright_client._keywords import require_known
from posewright_client._pictures import media_type
from posewright_client._results import Comparison, Model, Prediction
from posewright_client._retries import Retries, is_retryable, parse_retry_after

T = TypeVar("T")
EXCERPT_LENGTH = 200
"""Characters of an unexpected reply that an error message quotes."""


class Options(TypedDict, total=False):
    """Options of a prediction, each a keyword argument. None is the same as leaving it out.

    Attributes:
        model: ``auto`` (the student, with the teacher as fallback), ``student``, ``teacher``, or a name from `models`.
        boxes: People's boxes [[x, y, width, height], …] in px of the upright picture, instead of those of the
            detector; the result has the same order.
        max_people: Maximum number of people.
        min_score: Poses with a lower score are left out.
        keypoint_threshold: Minimum score of a ``visible`` keypoint; all keypoints are returned.
        covariance: Whether keypoints get a ``covariance``, which not every model has.
    """

    model: str | None
    boxes: Sequence[Sequence[float]] | NDArray[Any] | None
    max_people: int | None
    min_score: float | None
    keypoint_threshold: float | None
    covariance: bool | None


@dataclass(frozen=True, slots=True)
class RestCall(Generic[T]):
    """One call: the request, and the function that parses the reply."""

    method: str
    path: str
    parse: Callable[[Any], T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: Sequence[tuple[str, tuple[str, bytes, str]]] | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build a request for one attempt; its body can be read only once."""
        return http.build_request(
            self.method,
            self.path,
            params=dict(self.query),
            headers=dict(self.headers),
            content=self.content,
            files=self.files,
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """A step of `exchange`: wait before the next attempt."""

    seconds: float


def predict(content: bytes, options: Options) -> RestCall[Prediction]:
    """Build ``POST /predict``."""
    headers = {"Content-Type": media_type(content)}
    return RestCall("POST", "/predict", _parsing.parse_prediction, _query("predict", options), headers, content)


def predict_batch(contents: Sequence[bytes], options: Options) -> RestCall[list[Prediction | ProblemError]]:
    """Build ``POST /predict/batch``."""
    files = [("image", (f"{i}", content, media_type(content))) for i, content in enumerate(contents)]
    if not files:
        raise ValueError("predict_batch: expected at least one picture, got none")
    return RestCall("POST", "/predict/batch", _parsing.parse_batch, _query("predict_batch", options), files=files)


def compare(content: bytes, options: Options) -> RestCall[Comparison]:
    """Build ``POST /compare``."""
    headers = {"Content-Type": media_type(content)}
    return RestCall("POST", "/compare", _parsing.parse_comparison, _query("compare", options), headers, content)


def models() -> RestCall[tuple[Model, ...]]:
    """Build ``GET /models``."""
    return RestCall("GET", "/models", _parsing.parse_models)


def model(name: str) -> RestCall[Model]:
    """Build ``GET /models/{name}``."""
    return RestCall("GET", f"/models/{quote(name, safe='')}", _parsing.parse_model)


def ready() -> RestCall[bool]:
    """Build ``GET /readyz``."""
    return RestCall("GET", "/readyz", lambda _: True)


def _query(call: str, options: Options) -> dict[str, str]:
    require_known(call, options, Options.__annotations__)
    query: dict[str, str] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name == "boxes":
            query[name] = _boxes(value)
        else:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return query


def _boxes(boxes: Any) -> str:
    try:
        return json.dumps([[float(number) for number in box] for box in boxes])
    except (TypeError, ValueError) as error:
        raise TypeError(f"boxes: expected [[x, y, width, height], …] in px, got {boxes!r:.60}") from error


Steps = Generator[RestCall[Any] | Wait, httpx.Response | None, T]


def exchange(call: RestCall[T], retries: Retries) -> Steps[T]:
    """Make one call with retries: yields calls and waits; receives responses, or `httpx.TransportError`.

    Raises:
        TransportError: There was no usable reply, after the retries.
        ProblemError: The server refused the call, after the retries.
    """
    failures, started_s = 0, time.monotonic()
    while True:
        failure: PosewrightError
        try:
            response = yield call
        except httpx.TransportError as error:
            failure = _transport_error(error, call.path)
            failure.__cause__ = error
        else:
            assert response is not None
            if response.is_success:
                return call.parse(_document(response))
            failure = refusal(response)
        failures += 1
        if not is_retryable(failure):
            raise failure
        delay_s = retries.delay_s(failures, failure, time.monotonic() - started_s)
        if delay_s is None:
            raise failure
        yield Wait(delay_s)


def readiness(call: RestCall[bool]) -> Steps[bool]:
    """Ask once whether the server is ready; 503 means False."""
    try:
        return (yield from exchange(call, Retries(attempts=1)))
    except ProblemError as problem:
        if problem.status == httpx.codes.SERVICE_UNAVAILABLE:
            return False
        raise


def refusal(response: httpx.Response) -> ProblemError | BadReply:
    """Parse a refusal: a problem document, or the error page of a proxy."""
    retry_after_s = parse_retry_after(response.headers.get("retry-after"), time.time())
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "title" in document:
        return ProblemError.from_document({"status": response.status_code} | document, retry_after_s)
    if response.is_client_error or response.is_server_error:
        detail = f"{response.request.url} responded without a problem document: {response.text[:EXCERPT_LENGTH]!r}"
        return ProblemError.from_document(
            {"status": response.status_code, "title": response.reason_phrase, "detail": detail}, retry_after_s
        )
    return BadReply(
        f"{response.request.url}: expected a reply, got {response.status_code} {response.reason_phrase} "
        f"to {response.headers.get('location', 'nowhere')}; use the final address of the server"
    )


def _document(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise BadReply(
            f"{response.request.url}: expected JSON, got {response.headers.get('content-type')} "
            f"{response.text[:EXCERPT_LENGTH]!r}; is this the address of a posewright server?"
        ) from error


def _transport_error(error: httpx.TransportError, path: str) -> TransportError:
    reason = str(error) or type(error).__name__
    # After a timeout while connecting, the server has no work yet, so a retry is safe.
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Timeout(f"{path}: no reply in time ({reason}); raise timeout_s or send smaller pictures")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError | httpx.ConnectTimeout):
        return ConnectError(f"{path}: {reason}; is the server running at this address?")
    return TransportError(f"{path}: {reason}")
