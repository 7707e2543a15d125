"""POST /predict: the people in one picture."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http import negotiation, openapi
from service.http.body import Body
from service.http.routes.call import JSON, Call, QueryOptions, check, respond, while_connected
from service.inference import image
from service.inference.predict import Prediction, Stopwatch, predict
from service.pose.drawing import draw
from service.wire.formats import writer

router = APIRouter()


@router.post("/predict", **openapi.PREDICT)
async def predict_one(request: Request, options: QueryOptions) -> Response:
    """Find the people in one picture and their keypoints."""
    call = check(request, options, negotiation.JSON_OR_PICTURE)
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
    with call.service.pixels.share(image.pixel_count(content), watch):
        prediction = predict(call.service.registry, content, call.wish, watch)
        if call.media_type == JSON:
            body, laps_ms = _write(call, prediction, watch, image_id)
        else:
            skeleton = prediction.model.estimator.skeleton
            canvas = draw(prediction.picture.pixels, prediction.poses, skeleton, call.keypoint_threshold)
            body, laps_ms = image.encode(canvas, call.media_type), watch.finish()
    call.service.metrics.fallback(prediction.fallback)
    call.service.metrics.stages(laps_ms)
    return body, laps_ms


def _write(call: Call, prediction: Prediction, watch: Stopwatch, image_id: int) -> tuple[bytes, dict[str, float]]:
    people = writer.pose_list(
        prediction.poses,
        prediction.model.estimator.skeleton,
        call.options.format,
        call.keypoint_threshold,
        image_id=image_id,
        fallen_back=prediction.fallen_back if prediction.fallback == "low_confidence" else None,
    )
    foreign = writer.foreign_document(prediction, people, call.options.format)
    if foreign is not None:
        return writer.dumps(foreign), watch.finish()
    # Each member is written on its own: the timings count the time that the others take.
    document = writer.prediction_head(prediction, call.request_id) | {"poses": people}
    members = {name: writer.dumps(value) for name, value in document.items()}
    laps_ms = watch.finish()
    members["timings_ms"] = writer.dumps(writer.timings(laps_ms))
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members.items()) + b"}", laps_ms
