"""What browsers open: the page at /, the API's description at /docs, and the module for pages of others.

The files lie in ``service/web``, those of Swagger UI in the package ``fastapi_offline``, none of whose code runs. Every
address in them is relative, so that they hold under any prefix.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"
# Nothing from anywhere else. Videos that a visitor chooses, and pictures that the page makes, are blobs.
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept, but asked for at every visit: a page of the version before must not meet a server of this one.
    "Cache-Control": "no-cache",
}
# Swagger UI draws with inline styles, and pictures in its style sheet.
_VIEWER_HEADERS = HEADERS | {
    "Content-Security-Policy": _POLICY.replace("blob:", "blob: data:", 1) + "; style-src 'self' 'unsafe-inline'"
}

router = APIRouter(include_in_schema=False)
_files = StaticFiles(directory=WEB)
_viewer = StaticFiles(packages=[("fastapi_offline", "static")])
_READ = ["GET", "HEAD"]


async def _send(
    name: str, request: Request, files: StaticFiles = _files, headers: dict[str, str] = HEADERS
) -> Response:
    """Answer with a file, or with 304 to a browser that has it."""
    response = await files.get_response(name, request.scope)
    response.headers.update(headers)
    return response


@router.api_route("/", methods=_READ)
async def index(request: Request) -> Response:
    """Show the page."""
    prefix = request.scope.get("root_path")
    if not prefix:
        return await _send("index.html", request)
    # A proxy may show it without the last slash, and relative addresses would begin one folder too high.
    page = (WEB / "index.html").read_text("utf-8").replace("<head>", f'<head>\n    <base href="{prefix}/">', 1)
    return HTMLResponse(page, headers=HEADERS)


@router.api_route("/docs", methods=_READ)
async def docs(request: Request) -> Response:
    """Show the API's description."""
    return await _send("docs.html", request, headers=_VIEWER_HEADERS)


@router.api_route("/docs/{name}", methods=_READ)
async def viewer(request: Request, name: str) -> Response:
    """Give a part of Swagger UI."""
    return await _send(name, request, _viewer)


@router.api_route("/posewright.js", methods=_READ)
async def module(request: Request) -> Response:
    """Give the module for browsers, for this page and others."""
    return await _send("posewright.js", request)


@router.api_route("/web/{name}", methods=_READ)
async def part(request: Request, name: str) -> Response:
    """Give a part of the page."""
    return await _send(name, request)
