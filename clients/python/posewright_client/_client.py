"""`Client` and `AsyncClient`: the I/O around the same calls and the same stream."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from posewright_client import _calls
from posewright_client._calls import Options, Steps, Wait, exchange
from posewright_client._errors import ProblemError
from posewright_client._frames import Frame, StreamArguments, StreamOptions
from posewright_client._pictures import AsyncBinaryFile, Picture, load, load_async, require_several
from posewright_client._python310 import Self, Unpack
from posewright_client._results import Comparison, Model, Prediction
from posewright_client._retries import Retries
from posewright_client._stream import AsyncStream, StreamEndpoint
from posewright_client._sync_stream import Stream

T = TypeVar("T")
DEFAULT_URL = "http://localhost:8000"
USER_AGENT = "posewright-client/0.1.0"


class _Configuration:
    """The configuration that both clients share."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        retries: Retries,
        api_key: str | None,
        headers: Mapping[str, str] | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        try:
            scheme = httpx.URL(url).scheme
        except httpx.InvalidURL as error:
            raise ValueError(f"url: expected http://… or https://…, got {url!r}: {error}") from error
        if scheme not in {"http", "https"}:
            raise ValueError(f"url: expected http://… or https://…, got {url!r}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: expected more than 0 seconds, got {timeout_s}")
        self.url, self.timeout_s, self.retries, self.ssl_context = url, timeout_s, retries, ssl_context
        self.headers = {"User-Agent": USER_AGENT} | dict(headers or {})
        if api_key is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def http_options(self) -> dict[str, Any]:
        """Return the arguments for `httpx.Client` and `httpx.AsyncClient`."""
        verify: ssl.SSLContext | bool = True if self.ssl_context is None else self.ssl_context
        return {"base_url": self.url, "timeout": self.timeout_s, "headers": self.headers, "verify": verify}

    def stream_endpoint(self) -> StreamEndpoint:
        """Return the endpoint of streams."""
        address = httpx.URL(self.url)
        scheme = "wss" if address.scheme == "https" else "ws"
        path = address.path.rstrip("/") + "/stream"
        headers = {name: value for name, value in self.headers.items() if name != "User-Agent"}
        return StreamEndpoint(
            str(address.copy_with(scheme=scheme, path=path)), headers, self.timeout_s, self.ssl_context
        )


class Client:
    """Blocking client of a posewright server. Use it as a context manager, or `close` it.

    Threads may share a client.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Configure the client; nothing is sent yet.

        Args:
            url: Address of the server, including its path prefix.
            timeout_s: Timeout for connecting, sending and receiving, seconds.
            retries: When to retry; default: `Retries()`.
            api_key: Sent as ``Authorization: Bearer``.
            headers: Sent with every call.
            ssl_context: For servers with self-signed certificates.
            transport: Transport for httpx; streams do not use it.
        """
        self._configuration = _Configuration(url, timeout_s, retries or Retries(), api_key, headers, ssl_context)
        self._http = httpx.Client(transport=transport, **self._configuration.http_options())

    def predict(self, picture: Picture, **options: Unpack[Options]) -> Prediction:
        """Find the people in a picture and their keypoints.

        Args:
            picture: A path, the bytes of a JPEG, PNG or WebP, a file object, pixels uint8 (H, W, 3) RGB, a PIL image,
                or a tensor: see `Picture`. Pixels and images are sent as JPEG.
            options: See `Options`.

        Raises:
            ProblemError: The server refused the call; the subclass says why.
            TransportError: There was no usable reply.
            OSError: The path or the file cannot be read.
            TypeError, ValueError: The picture is of another kind than expected, or there is no such option.
        """
        return self._run(exchange(_calls.predict(load(picture), options), self._configuration.retries))

    def predict_batch(self, pictures: Iterable[Picture], **options: Unpack[Options]) -> list[Prediction | ProblemError]:
        """Predict several pictures in one call, in order; a bad picture becomes a `ProblemError` in the list.

        Raises:
            ProblemError, TransportError, OSError, TypeError, ValueError: As `predict`, for the call as a whole.
        """
        require_several("predict_batch", pictures)
        contents = [load(picture) for picture in pictures]
        return self._run(exchange(_calls.predict_batch(contents, options), self._configuration.retries))

    def compare(self, picture: Picture, **options: Unpack[Options]) -> Comparison:
        """Run the student and the teacher on the same picture, and compare their poses.

        Raises:
            ProblemError, TransportError, OSError, TypeError, ValueError: As `predict`.
        """
        return self._run(exchange(_calls.compare(load(picture), options), self._configuration.retries))

    def models(self) -> tuple[Model, ...]:
        """List the server's models."""
        return self._run(exchange(_calls.models(), self._configuration.retries))

    def model(self, name: str) -> Model:
        """Return one model, with its model card."""
        return self._run(exchange(_calls.model(name), self._configuration.retries))

    def ready(self) -> bool:
        """Return whether the server is ready; False while it loads its models.

        Raises:
            TransportError: The server cannot be reached.
        """
        return self._run(_calls.readiness(_calls.ready()))

    def stream(self, frames: Iterable[Picture | Frame], **options: Unpack[StreamArguments]) -> Stream:
        """Send frames, and iterate over their results.

        The frames are read in a separate thread, as fast as they come (``latest``) or as the server processes them
        (``all``). To stop early, close the stream or use it as a context manager.

        Args:
            frames: Pictures, or `Frame`s with a capture time.
            options: See `StreamOptions`.

        Raises (while iterating):
            StreamClosed, ProblemError, TransportError: The stream could not be opened or reopened.
        """
        return Stream(AsyncStream(frames, StreamOptions.of(options), self._configuration.stream_endpoint()))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = self._http.send(step.request(self._http))
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            answer: T = end.value
            return answer


