"""A camera or file that the server reads: its frames are answered once, for all who want the results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from service.errors import Unavailable
from service.inference.predict import Stopwatch
from service.inference.state import Service
from service.sources.errors import SourceConflict
from service.sources.history import Gap, SourceHistory, timestamp
from service.sources.outbox import Outbox
from service.sources.reader import ReaderEvents, SourceReader, State
from service.sources.recording import SourceRecording
from service.sources.result import SourceResult, WantedForms, write_result
from service.sources.viewer import ViewerSession, notice
from service.streaming.close import CloseCode, CloseStream
from service.streaming.follower import TrackedPrediction
from service.streaming.frame_queue import QueuedFrame
from service.streaming.frame_worker import FrameOutcome, FrameWorker
from service.streaming.handshake import StreamSetup
from service.streaming.messages import Ready
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.frames import VideoLimits
from service.wire.query import Format


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Where results go besides viewers.

    Attributes:
        webhook: Posts them.
        webhook_url: For callers, without its secrets.
        record: Writes them to a file.
        recording: That file.
    """

    webhook: Outbox | None = None
    webhook_url: str = ""
    record: Outbox | None = None
    recording: SourceRecording | None = None


class ManagedSource:
    """One source. Its methods are called on the event loop; a thread of its own reads and decodes.

    Only frames that are answered are converted to RGB, and each is answered once however many viewers there are.
    """

    def __init__(
        self,
        source_id: str,
        name: str,
        url: VideoUrl,
        setup: StreamSetup,
        service: Service,
        allowed: AllowedUrls,
        deliveries: Deliveries,
        on_state: Callable[[], None],
    ) -> None:
        """Prepare; `start` starts it.

        Args:
            source_id: Its id.
            name: Its name.
            url: What to read.
            setup: From `service.streaming.handshake.set_up`.
            service: The server's parts.
            allowed: Checks every connection.
            deliveries: Where results go besides viewers.
            on_state: Called when the state has changed.
        """
        self.id, self.name, self.url = source_id, name, url
        self.state: State = "connecting"
        self.history = SourceHistory()
        self.deliveries = deliveries
        self._setup, self._service, self._allowed = setup, service, allowed
        self.skeleton = setup.query.request.choice.model.estimator.skeleton
        self._on_state = on_state
        self._worker: FrameWorker[SourceResult] = FrameWorker(service, setup, f"source {name}")
        self._viewers: tuple[ViewerSession, ...] = ()  # replaced, never changed: an inference thread reads it
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()  # set when a frame waits, or when the source must stop
        self._stopped = asyncio.Event()
        self._end: State | None = None  # what the reader has come to; becomes the state when all frames are answered
        self._answering: asyncio.Task[None] | None = None
        self._reader = self._make_reader()

    @property
    def ready(self) -> Ready:
        """The options in force."""
        return self._setup.ready

    @property
    def viewer_count(self) -> int:
        """Number of viewers."""
        return len(self._viewers)

    def start(self) -> None:
        """Read and answer from now on."""
        self._answering = asyncio.create_task(self._answer())
        self._reader.start()

    def pause(self) -> None:
        """Answer no more frames until `resume`. A camera is disconnected, a file stays where it is.

        Raises:
            SourceConflict: The source has ended.
        """
        self._require_alive()
        if self.state == "paused":
            return
        if self._reader.live is False:
            self._reader.hold()
        else:
            self._reader.stop()
        self.history.interrupted("paused", error=False)
        self._set_state("paused")

    def resume(self) -> None:
        """Answer frames again; does nothing unless the source is paused.

        Raises:
            SourceConflict: The source has ended.
        """
        self._require_alive()
        if self.state != "paused":
            return
        if self._reader.live is False:
            self._set_state("running")
            self._reader.release()
        else:
            self._set_state("connecting")
            self._reader = self._make_reader()
            self._reader.start()

    def add_viewer(self, viewer: ViewerSession) -> None:
        """Send results to a viewer from now on."""
        self._viewers += (viewer,)

    def remove_viewer(self, viewer: ViewerSession) -> None:
        """Send it no more."""
        self._viewers = tuple(it for it in self._viewers if it is not viewer)

    async def stop(self, patience_s: float) -> None:
        """End the source: answer the frame that is in work, deliver results, and free the camera."""
        ends_s = time.monotonic() + patience_s
        self._reader.stop()
        self._stopped.set()
        self._wake.set()
        if self._answering is not None:
            await asyncio.wait({self._answering}, timeout=patience_s)
            self._answering.cancel()
            with suppress(asyncio.CancelledError):
                await self._answering
        removed = CloseStream(CloseCode.NO_SOURCE, "the source was removed")
        for viewer in self._viewers:
            viewer.stop(removed)
        boxes = [it for it in (self.deliveries.webhook, self.deliveries.record) if it is not None]
        left_s = max(0.0, ends_s - time.monotonic())
        await asyncio.gather(*(asyncio.to_thread(it.close, left_s) for it in boxes))
        await asyncio.to_thread(self._reader.join, max(0.0, ends_s - time.monotonic()))
        del self._reader  # its events hold this source, and thereby the model

    def entry(self) -> dict[str, Any]:
        """Write a `SourceEntry`."""
        history, age_ms = self.history, self.history.age_ms
        webhook, record = self.deliveries.webhook, self.deliveries.record
        recording = self.deliveries.recording
        file = None if recording is None or recording.path is None else recording.path.name
        return {
            "id": self.id,
            "name": self.name,
            "url": self.url.redacted,
            "state": self.state,
            "fps": round(history.fps, 2),
            "age_ms": None if age_ms is None else round(age_ms, 1),
            "frames": history.frames,
            "answered": history.answered,
            "dropped": history.dropped,
            "errors": history.errors,
            "reconnects": history.reconnects,
            "viewers": len(self._viewers),
            "gap_count": history.gap_count,
            "gaps": [it.document() for it in history.gaps],
            "last_error": history.last_error,
            "last_error_at": timestamp(history.last_error_s),
            "webhook": None if webhook is None else {"url": self.deliveries.webhook_url, **_delivered(webhook)},
            "record": None if record is None else {"file": file, **_delivered(record)},
        }

    def _require_alive(self) -> None:
        if self.state in ("ended", "failed"):
            raise SourceConflict(
                f"expected a source that runs, got one that has {self.state}; add it again to read it once more"
            )

    def _make_reader(self) -> SourceReader:
        settings = self._service.settings
        limits = VideoLimits(settings.source_timeout_s, settings.source_timeout_s, settings.max_pixels)
        events = ReaderEvents(
            frame=lambda: self._from_thread(self._wake.set),
            state=lambda reader, state: self._from_thread(lambda: self._on_reader_state(reader, state)),
            gap=lambda gap: self._from_thread(lambda: self._on_gap(gap)),
        )
        every_frame = self._setup.hello.policy == "all"
        return SourceReader(
            self.url, self._allowed, limits, self._setup.queue, self.history, events, every_frame=every_frame
        )

    def _from_thread(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop has closed
            self._loop.call_soon_threadsafe(work)

    def _on_reader_state(self, reader: SourceReader, state: State) -> None:
        if self._stopped.is_set() or reader is not self._reader or self.state in ("paused", "ended", "failed"):
            return
        if state in ("ended", "failed"):
            self._end = state
            self._wake.set()
            return
        if (self.state, state) == ("reconnecting", "running"):
            self.history.reconnects += 1
            self._service.metrics.sources.reconnected()
        self._set_state(state)

    def _on_gap(self, gap: Gap) -> None:
        self._tell({"type": "gap", **gap.document()})

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_state()
            self._tell({"type": "state", "state": state})

    def _tell(self, document: dict[str, Any]) -> None:
        """Tell viewers and the webhook something that is no result."""
        text = notice(document)
        for viewer in self._viewers:
            viewer.tell(text)
        if self.deliveries.webhook is not None:
            self.deliveries.webhook.put(text.encode())

    async def _answer(self) -> None:
        """Answer frames, one at a time, until the source is stopped."""
        queue, rate_limit = self._setup.queue, self._setup.rate_limit
        while True:
            await self._wake.wait()
            delay_s = rate_limit.delay_s(time.perf_counter())
            if delay_s and len(queue):
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._stopped.wait()
            if self._stopped.is_set():
                return
            self._wake.clear()
            try:
                outcome = await self._worker.answer(self._write)
            except Unavailable:  # the server is stopping
                return
            except CloseStream as hung:
                self._reader.stop()
                self.history.frame_failed(hung.reason)
                self._set_state("failed")
                return
            self._reader.room.set()
            if outcome is not None:
                self._deliver(outcome)
            if len(queue):
                self._wake.set()
            elif self._end is not None:
                if self._end == "ended":
                    self.history.finished()
                self._set_state(self._end)
                return

    def _deliver(self, outcome: FrameOutcome[SourceResult]) -> None:
        metrics = self._service.metrics.sources
        if outcome.taken.dropped:
            metrics.frames("dropped", outcome.taken.dropped)
        if outcome.error is not None or outcome.result is None:
            self.history.frame_failed("no answer" if outcome.error is None else outcome.error.detail)
            metrics.frames("error")
            return
        self.history.frame_answered(outcome.taken.frame.arrived_s)
        metrics.frames("answered", age_ms=outcome.age_ms)
        result = outcome.result
        for viewer in self._viewers:
            viewer.offer(result)
        if self.deliveries.webhook is not None:
            text = result.texts[self._setup.query.format]
            self.deliveries.webhook.put(text + b',"dropped":%d}' % outcome.taken.dropped)
        if self.deliveries.record is not None and result.line is not None:
            self.deliveries.record.put(result.line)

    def _write(self, taken: QueuedFrame, tracked: TrackedPrediction, stopwatch: Stopwatch) -> SourceResult:
        """Write a result in every form that somebody wants; on an inference thread."""
        viewers = self._viewers
        formats: set[Format] = {it.format for it in viewers}
        if self.deliveries.webhook is not None:
            formats.add(self._setup.query.format)
        wanted = WantedForms(
            frozenset(formats),
            pictures=any(it.pictures for it in viewers),
            recording=None if self.deliveries.record is None else self.id,
        )
        return write_result(wanted, self._setup.query, self._service, taken, tracked, stopwatch)


def _delivered(box: Outbox) -> dict[str, Any]:
    return {"delivered": box.delivered, "dropped": box.dropped, "last_error": box.last_error}
