"""One stream's session: handshake, then frames in and results out, until the client or the server ends it.

A session has two tasks. One reads: it puts frames into the queue and answers pings, also while models are busy. The
other schedules inference whenever a frame waits, and sends the result. A job takes its frame when it starts, not when
it is scheduled: on a server with many streams a job has to wait, and should then process the newest frame.

A session has at most one job in the scheduler, so streams are served in turn. In memory it holds at most the frames of
its queue, the one being processed, and one that is arriving.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from service.errors import BadRequest, DeadlineExceeded, ServiceError, Unavailable, internal_error
from service.inference import image
from service.inference.predict import Stopwatch
from service.inference.scheduler import HUNG_AFTER
from service.inference.state import Service
from service.streaming import messages
from service.streaming.close import CloseCode, CloseStream, send_close
from service.streaming.follower import TrackedPrediction
from service.streaming.frame_job import FrameJob
from service.streaming.frame_queue import QueuedFrame
from service.streaming.frames import FrameReader
from service.streaming.handshake import INSTANCE, StreamSetup, negotiate
from service.wire import documents
from service.wire.canary import canary_key
from service.wire.poses import write_prediction
from service.wire.problem_documents import problem

log = logging.getLogger(__name__)


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
        self._job: FrameJob | None = None  # the job whose frame is not answered yet
        self._late: FrameJob | None = None  # a job that missed its deadline and may still be running
        self._late_waits = 0  # frames that waited for it in vain
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
        tasks = [asyncio.create_task(self._until_closed(it)) for it in (self._read(), self._answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._count_unanswered()
        for outcome in outcomes:
            if isinstance(outcome, CloseStream):
                await send_close(self._socket, outcome)
                return

    def _count_unanswered(self) -> None:
        waiting = 0 if self._setup is None else len(self._setup.queue)
        in_progress = self._job is not None and self._job.close() is not None
        for _ in range(waiting + in_progress):
            self._service.metrics.frame("dropped", reason="closed")

    async def _until_closed(self, task: Coroutine[Any, Any, None]) -> CloseStream | None:
        """Run one of the two tasks until the client leaves (None) or the server has to close the stream."""
        try:
            await task
        except CloseStream as closed:
            return closed
        except WebSocketDisconnect:
            return None
        except Exception:
            log.exception("stream %s failed", self.id)
            return CloseStream(CloseCode.INTERNAL_ERROR, internal_error().detail)
        return None

    async def _read(self) -> None:
        """Read the hello, then all further messages."""
        self._setup = negotiate(await self._receive(), self._service, self.id, canary_key(self._socket))
        await self._send(messages.write(self._setup.ready))
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
                if self._job is not None:  # the client may be waiting for this result
                    self._last_frame_s = loop.time()
                if loop.time() < self._last_frame_s + idle_s:
                    continue
            missing = "a hello" if self._setup is None else "a frame"
            reason = f"expected {missing} within {idle_s:g} s, got none; connect again when there is one to send"
            raise CloseStream(CloseCode.IDLE, reason)
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        content: bytes | str | None = message.get("bytes")
        return str(message["text"]) if content is None else content

    async def _on_frame(self, message: bytes, setup: StreamSetup) -> bool:
        """Put a frame into the queue; returns False where the message is not a frame."""
        metrics = self._service.metrics
        try:
            frame = self._frames.read(message, time.perf_counter())
        except BadRequest as error:
            metrics.frame("error")
            await self._send(self._error_message(error, seq=error.extras["seq"]))
            return False
        if setup.queue.put(frame):
            metrics.frame("dropped", reason="replaced")
        self._wake.set()
        if setup.hello.policy == "all" and setup.queue.full:
            waiting = len(setup.queue)
            await self._send(messages.write(messages.SlowDown(waiting=waiting, limit=waiting)))
            # Nothing is read meanwhile, so further frames stay in the client's own buffers.
            self._room.clear()
            if setup.queue.full:
                await self._room.wait()
        return True

    async def _on_text(self, text: str) -> None:
        try:
            kind = messages.read_ping(text)
        except BadRequest as error:
            await self._send(self._error_message(error))
            return
        if kind == "ping":
            await self._send('{"type":"pong"}')

    async def _answer(self) -> None:
        """Process frames, one at a time, until the session is stopped."""
        while True:
            await self._wake.wait()
            if self._setup is not None:
                await self._wait_for_rate_limit(self._setup)
            if self._stopped.is_set() or self._setup is None:
                stopping = "the server is stopping; connect again in a moment"
                raise self._closing or CloseStream(CloseCode.SERVICE_RESTART, stopping)
            self._wake.clear()
            await self._answer_one(self._setup)
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

    async def _answer_one(self, setup: StreamSetup) -> None:
        """Process one frame and send its result, or an error message."""
        error: ServiceError | None = None
        result = None
        job = self._job = FrameJob(setup.queue)
        try:
            await self._wait_for_late_job()
            result = await self._service.scheduler.run(lambda _: self._infer(setup, job), lane="stream", admitted=True)
        except Unavailable:  # the server is stopping
            self.stop()
            return
        except CloseStream:
            raise
        except ServiceError as failure:
            error = failure
        except Exception:
            log.exception("stream %s: a frame failed", self.id)
            error = internal_error()
        taken, self._job = job.close(), None
        if isinstance(error, DeadlineExceeded):
            if taken is None:
                taken = setup.queue.take()
            else:
                self._late = job
        if taken is None:
            return
        self._last_frame_s = asyncio.get_running_loop().time()
        age_ms = (time.perf_counter() - taken.frame.arrived_s) * 1e3
        if error is not None:
            self._service.metrics.frame("error")
            await self._send(self._error_message(error, taken.frame.seq, taken.frame.capture_us, taken.dropped))
        elif result is not None:
            self._service.metrics.frame("answered", age_ms)
            await self._send(result)

    async def _wait_for_late_job(self) -> None:
        """Wait for a job that missed its deadline: a stream's frames are processed by one thread at a time.

        The event loop waits, so that no second inference thread is held up.

        Raises:
            DeadlineExceeded: The job is still running.
            CloseStream: The job hangs.
        """
        deadline_s = self._service.settings.deadline_s
        if self._late is not None and not await self._late.wait_finished(deadline_s):
            self._late_waits += 1
            if self._late_waits >= HUNG_AFTER - 1:  # the job itself took the first deadline
                raise CloseStream(CloseCode.INTERNAL_ERROR, "an earlier frame is never answered; connect again")
            raise DeadlineExceeded(
                f"expected an answer within {deadline_s:g} s, but an earlier frame was still being worked on; "
                "send smaller pictures or fewer frames per second",
                deadline_s=deadline_s,
            )
        self._late, self._late_waits = None, 0

    def _infer(self, setup: StreamSetup, job: FrameJob) -> str | None:
        """Process the job's frame on an inference thread; returns the result as JSON."""
        taken = job.start()
        if taken is None:
            return None
        try:
            frame = taken.frame
            setup.rate_limit.record(time.perf_counter())
            stopwatch = Stopwatch({"queue": (time.perf_counter() - frame.arrived_s) * 1e3})
            model = setup.query.request.choice.model
            with (
                self._service.metrics.inference(model),
                self._service.pixel_budget.reserve(image.pixel_count(frame.content), stopwatch),
            ):
                tracked = setup.follower.infer(frame.content, frame.time_s, stopwatch)
            if self._service.shadow is not None:
                self._service.shadow.offer(frame.content, setup.query.request, tracked.prediction)
            return self._result(setup, taken, tracked, stopwatch)
        finally:
            job.finish()

    def _result(self, setup: StreamSetup, taken: QueuedFrame, tracked: TrackedPrediction, stopwatch: Stopwatch) -> str:
        """Write a result as JSON."""
        prediction = tracked.prediction
        document = {
            "type": "result",
            "seq": taken.frame.seq,
            "capture_us": taken.frame.capture_us,
            "dropped": taken.dropped,
            "model": prediction.model.manifest.name,
            "fallback": prediction.fallback,
            "image": prediction.image.size,
            "poses": write_prediction(prediction, setup.query, track_ids=tracked.ids),
        }
        laps_ms = stopwatch.finish()
        self._service.metrics.stages(laps_ms)
        self._service.metrics.fallback(prediction.fallback)
        age_ms = (time.perf_counter() - taken.frame.arrived_s) * 1e3
        return documents.to_json(
            document | {"timings_ms": documents.timings(laps_ms), "age_ms": round(age_ms, 2)}
        ).decode()

    def _error_message(
        self, error: ServiceError, seq: int | None = None, capture_us: int | None = None, dropped: int = 0
    ) -> str:
        document = problem(error, INSTANCE, self.id, self._service.settings.root_path)
        message = {"seq": seq, "capture_us": capture_us, "dropped": dropped, "problem": document}
        return messages.write(messages.StreamError.model_validate(message))

    async def _send(self, text: str) -> None:
        """Send a text message; waits while the client does not read, until the server cuts the connection.

        Raises:
            WebSocketDisconnect: The client left.
        """
        try:
            await self._socket.send_text(text)
        except RuntimeError as error:
            # The session's other task has just found, by a send of its own, that the client left.
            if self._socket.application_state is not WebSocketState.DISCONNECTED:
                raise
            raise WebSocketDisconnect(1006) from error
