"""The page at /: webcam, upload and compare in a browser, and the module for browsers that it is made with.

The files lie in ``service/web``. ``posewright.js`` there is a symbolic link to ``clients/browser/posewright.js``: one
source, which a wheel carries as a file.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parent / "web"
HEADERS = {
    # Nothing from anywhere else. Videos that a visitor chooses, and pictures that the page makes, are blobs.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Permissions-Policy": "camera=(self), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept, but asked for at every visit: a page of the version before must not meet a server of this one.
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)
_files = StaticFiles(directory=WEB, follow_symlink=True)
_READ = ["GET", "HEAD"]


async def _send(name: str, request: Request) -> Response:
    """Answer with a file, or with 304 to a browser that has it."""
    response = await _files.get_response(name, request.scope)
    response.headers.update(HEADERS)
    return response


@router.api_route("/", methods=_READ)
async def index(request: Request) -> Response:
    """Show the page."""
    return await _send("index.html", request)


@router.api_route("/posewright.js", methods=_READ)
async def module(request: Request) -> Response:
    """Give the module for browsers, for this page and others."""
    return await _send("posewright.js", request)


@router.api_route("/web/{name}", methods=_READ)
async def part(request: Request, name: str) -> Response:
    """Give a part of the page."""
    return await _send(name, request)
