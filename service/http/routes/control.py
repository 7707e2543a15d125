"""Who may change what the server answers with: the check that /v2/repository and /canary share."""

from __future__ import annotations

from fastapi import Request

from service.errors import ModelControlForbidden, shown
from service.streaming.origin import is_of


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
    origin = request.headers.get("origin")
    if origin is None or origin in settings.cors_origins or is_of(origin, request.headers.get("host", "")):
        return
    raise ModelControlForbidden(
        f"expected a call from a program or from a page of this server, got one from a page of {shown(origin)}; the "
        "operator can name that origin with --cors-origins"
    )
