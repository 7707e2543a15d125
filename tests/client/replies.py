"""Replies of a server, for scripted servers."""

from __future__ import annotations

from typing import Any

PREDICTION = {
    "schema": "pose.v1", "id": "x", "model": {"name": "s", "version": "1", "role": "student", "new": 1}, "new": [],
    "image": {"width": 4, "height": 3, "new": None}, "skeleton": "coco17", "poses": [],
}  # fmt: skip
"""A reply of /predict, with fields that the client does not know."""


def problem(slug: str, status: int, **extras: Any) -> dict[str, Any]:
    """A problem document."""
    kind = f"/problems/{slug}"
    return {"type": kind, "title": "t", "status": status, "detail": "d", "request_id": "r", **extras}
