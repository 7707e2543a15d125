"""/v2: the Open Inference Protocol (version 2) over HTTP, for clients of Triton and KServe."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.responses import Response

from service.errors import ServiceError, shown
from service.http import content_encoding, openapi
from service.http.body import Body
from service.http.routes.call import JSON, while_connected
from service.inference import image
from service.inference.errors import UnknownModel
from service.inference.image import DecodedImage
from service.inference.model import Model
from service.inference.predict import Stopwatch, predict
from service.inference.state import Service
from service.pose import boxes as boxes_
from service.pose.types import Poses
from service.wire import documents
from service.wire import open_inference as wire
from service.wire.canary import canary_key
from service.wire.open_inference import HEADER_LENGTH, InferCall
from service.wire.query import Options, PoseQuery, resolve
from service.wire.tensors import PictureLimits, pad, read_pictures, write_tensor

router = APIRouter()
EXTENSIONS = ("binary_tensor_data",)
QUICK_JSON_DIGITS = 4
"""Digits of the size of a JSON that is read on the event loop; a turn on a thread would take longer."""
QUICK_BYTES = 4_000_000
"""Largest body that is read on the event loop; its bytes are copied once."""


@dataclass(frozen=True, slots=True)
class _Inference:
    """A call whose body has been read; ``pictures`` are dropped one by one."""

    service: Service
    call: InferCall
    query: PoseQuery
    pictures: list[bytes | DecodedImage]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The people of one picture, and the model that answered."""

    model: Model
    poses: Poses


@router.get("/v2", **openapi.SERVER_METADATA)
async def server_metadata(request: Request) -> Response:
    """Name the server, its version and the protocol's extensions that it supports."""
    control = request.app.state.service.settings.model_control
    extensions = [*EXTENSIONS, *(["model_repository"] if control == "explicit" else [])]
    return _json(wire.ServerMetadata(name="posewright", version=request.app.version, extensions=extensions))


@router.head("/v2/health/live", include_in_schema=False)
@router.get("/v2/health/live", **openapi.SERVER_LIVE)
async def live() -> Response:
    """Answer while the process is alive."""
    return Response(b'{"live":true}', media_type=JSON)


@router.head("/v2/health/ready", include_in_schema=False)
@router.get("/v2/health/ready", **openapi.SERVER_READY)
async def ready(request: Request) -> Response:
    """Answer with 200 while models are loaded and warm and inference threads work, with 503 otherwise."""
    request.app.state.service.require_ready()
    return Response(b'{"ready":true}', media_type=JSON)


@router.get("/v2/models/{name}", **openapi.MODEL_METADATA)
@router.get("/v2/models/{name}/versions/{version}", **openapi.MODEL_METADATA)
async def model_metadata(request: Request, name: str, version: str | None = None) -> Response:
    """Describe the inputs and outputs of a pose model; ``auto`` stands for the model that answers by default."""
    model = _find(request.app.state.service, name, version)
    inputs, outputs = wire.describe_tensors(len(model.estimator.skeleton))
    platform = model.backend.partition("-")[0] + "_onnx"
    versions = [model.manifest.version]
    return _json(wire.ModelMetadata(name=name, versions=versions, platform=platform, inputs=inputs, outputs=outputs))


@router.get("/v2/models/{name}/ready", **openapi.MODEL_READY)
@router.get("/v2/models/{name}/versions/{version}/ready", **openapi.MODEL_READY)
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Answer with 200 if the model answers calls."""
    service: Service = request.app.state.service
    service.require_ready()
    _find(service, name, version)
    return Response(documents.to_json({"name": name, "ready": True}), media_type=JSON)


@router.post("/v2/models/{name}/infer", **openapi.INFER)
@router.post("/v2/models/{name}/versions/{version}/infer", **openapi.INFER)
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Find the people in one or several pictures; one picture that cannot be answered fails the call."""
    service: Service = request.app.state.service
    settings = service.settings
    canary = service.canary if version is None else None  # who names a version gets that one, not a candidate's
    key = canary_key(request)
    resolve(Options(model=name), service.registry, settings, canary, key)
    _find(service, name, version)
    encoding = content_encoding.of(request.headers.getlist("content-encoding"))
    body = Body(None, "raw", encoding, settings.max_batch_bytes, request.app.state.upload_budget)
    header_length = request.headers.get(HEADER_LENGTH)
    limits = PictureLimits(settings.max_batch, settings.max_bytes, settings.max_pixels)
    with body.budget.share() as take:
        chunks = await body.receive(request, take)

        def read(_: float) -> tuple[int, _Inference]:
            content = content_encoding.decode(chunks, encoding, body.limit)
            call = wire.read_call(content, header_length)
            options = Options(model=name, **call.parameters.model_dump(exclude={"binary_data_output"}))
            query = resolve(options, service.registry, settings, canary, key)
            pictures = read_pictures(call.image, call.binary, limits)
            return len(content), _Inference(service, call, query, pictures)

        at_once = encoding is None and _is_quick_to_read(chunks, header_length)
        if at_once:
            size, inference = read(0.0)
        else:
            size, inference = await while_connected(request, service.scheduler.run(read))
        if encoding is not None:
            take(size)
        found = await while_connected(request, _infer_all(inference, admitted=not at_once))
        if len(found) == 1:
            return _reply(inference, found)
        return await service.scheduler.run(lambda _: _reply(inference, found), admitted=True)


