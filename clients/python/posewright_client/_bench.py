"""``posewright-client bench``: put load on a server, report what it did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import numpy as np

from posewright_client import _load
from posewright_client._client import AsyncClient
from posewright_client._errors import PosewrightError
from posewright_client._frames import StreamOptions
from posewright_client._load import Outcome, StreamOutcome
from posewright_client._retries import NEVER

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        pictures: Encoded, taken in turns.
        duration_s: Measured, after ``warm_up_s``.
        warm_up_s: Load before it is measured.
        concurrency: Callers of the closed loop.
        rate: Calls a second of the open loop; None: closed loop.
        streams: Number of streams in place of calls; 0: calls.
        fps: Of each stream.
        stream: Policy, model and frames in flight; the model counts for calls, too.
    """

    pictures: Sequence[bytes]
    duration_s: float
    warm_up_s: float
    concurrency: int
    rate: float | None
    streams: int
    fps: float
    stream: StreamOptions


def run(url: str, api_key: str | None, timeout_s: float, plan: Plan) -> dict[str, Any]:
    """Run it; gives the report.

    Raises:
        PosewrightError: The server cannot be reached, or refuses the pictures, before the run begins.
    """
    return asyncio.run(_run(url, api_key, timeout_s, plan))


async def _run(url: str, api_key: str | None, timeout_s: float, plan: Plan) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    options: dict[str, Any] = {"api_key": api_key, "timeout_s": timeout_s, "retries": NEVER, "limits": limits}
    async with AsyncClient(url, **options) as client:
        for picture in plan.pictures:
            await client.predict(picture, model=plan.stream.model)
        span = (plan.warm_up_s, plan.duration_s)
        if plan.streams:
            outcomes = await _load.streams(client, plan.pictures, plan.stream, plan.streams, plan.fps, *span)
            return stream_report(plan, outcomes)
        if plan.rate is not None:
            outcome = await _load.open_loop(client, plan.pictures, plan.stream.model, plan.rate, *span)
        else:
            outcome = await _load.closed_loop(client, plan.pictures, plan.stream.model, plan.concurrency, *span)
        return call_report(plan, outcome)


def call_report(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Sum up calls."""
    answered, failed = len(outcome.latencies_ms), sum(outcome.failures.values())
    head: dict[str, Any] = {"mode": "closed loop", "concurrency": plan.concurrency}
    if plan.rate is not None:
        head = {"mode": "open loop", "rate_per_s": plan.rate}
    return head | {
        "seconds": outcome.seconds,
        "answered": answered,
        "failed": failed,
        "failures": dict(outcome.failures),
        "answered_per_s": round(answered / outcome.seconds, 2),
        "latency_ms": percentiles(outcome.latencies_ms),
        "late_ms": percentiles(outcome.lags_ms),
    }


def stream_report(plan: Plan, outcomes: Sequence[StreamOutcome]) -> dict[str, Any]:
    """Sum up streams.

    Raises:
        PosewrightError: Not one of them was answered anything.
    """
    failures = [it.failure for it in outcomes if it.failure]
    if failures and not any(it.ages_ms for it in outcomes):
        raise PosewrightError(failures[0])
    rates = [it.fps for it in outcomes]
    totals = {name: sum(asdict(it.stats)[name] for it in outcomes) for name in asdict(outcomes[0].stats)}
    return {
        "mode": f"streams, policy {plan.stream.policy}",
        "streams": plan.streams,
        "offered_fps": plan.fps,
        "seconds": outcomes[0].seconds,
        "answered_fps": {
            "mean": float(np.mean(rates).round(2)),
            "min": round(min(rates), 2),
            "max": round(max(rates), 2),
        },
        "jain_fairness": round(jain(rates), 4),
        "age_ms": percentiles([age for it in outcomes for age in it.ages_ms]),
        "server_age_ms": percentiles([age for it in outcomes for age in it.server_ages_ms]),
        "frames": totals,
        "failures": failures,
    }


def jain(rates: Sequence[float]) -> float:
    """Return how evenly a good is shared: 1 where all have the same, 1/n where one has it all.

    R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984: (Σx)² / (n Σx²).
    """
    x = np.asarray(rates, np.float64)
    squares = float((x**2).sum())
    return float(x.sum() ** 2 / (len(x) * squares)) if squares else 1.0


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles and the highest value, None without any; each is a value that occurred."""
    if not values:
        return None
    found = np.percentile(np.asarray(values), PERCENTILES, method="inverted_cdf")
    named = {f"p{p}": round(float(value), 2) for p, value in zip(PERCENTILES, found, strict=True)}
    return named | {"max": round(max(values), 2)}


def show(report: Mapping[str, Any]) -> str:
    """Write a report for people."""
    lines = []
    for name, value in report.items():
        if value in ({}, []):
            continue
        text = "  ".join(f"{key} {it}" for key, it in value.items()) if isinstance(value, dict) else str(value)
        lines.append(f"{name:>14}  {text}")
    return "\n".join(lines)
