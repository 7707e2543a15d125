"""One stream's conversation: a hello, then frames in and answers out, until either side leaves.

Two tasks share a session. One reads: it puts frames into the mailbox and answers pings, whatever the models are doing.
The other asks the scheduler for a turn whenever a frame waits, and sends what comes back. A turn chooses its frame when
it begins, not when it is asked for: among many streams a turn is waited for, and its frame is to be the newest then.

So a session holds at most one turn in the scheduler, which makes streams take turns, and in memory at most the frames
of its mailbox, the one that is worked on, and one that is arriving.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import uuid4

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.errors import BadRequest, DeadlineExceeded, ServiceError, Unavailable, internal_error, problem
from service.inference import image
from service.inference.predict import Stopwatch
from service.inference.state import Service
from service.streaming import messages
from service.streaming.close import Farewell, leave
from service.streaming.follower import Sight
from service.streaming.frame_queue import Taken
from service.streaming.frames import FrameReader
from service.streaming.handshake import INSTANCE, Terms, agree
from service.streaming.turn import Turn
from service.wire import documents, poses

log = logging.getLogger(__name__)


class Session:
    """A stream whose connection is accepted."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.id = str(uuid4())
        self._socket = socket
        self._service = service
        self._frames = FrameReader()
        self._terms: Terms | None = None  # until the hello came
        self._wake = asyncio.Event()  # a frame waits, or it is time to stop
        self._room = asyncio.Event()  # a client that was told to slow down may go on
        self._stopped = asyncio.Event()
        self._turn: Turn | None = None  # whose frame is not answered yet
        self._late: Turn | None = None  # missed its deadline, and may still be worked on
        self._heard_s = asyncio.get_running_loop().time()  # when the client's last frame, or hello, was dealt with

    def stop(self) -> None:
        """Ask for the end, after the answer that is being made."""
        self._stopped.set()
        self._wake.set()

    async def run(self) -> None:
        """Talk until either side leaves."""
        tasks = [asyncio.create_task(self._until_farewell(it)) for it in (self._read(), self._answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._count_leftovers()
        for outcome in outcomes:
            if isinstance(outcome, Farewell):
                await leave(self._socket, outcome)
                return

    def _count_leftovers(self) -> None:
        waiting = 0 if self._terms is None else len(self._terms.mailbox)
        in_hand = self._turn is not None and self._turn.close() is not None
        for _ in range(waiting + in_hand):
            self._service.metrics.frame("dropped")

    async def _until_farewell(self, conversation: Coroutine[Any, Any, None]) -> Farewell | None:
        """Carry on until the client left (None) or must leave."""
        try:
            await conversation
        except Farewell as farewell:
            return farewell
        except WebSocketDisconnect:
            return None
        except Exception:
            log.exception("stream %s failed", self.id)
            return Farewell(messages.FAILED, internal_error().detail)
        return None

    async def _read(self) -> None:
        """Take what the client sends; the hello first."""
        self._terms = agree(await self._receive(), self._service, self.id)
        await self._send(messages.write(self._terms.ready))
        loop = asyncio.get_running_loop()
        self._heard_s = loop.time()
        while True:
            message = await self._receive()
            if isinstance(message, bytes):
                if await self._on_frame(message, self._terms):
                    self._heard_s = loop.time()
            else:
                await self._on_text(message)

    async def _receive(self) -> bytes | str:
        """Wait for the client's next message.

        Raises:
            Farewell: No frame, or no hello, came for too long. Pings hold no place: others may wait for it.
            WebSocketDisconnect: It left.
        """
        idle_s = self._service.settings.stream_idle_s
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._heard_s + idle_s):
                    message = await self._socket.receive()
                break
            except TimeoutError:
                if self._turn is not None:  # the client may be waiting for this answer
                    self._heard_s = loop.time()
                if loop.time() < self._heard_s + idle_s:
                    continue
            due = "a hello" if self._terms is None else "a frame"
            reason = f"expected {due} within {idle_s:g} s, got none; connect again when there is one to send"
            raise Farewell(messages.IDLE, reason)
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        content: bytes | str | None = message.get("bytes")
        return str(message["text"]) if content is None else content

    async def _on_frame(self, message: bytes, terms: Terms) -> bool:
        """Let a frame wait for its turn; tells whether it was one."""
        metrics = self._service.metrics
        try:
            frame = self._frames.read(message, time.perf_counter())
        except BadRequest as error:
            metrics.frame("error")
            await self._send(self._fault(error, seq=error.extras["seq"]))
            return False
        if terms.mailbox.put(frame):
            metrics.frame("dropped")
        self._wake.set()
        if terms.hello.policy == "all" and terms.mailbox.full:
            waiting = len(terms.mailbox)
            await self._send(messages.write(messages.SlowDown(waiting=waiting, limit=waiting)))
            # Nothing is read meanwhile: what the client goes on to send stays in its own buffers.
            self._room.clear()
            if terms.mailbox.full:
                await self._room.wait()
        return True

    async def _on_text(self, text: str) -> None:
        try:
            kind = messages.read_beat(text)
        except BadRequest as error:
            await self._send(self._fault(error))
            return
        if kind == "ping":
            await self._send('{"type":"pong"}')

    async def _answer(self) -> None:
        """Answer frames by turns until it is time to stop."""
        while True:
            await self._wake.wait()
            if self._terms is not None:
                await self._wait_for_pace(self._terms)
            if self._stopped.is_set() or self._terms is None:
                raise Farewell(messages.RESTARTING, "the server is stopping; connect again in a moment")
            self._wake.clear()
            await self._answer_one(self._terms)
            if len(self._terms.mailbox):
                self._wake.set()
            if self._terms.mailbox.half_empty:  # not earlier, or the client were told to slow down by every frame
                self._room.set()

    async def _wait_for_pace(self, terms: Terms) -> None:
        delay_s = terms.pace.delay_s(time.perf_counter())
        if delay_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopped.wait()

    async def _answer_one(self, terms: Terms) -> None:
        """Have one frame worked on, and send the answer or what was wrong."""
        error: ServiceError | None = None
        result = None
        turn = self._turn = Turn(terms.mailbox)
        try:
            await self._wait_for_late_turn()
            result = await self._service.scheduler.run(lambda _: self._work(terms, turn), lane="stream", admitted=True)
        except DeadlineExceeded as late:
            error = late
        except Unavailable:
            self._stopped.set()
            self._wake.set()
            return
        except ServiceError as failure:
            error = failure
        except Exception:
            log.exception("stream %s: a frame failed", self.id)
            error = internal_error()
        taken, self._turn = turn.close(), None
        if isinstance(error, DeadlineExceeded):
            if taken is None:
                taken = terms.mailbox.take()
            else:
                self._late = turn
        if taken is None:
            return
        self._heard_s = asyncio.get_running_loop().time()
        age_ms = (time.perf_counter() - taken.frame.arrived_s) * 1e3
        if error is not None:
            self._service.metrics.frame("error")
            await self._send(self._fault(error, taken.frame.seq, taken.frame.capture_us, taken.dropped))
        elif result is not None:
            self._service.metrics.frame("answered", age_ms)
            await self._send(result)

    async def _wait_for_late_turn(self) -> None:
        """Wait for the thread of a turn that missed its deadline: people are followed by one thread at a time.

        Here and not on another thread, which could serve others meanwhile.

        Raises:
            DeadlineExceeded: It is still at work.
        """
        deadline_s = self._service.settings.deadline_s
        if self._late is not None and not await self._late.wait(deadline_s):
            raise DeadlineExceeded(
                f"expected an answer within {deadline_s:g} s, but an earlier frame was still being worked on; "
                "send smaller pictures or fewer frames per second",
                deadline_s=deadline_s,
            )
        self._late = None

    def _work(self, terms: Terms, turn: Turn) -> str | None:
        """Work on the frame whose turn it is, on an inference thread."""
        taken = turn.begin()
        if taken is None:
            return None
        try:
            frame = taken.frame
            terms.pace.take(time.perf_counter())
            watch = Stopwatch({"queue": (time.perf_counter() - frame.arrived_s) * 1e3})
            with self._service.pixel_budget.reserve(image.pixel_count(frame.content), watch):
                sight = terms.watcher.look(frame.content, frame.time_s, watch)
            return self._result(terms, taken, sight, watch)
        finally:
            turn.end()

    def _result(self, terms: Terms, taken: Taken, sight: Sight, watch: Stopwatch) -> str:
        prediction = sight.prediction
        document = {
            "type": "result",
            "seq": taken.frame.seq,
            "capture_us": taken.frame.capture_us,
            "dropped": taken.dropped,
            "model": prediction.model.manifest.name,
            "fallback": prediction.fallback,
            "image": prediction.image.size,
            "poses": poses.write_prediction(prediction, terms.query, track_ids=sight.ids),
        }
        laps_ms = watch.finish()
        self._service.metrics.stages(laps_ms)
        self._service.metrics.fallback(prediction.fallback)
        age_ms = (time.perf_counter() - taken.frame.arrived_s) * 1e3
        document |= {"timings_ms": documents.timings(laps_ms), "age_ms": round(age_ms, 2)}
        return documents.to_json(document).decode()

    def _fault(
        self, error: ServiceError, seq: int | None = None, capture_us: int | None = None, dropped: int = 0
    ) -> str:
        document = problem(error, INSTANCE, self.id, self._service.settings.root_path)
        fault = {"seq": seq, "capture_us": capture_us, "dropped": dropped, "problem": document}
        return messages.write(messages.Fault.model_validate(fault))

    async def _send(self, text: str) -> None:
        """Send; waits while the client does not read, until `service.http.websocket` cuts it off."""
        await self._socket.send_text(text)
