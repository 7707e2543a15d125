"""POST /predict/batch: the people in several pictures."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import ServiceError, internal_error
from service.http import openapi
from service.http.body import Body, require_size
from service.http.routes.call import JSON, Call, QueryOptions, QueryRoute, check, while_connected
from service.http.routes.predict import answer
from service.inference.predict import Stopwatch
from service.wire import documents
from service.wire.problem_documents import problem

log = logging.getLogger(__name__)
router = APIRouter(route_class=QueryRoute)


@router.post("/predict/batch", **openapi.BATCH)
async def predict_batch(request: Request, options: QueryOptions) -> Response:
    """Answer several pictures, in their order; a bad one is an entry with a problem, not a failed call."""
    call = check(request, options)
    settings = call.service.settings
    body = Body.of_several(request.headers, settings.max_batch_bytes, request.app.state.upload_budget)
    with body.budget.share() as take:
        chunks = await body.receive(request, take)
        taking_out = call.service.scheduler.run(lambda _: body.pictures(chunks, settings.max_batch))
        contents = await while_connected(request, taking_out)
        if body.encoding is not None:
            take(sum(map(len, contents)))
        entries = await while_connected(request, _answer_all(request, call, contents))
    return Response(b"[" + b",".join(entries) + b"]", media_type=JSON)


async def _answer_all(request: Request, call: Call, contents: list[bytes]) -> list[bytes]:
    """Answer every picture; ``contents`` are dropped one by one.

    The scheduler admits the batch as a whole. Its pictures then take turns with other calls, and at most as many of
    them wait as there are inference threads.
    """
    turns = asyncio.Semaphore(call.service.scheduler.threads)

    async def entry(i: int) -> bytes:
        async with turns:
            return await _entry(request, call, contents, i)

    return await asyncio.gather(*(entry(i) for i in range(len(contents))))


async def _entry(request: Request, call: Call, contents: list[bytes], i: int) -> bytes:
    def work(waited_ms: float) -> bytes:
        watch = Stopwatch({"queue": waited_ms})
        content, contents[i] = require_size(contents[i], call.service.settings.max_bytes), b""
        return answer(call, content, watch, call.options.image_id + i)[0]

    def refusal(error: ServiceError) -> bytes:
        document = problem(error, request.url.path, call.request_id, request.scope.get("root_path", ""))
        return documents.to_json({"problem": document})

    try:
        return await call.service.scheduler.run(work, admitted=True)
    except ServiceError as error:
        return refusal(error)
    except Exception:  # the answers of the other pictures are still wanted
        log.exception("call %s: picture %d of a batch failed", call.request_id, i)
        return refusal(internal_error())
