"""One trial of a candidate beside the stable model: who takes part, and which models can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from service.errors import BadParameter
from service.inference.call_window import CallWindow
from service.inference.errors import UnknownModel
from service.inference.model import Model, same_skeleton, shown_skeleton
from service.inference.no_detector import can_find_people
from service.inference.registry import ModelRegistry

Arm = Literal["stable", "candidate"]
CanaryCause = Literal["settings", "operator", "verdict"]
Change = Literal["started", "promoted", "rolled_back"]


def position(candidate: str, key: str) -> float:
    """Place a caller in [0, 1): below the share of a canary, the candidate answers.

    The candidate's name is part of the hash, so that it is not always the same callers who try the new models.

    Args:
        candidate: Name of the candidate.
        key: Names the caller.
    """
    digest = hashlib.blake2b(f"{candidate}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(slots=True, eq=False)
class Trial:
    """One candidate beside the stable model, from its start to its promotion or roll back.

    Attributes:
        stable: Name of the model that answers the other calls.
        candidate: Name of the candidate.
        share: Share of the callers whom the candidate answers.
        calls: Windows of both models' calls.
        models: The versions that they are about: another version is counted anew.
        state: Whether the candidate still answers, or how the trial ended.
        answered: Calls of the candidate so far.
        failed: Whether the candidate has failed; only the first error is logged in full.
    """

    stable: str
    candidate: str
    share: float
    calls: dict[Arm, CallWindow]
    models: dict[Arm, Model | None] = field(default_factory=dict)
    state: Literal["running", "promoted", "rolled_back"] = "running"
    answered: int = 0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class CanaryEvent:
    """The latest change of a canary.

    Attributes:
        change: What happened.
        model: The candidate.
        cause: Who decided: the settings, an operator over HTTP, or the verdict.
        reasons: The verdict's reasons.
        at: When, UTC.
    """

    change: Change
    model: str
    cause: CanaryCause
    reasons: tuple[str, ...]
    at: datetime


def require_comparable(registry: ModelRegistry, name: str, other: Model, what: str, *, finds_people: bool) -> None:
    """Check that a pose model estimates the same keypoints as another one.

    Args:
        registry: Holds the models.
        name: The model.
        other: The other one.
        what: The model's part, for the message.
        finds_people: Whether it must find people too, and not only answer in boxes that the other model gives.

    Raises:
        UnknownModel: No model has this name.
        BadParameter: It is a detector or the other model itself, it has another skeleton, or it cannot find people.
    """
    model = registry.models.get(name)
    if model is None:
        known = sorted(registry.models)
        raise UnknownModel(f"expected a model of {known}, got {name!r}; see /models", model=name, models=known)
    got = None
    if model.manifest.role == "detector":
        got = "a detector"
    elif model is other:
        got = "that model itself"
    elif not same_skeleton(model, other):
        got = f"one of skeleton {shown_skeleton(model)!r}"
    elif finds_people and not can_find_people(model.manifest, registry.detector):
        got = "which needs a detector that this server has not"
    if got is not None:
        raise BadParameter(
            f"model: expected {what} beside {other.manifest.name!r} that can take its place, got {name!r}, {got}; "
            "choose another model",
            model=name,
        )
