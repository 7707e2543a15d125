"""GET /models and /models/{name}: what the model registry holds."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import openapi
from service.http.routes.call import JSON
from service.inference.model import Model
from service.inference.repository import ModelRepository
from service.inference.state import Service
from service.wire import documents
from service.wire.canary import write_agreement

router = APIRouter()


@router.get("/models", **openapi.MODELS)
async def list_models(request: Request) -> Response:
    """List the models of the registry, and what runs them."""
    service: Service = request.app.state.service
    choice = service.settings.provider_choice
    provider = {
        "requested": service.settings.execution_provider,
        "selected": str(choice.provider),
        "reason": choice.reason,
    }
    entries = [_entry(request, model) for model in service.registry.models.values()]
    return Response(documents.to_json({"models": entries, "execution_provider": provider}), media_type=JSON)


@router.get("/models/{name}", **openapi.MODEL)
async def show_model(request: Request, name: str) -> Response:
    """Show one model with its card."""
    service: Service = request.app.state.service
    model = service.registry.find_model(name)
    return Response(documents.to_json(_entry(request, model) | {"card": model.card}), media_type=JSON)


def _entry(request: Request, model: Model) -> dict[str, Any]:
    service: Service = request.app.state.service
    repository: ModelRepository = request.app.state.repository
    name = model.manifest.name
    previous = repository.previous(name)
    ref = documents.model_ref(model)
    del ref["fallback"]
    state = "unavailable" if model.network is None else "ready" if service.registry.ready else "warming_up"
    return ref | {
        "state": state,
        "failure": model.failure,
        "last_load_failure": repository.load_failures.get(name),
        "previous": None if previous is None else {"version": previous.manifest.version, "sha256": previous.sha256},
        "default": service.registry.is_default(model),
        "kind": model.manifest.kind,
        "skeleton": _skeleton(model),
        "metrics": model.manifest.metrics,
        "agreement": _agreement(service, model),
        "manifest": model.manifest.model_dump(mode="json"),
    }


def _agreement(service: Service, model: Model) -> dict[str, Any] | None:
    if service.shadow is None:
        return None
    agreements = service.shadow.agreements
    return write_agreement(agreements.statistics(model.manifest.name), agreements.seconds)


def _skeleton(model: Model) -> dict[str, Any] | None:
    known = model.manifest.known_skeleton
    return None if known is None else {"name": known.name, "keypoints": known.keypoints, "edges": known.edges}
