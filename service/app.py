"""create_app(settings): builds the application from its parts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.http import error_handlers, openapi, page, problems
from service.http.allowed_hosts import AllowedHosts, HostCheck
from service.http.lingering_close import LingeringClose
from service.http.middleware import RequestContext, UnhandledErrors
from service.http.redirects import RelativeRedirects
from service.http.routes import batch, compare, health, models, predict
from service.http.upload_budget import UploadBudget
from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelBudget
from service.inference.registry import ModelRegistry, open_registry
from service.inference.scheduler import Scheduler
from service.inference.state import Service
from service.settings import THREADS_JOIN_S, Settings
from service.streaming import route as stream
from service.streaming.open_streams import OpenStreams


def package_version() -> str:
    """Return the version of the installed distribution; 0 in a checkout that is not installed."""
    try:
        return version("posewright")
    except PackageNotFoundError:
        return "0"


def create_app(settings: Settings) -> FastAPI:
    """Build the application.

    Raises:
        BundleError: The models folder cannot be served from.
    """
    registry = open_registry(settings)
    app = FastAPI(
        title="posewright",
        version=package_version(),
        description="Real-time human pose inference: people and their keypoints in pictures.",
        lifespan=_lifespan(settings, registry),
        docs_url=None,  # `service.http.page` serves it without a CDN
        redoc_url=None,
    )
    app.state.registry = registry
    app.state.metrics = Metrics()
    app.state.hosts = AllowedHosts(settings)
    for room in (predict, batch, compare, models, health, stream, problems, page):
        app.include_router(room.router)
    openapi.describe(app)
    error_handlers.install(app)
    # The first is the innermost.
    app.add_middleware(UnhandledErrors)
    app.add_middleware(RelativeRedirects)
    app.add_middleware(HostCheck, hosts=app.state.hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Request-Id", "Retry-After"],
        )
    app.add_middleware(RequestContext, on_response=app.state.metrics.request)
    app.add_middleware(LingeringClose, max_s=settings.upload_s)
    return app


def _lifespan(settings: Settings, registry: ModelRegistry) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pixel_budget = PixelBudget(settings.max_pixels)

        def on_lost(thread: threading.Thread) -> None:
            pixel_budget.release(thread)
            app.state.metrics.thread_lost()

        scheduler = Scheduler(settings.inference_thread_count, settings.queue_size, settings.deadline_s, on_lost)
        app.state.upload_budget = UploadBudget(settings.max_bodies_bytes, settings.upload_s)
        app.state.service = Service(settings, registry, scheduler, app.state.metrics, pixel_budget)
        app.state.metrics.watch_queue(scheduler)
        app.state.streams = OpenStreams(settings.stream_max_sessions, settings.streams_per_address)
        # On a thread: meanwhile /healthz answers, and /readyz tells when the models are warm.
        warming = threading.Thread(target=registry.warm_up, name="warm-up", daemon=True)
        warming.start()
        yield
        # On a thread: calls that are given up are answered meanwhile. The process does not wait for its threads.
        ends_s = time.monotonic() + THREADS_JOIN_S
        await asyncio.to_thread(scheduler.close, THREADS_JOIN_S)
        warming.join(max(0.0, ends_s - time.monotonic()))

    return lifespan
