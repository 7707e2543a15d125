"""A plain FastAPI application whose handler is a ``def``: Starlette runs it on a thread of its pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
from fastapi import Body, FastAPI, Response, UploadFile

from tests.benchmarks.steps import Steps

steps = Steps()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    # As many pictures at the same time as the other servers work on.
    anyio.to_thread.current_default_thread_limiter().total_tokens = steps.settings.inference_thread_count
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(image: Annotated[bytes, Body(media_type="image/jpeg")], boxes: str) -> Response:
    return Response(steps.answer(image, boxes), media_type="application/json")


@app.post("/predict/multipart")
def predict_multipart(image: UploadFile, boxes: str) -> Response:
    return Response(steps.answer(image.file.read(), boxes), media_type="application/json")
