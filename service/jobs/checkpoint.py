"""Where a job was, beside its journal: the state of tracking after so many lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from service.jobs import files


class TrackingCheckpoint(BaseModel):
    """The state of tracking after a line of the journal.

    Attributes:
        lines: Number of lines before it.
        sha256: Of the model that answered them.
        state: Of `service.streaming.follower.Follower.state`.
    """

    lines: int
    sha256: str
    state: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> TrackingCheckpoint | None:
        """Read a checkpoint; None if there is none, or it is damaged."""
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError):
            return None

    def write(self, path: Path) -> None:
        """Replace the checkpoint. The lines must be on the disk already."""
        files.write_whole(path, json.dumps(self.model_dump()).encode())
