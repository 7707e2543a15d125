"""GET /healthz, /readyz and /metrics: what an operator's tools ask."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import openapi
from service.http.routes.call import JSON
from service.inference.repository import ModelRepository
from service.inference.state import Service
from service.wire import documents

router = APIRouter()


@router.get("/metrics", **openapi.METRICS)
async def metrics(request: Request) -> Response:
    """Show the metrics in Prometheus' text format, or in OpenMetrics where that is asked for."""
    service: Service = request.app.state.service
    text, content_type = service.metrics.write(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type})


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", **openapi.HEALTHZ)
async def healthz() -> Response:
    """Answer while the process is alive."""
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", **openapi.READYZ)
async def readyz(request: Request) -> Response:
    """Answer with 200 while models are loaded and warm and inference threads work, with 503 otherwise.

    The reply names the models whose last load failed; their versions before serve on.
    """
    service: Service = request.app.state.service
    service.require_ready()
    repository: ModelRepository = request.app.state.repository
    failures = {"load_failures": repository.load_failures} if repository.load_failures else {}
    return Response(documents.to_json({"status": "ready"} | failures), media_type=JSON)
