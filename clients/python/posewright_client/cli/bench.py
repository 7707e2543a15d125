"""``posewright-client bench``: measure a server under load."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from posewright_client._client import AsyncClient
from posewright_client._errors import PosewrightError
from posewright_client._frames import StreamOptions
from posewright_client._retries import NEVER
from posewright_client.cli import load
from posewright_client.cli.arguments import count, positive
from posewright_client.cli.load import CallOutcome, StreamOutcome

PERCENTILES = (50, 90, 95, 99)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench``."""
    parser.add_argument("url")
    parser.add_argument("photos", nargs="+", type=Path, metavar="photo", help="sent in turn")
    parser.add_argument("--duration", type=positive, default=10.0, metavar="SECONDS", help="to measure (default: 10)")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS", help="before that (default: 1)")
    parser.add_argument(
        "--concurrency", type=count, default=1, metavar="N", help="concurrent callers of the closed loop (default: 1)"
    )
    parser.add_argument("--rate", type=positive, metavar="PER_SECOND", help="open loop: calls at random times")
    parser.add_argument("--stream", type=count, default=0, metavar="N", help="N streams instead of calls")
    parser.add_argument("--fps", type=positive, default=30.0, help="frame rate of each stream (default: 30)")
    parser.add_argument(
        "--policy", choices=["latest", "all"], default="latest", help="policy of the streams (default: latest)"
    )
    parser.add_argument(
        "--max-in-flight", type=count, metavar="N", help="maximum number of unanswered frames per stream"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Put the server under load, and print a report.

    Raises:
        PosewrightError: The server cannot be reached, or refuses a photo before the load starts.
        OSError: A photo cannot be read.
    """
    pictures = [photo.read_bytes() for photo in arguments.photos]
    report = asyncio.run(_measure(arguments, pictures))
    print(json.dumps(report) if arguments.json else to_text(report))
    return 0


async def _measure(arguments: argparse.Namespace, pictures: Sequence[bytes]) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with AsyncClient(
        arguments.url, api_key=arguments.api_key, timeout_s=arguments.timeout, retries=NEVER, limits=limits
    ) as client:
        for picture in pictures:
            await client.predict(picture, model=arguments.model)
        span = (arguments.warm_up, arguments.duration)
        if arguments.stream:
            options = StreamOptions(
                policy=arguments.policy, model=arguments.model, max_in_flight=arguments.max_in_flight
            )
            outcomes = await load.streams(client, pictures, options, arguments.stream, arguments.fps, *span)
            return stream_report(arguments.policy, arguments.fps, outcomes)
        if arguments.rate is not None:
            outcome = await load.open_loop(client, pictures, arguments.model, arguments.rate, *span)
            return call_report({"mode": "open loop", "rate_per_s": arguments.rate}, outcome)
        outcome = await load.closed_loop(client, pictures, arguments.model, arguments.concurrency, *span)
        return call_report({"mode": "closed loop", "concurrency": arguments.concurrency}, outcome)


def call_report(mode: Mapping[str, Any], outcome: CallOutcome) -> dict[str, Any]:
    """Summarize calls; the report begins with the mode."""
    answered, failed = len(outcome.latencies_ms), sum(outcome.failures.values())
    return dict(mode) | {
        "seconds": outcome.seconds,
        "answered": answered,
        "failed": failed,
        "failures": dict(outcome.failures),
        "answered_per_s": round(answered / outcome.seconds, 2),
        "latency_ms": percentiles(outcome.latencies_ms),
        "late_ms": percentiles(outcome.send_delays_ms),
    }


def stream_report(policy: str, fps: float, outcomes: Sequence[StreamOutcome]) -> dict[str, Any]:
    """Summarize streams.

    Args:
        policy: Of the streams.
        fps: Frame rate of each stream.
        outcomes: One per stream.

    Raises:
        PosewrightError: No stream got any result.
    """
    failures = [it.failure for it in outcomes if it.failure]
    if failures and not any(it.ages_ms for it in outcomes):
        raise PosewrightError(failures[0])
    rates = [it.fps for it in outcomes]
    totals = {name: sum(asdict(it.stats)[name] for it in outcomes) for name in asdict(outcomes[0].stats)}
    return {
        "mode": f"streams, policy {policy}",
        "streams": len(outcomes),
        "offered_fps": fps,
        "seconds": outcomes[0].seconds,
        "answered_fps": {
            "mean": float(np.mean(rates).round(2)),
            "min": round(min(rates), 2),
            "max": round(max(rates), 2),
        },
        "jain_fairness": round(jain_index(rates), 4),
        "age_ms": percentiles([age for it in outcomes for age in it.ages_ms]),
        "server_age_ms": percentiles([age for it in outcomes for age in it.server_ages_ms]),
        "frames": totals,
        "failures": failures,
    }


def jain_index(rates: Sequence[float]) -> float:
    """Return Jain's fairness index of n rates: 1 if all are equal, 1/n if one stream gets everything.

    R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984: (Σx)² / (n Σx²).
    """
    x = np.asarray(rates, np.float64)
    squares = float((x**2).sum())
    return float(x.sum() ** 2 / (len(x) * squares)) if squares else 1.0


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles and the maximum, or None without values. Each percentile is a measured value."""
    if not values:
        return None
    found = np.percentile(np.asarray(values), PERCENTILES, method="inverted_cdf")
    named = {f"p{p}": round(float(value), 2) for p, value in zip(PERCENTILES, found, strict=True)}
    return named | {"max": round(max(values), 2)}


def to_text(report: Mapping[str, Any]) -> str:
    """Format a report as text."""
    lines = []
    for name, value in report.items():
        if value in ({}, []):
            continue
        text = "  ".join(f"{key} {it}" for key, it in value.items()) if isinstance(value, dict) else str(value)
        lines.append(f"{name:>14}  {text}")
    return "\n".join(lines)
