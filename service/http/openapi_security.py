"""API keys and rate limits in the OpenAPI document, where the server has them."""

from __future__ import annotations

from typing import Any

from service.errors import RateLimited, ServiceError, Unauthorized
from service.http.access import OPEN_PATHS
from service.http.error_reply import is_below_v2
from service.wire.problem_documents import PROBLEM_TYPE

_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}


def describe_access(document: dict[str, Any], *, keys: bool, limits: bool, public_metrics: bool) -> None:
    """Add to a document how calls are authorised, and what they get where they are not.

    Args:
        document: OpenAPI 3.1; changed in place.
        keys: Whether calls need an API key.
        limits: Whether the rate of calls is limited.
        public_metrics: Whether ``/metrics`` needs no key.
    """
    if keys:
        document["components"]["securitySchemes"] = _SCHEMES
        document["security"] = [{name: []} for name in _SCHEMES]
    for path, operations in document["paths"].items():
        is_open = path in OPEN_PATHS or (public_metrics and path == "/metrics")
        for method, operation in operations.items():
            if keys and is_open:
                operation["security"] = []
            elif keys:
                operation["responses"]["401"] = _response(Unauthorized, path)
            if limits and method == "post":
                operation["responses"]["429"] = _response(RateLimited, path)


def _response(error: type[ServiceError], path: str) -> dict[str, Any]:
    media_type, name = ("application/json", "InferenceError") if is_below_v2(path) else (PROBLEM_TYPE, "Problem")
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": f"`{error.slug}`: {error.title}.", "content": {media_type: {"schema": schema}}}
