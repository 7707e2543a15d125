"""Shapes of the Open Inference Protocol (version 2, over HTTP) and of Triton's model repository extension."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ModelControl(BaseModel):
    """Body of the calls of the model repository."""

    ready: bool = Field(default=False, description="Of the index: list only models that are ready.")
    parameters: dict[str, Any] = Field({}, description="None is supported.")


class RepositoryEntry(BaseModel):
    """One version of a model in the repository's index."""

    name: str
    version: str = Field(description="Empty for a bundle that is not loaded.")
    sha256: str | None = Field(description="Hash of the network's file, hex; null for a bundle that is not loaded.")
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is unavailable, or why the last load left this version serving.")


class InferenceError(BaseModel):
    """Every error below /v2."""

    error: str = Field(description="What was expected, what was received, and what to do.")
