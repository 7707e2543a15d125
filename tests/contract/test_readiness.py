"""Every probe tells when a server cannot answer, and all of them the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.settings import Settings

PROBES = ("/readyz", "/v2/health/ready", "/v2/models/auto/ready")


def test_probes_fail_when_too_many_inference_threads_hang(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn, which ends the process as soon as the scheduler has failed."""

    async def statuses(http: httpx.AsyncClient) -> list[int]:
        return [(await http.get(path)).status_code for path in PROBES]

    async def play() -> None:
        app = create_app(Settings(models_dir=models_dir))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
        ):
            await asyncio.to_thread(app.state.registry.wait_until_warm, 30)
            assert await statuses(http) == [200, 200, 200]
            monkeypatch.setattr(app.state.service.scheduler, "_failed", True)
            assert await statuses(http) == [503, 503, 503]

    asyncio.run(play())
