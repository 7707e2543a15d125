"""One stream's session: handshake, then frames in and results out, until the client or the server ends it.

A session has two tasks. One reads: it puts frames into the queue and answers pings, also while models are busy. The
other schedules inference whenever a frame waits (`service.streaming.frame_worker`), and sends the result. In memory a
session holds at most the frames of its queue, the one being processed, and one that is arriving.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress

from starlette.websockets import WebSocket

from service.errors import BadRequest, ServiceError, Unavailable
from service.inference.predict import Stopwatch
from service.inference.state import Service
from service.streaming import messages
from service.streaming.close import CloseCode, CloseStream, send_close
from service.streaming.conversation import content_of, converse, send
from service.streaming.follower import TrackedPrediction
from service.streaming.frame_queue import QueuedFrame
from service.streaming.frame_worker import FrameWorker, describe, finish
from service.streaming.frames import FrameReader
from service.streaming.handshake import INSTANCE, StreamSetup, negotiate
from service.wire import documents
from service.wire.canary import canary_key
from service.wire.poses import write_prediction
from service.wire.problem_documents import problem


class StreamSession:
    """A stream whose connection is accepted."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        """Prepare a session; `run` starts it."""
        self.id = str(uuid.uuid4())
        self._socket = socket
        self._service = service
        self._frames = FrameReader()
        self._setup: StreamSetup | None = None  # None until the hello has arrived
        self._wake = asyncio.Event()  # set when a frame waits, or when the session must stop
        self._room = asyncio.Event()  # set when the queue has room again for a client that was told to slow down
        self._stopped = asyncio.Event()
        self._closing: CloseStream | None = None
        self._worker: FrameWorker[str] | None = None  # as `_setup`
        self._last_frame_s = asyncio.get_running_loop().time()  # when the last frame, or the hello, was processed

    def stop(self, closing: CloseStream | None = None) -> None:
        """Ask the session to end after the result that is in progress.

        Args:
            closing: Why; None where the server is stopping.
        """
        self._closing = closing
        self._stopped.set()
        self._wake.set()

    async def run(self) -> None:
        """Serve the stream until either side ends it."""
        try:
            closed = await converse(f"stream {self.id}", self._read(), self._answer())
        finally:
            self._count_unanswered()
        if closed is not None:
            await send_close(self._socket, closed)

    def _count_unanswered(self) -> None:
        for _ in range(0 if self._worker is None else self._worker.close()):
            self._service.metrics.frame("dropped", reason="closed")

    async def _read(self) -> None:
        """Read the hello, then all further messages."""
        self._setup = negotiate(await self._receive(), self._service, self.id, canary_key(self._socket))
        self._worker = FrameWorker(self._service, self._setup, self.id)
        await send(self._socket, messages.write(self._setup.ready))
        loop = asyncio.get_running_loop()
        self._last_frame_s = loop.time()
        while True:
            message = await self._receive()
            if isinstance(message, bytes):
                if await self._on_frame(message, self._setup):
                    self._last_frame_s = loop.time()
            else:
                await self._on_text(message)

    async def _receive(self) -> bytes | str:
        """Wait for the client's next message.

        Raises:
            CloseStream: No frame, or no hello, came within the idle timeout. Pings do not extend it.
            WebSocketDisconnect: The client left.
        """
        idle_s = self._service.settings.stream_idle_s
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._last_frame_s + idle_s):
                    message = await self._socket.receive()
                break
            except TimeoutError:
                if self._worker is not None and self._worker.busy:  # the client may be waiting for this result
                    self._last_frame_s = loop.time()
                if loop.time() < self._last_frame_s + idle_s:
                    continue
            missing = "a hello" if self._setup is None else "a frame"
            reason = f"expected {missing} within {idle_s:g} s, got none; connect again when there is one to send"
            raise CloseStream(CloseCode.IDLE, reason)
        return content_of(message)

    async def _on_frame(self, message: bytes, setup: StreamSetup) -> bool:
        """Put a frame into the queue; returns False where the message is not a frame."""
        metrics = self._service.metrics
        try:
            frame = self._frames.read(message, time.perf_counter())
        except BadRequest as error:
            metrics.frame("error")
            await send(self._socket, self._error_message(error, seq=error.extras["seq"]))
            return False
        if setup.queue.put(frame):
            metrics.frame("dropped", reason="replaced")
        self._wake.set()
        if setup.hello.policy == "all" and setup.queue.full:
            waiting = len(setup.queue)
            await send(self._socket, messages.write(messages.SlowDown(waiting=waiting, limit=waiting)))
            # Nothing is read meanwhile, so further frames stay in the client's own buffers.
            self._room.clear()
            if setup.queue.full:
                await self._room.wait()
        return True

    async def _on_text(self, text: str) -> None:
        try:
            kind = messages.read_ping(text)
        except BadRequest as error:
            await send(self._socket, self._error_message(error))
            return
        if kind == "ping":
            await send(self._socket, '{"type":"pong"}')

    async def _answer(self) -> None:
        """Process frames, one at a time, until the session is stopped."""
        while True:
            await self._wake.wait()
            if self._setup is not None:
                await self._wait_for_rate_limit(self._setup)
            if self._stopped.is_set() or self._setup is None or self._worker is None:
                stopping = "the server is stopping; connect again in a moment"
                raise self._closing or CloseStream(CloseCode.SERVICE_RESTART, stopping)
            self._wake.clear()
            await self._answer_one(self._worker)
            if len(self._setup.queue):
                self._wake.set()
            if self._setup.queue.half_empty:  # reading on earlier would send `slow_down` after every frame
                self._room.set()

    async def _wait_for_rate_limit(self, setup: StreamSetup) -> None:
        delay_s = setup.rate_limit.delay_s(time.perf_counter())
        if delay_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopped.wait()

    async def _answer_one(self, worker: FrameWorker[str]) -> None:
        """Process one frame and send its result, or an error message."""
        try:
            outcome = await worker.answer(self._result)
        except Unavailable:  # the server is stopping
            self.stop()
            return
        if outcome is None:
            return
        self._last_frame_s = asyncio.get_running_loop().time()
        taken = outcome.taken
        if outcome.error is not None:
            self._service.metrics.frame("error")
            await send(
                self._socket, self._error_message(outcome.error, taken.frame.seq, taken.frame.capture_us, taken.dropped)
            )
        elif outcome.result is not None:
            self._service.metrics.frame("answered", outcome.age_ms)
            await send(self._socket, outcome.result)

    def _result(self, taken: QueuedFrame, tracked: TrackedPrediction, stopwatch: Stopwatch) -> str:
        """Write a result as JSON."""
        assert self._setup is not None
        prediction = tracked.prediction
        document = describe(taken, prediction) | {
            "dropped": taken.dropped,
            "poses": write_prediction(prediction, self._setup.query, track_ids=tracked.ids),
        }
        return documents.to_json(document | finish(self._service, taken, prediction, stopwatch)).decode()

    def _error_message(
        self, error: ServiceError, seq: int | None = None, capture_us: int | None = None, dropped: int = 0
    ) -> str:
        document = problem(error, INSTANCE, self.id, self._service.settings.root_path)
        message = {"seq": seq, "capture_us": capture_us, "dropped": dropped, "problem": document}
        return messages.write(messages.StreamError.model_validate(message))
