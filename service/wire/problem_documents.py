"""Problem documents (RFC 9457): how an error is told to a caller."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from service.errors import BadParameter, ServiceError, UnknownPath, WrongMethod, shown

PROBLEM_TYPE = "application/problem+json"
MAX_FAULTS = 20
"""Maximum number of faults that one problem names; a small request can have thousands."""


def problem(error: ServiceError, instance: str, request_id: str, root_path: str = "") -> dict[str, Any]:
    """Describe an error as a problem document (RFC 9457, sec. 3).

    Args:
        error: What happened.
        instance: Path of the call.
        request_id: As in ``X-Request-Id``.
        root_path: Path prefix of the server behind a proxy: the type is a reference relative to the server's origin.
    """
    return {
        "type": f"{root_path}/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "request_id": request_id,
        **error.extras,
    }


def framework_problem(status: int, detail: str, instance: str, request_id: str, root_path: str) -> dict[str, Any]:
    """Describe an HTTP error that the framework raised, such as an unknown path, as a problem document.

    A status without a problem type of its own gets the type ``about:blank`` (RFC 9457, sec. 4.2.1).
    """
    kind = {it.status: it for it in (UnknownPath, WrongMethod)}.get(status)
    if kind is not None:
        return problem(kind(detail), instance, request_id, root_path)
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return document | {"instance": instance, "request_id": request_id}


def validation_error(faults: Sequence[Any]) -> BadParameter:
    """Turn the framework's (pydantic's) validation errors into one error.

    Args:
        faults: As ``RequestValidationError.errors()`` gives them.
    """
    parameters = []
    for fault in faults[:MAX_FAULTS]:
        where, name = str(fault["loc"][0]), ".".join(str(part) for part in fault["loc"][1:])
        expected = fault["msg"].removeprefix("Value error, ")
        parameters.append({"in": where, "name": name, "expected": expected, "got": shown(fault.get("input"))})
    places = [f"{it['in']} parameter {it['name']!r}" if it["name"] else it["in"] for it in parameters]
    sentences = [f"{at}: {it['expected']}, got {it['got']}" for at, it in zip(places, parameters, strict=True)]
    if len(faults) > MAX_FAULTS:
        sentences.append(f"and {len(faults) - MAX_FAULTS} more")
    return BadParameter("; ".join(sentences) + "; see /docs for the parameters", parameters=parameters)
