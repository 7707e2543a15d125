"""The body of a call that failed: a problem document, or below /v2 what the Open Inference Protocol asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.wire import documents
from service.wire.problem_documents import PROBLEM_TYPE


def write(document: Mapping[str, Any], root_path: str) -> tuple[bytes, str]:
    """Write a problem document (RFC 9457), or ``{"error": "..."}`` with its detail for a path below /v2.

    Args:
        document: Of `service.wire.problem_documents.problem`; its ``instance`` is the path of the call.
        root_path: Path prefix of the server behind a proxy.

    Returns:
        The body and its media type.
    """
    if is_below_v2(str(document["instance"]).removeprefix(root_path)):
        return documents.to_json({"error": document["detail"]}), "application/json"
    return documents.to_json(document), PROBLEM_TYPE


def is_below_v2(path: str) -> bool:
    """Whether errors of a path are those of the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")
