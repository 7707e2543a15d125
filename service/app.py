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

from service import tracing
from service.http import error_handlers, openapi, page, problems
from service.http.access import AccessCheck
from service.http.access_log import AccessLog
from service.http.allowed_hosts import AllowedHosts, HostCheck
from service.http.api_keys import ApiKeys
from service.http.lingering_close import LingeringClose
from service.http.middleware import RequestContext, UnhandledErrors
from service.http.rate_limits import RateLimits
from service.http.redirects import RelativeRedirects
from service.http.routes import (
    batch,
    bundle_files,
    canary,
    compare,
    health,
    jobs,
    models,
    open_inference,
    predict,
    repository,
    sources,
)  # fmt: skip
from service.http.security_headers import SecurityHeaders
from service.http.upload_budget import UploadBudget
from service.inference.agreement import Agreements
from service.inference.canary import Canary
from service.inference.exposition import multiprocess_folder
from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelBudget
from service.inference.registry import ModelRegistry, open_registry
from service.inference.repository import ModelRepository
from service.inference.scheduler import Scheduler
from service.inference.shadow import Shadow, require_shadow
from service.inference.state import Service
from service.jobs.exports import Exports
from service.jobs.runner import JobRunner
from service.jobs.store import JobStore
from service.settings import THREADS_JOIN_S, Settings
from service.sources.open_sources import Sources, require_fitting
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
        SettingsError: The API keys cannot be read, the settings name a shadow model or a canary that cannot be compared
            with the student, sources cannot be read with these settings, or the folder for jobs cannot be written.
        BackendError: The execution provider does not work on this machine.
    """
    require_fitting(settings)
    api_keys, rate_limits = ApiKeys(settings), RateLimits(settings)
    registry = open_registry(settings)
    require_shadow(registry, settings)
    app = FastAPI(
        title="posewright",
        version=package_version(),
        description="Real-time human pose inference: people and their keypoints in pictures.",
        lifespan=_lifespan(settings, registry),
        docs_url=None,  # `service.http.page` serves it without a CDN
        redoc_url=None,
    )
    app.state.registry = registry
    app.state.metrics = Metrics(package_version())
    app.state.agreements = Agreements(settings.canary_window_s)
    app.state.canary = Canary(registry, settings, app.state.metrics.rollout, app.state.agreements)
    app.state.repository = ModelRepository(registry, settings, app.state.metrics.load_failed, app.state.canary)
    app.state.hosts = AllowedHosts(settings)
    app.state.api_keys, app.state.rate_limits = api_keys, rate_limits
    app.state.jobs = None if settings.jobs_dir is None else JobStore(settings)
    app.state.job_exports = None if app.state.jobs is None else Exports(app.state.jobs)
    for room in (
        predict, batch, compare, sources, jobs, models, bundle_files, canary, health, open_inference, repository,
        stream, problems, page,
    ):  # fmt: skip
        app.router.routes += room.router.routes  # `include_router` would match every request twice
    openapi.describe(app, public_metrics=settings.public_metrics)
    error_handlers.install(app)
    # The first is the innermost.
    app.add_middleware(UnhandledErrors)
    app.add_middleware(RelativeRedirects)
    if api_keys.required or rate_limits:
        app.add_middleware(AccessCheck, keys=api_keys, limits=rate_limits, public_metrics=settings.public_metrics)
    app.add_middleware(HostCheck, hosts=app.state.hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=[
                "Server-Timing",
                "X-Request-Id",
                "Retry-After",
                "Location",
                "Content-Disposition",
                "Content-Range",
                "ETag",
                "RateLimit",
                "RateLimit-Policy",
                "Inference-Header-Content-Length",
            ],
        )
    if settings.logs_access:
        app.add_middleware(AccessLog)
    spans = app.state.spans = tracing.start(package_version())
    if spans is not None:
        app.state.metrics.on_stages = spans.stages
        app.add_middleware(spans.middleware, spans=spans)
    app.add_middleware(RequestContext, on_response=app.state.metrics.request)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(LingeringClose, max_s=settings.upload_s)
    return app


def _lifespan(settings: Settings, registry: ModelRegistry) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pixel_budget = PixelBudget(settings.max_pixels)

        def on_lost(thread: threading.Thread) -> None:
            pixel_budget.release(thread)
            registry.batching.give_up(thread)
            app.state.metrics.thread_lost()

        scheduler = Scheduler(
            settings.inference_thread_count,
            settings.queue_size,
            settings.deadline_s,
            on_start=app.state.metrics.waited,
            on_lost=on_lost,
        )
        app.state.upload_budget = UploadBudget(settings.max_bodies_bytes, settings.upload_s)
        shadow = None
        if settings.shadow_share:
            shadow = Shadow(registry, scheduler, app.state.metrics.rollout, app.state.agreements, settings)
        app.state.service = Service(
            settings, registry, scheduler, app.state.metrics, pixel_budget, app.state.canary, shadow
        )
        app.state.metrics.watch(scheduler, registry)
        registry.batching.active_callers = lambda: scheduler.running
        registry.batching.on_batch = app.state.metrics.batch
        watching = _open_streams(app, settings)
        app.state.sources = Sources(app.state.service)
        # On a thread: meanwhile /healthz answers, and /readyz tells when the models are warm.
        warming = threading.Thread(target=_warm_up, args=(registry, app.state.metrics), name="warm-up", daemon=True)
        warming.start()
        sampling = asyncio.create_task(_sample(app.state.metrics)) if multiprocess_folder() else None
        app.state.repository.follow()
        if app.state.jobs is not None:
            app.state.job_runner = JobRunner(app.state.jobs, app.state.service, asyncio.get_running_loop())
            app.state.job_runner.start()
        yield
        if sampling is not None:
            sampling.cancel()
        app.state.repository.close()
        watching.cancel()
        # On a thread: calls that are given up are answered meanwhile. The process does not wait for its threads.
        ends_s = time.monotonic() + THREADS_JOIN_S
        if app.state.jobs is not None:
            app.state.job_exports.close()
            await asyncio.to_thread(app.state.job_runner.close, THREADS_JOIN_S)
        await asyncio.to_thread(scheduler.close, max(0.0, ends_s - time.monotonic()))
        if shadow is not None:
            shadow.close(max(0.0, ends_s - time.monotonic()))
        warming.join(max(0.0, ends_s - time.monotonic()))
        if app.state.spans is not None:
            await asyncio.to_thread(app.state.spans.close, max(0.0, ends_s - time.monotonic()))

    return lifespan


def _open_streams(app: FastAPI, settings: Settings) -> asyncio.Task[None]:
    """Count streams and viewers, and close those whose API key is revoked, which the returned task watches for."""
    app.state.streams = OpenStreams(
        settings.stream_max_sessions, settings.streams_per_address, settings.stream_max_per_key
    )
    viewers_max = settings.source_max_viewers
    app.state.viewers = OpenStreams(viewers_max, viewers_max, settings.stream_max_per_key)
    api_keys: ApiKeys = app.state.api_keys

    def close_revoked() -> None:
        for streams in (app.state.streams, app.state.viewers):
            streams.close_revoked(api_keys.accepts)

    return asyncio.create_task(api_keys.watch(on_change=close_revoked))


def _warm_up(registry: ModelRegistry, metrics: Metrics) -> None:
    registry.warm_up()
    for name, model in registry.models.items():
        if model.network is None:
            metrics.load_failed(name)


async def _sample(metrics: Metrics) -> None:
    """Refresh the gauges of this process every second: another process may be the one that is asked for them."""
    while True:
        metrics.sample()
        await asyncio.sleep(1)
