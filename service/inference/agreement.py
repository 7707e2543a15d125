"""How far the answers of each model agree with the shadow model's, in a window; memory is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.inference.model import Model
from service.inference.sliding_window import SlidingWindow
from service.pose.types import Floats

MAX_PEOPLE = 5000
"""Most people that the window of one model remembers."""
MAX_MODELS = 16
"""Most models that have a window; the one that was compared longest ago gives way."""
DIFFERENT_OKS = 0.5
"""OKS below which two poses are counted as different."""


@dataclass(frozen=True, slots=True)
class AgreementStatistics:
    """Agreement of one model's answers with the reference.

    Attributes:
        reference: Name of the shadow model.
        people: People who were compared.
        different: People whose two poses have an OKS below `DIFFERENT_OKS`.
        mean_oks: 0..1.
    """

    reference: str
    people: int
    different: int
    mean_oks: float


@dataclass(slots=True)
class _Compared:
    """OKS of the people who were compared; ``hashes`` are those of both networks."""

    hashes: tuple[str, str]
    reference: str
    people: SlidingWindow[float]


class Agreements:
    """The window of each model that was compared. Safe from several threads."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without people.

        Args:
            seconds: Age from which a person no longer counts.
            clock: Seconds that never go back.
        """
        self.seconds = seconds
        self._clock = clock
        self._compared: dict[str, _Compared] = {}
        self._lock = threading.Lock()

    def add(self, model: Model, reference: Model, oks: Floats) -> None:
        """Add people.

        Args:
            model: The model that answered. A new version begins a new window.
            reference: The shadow model.
            oks: float32 (N,), 0..1.
        """
        name, hashes = model.manifest.name, (model.sha256, reference.sha256)
        with self._lock:
            known = self._compared.pop(name, None)
            if known is None or known.hashes != hashes:
                window: SlidingWindow[float] = SlidingWindow(self.seconds, MAX_PEOPLE, self._clock)
                known = _Compared(hashes, reference.manifest.name, window)
            known.people.add(*map(float, oks))
            self._compared[name] = known
            while len(self._compared) > MAX_MODELS:
                del self._compared[next(iter(self._compared))]

    def statistics(self, name: str) -> AgreementStatistics | None:
        """Compute the statistics of the model ``name``; None where nobody was compared within the window."""
        with self._lock:
            known = self._compared.get(name)
        if known is None or not (values := known.people.entries()):
            return None
        different = sum(value < DIFFERENT_OKS for value in values)
        return AgreementStatistics(known.reference, len(values), different, sum(values) / len(values))
