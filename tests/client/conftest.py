"""Every REST test runs with both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from posewright_client import AsyncClient, Client

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call one method of a new client: ``ask(url, "predict", picture, model="teacher", client={...})``."""

    def blocking(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        with Client(url, **(client or {})) as it:
            return getattr(it, method)(*args, **options)

    def awaited(url: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        async def main() -> Any:
            async with AsyncClient(url, **(client or {})) as it:
                return await getattr(it, method)(*args, **options)

        return asyncio.run(main())

    return blocking if request.param == "sync" else awaited
