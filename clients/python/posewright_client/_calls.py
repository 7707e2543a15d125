"""Every REST call once, without I/O: what to send, how to read the answer, when to ask again.

`exchange` is a generator that both shells drive: it yields what to do, and gets the response, or the failure, back. So
neither the retries nor the errors are written twice for `Client` and `AsyncClient`.
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
from posewright_client._pictures import media_type
from posewright_client._results import Comparison, Model, Prediction
from posewright_client._retries import Retries, parse_retry_after, worth_another

T = TypeVar("T")
SHOWN = 200
"""Characters of a foreign reply that an error message shows."""


class Options(TypedDict, total=False):
    """What a prediction can be asked for.

    Attributes:
        model: ``auto`` (the student, with the teacher as fallback), ``student``, ``teacher``, or a name of `models`.
        boxes: People's boxes [[x, y, width, height], …] in px of the upright picture; skips the detector, keeps order.
        max_people: Most people to find.
        min_score: Poses with a lower score are left out.
        keypoint_threshold: Score from which a keypoint is ``visible``; never moves or removes one.
    """

    model: str
    boxes: Sequence[Sequence[float]] | NDArray[Any]
    max_people: int
    min_score: float
    keypoint_threshold: float


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call, ready to be sent, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: Sequence[tuple[str, tuple[str, bytes, str]]] | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the request; anew for every attempt, since a body can be read only once."""
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
    """A step of `exchange`: do nothing for so long."""

    seconds: float


def predict(content: bytes, options: Options) -> Call[Prediction]:
    """Build ``POST /predict``."""
    headers = {"Content-Type": media_type(content)}
    return Call("POST", "/predict", _parsing.parse_prediction, _query(options), headers, content)


def predict_batch(contents: Sequence[bytes], options: Options) -> Call[list[Prediction | ProblemError]]:
    """Build ``POST /predict/batch``."""
    files = [("image", (f"{i}", content, media_type(content))) for i, content in enumerate(contents)]
    if not files:
        raise ValueError("predict_batch: expected at least one picture, got none")
    return Call("POST", "/predict/batch", _parsing.parse_batch, _query(options), files=files)


def compare(content: bytes, options: Options) -> Call[Comparison]:
    """Build ``POST /compare``."""
    headers = {"Content-Type": media_type(content)}
    return Call("POST", "/compare", _parsing.parse_comparison, _query(options), headers, content)


def models() -> Call[tuple[Model, ...]]:
    """Build ``GET /models``."""
    return Call("GET", "/models", _parsing.parse_models)


def model(name: str) -> Call[Model]:
    """Build ``GET /models/{name}``."""
    return Call("GET", f"/models/{quote(name, safe='')}", _parsing.parse_model)


def ready() -> Call[bool]:
    """Build ``GET /readyz``."""
    return Call("GET", "/readyz", lambda _: True)


def _query(options: Options) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise TypeError(f"expected options among {sorted(Options.__annotations__)}, got {name!r}")
        if value is None:
            continue
        if name == "boxes":
            boxes: Any = value
            query[name] = json.dumps([[float(number) for number in box] for box in boxes])
        else:
            query[name] = str(value)
    return query


Steps = Generator[Call[Any] | Wait, httpx.Response | None, T]


def exchange(call: Call[T], retries: Retries) -> Steps[T]:
    """Get one answer: yields calls to send and waits; the shell sends responses back, or throws `httpx.TransportError`.

    Raises:
        TransportError: No usable answer, after the retries.
        ProblemError: The server refused, after the retries.
    """
    failures, began_s = 0, time.monotonic()
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
                return call.read(_document(response))
            failure = problem_of(response)
        failures += 1
        if not worth_another(failure):
            raise failure
        delay_s = retries.delay_s(failures, failure, time.monotonic() - began_s)
        if delay_s is None:
            raise failure
        yield Wait(delay_s)


def readiness(call: Call[bool]) -> Steps[bool]:
    """Ask once whether the server is ready: 503 is an answer, no failure."""
    try:
        return (yield from exchange(call, Retries(attempts=1)))
    except ProblemError as problem:
        if problem.status == httpx.codes.SERVICE_UNAVAILABLE:
            return False
        raise


def problem_of(response: httpx.Response) -> ProblemError | BadReply:
    """Read a refusal: a problem document, or what a proxy on the way says in its place."""
    retry_after_s = parse_retry_after(response.headers.get("retry-after"), time.time())
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "title" in document:
        return ProblemError.from_document({"status": response.status_code} | document, retry_after_s)
    if response.is_client_error or response.is_server_error:
        detail = f"{response.request.url} answered with no problem document: {response.text[:SHOWN]!r}"
        return ProblemError.from_document(
            {"status": response.status_code, "title": response.reason_phrase, "detail": detail}, retry_after_s
        )
    return BadReply(
        f"{response.request.url}: expected an answer, got {response.status_code} {response.reason_phrase} "
        f"to {response.headers.get('location', 'nowhere')}; give the server's final address"
    )


def _document(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise BadReply(
            f"{response.request.url}: expected JSON, got {response.headers.get('content-type')} "
            f"{response.text[:SHOWN]!r}; is this the address of a posewright server?"
        ) from error


def _transport_error(error: httpx.TransportError, path: str) -> TransportError:
    said = str(error) or type(error).__name__
    # A connection that was not there in time was never there: asking again doubles no work.
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Timeout(f"{path}: no answer in time ({said}); raise timeout_s, or send smaller pictures")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError | httpx.ConnectTimeout):
        return ConnectError(f"{path}: {said}; is the server running, and the address right?")
    return TransportError(f"{path}: {said}")
