"""Prometheus metrics of sources. `docs/observability.md` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from service.inference.instruments import Instruments

SOURCE_STATES = ("connecting", "running", "paused", "reconnecting", "ended", "failed")


class SourceMetrics:
    """Counters and gauges of all sources of one server. Safe from several threads."""

    def __init__(self, make: Instruments, seconds: tuple[float, ...]) -> None:
        """Begin with zeros.

        Args:
            make: Makes the server's metrics.
            seconds: Bounds of the histogram of ages.
        """
        self._states = make.gauge("posewright_sources", "Sources by state.", "sum", "state")
        for state in SOURCE_STATES:
            self._states.labels(state).set(0)
        self._up = make.gauge(
            "posewright_source_up", "Whether frames of a source come: 1 in the state running.", "sum", "source"
        )
        self._frames = make.counter("posewright_source_frames", "Frames of sources by outcome.", "outcome")
        for outcome in ("answered", "dropped", "error"):
            self._frames.labels(outcome)
        self._ages = make.histogram(
            "posewright_source_frame_age_seconds", "From the arrival of a source's frame to its result.", seconds
        )
        self._reconnects = make.counter(
            "posewright_source_reconnects", "Cameras that came back after they had broken off."
        )
        self._viewers = make.gauge("posewright_source_viewers", "Viewers of sources.", "sum")
        self._results = make.counter(
            "posewright_source_viewer_results",
            "Results for viewers: sent, or replaced by newer ones because the viewer was slow.",
            "outcome",
        )
        self._webhook = make.counter("posewright_source_webhook_events", "Results and notices for webhooks.", "outcome")
        self._recorded = make.counter("posewright_source_recorded_frames", "Results for recordings.", "outcome")

    def states(self, counts: Mapping[str, int], up: Mapping[str, bool]) -> None:
        """Set how many sources are in each state, and which of them run, by name."""
        for state in SOURCE_STATES:
            self._states.labels(state).set(counts.get(state, 0))
        for name, runs in up.items():
            self._up.labels(name).set(runs)

    def forget(self, name: str) -> None:
        """Report a source no more."""
        self._up.remove(name)

    def frames(
        self, outcome: Literal["answered", "dropped", "error"], count: int = 1, age_ms: float | None = None
    ) -> None:
        """Count frames; ``age_ms`` is the time from a frame's arrival to its result."""
        self._frames.labels(outcome).inc(count)
        if age_ms is not None:
            self._ages.observe(age_ms / 1e3)

    def reconnected(self) -> None:
        """Count a camera that came back."""
        self._reconnects.inc()

    def viewers(self, count: int) -> None:
        """Set the number of viewers."""
        self._viewers.set(count)

    def viewer_result(self, outcome: str) -> None:
        """Count a result for one viewer: sent or replaced."""
        self._results.labels(outcome).inc()

    def webhook_events(self, outcome: str, count: int) -> None:
        """Count events for webhooks: delivered or dropped."""
        self._webhook.labels(outcome).inc(count)

    def recorded_frames(self, outcome: str, count: int) -> None:
        """Count results for recordings: delivered or dropped."""
        self._recorded.labels(outcome).inc(count)
