"""The REST routes. A handler checks what the caller wants, reads the body and hands the rest to an inference thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.errors import BadParameter, ServiceError, internal_error, problem
from service.http import body as bodies
from service.http import content_encoding, multipart, negotiation, openapi, upload_budget
from service.http.middleware import SCOPE_KEY
from service.inference import image
from service.inference.metrics import CONTENT_TYPE
from service.inference.predict import Stopwatch, compare, predict
from service.inference.registry import Model
from service.inference.state import Service
from service.pose.drawing import draw
from service.wire import documents
from service.wire.query import Options, PoseQuery, resolve

log = logging.getLogger(__name__)
router = APIRouter()
Asked = Annotated[Options, Query()]
JSON = "application/json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One picture's way through /predict, once the body is there."""

    service: Service
    query: PoseQuery
    options: Options
    media_type: str
    request_id: str


def _call(request: Request, options: Options, media_type: str) -> Call:
    """Check all that can be checked before the body is read."""
    service: Service = request.app.state.service
    query = resolve(options, service.registry, service.settings)
    return Call(service, query, options, media_type, request.scope[SCOPE_KEY])


async def _read_picture(request: Request, call: Call, take: Callable[[int], None]) -> Callable[[], bytes]:
    """Read the body; what is returned takes the picture out of it, on an inference thread."""
    content_type = request.headers.get("content-type")
    form, encoding = bodies.form_of(content_type), content_encoding.of(request.headers.getlist("content-encoding"))
    settings = call.service.settings
    limit = bodies.limit_for(form, settings.max_bytes)
    chunks = await upload_budget.read(request, limit, settings.upload_s, call.service.room, take)
    return lambda: bodies.picture(chunks, content_type, settings.max_bytes, encoding)


