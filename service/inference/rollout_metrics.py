"""Prometheus metrics of shadow and canary. `docs/observability.md` lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from service.inference.instruments import Children, Instruments

_OKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)


class RolloutMetrics:
    """What shows whether a model may take another one's place. Safe from several threads."""

    def __init__(self, make: Instruments) -> None:
        """Begin with zeros.

        Args:
            make: Makes the server's metrics.
        """
        self._shadow_oks = Children(make.histogram(
            "posewright_shadow_oks",
            "Similarity of answered people with the shadow model's pose, by the model that answered.",
            _OKS, "model",
        ))  # fmt: skip
        self._shadow_pictures = Children(
            make.counter("posewright_shadow_pictures", "Sampled pictures and frames by outcome.", "outcome")
        )
        self._canary_share = make.gauge(
            "posewright_canary_share", "Share of the callers whom a candidate answers; 0 without one.", "max"
        )
        self._canary_requests = Children(make.counter(
            "posewright_canary_requests",
            "Pictures and frames while a canary runs, by the model that they were assigned to.",
            "model", "outcome",
        ))  # fmt: skip
        self._canary_rollbacks = Children(
            make.counter("posewright_canary_rollbacks", "Candidates rolled back, by who decided.", "cause")
        )
        for cause in ("operator", "verdict"):
            _ = self._canary_rollbacks[cause]

    def shadow_oks(self, model: str, oks: Iterable[float]) -> None:
        """Record the OKS of each person of ``model`` whom the shadow model answered again."""
        for value in oks:
            self._shadow_oks[model].observe(float(value))

    def shadow_picture(self, outcome: Literal["compared", "dropped", "failed"]) -> None:
        """Count a picture that was sampled for the shadow model."""
        self._shadow_pictures[outcome].inc()

    def canary_share(self, share: float) -> None:
        """Set the share of the callers whom the candidate answers, 0..1."""
        self._canary_share.set(share)

    def canary_request(self, model: str, outcome: Literal["answered", "failed"]) -> None:
        """Count a picture or frame of a canary's trial."""
        self._canary_requests[model, outcome].inc()

    def canary_rollback(self, cause: str) -> None:
        """Count a candidate that was rolled back."""
        self._canary_rollbacks[cause].inc()
