"""When to retry, and after what delay; without a clock of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from posewright_client._errors import ConnectError, PosewrightError, ProblemError

RETRIED_STATUS = frozenset({429, 503})
RETRIED_OF_A_PROXY = frozenset({500, 502})
"""Without a problem document: a proxy says that the server behind it broke off. The next attempt may meet another."""

_JITTER = random.Random()  # noqa: S311 - no secret; a program that seeds the module's own generator is left alone


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential back-off with jitter, limited in attempts and in time.

    Retries follow 429 and 503, after the time in ``Retry-After``, broken connections, and error pages (500, 502) of
    proxies. Predictions change nothing on the server, so that repeating them is safe. There is no retry after a
    timeout, since the server is overloaded then.

    Attributes:
        attempts: Maximum number of attempts including the first; 1 means no retry.
        backoff_s: Maximum delay before the second attempt, seconds; doubles with every further attempt.
        max_backoff_s: Maximum delay between two attempts, seconds, unless ``Retry-After`` is longer.
        budget_s: Time after the first attempt within which the last one must begin, seconds.
    """

    attempts: int = 4
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0
    budget_s: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: expected at least 1, got {self.attempts}; 1 means no retry")
        if not 0 < self.backoff_s <= self.max_backoff_s:
            raise ValueError(
                f"expected 0 < backoff_s <= max_backoff_s, got {self.backoff_s} and {self.max_backoff_s} seconds"
            )

    def delay_s(self, failures: int, error: PosewrightError, elapsed_s: float) -> float | None:
        """Return the delay before the next attempt, or None to give up.

        Args:
            failures: Consecutive failed attempts, at least 1.
            error: The last failure.
            elapsed_s: Time since the first attempt began, seconds.
        """
        if failures >= self.attempts:
            return None
        # Jitter, so that clients that failed together do not retry together.
        step_s = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 60))
        delay_s = step_s * _JITTER.uniform(0.5, 1)
        if isinstance(error, ProblemError) and error.retry_after_s is not None:
            delay_s += error.retry_after_s
        return delay_s if elapsed_s + delay_s <= self.budget_s else None


NEVER = Retries(attempts=1)


def is_retryable(error: PosewrightError) -> bool:
    """Return whether a retry may succeed after this failure."""
    if isinstance(error, ProblemError):
        of_a_proxy = error.type == "about:blank" and error.status in RETRIED_OF_A_PROXY
        return of_a_proxy or error.status in RETRIED_STATUS
    return isinstance(error, ConnectError)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Parse the header ``Retry-After`` (RFC 9110, 10.2.3): seconds or a date; None if it is neither.

    Args:
        value: The header.
        now_s: Current time, seconds since the epoch.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None
