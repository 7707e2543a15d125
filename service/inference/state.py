"""What routes and streams work with; ``app.state.service``."""

from __future__ import annotations

from dataclasses import dataclass

from service.http.upload_budget import Room
from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelBudget
from service.inference.registry import ModelRegistry
from service.inference.scheduler import Scheduler
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """One server's parts."""

    settings: Settings
    registry: ModelRegistry
    scheduler: Scheduler
    metrics: Metrics
    room: Room
    pixel_budget: PixelBudget
