"""Load for a server: closed loop, open loop, streams. Every latency counts from the moment the call was due.

In an open loop calls are due at random times (a Poisson process), whether or not earlier ones are answered: a server
that stalls is then charged for all who would have come meanwhile (no coordinated omission). A closed loop asks again
when it is answered: it measures throughput.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from posewright_client._client import AsyncClient
from posewright_client._errors import PosewrightError, ProblemError
from posewright_client._frames import Frame, StreamOptions, StreamStats
from posewright_client._retries import NEVER


@dataclass(slots=True)
class Outcome:
    """What became of the calls that were due after the warm-up.

    Attributes:
        latencies_ms: From when a call was due to its answer.
        lags_ms: From when it was due to when it was sent: how late this side was, which the latencies include.
        failures: Kinds of failure, and how many of each.
        seconds: Measured.
    """

    latencies_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """When to measure, on the monotonic clock."""

    from_s: float
    until_s: float

    @classmethod
    def of(cls, warm_up_s: float, duration_s: float) -> Span:
        """Begin now."""
        from_s = time.monotonic() + warm_up_s
        return cls(from_s, from_s + duration_s)

    def __contains__(self, moment_s: float) -> bool:
        return self.from_s <= moment_s < self.until_s


async def _call(client: AsyncClient, picture: bytes, model: str, due_s: float, span: Span, outcome: Outcome) -> None:
    sent_s = time.monotonic()
    failure = None
    try:
        await client.predict(picture, model=model)
    except PosewrightError as error:
        failure = error.type.rpartition(":")[2] if isinstance(error, ProblemError) else type(error).__name__
    if due_s not in span:
        return
    if failure is not None:
        outcome.failures[failure] += 1
        return
    outcome.latencies_ms.append((time.monotonic() - due_s) * 1000)
    outcome.lags_ms.append((sent_s - due_s) * 1000)


async def closed_loop(
    client: AsyncClient, pictures: Sequence[bytes], model: str, concurrency: int, warm_up_s: float, duration_s: float
) -> Outcome:
    """Ask from so many callers, each one again when it is answered."""
    outcome, span = Outcome(seconds=duration_s), Span.of(warm_up_s, duration_s)

    async def caller(number: int) -> None:
        turn = number
        while (due_s := time.monotonic()) < span.until_s:
            await _call(client, pictures[turn % len(pictures)], model, due_s, span, outcome)
            turn += 1

    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return outcome


async def open_loop(
    client: AsyncClient, pictures: Sequence[bytes], model: str, rate: float, warm_up_s: float, duration_s: float
) -> Outcome:
    """Ask at random times, so many calls a second on the average, answered or not."""
    outcome, span = Outcome(seconds=duration_s), Span.of(warm_up_s, duration_s)
    calls: set[asyncio.Task[None]] = set()
    due_s, turn = span.from_s - warm_up_s, 0
    dice = random.Random(0)  # noqa: S311 - the same arrivals in every run
    while due_s < span.until_s:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        call = asyncio.create_task(_call(client, pictures[turn % len(pictures)], model, due_s, span, outcome))
        calls.add(call)
        call.add_done_callback(calls.discard)
        due_s, turn = due_s + dice.expovariate(rate), turn + 1
    while calls:
        await asyncio.wait(set(calls))
    return outcome


@dataclass(slots=True)
class StreamOutcome:
    """One stream's.

    Attributes:
        ages_ms: From when a frame was due at the camera to its answer here.
        server_ages_ms: Of the same frames, what of it passed on the server.
        stats: What became of all frames, those of the warm-up among them.
        failure: Why it ended early, or None.
        seconds: Measured.
    """

    ages_ms: list[float] = field(default_factory=list)
    server_ages_ms: list[float] = field(default_factory=list)
    stats: StreamStats = field(default_factory=StreamStats)
    failure: str | None = None
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames answered a second."""
        return len(self.ages_ms) / self.seconds


async def streams(
    client: AsyncClient,
    pictures: Sequence[bytes],
    options: StreamOptions,
    count: int,
    fps: float,
    warm_up_s: float,
    duration_s: float,
) -> list[StreamOutcome]:
    """Play so many cameras of so many frames a second at once, their frames evenly apart from each other."""
    span = Span.of(warm_up_s, duration_s)
    begin_s = span.from_s - warm_up_s
    cameras = (
        _camera(client, pictures, options, fps, begin_s + number / (count * fps), span) for number in range(count)
    )
    return await asyncio.gather(*cameras)


async def _camera(
    client: AsyncClient, pictures: Sequence[bytes], options: StreamOptions, fps: float, begin_s: float, span: Span
) -> StreamOutcome:
    outcome = StreamOutcome(seconds=span.until_s - span.from_s)

    async def frames() -> AsyncIterator[Frame]:
        seq = 0
        while (due_s := begin_s + seq / fps) < span.until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            yield Frame(pictures[seq % len(pictures)], capture_us=round(seq * 1e6 / fps))
            seq += 1

    stream = client.stream(
        frames(), policy=options.policy, model=options.model, max_in_flight=options.max_in_flight, reconnects=NEVER
    )
    outcome.stats = stream.stats
    try:
        async with stream:
            async for result in stream:
                now_s, due_s = time.monotonic(), begin_s + result.seq / fps
                if due_s not in span or result.problem is not None:
                    continue
                outcome.ages_ms.append((now_s - due_s) * 1000)
                outcome.server_ages_ms.append(result.age_ms or 0.0)
    except PosewrightError as error:
        outcome.failure = str(error)
    return outcome
