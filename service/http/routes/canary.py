"""/canary: a candidate beside the stable model, its verdict, promotion and roll back."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import ModelControlForbidden
from service.http import openapi
from service.http.routes.call import JSON
from service.inference.canary import Canary
from service.wire import documents
from service.wire.canary import CanaryRequest, write_canary

router = APIRouter()


@router.get("/canary", **openapi.CANARY)
async def show_canary(request: Request) -> Response:
    """Show the candidate that runs, what is known about it, and the verdict."""
    return _state(request.app.state.canary)


@router.put("/canary", **openapi.CANARY_START)
async def start_canary(request: Request, wanted: CanaryRequest) -> Response:
    """Let a candidate answer a share of the callers of `auto`, or change its share."""
    canary = _controlled(request)
    canary.start(wanted.model, wanted.share)
    return _state(canary)


@router.post("/canary/promote", **openapi.CANARY_CHANGE)
async def promote_canary(request: Request) -> Response:
    """Let the candidate answer every call for `auto`."""
    canary = _controlled(request)
    canary.promote()
    return _state(canary)


@router.post("/canary/rollback", **openapi.CANARY_CHANGE)
async def roll_back_canary(request: Request) -> Response:
    """Give every call for `auto` back to the stable model; without a candidate, undo the last promotion."""
    canary = _controlled(request)
    canary.roll_back()
    return _state(canary)


def _controlled(request: Request) -> Canary:
    """Return the canary of a server whose models may be changed over HTTP.

    Raises:
        ModelControlForbidden: They may not, or a web page of another site asks: browsers send such calls for any page.
    """
    settings = request.app.state.service.settings
    if settings.model_control != "explicit":
        raise ModelControlForbidden(
            "expected a server that was started with --model-control explicit, got one without; start it so, or "
            "choose the candidate with --canary"
        )
    origin = request.headers.get("origin")
    if origin is not None and origin not in settings.cors_origins:
        page, host = urlsplit(origin).netloc, request.headers.get("host", "")
        if page != host:
            raise ModelControlForbidden(
                f"expected a call of a program or of this server's own pages, got one of a page of {origin[:200]!r}; "
                "add it to the server's cors_origins"
            )
    canary: Canary = request.app.state.canary
    return canary


def _state(canary: Canary) -> Response:
    return Response(documents.to_json(write_canary(canary)), media_type=JSON)
