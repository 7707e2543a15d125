"""What a deployment on a cluster can be told, beside the settings of every replica."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