async def _while_heard(request: Request, answer: Awaitable[T]) -> T:
    """Await the answer to a call whose body is there; where the caller hangs up, no thread begins to work on it.

    Raises:
        ClientDisconnect: The caller has hung up.
    """
    work = asyncio.ensure_future(answer)
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({work, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        hung_up.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post("/predict", **openapi.PREDICT)
async def predict_one(request: Request, options: Asked) -> Response:
    """Find the people in one picture and their keypoints."""
    call = _call(request, options, negotiation.choose(request.headers.getlist("accept"), negotiation.JSON_OR_PICTURE))
    with call.service.room.share() as take:
        take_out = await _read_picture(request, call, take)

        def work(waited_ms: float) -> tuple[bytes, dict[str, float]]:
            watch = Stopwatch({"queue": waited_ms})
            return _answer(call, take_out(), watch, call.options.image_id)

        body, laps_ms = await _while_heard(request, call.service.scheduler.run(work))
    return _response(body, call.media_type, laps_ms)


@router.post("/predict/batch", **openapi.BATCH)
async def predict_batch(request: Request, options: Asked) -> Response:
    """Answer several pictures, in their order; a bad one is an entry with a problem, not a failed call."""
    call = _call(request, options, negotiation.choose(request.headers.getlist("accept"), (JSON,)))
    content_type = request.headers.get("content-type")
    bodies.form_of(content_type, ("multipart",))
    encoding = content_encoding.of(request.headers.getlist("content-encoding"))
    scheduler, settings, room = call.service.scheduler, call.service.settings, call.service.room
    with room.share() as take:
        chunks = await upload_budget.read(request, settings.max_batch_bytes, settings.upload_s, room, take)

        def take_out(_: float) -> list[bytes]:
            body = content_encoding.decode(chunks, encoding, settings.max_batch_bytes)
            return multipart.images(body, content_type, settings.max_batch)

        contents = await _while_heard(request, scheduler.run(take_out))
        if encoding is not None:
            take(sum(map(len, contents)))
        chunks.clear()
        # The batch was let in once; its pictures then take turns with other calls, never more than there are workers.
        turn = asyncio.Semaphore(scheduler.workers)

        async def answer(i: int) -> bytes:
            def work(waited_ms: float) -> bytes:
                watch = Stopwatch({"queue": waited_ms})
                content, contents[i] = upload_budget.require_size(contents[i], settings.max_bytes), b""
                return _answer(call, content, watch, options.image_id + i)[0]

            async with turn:
                try:
                    return await scheduler.run(work, admitted=True)
                except ServiceError as failure:
                    error = failure
                except Exception:  # the others' answers are worth having, and their threads still read the body
                    log.exception("call %s: picture %d of a batch failed", call.request_id, i)
                    error = internal_error()
                return documents.to_json({"problem": problem(error, request.url.path, call.request_id)})

        entries = await _while_heard(request, asyncio.gather(*(answer(i) for i in range(len(contents)))))
    return Response(b"[" + b",".join(entries) + b"]", media_type=JSON)


@router.post("/compare", **openapi.COMPARE)
async def compare_models(request: Request, options: Asked) -> Response:
    """Answer one picture with the student and the teacher, and measure how far apart they are."""
    asked = options.model_copy(update={"model": "teacher"})
    call = _call(request, asked, negotiation.choose(request.headers.getlist("accept"), (JSON,)))
    registry = call.service.registry
    student = registry.choose("student" if options.model == "auto" else options.model).model
    _require_comparable(student, call.query.request.choice.model)
    with call.service.room.share() as take:
        take_out = await _read_picture(request, call, take)

        def work(waited_ms: float) -> tuple[bytes, dict[str, float]]:
            watch = Stopwatch({"queue": waited_ms})
            content = take_out()
            with call.service.pixel_budget.reserve(image.pixel_count(content), watch):
                return _compare(call, content, student, watch)

        body, laps_ms = await _while_heard(request, call.service.scheduler.run(work))
    return _response(body, JSON, laps_ms)


def _require_comparable(student: Model, teacher: Model) -> None:
    ours, theirs = student.estimator.skeleton, teacher.estimator.skeleton
    if ours.keypoints != theirs.keypoints:
        raise BadParameter(
            f"model: expected one with the teacher's skeleton {theirs.name!r} to compare, got "
            f"{student.manifest.name!r} of {ours.name!r}; serve a teacher that was trained with it, or ask /predict",
            model=student.manifest.name,
            skeleton=ours.name,
        )


def _answer(call: Call, content: bytes, watch: Stopwatch, image_id: int) -> tuple[bytes, dict[str, float]]:
    """Predict and write the reply, on an inference thread."""
    with call.service.pixel_budget.reserve(image.pixel_count(content), watch):
        return _answer_now(call, content, watch, image_id)


def _answer_now(call: Call, content: bytes, watch: Stopwatch, image_id: int) -> tuple[bytes, dict[str, float]]:
    prediction = predict(call.service.registry, content, call.query.request, watch)
    if call.media_type == JSON:
        reply, laps_ms = documents.prediction_reply(prediction, call.query, call.request_id, image_id, watch)
        body = documents.to_json(reply)
    else:
        skeleton, threshold = prediction.model.estimator.skeleton, call.query.keypoint_threshold
        canvas = draw(prediction.image.pixels, prediction.poses, skeleton, threshold)
        body, laps_ms = image.encode(canvas, call.media_type), watch.finish()
    call.service.metrics.fallback(prediction.fallback)
    call.service.metrics.stages(laps_ms)
    return body, laps_ms


def _compare(call: Call, content: bytes, student: Model, watch: Stopwatch) -> tuple[bytes, dict[str, float]]:
    """Compare and write the reply, on an inference thread."""
    comparison = compare(call.service.registry, content, call.query.request, student, watch)
    image_id = call.options.image_id
    reply, laps_ms = documents.comparison_reply(comparison, student, call.query, call.request_id, image_id, watch)
    call.service.metrics.stages(laps_ms)
    return documents.to_json(reply), laps_ms


def _response(body: bytes, media_type: str, laps_ms: dict[str, float]) -> Response:
    return Response(body, media_type=media_type, headers={"Server-Timing": documents.server_timing(laps_ms)})


@router.get("/models", **openapi.MODELS)
async def list_models(request: Request) -> Response:
    """List what is on the registry."""
    service: Service = request.app.state.service
    entries = [_entry(service, model) for model in service.registry.models.values()]
    return Response(documents.to_json({"models": entries}), media_type=JSON)


@router.get("/models/{name}", **openapi.MODEL)
async def show_model(request: Request, name: str) -> Response:
    """Show one model with its card."""
    service: Service = request.app.state.service
    model = service.registry.find_model(name)
    return Response(documents.to_json(_entry(service, model) | {"card": model.card}), media_type=JSON)


def _entry(service: Service, model: Model) -> dict[str, Any]:
    ref = documents.model_ref(model)
    del ref["fallback"]
    state = "unavailable" if model.network is None else "ready" if service.registry.ready else "warming_up"
    return ref | {
        "state": state,
        "failure": model.failure,
        "default": service.registry.is_default(model),
        "skeleton": _skeleton(model),
        "metrics": model.manifest.metrics,
        "manifest": model.manifest.model_dump(mode="json"),
    }


def _skeleton(model: Model) -> dict[str, Any] | None:
    known = model.manifest.known_skeleton
    return None if known is None else {"name": known.name, "keypoints": known.keypoints, "edges": known.edges}


@router.get("/metrics", **openapi.METRICS)
async def metrics(request: Request) -> Response:
    """Tell what has been counted, in Prometheus' text format."""
    service: Service = request.app.state.service
    return Response(
        service.metrics.text(service.registry.models.values()),
        headers={"Content-Type": CONTENT_TYPE},
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", **openapi.HEALTHZ)
async def healthz() -> Response:
    """Tell that the process is alive."""
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", **openapi.READYZ)
async def readyz(request: Request) -> Response:
    """Tell whether calls can be answered: the models are loaded and warm."""
    service: Service = request.app.state.service
    service.registry.require_ready()
    return Response(b'{"status":"ready"}', media_type=JSON)
