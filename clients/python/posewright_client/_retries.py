"""When to ask again, and after how long. No clock and no sleep here: the shells have those."""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from posewright_client._errors import ConnectError, PosewrightError, ProblemError

RETRIED_STATUS = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential back-off with jitter, bounded twice: in attempts and in time.

    Asked again is after 429 and 503, where ``Retry-After`` is honoured, and after connections that failed or broke: a
    prediction changes nothing on the server, so a second one does no harm. A timeout is never asked again: the server
    is too slow already.

    Attributes:
        attempts: Of one call, the first included; 1 never asks again.
        backoff_s: Longest wait before the second attempt; doubles with every further one.
        max_backoff_s: Longest wait between two attempts, unless the server asks for a longer one.
        budget_s: No attempt begins later than this after the first one.
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
        """Tell how long to wait before asking again; None means to give up.

        Args:
            failures: Attempts that failed in a row, at least 1.
            error: Why the last one did.
            elapsed_s: Since the first one began.
        """
        if failures >= self.attempts:
            return None
        # Between half and all of the step: clients that fell together do not come back together.
        step_s = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 60))
        delay_s = step_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
        if isinstance(error, ProblemError) and error.retry_after_s is not None:
            delay_s += error.retry_after_s
        return delay_s if elapsed_s + delay_s <= self.budget_s else None


NEVER = Retries(attempts=1)


def worth_another(error: PosewrightError) -> bool:
    """Tell whether a call that failed so may succeed when asked again."""
    if isinstance(error, ProblemError):
        return error.status in RETRIED_STATUS
    return isinstance(error, ConnectError)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Read the header ``Retry-After`` (RFC 9110, 10.2.3): seconds or a date; None where it is neither.

    Args:
        value: Of the header.
        now_s: Seconds since the epoch.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None
