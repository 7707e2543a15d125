"""The wire format of /canary, and the key by which a caller is assigned."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from service.inference.agreement import AgreementStatistics
from service.inference.canary import Canary
from service.inference.verdict import ModelEvidence, judge, wilson
from service.wire.caller import CALLER_KEY, Caller

KEY_HEADER = "x-canary-key"
_SEPARATOR = "\0"
"""Between the name of an API key and the header: neither can contain it, so that no key can pass for another."""
_INTERVAL = "95 % confidence interval (Wilson)."


def canary_key(connection: HTTPConnection) -> str:
    """Name the caller of a request or a stream.

    Where the server asks for API keys, that is the name of the key, with the header ``X-Canary-Key`` if there is one:
    users behind one key are then told apart. Otherwise it is the header, else the address.
    """
    caller: Caller | None = connection.scope.get(CALLER_KEY)
    given = connection.headers.get(KEY_HEADER)
    if caller is not None and caller.key is not None:
        return caller.key.name if given is None else caller.key.name + _SEPARATOR + given
    if given is not None:
        return given
    return "" if connection.client is None else connection.client.host


class CanaryRequest(BaseModel):
    """Body of PUT /canary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="Name of the candidate, one of /models.")
    share: float = Field(ge=0, le=1, allow_inf_nan=False, description="Share of the callers whom it answers.")


class AgreementEntry(BaseModel):
    """How far a model's answers agree with the shadow model's, within the window."""

    reference: str = Field(description="Name of the shadow model.")
    people: int = Field(description="People who were compared.")
    mean_oks: float
    below_half: float = Field(description="Share of people with an OKS below 0.5.")
    below_half_interval: tuple[float, float] = Field(description=_INTERVAL)
    window_s: float


class PosePercentiles(BaseModel):
    """Percentiles of the stage `pose` in ms; null without answers."""

    p50: float | None
    p95: float | None


class ArmEntry(BaseModel):
    """The pictures and frames that one of the two models was assigned, within the window."""

    model: str
    calls: int
    errors: int = Field(description="Those for which the network raised.")
    error_interval: tuple[float, float] = Field(description=_INTERVAL)
    pose_ms: PosePercentiles
    mean_score: float | None = Field(description="Of a person; null without people.")
    people_per_picture: float | None
    agreement: AgreementEntry | None = Field(description="null without a shadow model.")


class CanaryEventEntry(BaseModel):
    """The latest change."""

    change: Literal["started", "promoted", "rolled_back"]
    model: str
    cause: Literal["settings", "operator", "verdict"]
    reasons: list[str]
    at: datetime


class CanaryReply(BaseModel):
    """Reply of /canary; the fields of a trial are null while none runs."""

    stable: str = Field(description="The model that answers `auto` for all other callers.")
    candidate: str | None
    share: float
    window_s: float = Field(description="Seconds back to which calls count.")
    auto_rollback: bool
    verdict: Literal["healthy", "worse", "not enough data"] | None
    reasons: list[str] = Field(description="Why the candidate is worse, or what is missing.")
    models: list[ArmEntry] = Field(description="The stable model, then the candidate.")
    last_event: CanaryEventEntry | None


def write_canary(canary: Canary) -> dict[str, Any]:
    """Build a `CanaryReply`."""
    canary.refresh()
    trial, event = canary.trial, canary.last_event
    evidence = () if trial is None else canary.evidence(trial)
    verdict = None if trial is None else judge(*evidence)
    return {
        "stable": canary.stable if trial is None else trial.stable,
        "candidate": None if trial is None else trial.candidate,
        "share": 0.0 if trial is None else trial.share,
        "window_s": canary.window_s,
        "auto_rollback": canary.auto_rollback,
        "verdict": None if verdict is None else verdict.outcome,
        "reasons": [] if verdict is None else list(verdict.reasons),
        "models": [_arm(it, canary.window_s) for it in evidence],
        "last_event": None
        if event is None
        else {
            "change": event.change,
            "model": event.model,
            "cause": event.cause,
            "reasons": list(event.reasons),
            "at": event.at.isoformat(timespec="seconds"),
        },
    }


def write_agreement(agreement: AgreementStatistics | None, window_s: float) -> dict[str, Any] | None:
    """Build an `AgreementEntry`; None where nothing was compared."""
    if agreement is None:
        return None
    return {
        "reference": agreement.reference,
        "people": agreement.people,
        "mean_oks": round(agreement.mean_oks, 4),
        "below_half": round(agreement.different / agreement.people, 4),
        "below_half_interval": _interval(agreement.different, agreement.people),
        "window_s": window_s,
    }


def _arm(evidence: ModelEvidence, window_s: float) -> dict[str, Any]:
    calls = evidence.calls
    return {
        "model": evidence.name,
        "calls": calls.calls,
        "errors": calls.errors,
        "error_interval": _interval(calls.errors, calls.calls),
        "pose_ms": {name: _rounded(calls.percentile_ms(percent), 2) for name, percent in (("p50", 50), ("p95", 95))},
        "mean_score": _rounded(calls.mean_score),
        "people_per_picture": _rounded(calls.people_per_picture),
        "agreement": write_agreement(evidence.agreement, window_s),
    }


def _interval(count: int, total: int) -> list[float]:
    return [round(bound, 4) for bound in wilson(count, total)]


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
