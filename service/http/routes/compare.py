"""POST /compare: student and teacher on one picture."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import BadParameter
from service.http import openapi
from service.http.body import Body
from service.http.routes.call import JSON, Call, QueryOptions, QueryRoute, check, respond, while_connected
from service.inference import image
from service.inference.model import Model
from service.inference.predict import Stopwatch, compare
from service.wire import documents

router = APIRouter(route_class=QueryRoute)


@router.post("/compare", **openapi.COMPARE)
async def compare_models(request: Request, options: QueryOptions) -> Response:
    """Answer one picture with the student and the teacher, and measure how far apart they are."""
    call = check(request, options.model_copy(update={"model": "teacher"}))
    student = call.service.registry.choose("student" if options.model == "auto" else options.model).model
    _require_comparable(student, call.query.request.choice.model)
    max_bytes = call.service.settings.max_bytes
    body = Body.of_one(request.headers, max_bytes, request.app.state.upload_budget)
    with body.budget.share() as take:
        chunks = await body.receive(request, take)

        def work(waited_ms: float) -> tuple[bytes, dict[str, float]]:
            watch = Stopwatch({"queue": waited_ms})
            return _answer(call, body.picture(chunks, max_bytes), student, watch)

        content, laps_ms = await while_connected(request, call.service.scheduler.run(work))
    return respond(content, JSON, laps_ms)


def _require_comparable(student: Model, teacher: Model) -> None:
    student_skeleton, teacher_skeleton = student.estimator.skeleton, teacher.estimator.skeleton
    if student_skeleton.keypoints != teacher_skeleton.keypoints:
        raise BadParameter(
            f"model: expected one with the teacher's skeleton {teacher_skeleton.name!r} to compare, got "
            f"{student.manifest.name!r} of {student_skeleton.name!r}; serve a teacher that was trained with it, or ask "
            "/predict",
            model=student.manifest.name,
            skeleton=student_skeleton.name,
        )


def _answer(call: Call, content: bytes, student: Model, watch: Stopwatch) -> tuple[bytes, dict[str, float]]:
    """Compare and write the reply, on an inference thread."""
    metrics, teacher = call.service.metrics, call.query.request.choice.model
    with (
        metrics.inference(student, teacher),
        call.service.pixel_budget.reserve(image.pixel_count(content), watch),
    ):
        comparison = compare(call.service.registry, content, call.query.request, student, watch)
        image_id = call.options.image_id
        reply, laps_ms = documents.comparison_reply(comparison, student, call.query, call.request_id, image_id, watch)
        metrics.stages(laps_ms)
        return documents.to_json(reply), laps_ms
