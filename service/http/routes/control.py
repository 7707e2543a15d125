"""Changes of what the server answers with, by /v2/repository and /canary: who may make them, and their small bodies."""

from __future__ import annotations

from fastapi import Request

from service.errors import BadRequest, EmptyBody, ModelControlForbidden, TooLarge, shown
from service.http.body import Body
from service.streaming.origin import is_of

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
    if comes_from_elsewhere(request):
        raise ModelControlForbidden(
            "expected a call from a program or from a page of this server, got one from a page of "
            f"{shown(request.headers.get('origin'))}; the operator can name that origin with --cors-origins"
        )


def comes_from_elsewhere(request: Request) -> bool:
    """Whether a page of another site sent a call: a browser lets any page POST to any server."""
    origin = request.headers.get("origin")
    settings = request.app.state.service.settings
    own = origin is None or origin in settings.cors_origins or is_of(origin, request.headers.get("host", ""))
    return not own


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
