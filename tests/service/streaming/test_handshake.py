"""The handshake of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelBudget
from service.inference.registry import open_registry
from service.inference.scheduler import Scheduler
from service.inference.state import Service
from service.settings import Settings
from service.streaming.close import CloseCode, CloseStream
from service.streaming.handshake import negotiate


@pytest.fixture
def service(models_dir: Path) -> Iterator[Service]:
    """A service whose models are not warm yet."""
    settings = Settings(models_dir=models_dir, stream_max_fps=25, stream_queue=3, keypoint_threshold=0.4)
    scheduler = Scheduler(1, 1, 1.0)
    registry, pixels = open_registry(settings), PixelBudget(settings.max_pixels)
    yield Service(settings, registry, scheduler, Metrics(), pixels)
    scheduler.close()


def test_before_the_warm_up_a_client_is_asked_to_retry(service: Service) -> None:
    with pytest.raises(CloseStream, match="warming up") as caught:
        negotiate('{"type":"hello"}', service, "id")
    assert caught.value.code == CloseCode.TRY_AGAIN_LATER


@pytest.mark.parametrize(("asked", "granted"), [("null", 25), ("10", 10), ("10.5", 10.5), ("30", 25)])
def test_the_lower_of_both_rates_applies(service: Service, asked: str, granted: float) -> None:
    service.registry.warm_up()
    assert negotiate(f'{{"type":"hello","max_fps":{asked}}}', service, "id").ready.limits.max_fps == granted


def test_defaults_come_from_the_settings(service: Service) -> None:
    service.registry.warm_up()
    setup = negotiate('{"type":"hello"}', service, "id")
    ready = setup.ready
    assert (ready.policy, ready.track, ready.smooth, ready.format) == ("latest", True, True, "compact")
    assert (ready.limits.waiting_frames, setup.query.keypoint_threshold) == (1, 0.4)
    assert negotiate('{"type":"hello","policy":"all"}', service, "id").ready.limits.waiting_frames == 3
    assert negotiate('{"type":"hello","keypoint_threshold":0}', service, "id").query.keypoint_threshold == 0


def test_a_refusal_is_counted(service: Service) -> None:
    service.registry.warm_up()
    with pytest.raises(CloseStream):
        negotiate("{}", service, "id")
    assert b'posewright_rejected_total{reason="malformed-request"} 1.0' in service.metrics.write()[0]
