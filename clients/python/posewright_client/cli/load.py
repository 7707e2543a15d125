"""Load generator: closed loop, open loop, streams. Every latency counts from the time at which the call was due.

In an open loop, calls are due at random times (a Poisson process), whether or not earlier calls have returned. The
latencies therefore include the waiting time behind a stalled server (no coordinated omission). In a closed loop, each
caller sends its next call when the previous one returns, which measures throughput.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from posewright_client._client import AsyncClient
from posewright_client._errors import PosewrightError, ProblemError, slug_of
from posewright_client._frames import Frame, StreamOptions, StreamStats
from posewright_client._retries import NEVER


@dataclass(slots=True)
class CallOutcome:
    """The calls that were due after the warm-up.

    Attributes:
        latencies_ms: Time from when a call was due to its reply.
        send_delays_ms: Time from when a call was due to when it was sent; the latencies include it.
        failures: Number of failures by kind.
        seconds: Duration of the measurement.
    """

    latencies_ms: list[float] = field(default_factory=list)
    send_delays_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """The time of the measurement, on the monotonic clock."""

    from_s: float
    until_s: float

    @classmethod
    def starting_now(cls, warm_up_s: float, duration_s: float) -> TimeSpan:
        """Begin with the warm-up now."""
        from_s = time.monotonic() + warm_up_s
        return cls(from_s, from_s + duration_s)

    def __contains__(self, moment_s: float) -> bool:
        return self.from_s <= moment_s < self.until_s


async def _call(
    client: AsyncClient, picture: bytes, model: str, due_s: float, span: TimeSpan, outcome: CallOutcome
) -> None:
    sent_s = time.monotonic()
    failure = None
    try:
        await client.predict(picture, model=model)
    except PosewrightError as error:
        failure = slug_of(error.type) if isinstance(error, ProblemError) else type(error).__name__
    if due_s not in span:
        return
    if failure is not None:
        outcome.failures[failure] += 1
        return
    outcome.latencies_ms.append((time.monotonic() - due_s) * 1000)
    outcome.send_delays_ms.append((sent_s - due_s) * 1000)


async def closed_loop(
    client: AsyncClient, pictures: Sequence[bytes], model: str, concurrency: int, warm_up_s: float, duration_s: float
) -> CallOutcome:
    """Call from ``concurrency`` callers, each of which sends its next call when the previous one returns."""
    outcome, span = CallOutcome(seconds=duration_s), TimeSpan.starting_now(warm_up_s, duration_s)

    async def caller(number: int) -> None:
        index = number
        while (due_s := time.monotonic()) < span.until_s:
            await _call(client, pictures[index % len(pictures)], model, due_s, span, outcome)
            index += 1

    await asyncio.gather(*(caller(number) for number in range(concurrency)))
    return outcome


async def open_loop(
    client: AsyncClient, pictures: Sequence[bytes], model: str, rate: float, warm_up_s: float, duration_s: float
) -> CallOutcome:
    """Call at random times, on average ``rate`` times per second, whether or not earlier calls have returned."""
    outcome, span = CallOutcome(seconds=duration_s), TimeSpan.starting_now(warm_up_s, duration_s)
    calls: set[asyncio.Task[None]] = set()
    due_s, index = span.from_s - warm_up_s, 0
    rng = random.Random(0)  # noqa: S311 - the same times in every run
    while due_s < span.until_s:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        call = asyncio.create_task(_call(client, pictures[index % len(pictures)], model, due_s, span, outcome))
        calls.add(call)
        call.add_done_callback(calls.discard)
        due_s, index = due_s + rng.expovariate(rate), index + 1
    while calls:
        await asyncio.wait(set(calls))
    return outcome


@dataclass(slots=True)
class StreamOutcome:
    """The results of one stream.

    Attributes:
        ages_ms: Time from when a frame was due at the camera to its result.
        server_ages_ms: The part of it on the server, for the same frames.
        stats: Counts of all frames, including the warm-up.
        failure: Why the stream ended early, or None.
        seconds: Duration of the measurement.
    """

    ages_ms: list[float] = field(default_factory=list)
    server_ages_ms: list[float] = field(default_factory=list)
    stats: StreamStats = field(default_factory=StreamStats)
    failure: str | None = None
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames answered per second."""
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
    """Stream from ``count`` simulated cameras of ``fps`` frames per second, evenly offset from each other."""
    span = TimeSpan.starting_now(warm_up_s, duration_s)
    begin_s = span.from_s - warm_up_s
    cameras = (
        _camera(client, pictures, options, fps, begin_s + number / (count * fps), span) for number in range(count)
    )
    return await asyncio.gather(*cameras)


async def _camera(
    client: AsyncClient, pictures: Sequence[bytes], options: StreamOptions, fps: float, begin_s: float, span: TimeSpan
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
