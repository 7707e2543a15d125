"""/canary: a candidate beside the stable model, its verdict, promotion and roll back."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import openapi
from service.http.routes.call import JSON
from service.http.routes.control import parse_body, read_body, require_control
from service.inference.canary import Canary
from service.inference.repository import ModelRepository
from service.wire import documents
from service.wire.canary import CanaryRequest, write_canary

router = APIRouter()
KNOW_S = 5.0
"""Time for which a call waits while this process changes models, in seconds."""


@router.get("/canary", **openapi.CANARY)
async def show_canary(request: Request) -> Response:
    """Show the candidate that runs, what is known about it, and the verdict."""
    return _state(request.app.state.canary)


@router.put("/canary", **openapi.CANARY_START)
async def start_canary(request: Request) -> Response:
    """Let a candidate answer a share of the callers of `auto`, or change its share."""
    require_control(request)
    wanted = parse_body(CanaryRequest, await read_body(request), '{"model": "student-s", "share": 0.1}')
    canary: Canary = request.app.state.canary
    await _know(request, wanted.model)
    canary.start(wanted.model, wanted.share)
    return _state(canary)


@router.post("/canary/promote", **openapi.CANARY_CHANGE)
async def promote_canary(request: Request) -> Response:
    """Let the candidate answer every call for `auto`."""
    require_control(request)
    canary: Canary = request.app.state.canary
    canary.refresh()
    if canary.trial is not None:
        await _know(request, canary.trial.candidate)
    canary.promote()
    return _state(canary)


@router.post("/canary/rollback", **openapi.CANARY_CHANGE)
async def roll_back_canary(request: Request) -> Response:
    """Give every call for `auto` back to the stable model; without a candidate, undo the last promotion."""
    require_control(request)
    canary: Canary = request.app.state.canary
    canary.roll_back()
    return _state(canary)


async def _know(request: Request, name: str) -> None:
    """Wait for a model that another process of this server has loaded, and that this one may not have yet."""
    model = request.app.state.registry.models.get(name)
    if model is None or model.network is None:
        repository: ModelRepository = request.app.state.repository
        await asyncio.to_thread(repository.catch_up, KNOW_S)


def _state(canary: Canary) -> Response:
    return Response(documents.to_json(write_canary(canary)), media_type=JSON)
