"""Prometheus metrics of one server, in a collector registry of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.inference.registry import Model
from service.inference.scheduler import LANES, Scheduler

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Outcome = Literal["answered", "error", "dropped"]


class Metrics:
    """Counters, gauges and histograms of one server. Safe from several threads."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Histogram(
            "posewright_request_duration_seconds",
            "HTTP calls, from the arrival of the request's head to the end of the reply.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "posewright_stage_duration_seconds",
            "Processing stages of pictures and frames.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._depth = Gauge(
            "posewright_queue_depth", "Calls and frames that wait for an inference thread.", ["lane"], registry=registry
        )
        self._rejected = Counter(
            "posewright_rejected_total", "Calls and streams refused, by kind of problem.", ["reason"], registry=registry
        )
        self._sessions = Gauge("posewright_stream_sessions", "Open streams.", registry=registry)
        self._frames = Counter("posewright_stream_frames_total", "Frames by outcome.", ["outcome"], registry=registry)
        self._ages = Histogram(
            "posewright_stream_frame_age_seconds",
            "From the arrival of a frame's last byte to the sending of its result.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._models = Gauge(
            "posewright_model_info", "Loaded models; 1 if the model can run.",
            ["name", "version", "sha256", "role", "backend"], registry=registry,
        )  # fmt: skip
        self._lost_threads = Counter(
            "posewright_inference_threads_replaced_total",
            "Inference threads that hung or died and were replaced.",
            registry=registry,
        )
        self._fallbacks = Counter(
            "posewright_fallback_total",
            "Pictures and frames for which the teacher answered.",
            ["reason"],
            registry=registry,
        )

    def thread_lost(self) -> None:
        """Count an inference thread that hung or died, and that another one replaced."""
        self._lost_threads.inc()

    def watch_queue(self, scheduler: Scheduler) -> None:
        """Report the scheduler's queue depths from now on."""
        for lane in LANES:
            self._depth.labels(lane).set_function(partial(scheduler.waiting_in, lane))

    def request(self, route: str, status: int, duration_s: float) -> None:
        """Count an HTTP call.

        Args:
            route: Its template, e.g. ``/models/{name}``: a caller's own paths would make new time series.
            status: Status code of the reply.
            duration_s: Seconds until the reply's end.
        """
        self._requests.labels(route, status).observe(duration_s)

    def stages(self, laps_ms: Mapping[str, float]) -> None:
        """Record the stages of a picture or frame, ms."""
        for stage, lap_ms in laps_ms.items():
            if stage != "total":
                self._stages.labels(stage).observe(lap_ms / 1e3)

    def rejected(self, reason: str) -> None:
        """Count a call or a stream that was refused; ``reason`` is a problem's slug."""
        self._rejected.labels(reason).inc()

    def sessions(self, count: int) -> None:
        """Set the number of open streams."""
        self._sessions.set(count)

    def frame(self, outcome: Outcome, age_ms: float | None = None) -> None:
        """Count a frame, and record its age when its result was sent."""
        self._frames.labels(outcome).inc()
        if age_ms is not None:
            self._ages.observe(age_ms / 1e3)

    def fallback(self, reason: str | None) -> None:
        """Count a picture or frame for which the teacher answered; None counts nothing."""
        if reason is not None:
            self._fallbacks.labels(reason).inc()

    def text(self, models: Iterable[Model]) -> bytes:
        """Write all metrics, and the models as they are now, in Prometheus' text format 0.0.4."""
        self._models.clear()
        for model in models:
            manifest = model.manifest
            labels = (manifest.name, manifest.version, model.sha256, manifest.role, model.backend)
            self._models.labels(*labels).set(float(model.network is not None))
        return generate_latest(self._registry)
