"""A plain FastAPI application whose handler is ``async def``: it works on the event loop, one picture after another."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from tests.benchmarks.steps import Steps

steps = Steps()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request, boxes: str) -> Response:
    return Response(steps.answer(await request.body(), boxes), media_type="application/json")
