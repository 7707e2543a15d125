"""Prometheus metrics of one server, in a collector registry of its own. `docs/observability.md` lists them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import onnxruntime
from prometheus_client import CollectorRegistry, ProcessCollector

from service.errors import EmptyBody, ServiceError, TooLarge, UnsupportedType
from service.inference import exposition
from service.inference.errors import UndecodableImage
from service.inference.instruments import Children, Instruments
from service.inference.model import Model
from service.inference.registry import ModelRegistry
from service.inference.rollout_metrics import RolloutMetrics
from service.inference.scheduler import LANES, Lane, Scheduler
from service.inference.source_metrics import SourceMetrics

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_OTHER_METHOD = "_OTHER"
"""Label of all other methods, as OpenTelemetry names it: callers can make up methods."""
WORKER_RESTARTS = ("posewright_worker_restarts", "Server processes that died and were replaced.")
"""Name and help of the counter that the supervisor of several server processes writes."""
Outcome = Literal["answered", "error", "dropped"]
Drop = Literal["replaced", "closed"]


class Metrics:
    """Counters, gauges and histograms of one server. Safe from several threads."""

    def __init__(self, version: str = "0") -> None:
        """Begin with zeros.

        Args:
            version: Of this software.
        """
        self.on_stages: Callable[[Mapping[str, float]], None] | None = None  # also told of every picture's stages
        self._registry = CollectorRegistry()
        self._make = Instruments(self._registry)
        ProcessCollector(registry=self._registry)
        self._make_http_metrics()
        self._make_inference_metrics()
        self._make_stream_metrics()
        self._make_job_metrics()
        self.rollout = RolloutMetrics(self._make)
        self.sources = SourceMetrics(self._make, _SECONDS)
        self._scheduler: Scheduler | None = None
        self._models: ModelRegistry | None = None
        self._reported: dict[str, tuple[str, ...]] = {}  # labels of each model in `_model_info`
        build = self._make.gauge(
            "posewright_build_info", "Versions, as labels.", "max", "version", "python", "onnxruntime"
        )
        build.labels(version, platform.python_version(), onnxruntime.__version__).set(1)
        self._make.gauge("posewright_workers", "Server processes that run.", "sum").set(1)
        self._make.counter(*WORKER_RESTARTS)

    def _make_http_metrics(self) -> None:
        route = ("method", "route")
        self._requests = Children(self._make.histogram(
            "http_server_request_duration_seconds",
            "HTTP requests, from the arrival of the head to the end of the response.",
            _SECONDS, *route, "status",
        ))  # fmt: skip
        self._received = Children(self._make.histogram(
            "http_server_request_body_size_bytes", "Bodies of requests, as received.", _BYTES, *route
        ))  # fmt: skip
        self._sent = Children(self._make.histogram(
            "http_server_response_body_size_bytes", "Bodies of responses, as sent.", _BYTES, *route
        ))  # fmt: skip
        self._rejected = Children(
            self._make.counter("posewright_rejected", "Calls and streams refused, by kind of problem.", "reason")
        )

    def _make_inference_metrics(self) -> None:
        self._depth = self._make.gauge(
            "posewright_queue_depth", "Calls and frames that wait for an inference thread.", "sum", "lane"
        )
        self._capacity = self._make.gauge("posewright_queue_capacity", "Calls that may wait; more are refused.", "sum")
        self._running = self._make.gauge(
            "posewright_running_calls", "Calls and frames on inference threads.", "sum", "lane"
        )
        self._threads = self._make.gauge("posewright_inference_threads", "Inference threads.", "sum")
        self._waits = Children(self._make.histogram(
            "posewright_queue_wait_seconds", "Waiting for an inference thread.", _SECONDS, "lane"
        ))  # fmt: skip
        self._batches = self._make.histogram(
            "posewright_batch_size", "Pictures and frames in one dynamic batch.", _BATCHES
        )
        self._stages = Children(self._make.histogram(
            "posewright_stage_duration_seconds", "Processing stages of pictures and frames.", _SECONDS, "stage"
        ))  # fmt: skip
        self._model_info = self._make.gauge(
            "posewright_model_info", "Loaded models; 1 if the model can run.", "min",
            "name", "version", "sha256", "role", "backend",
        )  # fmt: skip
        model = ("name", "version")
        self._inferences = Children(
            self._make.counter("posewright_model_inferences", "Pictures and frames that a model answered.", *model)
        )
        self._inference_failures = Children(self._make.counter(
            "posewright_model_inference_failures", "Pictures and frames on which a model raised an error.", *model
        ))  # fmt: skip
        self._load_failures = Children(
            self._make.counter(
                "posewright_model_load_failures", "Bundles that could not be loaded or warmed up.", "name"
            )
        )
        self._lost_threads = self._make.counter(
            "posewright_inference_threads_replaced", "Inference threads that hung or died and were replaced."
        )
        self._decode_failures = Children(
            self._make.counter("posewright_decode_failures", "Pictures and frames that were not decoded.", "reason")
        )
        self._fallbacks = Children(
            self._make.counter("posewright_fallback", "Pictures and frames for which the teacher answered.", "reason")
        )

    def _make_stream_metrics(self) -> None:
        self._sessions = self._make.gauge("posewright_stream_sessions", "Open streams.", "sum")
        self._frames = Children(self._make.counter("posewright_stream_frames", "Frames by outcome.", "outcome"))
        self._drops = Children(
            self._make.counter("posewright_stream_frames_dropped", "Frames that were never processed.", "reason")
        )
        self._ages = self._make.histogram(
            "posewright_stream_frame_age_seconds",
            "From the arrival of a frame's last byte to the sending of its result.",
            _SECONDS,
        )

    def _make_job_metrics(self) -> None:
        self._jobs = self._make.gauge("posewright_jobs", "Video jobs that are kept, by state.", "max", "state")
        self._job_frames = self._make.counter("posewright_job_frames", "Frames of video jobs that were answered.")

    def watch(self, scheduler: Scheduler, models: ModelRegistry) -> None:
        """Report the state of these parts from now on."""
        self._scheduler, self._models = scheduler, models
        self.sample()

    def sample(self) -> None:
        """Read queue depths and models into their gauges; `write` does so for its own process."""
        if self._scheduler is None or self._models is None:
            return
        for lane in LANES:
            self._depth.labels(lane).set(self._scheduler.waiting_in(lane))
            self._running.labels(lane).set(self._scheduler.running_in(lane))
        self._capacity.set(self._scheduler.queue_size)
        self._threads.set(self._scheduler.threads)
        models = dict(self._models.models)
        for name, model in models.items():
            manifest = model.manifest
            labels = (manifest.name, manifest.version, model.sha256, manifest.role, model.backend)
            if self._reported.get(name, labels) != labels:
                self._forget(name)
            self._reported[name] = labels
            self._model_info.labels(*labels).set(float(model.network is not None))
            # From 0: Prometheus sees no increase in a series that begins with its first failure.
            _ = self._load_failures[name], self._inference_failures[name, manifest.version]
        for name in self._reported.keys() - models.keys():
            self._forget(name)

    def _forget(self, name: str) -> None:
        """Stop reporting a model that was replaced or unloaded."""
        labels = self._reported.pop(name)
        if exposition.multiprocess_folder() is None:
            self._model_info.remove(*labels)
        else:
            self._model_info.labels(*labels).set(exposition.GONE)

    def request(
        self, method: str, route: str, status: int, duration_s: float, received_bytes: int, sent_bytes: int
    ) -> None:
        """Count an HTTP request.

        Args:
            method: As the client sent it.
            route: Its template, e.g. ``/models/{name}``: a caller's own paths would make new time series.
            status: Status code of the response.
            duration_s: Seconds until the response's end.
            received_bytes: Size of the request's body.
            sent_bytes: Size of the response's body.
        """
        if method not in _METHODS:
            method = _OTHER_METHOD
        self._requests[method, route, status].observe(duration_s)
        self._received[method, route].observe(received_bytes)
        self._sent[method, route].observe(sent_bytes)

    def waited(self, lane: Lane, wait_s: float) -> None:
        """Record how long a call or frame waited for an inference thread, s."""
        self._waits[lane].observe(wait_s)

    def thread_lost(self) -> None:
        """Count an inference thread that hung or died, and that another one replaced."""
        self._lost_threads.inc()

    def batch(self, size: int) -> None:
        """Record the number of pictures and frames that a network got in one dynamic batch."""
        self._batches.observe(size)

    def stages(self, laps_ms: Mapping[str, float]) -> None:
        """Record the stages of a picture or frame, ms."""
        for stage, lap_ms in laps_ms.items():
            if stage != "total":
                self._stages[stage].observe(lap_ms / 1e3)
        if self.on_stages is not None:
            self.on_stages(laps_ms)

    @contextmanager
    def inference(self, *models: Model) -> Iterator[None]:
        """Count what becomes of a picture or frame that models process inside the block.

        An error of the caller's, such as a damaged picture, is not counted as the models' failure.
        """
        counters = self._inferences
        try:
            yield
        except ServiceError as error:
            if isinstance(error, UndecodableImage | UnsupportedType | TooLarge | EmptyBody):
                self._decode_failures[error.slug].inc()
            models = ()
            raise
        except Exception:
            counters = self._inference_failures
            raise
        finally:
            for model in models:
                counters[model.manifest.name, model.manifest.version].inc()

    def load_failed(self, name: str) -> None:
        """Count a bundle that could not be loaded, or failed its warm-up."""
        self._load_failures[name].inc()

    def rejected(self, reason: str) -> None:
        """Count a call or a stream that was refused; ``reason`` is a problem's slug."""
        self._rejected[reason].inc()

    def sessions(self, count: int) -> None:
        """Set the number of open streams."""
        self._sessions.set(count)

    def frame(self, outcome: Outcome, age_ms: float | None = None, reason: Drop | None = None) -> None:
        """Count a frame.

        Args:
            outcome: What became of it.
            age_ms: When its result was sent, ms since its arrival.
            reason: Why it was dropped: a newer one replaced it, or the stream closed.
        """
        self._frames[outcome].inc()
        if age_ms is not None:
            self._ages.observe(age_ms / 1e3)
        if reason is not None:
            self._drops[reason].inc()

    def jobs(self, counts: Mapping[str, int]) -> None:
        """Set the number of video jobs in each state."""
        for state in ("queued", "running", "done", "failed", "cancelled"):
            self._jobs.labels(state).set(counts.get(state, 0))

    def job_frame(self) -> None:
        """Count a frame of a video job."""
        self._job_frames.inc()

    def fallback(self, reason: str | None) -> None:
        """Count a picture or frame for which the teacher answered; None counts nothing."""
        if reason is not None:
            self._fallbacks[reason].inc()

    def write(self, accept: str = "") -> tuple[bytes, str]:
        """Write all metrics, and the queue and the models as they are now.

        Args:
            accept: The Accept header of the call.

        Returns:
            The text, and its content type.
        """
        self.sample()
        return exposition.write(self._registry, accept)
