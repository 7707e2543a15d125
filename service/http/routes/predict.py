"""POST /predict: the people in one picture."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import negotiation, openapi
from service.http.body import Body
from service.http.routes.call import JSON, Call, QueryOptions, QueryRoute, check, respond, while_connected
from service.inference import image, image_header
from service.inference.predict import Stopwatch, predict
from service.pose.drawing import draw
from service.wire import documents
from service.wire.formats import table
from service.wire.formats.record import records_of

router = APIRouter(route_class=QueryRoute)


@router.post("/predict", **openapi.PREDICT)
async def predict_one(request: Request, options: QueryOptions) -> Response:
    """Find the people in one picture and their keypoints."""
    call = check(request, options, negotiation.PREDICTION)
    max_bytes = call.service.settings.max_bytes
    body = Body.of_one(request.headers, max_bytes, request.app.state.upload_budget)
    with body.budget.share() as take:
        chunks = await body.receive(request, take)

        def work(waited_ms: float) -> tuple[bytes, dict[str, float]]:
            watch = Stopwatch({"queue": waited_ms})
            return answer(call, body.picture(chunks, max_bytes), watch, options.image_id)

        content, laps_ms = await while_connected(request, call.service.scheduler.run(work))
    return respond(content, call.media_type, laps_ms)


def answer(call: Call, content: bytes, watch: Stopwatch, image_id: int) -> tuple[bytes, dict[str, float]]:
    """Predict and write the reply, on an inference thread.

    Args:
        call: What to infer and how to write it.
        content: An encoded picture.
        watch: Measures the stages.
        image_id: For ``format=coco``.

    Returns:
        The body of the reply, and the milliseconds of each stage.

    Raises:
        ServiceError: The picture cannot be answered.
    """
    metrics, model = call.service.metrics, call.query.request.choice.model
    with metrics.inference(model):
        header = image_header.read(content)
        with call.service.pixel_budget.reserve(image.pixels_in_memory(header), watch):
            prediction = predict(call.service.registry, content, call.query.request, watch, header)
            if call.media_type == JSON:
                reply, laps_ms = documents.prediction_reply(prediction, call.query, call.request_id, image_id, watch)
                body = documents.to_json(reply)
            elif call.media_type == table.MEDIA_TYPE:
                people = records_of(
                    prediction.poses, prediction.model.estimator.skeleton, call.query.keypoint_threshold
                )
                body, laps_ms = table.write_table(people), watch.finish()
            else:
                skeleton, threshold = prediction.model.estimator.skeleton, call.query.keypoint_threshold
                canvas = draw(prediction.image.pixels, prediction.poses, skeleton, threshold)
                body, laps_ms = image.encode(canvas, call.media_type), watch.finish()
    metrics.fallback(prediction.fallback)
    metrics.stages(laps_ms)
    if call.service.shadow is not None:
        call.service.shadow.offer(content, call.query.request, prediction)
    return body, laps_ms
