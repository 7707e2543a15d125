"""One job from its video to its last line, also after an interruption.

A journal and a checkpoint say where the job was. The video is decoded from its beginning, because seeks are inexact,
and the frames of lines that exist are passed over. People are tracked from frame to frame, so tracking must go on as
well: its state is written beside the journal every few frames, and after an interruption the frames between that state
and the last line are analysed again, without a new line. The state is exact, so that what follows equals an
uninterrupted run wherever the network answers equal pixels equally.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from service.inference.image import DecodedImage
from service.inference.model import Model
from service.inference.predict import Stopwatch
from service.inference.state import Service
from service.jobs import files, transfer, video_limits
from service.jobs.background import BackgroundInference, Interrupted
from service.jobs.checkpoint import TrackingCheckpoint
from service.jobs.journal import Journal
from service.jobs.record import JobFolder, JobRecord, now
from service.jobs.store import JobStore
from service.jobs.video_limits import FrameSelection
from service.streaming.follower import Follower
from service.video.allowed_urls import AllowedUrls
from service.video.frames import VideoFrame
from service.wire.documents import recording_line
from service.wire.job import JobModel
from service.wire.poses import write_prediction
from service.wire.query import PoseQuery, resolve

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 50
"""Lines between two checkpoints: so many frames at most are analysed twice after an interruption."""
REPORT_EVERY_S = 1.0
"""Interval at which the progress is written, seconds."""
RATE_WINDOW = 100
"""Frames over which the rate is averaged."""


class Cancelled(Exception):
    """The job was asked to stop for good, or deleted."""


class _OtherFrames(Exception):
    """The video has other frames than those in the journal: another version of FFmpeg decodes a damaged one."""


class JobWork:
    """Works on one job, on a thread of its own."""

    def __init__(
        self,
        record: JobRecord,
        store: JobStore,
        service: Service,
        inference: BackgroundInference,
        stopping: threading.Event,
    ) -> None:
        """Prepare.

        Args:
            record: The job, queued.
            store: All jobs.
            service: The server's parts.
            inference: Runs the frames.
            stopping: Set when the server stops.
        """
        self.record = record
        self._store, self._service = store, service
        self._inference, self._stopping = inference, stopping
        self._folder: JobFolder = store.folder(record.id)
        self._duration_s: float | None = None
        self._answered_s: deque[float] = deque(maxlen=RATE_WINDOW)
        self._reported_s = 0.0
        self._position = 0  # frames of the video that were decoded

    def run(self) -> None:
        """Do the job, or the rest of it; the caller writes the end into its record.

        Raises:
            Interrupted: The server stops. The job can go on later.
            Cancelled: The job must not go on.
            ServiceError: The video or the disk does not allow it.
        """
        again = self.record.started is not None
        self._change(
            state="running", started=self.record.started or now(), restarts=self.record.restarts + int(again), fps=None
        )
        self._get_video()
        query = resolve(self.record.options, self._service.registry, self._service.settings)
        with files.full_disk_told(), Journal(self._folder.results) as journal:
            try:
                self._answer(journal, query)
            except _OtherFrames:
                log.warning("job %s: the video has other frames than the journal; it begins again", self.record.id)
                self._begin_again(journal)
                self._answer(journal, query)
        self._check()
        self.record = self.record.changed(progress=1.0, position=self._position)

    def _get_video(self) -> None:
        """Fetch the video if it is not here yet, and check it."""
        if self._folder.video.exists():
            return
        assert self.record.url is not None, "an upload is published with its video"
        allowed = AllowedUrls(self._service.settings.source_hosts)
        url = transfer.require_file(self.record.url, allowed)
        transfer.fetch(url, self._folder.video, self._store, allowed, self._check)
        info = video_limits.check_video(self._folder.video, self._store.settings)
        self._change(total=info.frame_count or None)

    def _answer(self, journal: Journal, query: PoseQuery) -> None:
        """Answer the selected frames that have no line yet."""
        model = query.request.choice.model
        follower, inferred = self._resume(journal, query)
        selection = FrameSelection(self.record.options)
        known, number = journal.frames, 0
        with video_limits.opened(self._folder.video, self._store.settings.max_pixels) as (info, frames):
            self._duration_s = info.frame_count / info.fps if info.fps and info.frame_count else None
            for frame in frames:
                video_limits.require_length(frame.index + 1, self._store.settings)
                video_limits.require_seconds(frame.time_s, self._store.settings)
                if self._stopping.is_set():
                    if number > len(known):
                        self._checkpoint(journal, follower, model, number)
                    raise Interrupted
                self._position = frame.index + 1
                if not selection.takes(frame):
                    continue
                self._check()
                if number < len(known) and known[number] != frame.index:
                    raise _OtherFrames
                if number >= inferred:
                    line = self._infer(follower, query, frame)
                    if number >= len(known):
                        journal.append(line)
                        self._count(frame, number + 1)
                        if (number + 1) % CHECKPOINT_EVERY == 0:
                            self._checkpoint(journal, follower, model, number + 1)
                number += 1
        if number < len(known):
            raise _OtherFrames

    def _resume(self, journal: Journal, query: PoseQuery) -> tuple[Follower, int]:
        """Return the follower, and the number of lines whose frames it has already seen."""
        model = query.request.choice.model
        known = JobModel(name=model.manifest.name, version=model.manifest.version, sha256=model.sha256)
        if self.record.model is not None and self.record.model != known:
            log.info("job %s: another model serves now; it begins again", self.record.id)
            self._begin_again(journal)
        if self.record.model != known:
            self._change(model=known)
        if not self.record.options.track:
            return self._follower(query), len(journal.frames)
        saved = TrackingCheckpoint.read(self._folder.checkpoint)
        if saved is not None and saved.sha256 == model.sha256 and saved.lines <= len(journal.frames):
            follower = self._follower(query)
            try:
                follower.restore(saved.state)
            except (KeyError, ValueError, TypeError):
                log.warning("job %s: its checkpoint is of another version", self.record.id)
            else:
                return follower, saved.lines
        return self._follower(query), 0

    def _follower(self, query: PoseQuery) -> Follower:
        options, settings = self.record.options, self._service.settings
        return Follower(
            self._service.registry,
            query.request,
            track=options.track,
            smooth=options.track and options.smooth,
            detect_every=settings.stream_detect_every,
            max_misses=settings.stream_max_misses,
        )

    def _begin_again(self, journal: Journal) -> None:
        journal.restart()
        self._folder.checkpoint.unlink(missing_ok=True)
        self._change(frames=0, position=0, progress=None)

    def _infer(self, follower: Follower, query: PoseQuery, frame: VideoFrame) -> dict[str, Any]:
        """Analyse a frame and return its line."""
        service, pixels = self._service, frame.pixels()
        height, width = pixels.shape[:2]

        def work() -> dict[str, Any]:
            stopwatch = Stopwatch()
            with (
                service.metrics.inference(query.request.choice.model),
                service.pixel_budget.reserve(width * height, stopwatch),
            ):
                tracked = follower.infer(DecodedImage(pixels, 1), frame.time_s, stopwatch)
            poses = write_prediction(tracked.prediction, query, track_ids=tracked.ids)
            service.metrics.fallback(tracked.prediction.fallback)
            time_ms = round(frame.time_s * 1e3, 3)
            return recording_line(tracked.prediction, poses, frame=frame.index, time_ms=time_ms, session=self.record.id)

        return self._inference.run(work)

    def _count(self, frame: VideoFrame, lines: int) -> None:
        """Note a new line, and report the progress now and then."""
        self._service.metrics.job_frame()
        now_s = time.monotonic()
        self._answered_s.append(now_s)
        if now_s < self._reported_s + REPORT_EVERY_S:
            return
        self._reported_s = now_s
        self._store.require_room(0)
        elapsed_s = now_s - self._answered_s[0]
        fps = (len(self._answered_s) - 1) / elapsed_s if elapsed_s else None
        progress = min(1.0, frame.time_s / self._duration_s) if self._duration_s else None
        self._change(durable=False, frames=lines, position=frame.index + 1, fps=fps, progress=progress)

    def _checkpoint(self, journal: Journal, follower: Follower, model: Model, lines: int) -> None:
        if self.record.options.track:
            journal.sync()  # before the checkpoint, which must not be ahead of it
            TrackingCheckpoint(lines=lines, sha256=model.sha256, state=follower.state()).write(self._folder.checkpoint)

    def _check(self) -> None:
        """Raise if the job must not go on."""
        if self._folder.cancelled or not self._folder.path.exists():
            raise Cancelled
        if self._stopping.is_set() and not self._folder.video.exists():
            raise Interrupted  # while the video is fetched

    def _change(self, *, durable: bool = True, **values: Any) -> None:
        self.record = self.record.changed(**values)
        try:
            self._folder.write(self.record, durable=durable)
        except FileNotFoundError:
            raise Cancelled from None


def lines_of(folder: JobFolder) -> int:
    """Count the whole lines of a job's journal."""
    try:
        with folder.results.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1_000_000), b""))
    except FileNotFoundError:
        return 0
