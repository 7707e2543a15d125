"""create_app(settings): wiring only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service.errors import PROBLEM_TYPE, ServiceError, from_validation, http_problem, problem
from service.http import openapi, page, routes
from service.http.allowed_hosts import HostGuard, Hosts
from service.http.lingering_close import Linger
from service.http.middleware import SCOPE_KEY, Exchange, LastResort
from service.http.redirects import PathRedirects
from service.http.upload_budget import Room
from service.inference.metrics import Metrics
from service.inference.pixel_budget import PixelRoom
from service.inference.registry import ModelRegistry, open_registry
from service.inference.scheduler import Scheduler
from service.inference.state import Service
from service.settings import Settings
from service.streaming import route
from service.streaming.open_streams import OpenStreams
from service.wire.formats import writer

JOIN_S = 1.0
"""Within which threads must end when the server stops."""


def package_version() -> str:
    """Version of the installed distribution; 0 in a bare checkout."""
    try:
        return version("posewright")
    except PackageNotFoundError:
        return "0"


def create_app(settings: Settings) -> FastAPI:
    """Build the application.

    Raises:
        BundleError: The models folder is not fit to serve from.
    """
    registry = open_registry(settings)
    app = FastAPI(
        title="posewright",
        version=package_version(),
        description="Real-time human pose inference: people and their keypoints in pictures.",
        lifespan=_lifespan(settings, registry),
        docs_url=None,  # `service.http.page` has it, without a CDN
        redoc_url=None,
    )
    app.state.registry = registry
    app.state.metrics = Metrics()
    app.state.hosts = Hosts(settings)
    app.include_router(routes.router)
    app.include_router(route.router)
    app.include_router(page.router)
    openapi.describe(app)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    # The first is the innermost.
    app.add_middleware(LastResort)
    app.add_middleware(PathRedirects)
    app.add_middleware(HostGuard, hosts=app.state.hosts, refuse=_on_service_error)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Request-Id", "Retry-After", "traceparent"],
        )
    app.add_middleware(Exchange, on_answer=app.state.metrics.request)
    app.add_middleware(Linger, longest_s=settings.upload_s)
    return app


def _lifespan(settings: Settings, registry: ModelRegistry):  # type: ignore[no-untyped-def] # noqa: ANN202 - FastAPI's own type is private
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scheduler = Scheduler(settings.worker_count, settings.queue_size, settings.deadline_s)
        bodies, pixels = Room(settings.max_bodies_bytes), PixelRoom(settings.max_pixels)
        app.state.service = Service(settings, registry, scheduler, app.state.metrics, bodies, pixels)
        app.state.metrics.watch_queue(scheduler)
        app.state.streams = OpenStreams(settings.stream_max_sessions, settings.streams_per_address)
        # Beside the loop: /healthz answers meanwhile, and /readyz tells when it is done.
        warming = threading.Thread(target=registry.warm_up, name="warm-up", daemon=True)
        warming.start()
        yield
        # Not on the loop, where calls that were given up say so meanwhile. The process does not wait for its threads.
        ends_s = time.monotonic() + JOIN_S
        await asyncio.to_thread(scheduler.close, JOIN_S)
        warming.join(max(0.0, ends_s - time.monotonic()))

    return lifespan


def _problem_response(document: dict[str, object], status: int, headers: dict[str, str]) -> Response:
    return Response(writer.dumps(document), status_code=status, headers=headers, media_type=PROBLEM_TYPE)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    request.app.state.metrics.rejected(error.slug)
    document = problem(error, request.url.path, request.scope[SCOPE_KEY])
    return _problem_response(document, error.status, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_service_error(request, from_validation(error.errors()))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}; see /docs for what there is"
    document = http_problem(error.status_code, detail, request.url.path, request.scope[SCOPE_KEY])
    return _problem_response(document, error.status_code, dict(error.headers or {}))
