"""GET /models/{name}/manifest.json and /models/{name}/model.onnx: the files of a bundle, for programs that run it.

Pages do so in the local mode of the browser client. The layout is that of the models folder, so that a copy of the
folder on any web server takes the place of this route.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from service.errors import Unavailable
from service.http import openapi
from service.http.routes.call import JSON
from service.inference.errors import BundleFilesForbidden
from service.inference.model import Model
from service.inference.state import Service
from service.pose import bundle as bundles

router = APIRouter()
_FOR_GOOD = "private, max-age=31536000, immutable"


@router.get("/models/{name}/manifest.json", **openapi.BUNDLE_MANIFEST)
async def show_manifest(request: Request, name: str) -> Response:
    """Send the manifest of a loaded bundle."""
    content = _model(request, name).manifest.model_dump_json().encode()
    headers = {"ETag": f'"{bundles.sha256(content)}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=JSON, headers=headers)


@router.get("/models/{name}/model.onnx", **openapi.BUNDLE_GRAPH)
async def send_graph(request: Request, name: str) -> Response:
    """Send the graph of a loaded bundle; where the query names its hash, browsers keep it for good."""
    model = _model(request, name)
    named = request.query_params.get("sha256") == model.sha256
    headers = {"ETag": f'"{model.sha256}"', "Cache-Control": _FOR_GOOD if named else "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    service: Service = request.app.state.service
    content = await run_in_threadpool(_read, service.settings.models_dir / name / bundles.ONNX, model)
    return Response(content, media_type="application/octet-stream", headers=headers)


def _model(request: Request, name: str) -> Model:
    service: Service = request.app.state.service
    if not service.settings.serve_bundles:
        raise BundleFilesForbidden("expected a server with --serve-bundles true, got one that keeps its bundles")
    return service.registry.find_model(name)


def _read(path: Path, model: Model) -> bytes:
    """Read the graph that the server runs; a folder that was changed since holds another one."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if bundles.sha256(content) != model.sha256:
        raise Unavailable(
            f"model {model.manifest.name!r}: expected its graph of sha256 {model.sha256} in the models folder, got "
            "another; the bundle changed since it was loaded",
            model=model.manifest.name,
        )
    return content
