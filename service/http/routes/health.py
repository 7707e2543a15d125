"""GET /healthz, /readyz and /metrics: what an operator's tools ask."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import openapi
from service.http.routes.call import JSON
from service.inference.metrics import CONTENT_TYPE
from service.inference.state import Service

router = APIRouter()


@router.get("/metrics", **openapi.METRICS)
async def metrics(request: Request) -> Response:
    """Show the counters in Prometheus' text format."""
    service: Service = request.app.state.service
    return Response(
        service.metrics.text(service.registry.models.values()),
        headers={"Content-Type": CONTENT_TYPE},
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", **openapi.HEALTHZ)
async def healthz() -> Response:
    """Answer while the process is alive."""
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", **openapi.READYZ)
async def readyz(request: Request) -> Response:
    """Answer with 200 while the models are loaded and warm, and inference threads work; with 503 otherwise."""
    service: Service = request.app.state.service
    service.registry.require_ready()
    service.scheduler.require_threads()
    return Response(b'{"status":"ready"}', media_type=JSON)
