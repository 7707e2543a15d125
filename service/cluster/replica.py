"""One replica: the whole application in an actor of Ray Serve, with its readiness, its drain and its metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from ray._private.worker import global_worker
from starlette.types import ASGIApp

from service import logs
from service import settings as settings_
from service.app import create_app
from service.cluster.exported_metrics import EXPORT_S, ExportedMetrics
from service.cluster.proxied import BehindRayProxy
from service.inference.registry import ModelRegistry
from service.settings import Settings
from service.streaming.open_streams import OpenStreams

log = logging.getLogger(__name__)

WARM_S = 25.0
"""Maximum time of one health check, which waits for models that are warming up; below Ray's own limit of 30 s."""
LOOK_S = 0.2
"""Time between two looks at whether Ray removes this replica."""


class PoseReplica:
    """Builds the application in its actor; Ray Serve passes calls and streams to it.

    Ray calls `__serve_build_asgi_app__` once and `check_health` again and again; a replica gets no traffic before its
    first health check has passed.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Read the settings.

        Args:
            given: Settings by name. All others have their defaults on the machine of this replica.
        """
        self._settings = settings_.load({}, given)
        logs.configure(self._settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Build the application.

        Raises:
            BundleError: The models folder cannot be served from.
        """
        app = create_app(self._settings)
        self._app = app
        self._tasks = [asyncio.create_task(_drain_when_removed(app, self._settings)), asyncio.create_task(_export(app))]
        return BehindRayProxy(app, self._settings)

    async def check_health(self) -> None:
        """Pass while the replica is ready; Ray replaces one that fails three times.

        Raises:
            NotReady: The models are not warm, none of them runs, or too many inference threads hang.
        """
        registry: ModelRegistry = self._app.state.registry
        await asyncio.to_thread(registry.wait_until_warm, WARM_S)
        self._app.state.service.require_ready()


async def _drain_when_removed(app: FastAPI, settings: Settings) -> None:
    """Close the streams as soon as Ray removes this replica: Ray itself waits for calls and streams to end.

    Open streams never end by themselves, and Ray would cut them after ``graceful_shutdown_timeout_s``.
    """
    removed = _removal_flag()
    while not removed():  # noqa: ASYNC110 - Ray sets a plain attribute
        await asyncio.sleep(LOOK_S)
    log.info("Ray removes this replica: streams close with code 1012, calls are finished")
    streams: OpenStreams = app.state.streams
    await streams.drain(settings.stop_s / 2)


def _removal_flag() -> Callable[[], bool]:
    """Return a function that tells whether Ray Serve has begun to remove this replica.

    Ray Serve has no public hook for it: `__del__` runs after the drain. Its actor notes the removal in a private flag,
    which is why pyproject.toml allows one minor version of Ray only.
    """
    actor = global_worker.actors[global_worker.actor_id]
    return lambda: bool(actor._replica_impl._shutting_down)  # noqa: SLF001


async def _export(app: FastAPI) -> None:
    exported = ExportedMetrics(app.state.metrics)
    while True:
        try:
            exported.update()
        except Exception:
            log.exception("the metrics could not be handed on to Ray")
        await asyncio.sleep(EXPORT_S)
