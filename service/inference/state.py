"""The parts of a server that routes and streams share, as ``app.state.service``."""

from __future__ import annotations

from dataclasses import dataclass

from service.inference.canary import Canary
from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelBudget
from service.inference.registry import ModelRegistry
from service.inference.scheduler import Scheduler
from service.inference.shadow import Shadow
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one server; those with a default may be left out."""

    settings: Settings
    registry: ModelRegistry
    scheduler: Scheduler
    metrics: Metrics
    pixel_budget: PixelBudget
    canary: Canary | None = None
    shadow: Shadow | None = None

    def require_ready(self) -> None:
        """Check that calls can be answered.

        Raises:
            NotReady: The models are not warm, none of them runs, or too many inference threads hang.
        """
        self.registry.require_ready()
        self.scheduler.require_threads()
