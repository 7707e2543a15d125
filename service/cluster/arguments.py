"""What a deployment on a cluster can be told, beside the settings of every replica."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.settings import MAX_DEFAULT_INFERENCE_THREADS, Settings, SettingsError


class ClusterArguments(BaseModel):
    """How many replicas there are and what each may use; ``args`` of an application in a Ray Serve config file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=1, le=1000, description="Minimum number of replicas.")
    max_replicas: int = Field(1, ge=1, le=1000, description="Maximum number of replicas.")
    target_ongoing_requests: float = Field(
        2.0,
        gt=0,
        le=10_000,
        description="Calls and open streams for each replica, waiting and running, that the autoscaler aims at.",
    )
    upscale_delay_s: float = Field(
        10.0, ge=0, le=86_400, description="Seconds of more load than that before replicas are added."
    )
    downscale_delay_s: float = Field(
        120.0, ge=0, le=86_400, description="Seconds of less load than that before replicas are removed."
    )
    cpus_per_replica: int = Field(
        2, ge=1, le=1024, description="Cores that Ray reserves for a replica, and that its threads are made for."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings by name, as {student: student-t}; they win over POSEWRIGHT_* variables.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> ClusterArguments:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"expected min_replicas <= max_replicas, got {self.min_replicas} and {self.max_replicas}; "
                "raise the latter"
            )
        return self


def require_fitting(settings: Settings) -> None:
    """Refuse settings that have no meaning on a cluster.

    Raises:
        SettingsError: There is one.
    """
    if settings.workers > 1:
        raise SettingsError(
            "POSEWRIGHT_WORKERS (--workers): expected 1 on a cluster, where every replica is a process, got "
            f"{settings.workers}; set the number of replicas with --min-replicas and --max-replicas"
        )
    if settings.model_control != "none":
        raise SettingsError(
            "POSEWRIGHT_MODEL_CONTROL (--model-control): expected none on a cluster, where a call would change the "
            f"models of one replica alone, got {settings.model_control}; exchange the bundles on every node and deploy "
            "again"
        )
    if settings.jobs_dir is not None:
        raise SettingsError(
            "POSEWRIGHT_JOBS_DIR (--jobs-dir): expected none on a cluster, whose replicas run on several machines, got "
            f"{settings.jobs_dir}; run jobs on a server of its own"
        )

    if settings.source_hosts:
        raise SettingsError(
            "POSEWRIGHT_SOURCE_HOSTS (--source-hosts): expected no sources on a cluster, where each replica would know "
            "only its own; start a server of one process for them"
        )


def given_settings(settings: Settings) -> dict[str, Any]:
    """Collect the settings that were set, as Python objects: as JSON, secrets would be masked."""
    return settings.model_dump(exclude_unset=True)


def of_replica(settings: Settings, cpus: int) -> dict[str, Any]:
    """Collect the settings that were set, and the threads that fit the cores of a replica.

    A replica sees all cores of its machine, and would otherwise use them all.

    Args:
        settings: Of every replica.
        cpus: Cores of a replica.
    """
    given = given_settings(settings)
    given.setdefault("inference_threads", min(MAX_DEFAULT_INFERENCE_THREADS, max(1, cpus // 2)))
    given.setdefault("runtime_threads", max(1, cpus // int(given["inference_threads"] or 1)))
    return given
