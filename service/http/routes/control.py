"""Calls that change the server, of /v2/repository, /canary, /sources and /jobs: who may send them, and small bodies."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.errors import BadRequest, EmptyBody, ServiceError, TooLarge, shown
from service.http.body import Body
from service.inference.errors import ModelControlForbidden
from service.streaming.origin import is_of
from service.wire.problem_documents import validation_error

T = TypeVar("T", bound=BaseModel)

MAX_BYTES = 65_536
"""Maximum size of a body, which holds nothing but a few options."""


def require_control(request: Request) -> None:
    """Check that a call may change the models or the canary.

    ``--cors-origins *`` lets every page read answers; it names none that may change models.

    Raises:
        ModelControlForbidden: Model control is off, or a page of another site sent the call: a browser lets any page
            POST to any server.
    """
    settings = request.app.state.service.settings
    if settings.model_control != "explicit":
        raise ModelControlForbidden(
            "expected a server that was started with --model-control explicit (POSEWRIGHT_MODEL_CONTROL), got one "
            f"with {settings.model_control}; its operator can allow to change models"
        )
    require_same_site(request, ModelControlForbidden)


def require_same_site(request: Request, refusal: type[ServiceError]) -> None:
    """Refuse a call that a page of another site sent: a browser lets any page POST to any server.

    Raises:
        ServiceError: Of the type ``refusal``.
    """
    origin = request.headers.get("origin")
    allowed = request.app.state.service.settings.cors_origins
    if origin is None or origin in allowed or is_of(origin, request.headers.get("host", "")):
        return
    raise refusal(
        f"expected a call from a program or from a page of this server, got one from a page of {shown(origin)}; the "
        "operator can name that origin with --cors-origins"
    )


def parse_body(model: type[T], content: bytes, example: str, *, has_secrets: bool = False) -> T:
    """Read a JSON body.

    Args:
        model: What it must be.
        content: The body.
        example: A valid body, for the message.
        has_secrets: Whether it may hold passwords, so that messages must not repeat what came.

    Raises:
        BadRequest: It is no JSON.
        BadParameter: It lacks a field, or has a value that is not valid.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if faults[0]["type"] == "json_invalid":
            got = "something else" if has_secrets else shown(content[:80])
            raise BadRequest(f"expected a JSON object such as {example}, got {got}") from None
        hidden = {"input": "(not shown)"} if has_secrets else {}
        raise validation_error([{**it, "loc": ("body", *it["loc"]), **hidden} for it in faults]) from None


async def read_body(request: Request) -> bytes:
    """Read the body of a change; empty if there is none.

    Raises:
        BadRequest: It is too large.
        SlowUpload: It does not arrive in time.
    """
    body = Body(None, "raw", None, MAX_BYTES, request.app.state.upload_budget)
    try:
        with body.budget.share() as take:
            return b"".join(await body.receive(request, take))
    except EmptyBody:
        return b""
    except TooLarge as error:
        raise BadRequest(f"expected a body of at most {MAX_BYTES} bytes, got more; send the options alone") from error
