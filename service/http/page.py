"""Files for browsers: the page at /, the API documentation at /docs, and the browser client at /posewright.js.

The page lies in ``service/web``, the browser client in ``clients/browser/src``, and Swagger UI comes from the package
``fastapi_offline``, of which only the static files are used. All URLs in the files are relative, so that they work
under any path prefix.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parents[1] / "web"
_CHECKOUT = Path(__file__).parents[2] / "clients" / "browser" / "src"
BROWSER_CLIENT = _CHECKOUT if _CHECKOUT.is_dir() else WEB / "browser"
"""The browser client: in a checkout in ``clients/browser/src``, in a wheel in ``service/web/browser``."""
# Only files of this server. Videos that the visitor opens, and pictures that the page makes, are blobs.
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=()",
    # Browsers revalidate at every visit, so that a cached page never meets a server of another version.
    "Cache-Control": "no-cache",
}
# Swagger UI uses inline styles, and data: pictures in its style sheet.
_DOCS_HEADERS = HEADERS | {
    "Content-Security-Policy": _POLICY.replace("blob:", "blob: data:", 1) + "; style-src 'self' 'unsafe-inline'"
}

router = APIRouter(include_in_schema=False)
_files = StaticFiles(directory=WEB)
_browser_client = StaticFiles(directory=BROWSER_CLIENT)
_local_mode = StaticFiles(directory=BROWSER_CLIENT / "local")
_swagger_ui = StaticFiles(packages=[("fastapi_offline", "static")])
_READ = ["GET", "HEAD"]


async def _send(
    name: str, request: Request, files: StaticFiles = _files, headers: dict[str, str] = HEADERS
) -> Response:
    """Respond with a file, or with 304 if the browser has it already."""
    response = await files.get_response(name, request.scope)
    response.headers.update(headers)
    return response


@router.api_route("/", methods=_READ)
async def index(request: Request) -> Response:
    """Serve the page."""
    prefix = request.scope.get("root_path")
    if not prefix:
        return await _send("index.html", request)
    # A proxy may serve the page without the final slash; relative URLs would then resolve one folder too high.
    page = (WEB / "index.html").read_text("utf-8").replace("<head>", f'<head>\n    <base href="{prefix}/">', 1)
    return HTMLResponse(page, headers=HEADERS)


@router.api_route("/docs", methods=_READ)
async def docs(request: Request) -> Response:
    """Serve the API documentation."""
    return await _send("docs.html", request, headers=_DOCS_HEADERS)


@router.api_route("/docs/{name}", methods=_READ)
async def swagger_ui(request: Request, name: str) -> Response:
    """Serve a file of Swagger UI."""
    return await _send(name, request, _swagger_ui)


@router.api_route("/posewright.js", methods=_READ)
async def browser_client(request: Request) -> Response:
    """Serve the module that pages of other sites import."""
    return await _send("posewright.js", request)


@router.api_route("/posewright-local.js", methods=_READ)
async def local_mode(request: Request) -> Response:
    """Serve the module with which pages of other sites run the models themselves."""
    return await _send("posewright-local.js", request)


@router.api_route("/web/browser/local/{name}", methods=_READ)
async def local_mode_file(request: Request, name: str) -> Response:
    """Serve a module of the browser client's local mode."""
    return await _send(name, request, _local_mode)


@router.api_route("/web/browser/{name}", methods=_READ)
async def browser_client_file(request: Request, name: str) -> Response:
    """Serve a module of the browser client."""
    return await _send(name, request, _browser_client)


@router.api_route("/web/{name}", methods=_READ)
async def page_file(request: Request, name: str) -> Response:
    """Serve a file of the page."""
    return await _send(name, request)
