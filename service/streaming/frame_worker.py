"""Inference on the waiting frames of one stream, one at a time, whoever brings the frames and whoever gets the results.

A job takes its frame when it starts, not when it is scheduled: on a server with many streams a job has to wait, and
should then process the newest frame. A stream has at most one job in the scheduler, so streams are served in turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.errors import DeadlineExceeded, ServiceError, Unavailable, internal_error
from service.inference import image
from service.inference.predict import Prediction, Stopwatch
from service.inference.scheduler import HUNG_AFTER
from service.inference.state import Service
from service.streaming.close import CloseCode, CloseStream
from service.streaming.follower import TrackedPrediction
from service.streaming.frame_job import FrameJob
from service.streaming.frame_queue import QueuedFrame
from service.streaming.handshake import StreamSetup
from service.wire import documents

log = logging.getLogger(__name__)

T = TypeVar("T")
Write = Callable[[QueuedFrame, TrackedPrediction, Stopwatch], T]


@dataclass(frozen=True, slots=True)
class FrameOutcome(Generic[T]):
    """What became of a frame: a result or an error.

    Attributes:
        taken: The frame.
        age_ms: Milliseconds since its arrival.
        result: What the worker's ``write`` made of it.
        error: Why there is no result.
    """

    taken: QueuedFrame
    age_ms: float
    result: T | None
    error: ServiceError | None


class FrameWorker(Generic[T]):
    """Takes frames from a stream's queue and runs inference on them. Used on the event loop."""

    def __init__(self, service: Service, setup: StreamSetup, name: str) -> None:
        """Prepare; nothing runs before `answer`.

        Args:
            service: The server's parts.
            setup: Of the stream.
            name: Of the stream, for the log.
        """
        self._service, self._setup, self._name = service, setup, name
        self._job: FrameJob | None = None  # the job whose frame is not answered yet
        self._late: FrameJob | None = None  # a job that missed its deadline and may still be running
        self._late_waits = 0  # frames that waited for it in vain

    @property
    def busy(self) -> bool:
        """Whether a frame is being answered."""
        return self._job is not None

    def close(self) -> int:
        """Take no further frame; returns the number of frames that are not answered any more."""
        in_progress = self._job is not None and self._job.close() is not None
        return len(self._setup.queue) + in_progress

    async def answer(self, write: Write[T]) -> FrameOutcome[T] | None:
        """Process the frame that is next when a thread is free; None where none waits then.

        Args:
            write: Called on the inference thread with the frame, its people and the stopwatch, which it ends.

        Raises:
            Unavailable: The server is stopping.
            CloseStream: An earlier frame hangs.
        """
        error: ServiceError | None = None
        result = None
        job = self._job = FrameJob(self._setup.queue)
        try:
            await self._wait_for_late_job()
            result = await self._service.scheduler.run(lambda _: self._infer(job, write), lane="stream", admitted=True)
        except (Unavailable, CloseStream):
            raise
        except ServiceError as failure:
            error = failure.with_traceback(None)  # a traceback would keep this frame, and thereby the model
        except Exception:
            log.exception("stream %s: a frame failed", self._name)
            error = internal_error()
        taken, self._job = job.close(), None
        if isinstance(error, DeadlineExceeded):
            if taken is None:
                taken = self._setup.queue.take()
            else:
                self._late = job
        if taken is None:
            return None
        return FrameOutcome(taken, (time.perf_counter() - taken.frame.arrived_s) * 1e3, result, error)

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

    def _infer(self, job: FrameJob, write: Write[T]) -> T | None:
        """Process the job's frame on an inference thread."""
        taken = job.start()
        if taken is None:
            return None
        setup, frame = self._setup, taken.frame
        try:
            setup.rate_limit.record(time.perf_counter())
            stopwatch = Stopwatch({"queue": (time.perf_counter() - frame.arrived_s) * 1e3})
            file = frame.content if isinstance(frame.content, bytes) else None
            pixels = image.pixel_count(frame.content) if isinstance(frame.content, bytes) else frame.content.pixel_count
            with (
                self._service.metrics.inference(setup.query.request.choice.model),
                self._service.pixel_budget.reserve(pixels, stopwatch),
            ):
                content = frame.content if isinstance(frame.content, bytes) else frame.content.decode()
                tracked = setup.follower.infer(content, frame.time_s, stopwatch)
            if self._service.shadow is not None and file is not None:
                self._service.shadow.offer(file, setup.query.request, tracked.prediction)
            return write(taken, tracked, stopwatch)
        finally:
            job.finish()


def describe(taken: QueuedFrame, prediction: Prediction) -> dict[str, Any]:
    """Write the fields of a `FrameResult` that do not depend on its format."""
    return {
        "type": "result",
        "seq": taken.frame.seq,
        "capture_us": taken.frame.capture_us,
        "model": prediction.model.manifest.name,
        "fallback": prediction.fallback,
        "image": prediction.image.size,
    }


def finish(service: Service, taken: QueuedFrame, prediction: Prediction, stopwatch: Stopwatch) -> dict[str, Any]:
    """End the stopwatch, count the stages, and write the fields of a `FrameResult` about time."""
    laps_ms = stopwatch.finish()
    service.metrics.stages(laps_ms)
    service.metrics.fallback(prediction.fallback)
    age_ms = (time.perf_counter() - taken.frame.arrived_s) * 1e3
    return {"timings_ms": documents.timings(laps_ms), "age_ms": round(age_ms, 2)}
