"""Limits on the rate of calls, for each API key and for each address: the library `limits`, counting in memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from limits import RateLimitItem, parse_many
from limits.storage.base import Storage
from limits.strategies import FixedWindowRateLimiter

from service.errors import RateLimited
from service.settings import Settings
from service.wire.caller import Caller

MAX_WINDOWS = 50_000
"""Maximum number of callers that are counted; the count of the one that came first is forgotten for a further one."""


class RateLimits:
    """What callers may do in a time. Used on the event loop's thread only."""

    def __init__(self, settings: Settings) -> None:
        """Start counting."""
        self._limits = [
            _Limit(counted_by, item, FixedWindowRateLimiter(WindowCounts()))
            for counted_by, text in (
                ("key", settings.rate_limit_per_key),
                ("address", settings.rate_limit_per_address),
            )
            for item in (parse_many(text) if text else ())
        ]

    def __bool__(self) -> bool:
        return bool(self._limits)

    def count(self, caller: Caller) -> list[tuple[str, str]]:
        """Count one call.

        Returns:
            Headers of its response: ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            RateLimited: It is one too many; it is not counted.
        """
        counted = [(it, name) for it in self._limits if (name := it.name_of(caller)) is not None]
        refusing = [(it, name) for it, name in counted if not it.limiter.test(it.item, name)]
        if refusing:
            wait_s, limit = max(((it.left(name)[1], it) for it, name in refusing), key=lambda it: it[0])
            raise RateLimited(
                f"expected at most {limit.item.amount} calls in {limit.window_s} s from one {limit.counted_by}, "
                f"got one more; try again in {wait_s} s",
                headers={"Retry-After": str(wait_s), **_headers(counted)},
                retry_after_s=wait_s,
                limit=limit.item.amount,
                window_s=limit.window_s,
                counted_by=limit.counted_by,
            )
        for limit, name in counted:
            limit.limiter.hit(limit.item, name)
        return list(_headers(counted).items())


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit of an operator.

    Attributes:
        counted_by: What it counts by: "key" or "address".
        item: How many calls in which time.
        limiter: Holds the counts.
    """

    counted_by: str
    item: RateLimitItem
    limiter: FixedWindowRateLimiter

    @property
    def window_s(self) -> int:
        return self.item.get_expiry()

    def name_of(self, caller: Caller) -> str | None:
        if self.counted_by == "address":
            return caller.address
        return None if caller.key is None else caller.key.name

    def left(self, name: str) -> tuple[int, int]:
        """Return how many calls are left, and in how many seconds (at least 1) the count begins anew."""
        window = self.limiter.get_window_stats(self.item, name)
        return window.remaining, max(1, math.ceil(window.reset_time - time.monotonic()))


class WindowCounts(Storage):
    """Counts within windows of time, of at most `MAX_WINDOWS` callers, on the monotonic clock.

    The library's own storage in memory holds all callers of a window however many they are, starts a thread to forget
    them, and follows every jump of the system's clock.
    """

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # end of the window (s), and count

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def base_exceptions(self) -> type[Exception]:
        """No exception is expected."""
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a count, which begins a window of ``expiry`` seconds if there is none."""
        now_s = time.monotonic()
        ends_s, count = self._windows.get(key, (0.0, 0))
        if ends_s <= now_s:
            self._windows.pop(key, None)
            self._forget(now_s)
            ends_s, count = now_s + expiry, 0
        self._windows[key] = ends_s, count + amount
        return count + amount

    def get(self, key: str) -> int:
        """Return the count; 0 after its window."""
        ends_s, count = self._windows.get(key, (0.0, 0))
        return count if ends_s > time.monotonic() else 0

    def get_expiry(self, key: str) -> float:
        """Return the end of the window on the clock of `time.monotonic`."""
        return self._windows.get(key, (time.monotonic(), 0))[0]

    def check(self) -> bool:
        """Answer that the storage works."""
        return True

    def reset(self) -> int:
        """Forget all counts."""
        count = len(self)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget a count."""
        self._windows.pop(key, None)

    def _forget(self, now_s: float) -> None:
        """Drop windows that have ended, and the oldest one if there are too many."""
        while self._windows:
            ends_s, _ = next(iter(self._windows.values()))
            if ends_s > now_s and len(self) < MAX_WINDOWS:
                return
            self._windows.popitem(last=False)


def _headers(counted: list[tuple[_Limit, str]]) -> dict[str, str]:
    if not counted:
        return {}
    policies, states = [], []
    for limit, name in counted:
        title = f'"{limit.counted_by}-{limit.window_s}s"'
        policies.append(f"{title};q={limit.item.amount};w={limit.window_s}")
        left, reset_s = limit.left(name)
        states.append(f"{title};r={left};t={reset_s}")
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
