"""Exceptions of the routes as problem responses (RFC 9457); below /v2 as the Open Inference Protocol writes errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from service.errors import ServiceError
from service.http import error_reply
from service.http.middleware import SCOPE_KEY
from service.wire.problem_documents import framework_problem, problem, validation_error


def install(app: FastAPI) -> None:
    """Answer every exception of the application's routes with a problem document."""
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def on_service_error(request: Request, error: Exception) -> Response:
    """Count the error, and make the response."""
    assert isinstance(error, ServiceError)
    request.app.state.metrics.rejected(error.slug)
    return _response(request, problem(error, *_place(request)), error.headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await on_service_error(request, validation_error(error.errors()))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}; see /docs for what there is"
    document = framework_problem(error.status_code, detail, *_place(request))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed_methods(request)
    return _response(request, document, headers)


def _allowed_methods(request: Request) -> str:
    """List the methods of all routes of the path; the framework names those of the first one only."""
    fitting = [it for it in request.app.routes if isinstance(it, Route) and it.matches(request.scope)[0] != Match.NONE]
    return ", ".join(sorted({method for it in fitting for method in it.methods or ()}))


def _place(request: Request) -> tuple[str, str, str]:
    """The call's path, its id, and the path prefix of the server."""
    return request.url.path, request.scope[SCOPE_KEY], request.scope.get("root_path", "")


def _response(request: Request, document: dict[str, Any], headers: dict[str, str]) -> Response:
    body, media_type = error_reply.write(document, request.scope.get("root_path", ""))
    return Response(body, document["status"], headers, media_type)