def _is_quick_to_read(chunks: list[bytes], header_length: str | None) -> bool:
    """Whether a body can be read on the event loop: it has little JSON and not very many bytes."""
    return (
        header_length is not None and len(header_length) <= QUICK_JSON_DIGITS and sum(map(len, chunks)) <= QUICK_BYTES
    )


def _find(service: Service, name: str, version: str | None) -> Model:
    """Find the model that answers for a name.

    Raises:
        UnknownModel: No pose model has this name, or it has another version.
        Unavailable: It cannot run.
    """
    model = service.registry.choose(name).model
    if version is not None and version != model.manifest.version:
        raise UnknownModel(
            f"expected version {model.manifest.version!r} of model {name!r}, got {shown(version)}; the server has one "
            "version of each model",
            model=name,
            models=sorted(service.registry.models),
        )
    return model


async def _infer_all(inference: _Inference, admitted: bool) -> list[_Answer]:
    """Answer every picture. As in a batch, at most as many wait as there are inference threads.

    Args:
        inference: The call.
        admitted: Whether the scheduler has admitted the call; otherwise its first picture asks for it.
    """
    turns = asyncio.Semaphore(inference.service.scheduler.threads)

    async def answer(i: int) -> _Answer:
        async with turns:
            try:
                return await inference.service.scheduler.run(
                    lambda waited_ms: _infer_one(inference, i, waited_ms), admitted=admitted or i > 0
                )
            except ServiceError as error:
                error.detail = f"image[{i}]: {error.detail}"
                raise

    try:
        async with asyncio.TaskGroup() as group:  # the others are cancelled when one fails
            answers = [group.create_task(answer(i)) for i in range(len(inference.pictures))]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [it.result() for it in answers]


def _infer_one(inference: _Inference, i: int, waited_ms: float) -> _Answer:
    """Predict the poses of one picture, on an inference thread."""
    service, watch = inference.service, Stopwatch({"queue": waited_ms})
    picture, inference.pictures[i] = inference.pictures[i], b""
    request, metrics = inference.query.request, service.metrics
    with metrics.inference(request.choice.model):
        pixels = picture.pixels.size // 3 if isinstance(picture, DecodedImage) else image.pixel_count(picture)
        with service.pixel_budget.reserve(pixels, watch):
            prediction = predict(service.registry, picture, request, watch)
    metrics.fallback(prediction.fallback)
    metrics.stages(watch.finish())
    if service.shadow is not None and isinstance(picture, bytes):  # it takes files: pixels need much more memory
        service.shadow.offer(picture, request, prediction)
    return _Answer(prediction.model, prediction.poses)


def _reply(inference: _Inference, answers: list[_Answer]) -> Response:
    call, found = inference.call, [it.poses for it in answers]
    models = {it.model.manifest.name: it.model for it in answers}
    # The stable model answers in the place of a candidate that fails, the teacher for a student that is unsure.
    model = answers[0].model if len(models) == 1 else inference.query.request.choice.model
    arrays: dict[str, NDArray[np.float32] | NDArray[np.int32]] = {
        "keypoints": pad([np.concatenate([it.keypoints, it.scores[..., None]], axis=2) for it in found]),
        "boxes": pad([boxes_.to_xywh(it.boxes) for it in found]),
        "scores": pad([it.person_scores for it in found]),
        "num_poses": np.array([len(it) for it in found], np.int32),
    }
    written = [write_tensor(name, arrays[name], binary) for name, binary in call.outputs.items()]
    reply = {"model_name": model.manifest.name, "model_version": model.manifest.version}
    if call.id is not None:
        reply["id"] = call.id
    head = documents.to_json(reply | {"outputs": [description for description, _ in written]})
    if not any(call.outputs.values()):
        return Response(head, media_type=JSON)
    content = b"".join([head, *(data for _, data in written)])
    return Response(content, headers={HEADER_LENGTH: str(len(head))}, media_type="application/octet-stream")


def _json(document: BaseModel) -> Response:
    return Response(documents.to_json(document.model_dump()), media_type=JSON)
