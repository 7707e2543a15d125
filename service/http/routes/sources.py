"""/sources: cameras and files that the server reads, and WebSocket /sources/{id}/stream for their viewers."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from service.errors import ServiceError
from service.http import openapi
from service.http.routes.call import JSON
from service.http.routes.control import parse_body, read_body, require_same_site
from service.inference.state import Service
from service.sources.errors import UnknownSource
from service.sources.messages import SourceRequest
from service.sources.open_sources import Sources
from service.sources.source import ManagedSource
from service.sources.viewer import ViewerSession
from service.streaming import opening
from service.streaming.close import CloseCode, CloseStream, send_close
from service.streaming.open_streams import OpenStreams
from service.video.errors import SourceForbidden
from service.wire import documents
from service.wire.problem_documents import problem

router = APIRouter()


@router.get("/sources", **openapi.SOURCES)
async def list_sources(request: Request) -> Response:
    """List the sources and how they are."""
    entries = [it.entry() for it in _sources(request).list_all()]
    return Response(documents.to_json({"sources": entries}), media_type=JSON)


@router.post("/sources", **openapi.SOURCE_ADD)
async def add_source(request: Request) -> Response:
    """Let the server read a camera or a file, and answer its frames for all who watch it."""
    sources = _changing(request)
    wanted = parse_body(SourceRequest, await read_body(request), '{"url": "rtsp://…"}', has_secrets=True)
    source = await sources.add(wanted)
    headers = {"Location": f"{request.scope.get('root_path', '')}/sources/{source.id}"}
    return _entry(source, 201, headers)


@router.get("/sources/{source_id}", **openapi.SOURCE)
async def show_source(request: Request, source_id: str) -> Response:
    """Show one source: its state, frames, gaps and errors."""
    return _entry(_sources(request).get(source_id))


@router.post("/sources/{source_id}/pause", **openapi.SOURCE_CHANGE)
async def pause_source(request: Request, source_id: str) -> Response:
    """Stop to read: a camera is disconnected, a file stays where it is."""
    source = _changing(request).get(source_id)
    source.pause()
    return _entry(source)


@router.post("/sources/{source_id}/resume", **openapi.SOURCE_CHANGE)
async def resume_source(request: Request, source_id: str) -> Response:
    """Read on after a pause."""
    source = _changing(request).get(source_id)
    source.resume()
    return _entry(source)


@router.delete("/sources/{source_id}", **openapi.SOURCE_REMOVE)
async def remove_source(request: Request, source_id: str) -> Response:
    """Stop a source and forget it."""
    await _changing(request).remove(source_id)
    return Response(status_code=204)


@router.websocket("/sources/{source_id}/stream")
async def view_source(socket: WebSocket, source_id: str) -> None:
    """Watch a source."""
    service: Service = socket.app.state.service
    viewers: OpenStreams = socket.app.state.viewers
    with suppress(WebSocketDisconnect):
        await opening.accept(socket)
        try:
            caller = opening.check(socket)
            source = _source_of(socket, source_id)
            viewers.require_room(caller)
        except CloseStream as closed:
            service.metrics.rejected(opening.REFUSALS[closed.code])
            await send_close(socket, closed)
            return
        metrics, settings = service.metrics.sources, service.settings
        session = ViewerSession(socket, source, settings.stream_idle_s, metrics.viewer_result, settings.root_path)
        socket.scope[opening.SESSION_KEY] = session.id
        await viewers.run(session, caller, metrics.viewers)


def _sources(request: Request) -> Sources:
    sources: Sources = request.app.state.sources
    sources.require_enabled()
    return sources


def _changing(request: Request) -> Sources:
    """Return the sources for a call that changes them.

    Raises:
        SourceForbidden: There are none, or a page of another site sent the call.
    """
    sources = _sources(request)
    require_same_site(request, SourceForbidden)
    return sources


def _source_of(socket: WebSocket, source_id: str) -> ManagedSource:
    """Find the source that a viewer wants.

    Raises:
        CloseStream: There is none.
    """
    sources: Sources = socket.app.state.sources
    try:
        sources.require_enabled()
        return sources.get(source_id)
    except ServiceError as error:
        code = CloseCode.NO_SOURCE if isinstance(error, UnknownSource) else CloseCode.FORBIDDEN
        document = problem(error, socket.url.path, "", socket.scope.get("root_path", ""))
        raise CloseStream(code, error.detail, document) from None


def _entry(source: ManagedSource, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(documents.to_json(source.entry()), status, headers, JSON)
