"""POST /v2/repository/…: list, load, unload and roll back models, as Triton's model repository extension names it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from service.errors import BadRequest, shown
from service.http import openapi
from service.http.routes.call import JSON
from service.http.routes.control import read_body, require_control
from service.inference.model import Model
from service.inference.repository import IndexEntry, ModelRepository
from service.wire import documents
from service.wire.open_inference import ModelControl

router = APIRouter()
IGNORED_PARAMETERS = {"unload_dependents"}
"""Parameters that Triton's clients send and that change nothing here."""


@router.post("/v2/repository/index", **openapi.REPOSITORY_INDEX)
async def index(request: Request) -> Response:
    """List the versions in memory, and the bundles of the models folder that are not loaded."""
    control = await _control(request)
    repository: ModelRepository = request.app.state.repository
    entries = await asyncio.to_thread(repository.index)  # it reads the models folder
    listed = [_document(entry) for entry in entries if entry.state == "READY" or not control.ready]
    return Response(documents.to_json(listed), media_type=JSON)


@router.post("/v2/repository/models/{name}/load", **openapi.REPOSITORY_CHANGE)
async def load(request: Request, name: str) -> Response:
    """Load the bundle of a name from the models folder; it serves once it is verified and warm."""
    control = await _control(request)
    if control.parameters:
        raise BadRequest(
            f"expected no parameters, got {shown(sorted(control.parameters)[:10], 200)}; put the bundle into the "
            "models folder: configurations and files are not taken from a call"
        )
    repository: ModelRepository = request.app.state.repository
    return _changed(await repository.run("load", name))


@router.post("/v2/repository/models/{name}/unload", **openapi.REPOSITORY_CHANGE)
async def unload(request: Request, name: str) -> Response:
    """Take a model out of service; calls and streams under way end on it."""
    control = await _control(request)
    if unknown := sorted(set(control.parameters) - IGNORED_PARAMETERS):
        raise BadRequest(f"expected no parameters, got {shown(unknown[:10], 200)}; leave them out")
    repository: ModelRepository = request.app.state.repository
    return _changed(await repository.run("unload", name))


@router.post("/v2/repository/models/{name}/rollback", **openapi.REPOSITORY_CHANGE)
async def roll_back(request: Request, name: str) -> Response:
    """Return to the version that the last load replaced (not part of Triton's extension)."""
    await _control(request)
    repository: ModelRepository = request.app.state.repository
    return _changed(await repository.run("rollback", name))


async def _control(request: Request) -> ModelControl:
    """Check that the caller may change models, and read the optional body.

    Raises:
        ModelControlForbidden: Model control is off, or a page of another site sent the call.
        BadRequest: The body is not an object of JSON.
    """
    require_control(request)
    content = await read_body(request)
    if not content:
        return ModelControl()
    try:
        return ModelControl.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise BadRequest(
            f"expected no body or an object of JSON, got one where {fault['msg']}: {shown(fault['input'])}; "
            "leave it out"
        ) from None


def _changed(model: Model) -> Response:
    entry = IndexEntry.of(model, model.failure or "")
    return Response(documents.to_json(_document(entry)), media_type=JSON)


def _document(entry: IndexEntry) -> dict[str, Any]:
    """Build a `service.wire.open_inference.RepositoryEntry`."""
    return {
        "name": entry.name,
        "version": entry.version or "",
        "sha256": entry.sha256,
        "state": entry.state,
        "reason": entry.reason,
    }
