"""/canary: a candidate beside the stable model, its verdict, promotion and roll back."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import openapi
from service.http.routes.call import JSON
from service.http.routes.control import require_control
from service.inference.canary import Canary
from service.inference.repository import ModelRepository
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
    canary = await _controlled(request)
    canary.start(wanted.model, wanted.share)
    return _state(canary)


@router.post("/canary/promote", **openapi.CANARY_CHANGE)
async def promote_canary(request: Request) -> Response:
    """Let the candidate answer every call for `auto`."""
    canary = await _controlled(request)
    canary.promote()
    return _state(canary)


@router.post("/canary/rollback", **openapi.CANARY_CHANGE)
async def roll_back_canary(request: Request) -> Response:
    """Give every call for `auto` back to the stable model; without a candidate, undo the last promotion."""
    canary = await _controlled(request)
    canary.roll_back()
    return _state(canary)


async def _controlled(request: Request) -> Canary:
    """Return the canary, which knows the models that other processes of this server have loaded.

    Raises:
        ModelControlForbidden: The models may not be changed by this call.
    """
    require_control(request)
    repository: ModelRepository = request.app.state.repository
    await asyncio.to_thread(repository.catch_up)
    canary: Canary = request.app.state.canary
    return canary


def _state(canary: Canary) -> Response:
    return Response(documents.to_json(write_canary(canary)), media_type=JSON)