class AsyncClient:
    """Client of a posewright server for asyncio. Use it as an async context manager, or `aclose` it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        retries: Retries | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        limits: httpx.Limits | None = None,
    ) -> None:
        """Configure the client: the arguments of `Client`, and the ``limits`` of the connection pool."""
        self._configuration = _Configuration(url, timeout_s, retries or Retries(), api_key, headers, ssl_context)
        pool = limits or httpx.Limits(max_connections=100, max_keepalive_connections=20)
        self._http = httpx.AsyncClient(transport=transport, limits=pool, **self._configuration.http_options())

    async def predict(self, picture: Picture | AsyncBinaryFile, **options: Unpack[Options]) -> Prediction:
        """As `Client.predict`; the ``read()`` of a file may be asynchronous, as that of FastAPI's ``UploadFile``."""
        return await self._run(
            exchange(_calls.predict(await load_async(picture), options), self._configuration.retries)
        )

    async def predict_batch(
        self, pictures: Iterable[Picture | AsyncBinaryFile], **options: Unpack[Options]
    ) -> list[Prediction | ProblemError]:
        """See `Client.predict_batch`."""
        require_several("predict_batch", pictures)
        contents: Sequence[bytes] = [await load_async(picture) for picture in pictures]
        return await self._run(exchange(_calls.predict_batch(contents, options), self._configuration.retries))

    async def compare(self, picture: Picture | AsyncBinaryFile, **options: Unpack[Options]) -> Comparison:
        """See `Client.compare`."""
        return await self._run(
            exchange(_calls.compare(await load_async(picture), options), self._configuration.retries)
        )

    async def models(self) -> tuple[Model, ...]:
        """See `Client.models`."""
        return await self._run(exchange(_calls.models(), self._configuration.retries))

    async def model(self, name: str) -> Model:
        """See `Client.model`."""
        return await self._run(exchange(_calls.model(name), self._configuration.retries))

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._run(_calls.readiness(_calls.ready()))

    def stream(
        self, frames: Iterable[Picture | Frame] | AsyncIterable[Picture | Frame], **options: Unpack[StreamArguments]
    ) -> AsyncStream:
        """As `Client.stream`, for blocking or async iterables; iterate with ``async for``, close with `aclose`."""
        return AsyncStream(frames, StreamOptions.of(options), self._configuration.stream_endpoint())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    response = await self._http.send(step.request(self._http))
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            answer: T = end.value
            return answer
