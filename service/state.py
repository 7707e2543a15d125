"""What routes and streams work with; ``app.state.service``."""

from __future__ import annotations

from dataclasses import dataclass

from service.metrics import Metrics
from service.pixels import PixelRoom
from service.scheduler import Scheduler
from service.settings import Settings
from service.shelf import Shelf
from service.uploads import Room


@dataclass(frozen=True, slots=True)
class Service:
    """One server's parts."""

    settings: Settings
    shelf: Shelf
    scheduler: Scheduler
    metrics: Metrics
    room: Room
    pixels: PixelRoom
