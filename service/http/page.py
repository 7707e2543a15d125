"""What browsers open: the page at /, the description of the API at /docs, and the JavaScript module for other pages.

The files are in ``service/web``. Those of Swagger UI are in the package ``fastapi_offline``, whose code is not used.
All addresses in them are relative, so that they work under any path prefix.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"
# Only this server's own files. Videos that a visitor chooses, and pictures that the page makes, are blobs.
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Browsers may store a page but must revalidate it: an old page must not call a newer server.
    "Cache-Control": "no-cache",
}
# Swagger UI uses inline styles, and images inside its style sheet.
_SWAGGER_HEADERS = HEADERS | {
    "Content-Security-Policy": _POLICY.replace("blob:", "blob: data:", 1) + "; style-src 'self' 'unsafe-inline'"
}

router = APIRouter(include_in_schema=False)
_files = StaticFiles(directory=WEB)
_swagger = StaticFiles(packages=[("fastapi_offline", "static")])
_READ = ["GET", "HEAD"]


async def _send(
    name: str, request: Request, files: StaticFiles = _files, headers: dict[str, str] = HEADERS
) -> Response:
    """Answer with a file, or with 304 if the browser already has it."""
    response = await files.get_response(name, request.scope)
    response.headers.update(headers)
    return response


@router.api_route("/", methods=_READ)
async def index(request: Request) -> Response:
    """Show the page."""
    prefix = request.scope.get("root_path")
    if not prefix:
        return await _send("index.html", request)
    # A proxy may serve the page without the last slash; relative addresses would then lack the prefix.
    page = (WEB / "index.html").read_text("utf-8").replace("<head>", f'<head>\n    <base href="{prefix}/">', 1)
    return HTMLResponse(page, headers=HEADERS)


@router.api_route("/docs", methods=_READ)
async def docs(request: Request) -> Response:
    """Show the description of the API."""
    return await _send("docs.html", request, headers=_SWAGGER_HEADERS)


@router.api_route("/docs/{name}", methods=_READ)
async def swagger_file(request: Request, name: str) -> Response:
    """Send a file of Swagger UI."""
    return await _send(name, request, _swagger)


@router.api_route("/posewright.js", methods=_READ)
async def module(request: Request) -> Response:
    """Send the JavaScript module for browsers, for this page and others."""
    return await _send("posewright.js", request)


@router.api_route("/web/{name}", methods=_READ)
async def page_file(request: Request, name: str) -> Response:
    """Send a file of the page."""
    return await _send(name, request)
