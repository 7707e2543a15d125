"""A file through which the processes of one service share the canary's state, and which survives a restart."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.inference.trial import CanaryEvent

log = logging.getLogger(__name__)


class CanaryState(BaseModel):
    """What was decided last.

    Attributes:
        student: Name of the model that answers ``auto`` for all other callers.
        previous: The student before the last promotion; None where there is nothing to undo.
        candidate: Name of the candidate; None where none runs.
        share: Share of the callers whom it answers.
        event: What happened last.
    """

    model_config = ConfigDict(frozen=True)

    student: str
    previous: str | None
    candidate: str | None
    share: float = Field(ge=0, le=1)
    event: CanaryEvent


class CanaryFile:
    """The file, and what this process knows of it."""

    def __init__(self, path: Path) -> None:
        """Know nothing yet; the file need not exist."""
        self._path = path
        self._known: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether the file is not the one that this process wrote or read last. Fast: it is asked for every call."""
        try:
            return self._mark(self._path) != self._known
        except OSError:
            return False

    def read(self) -> CanaryState | None:
        """Read the file; None, with a line in the log, where it cannot be read: what was known then stays in force."""
        try:
            self._known = self._mark(self._path)
            return CanaryState.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            log.error("expected the state of a canary in %s, got: %s", self._path, error)  # noqa: TRY400
            return None

    def write(self, state: CanaryState) -> None:
        """Replace the file in one step; a failure is logged, and the state then holds in this process alone."""
        # Not the process' number: in containers that share the folder, many have the number 1.
        part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        try:
            part.write_text(state.model_dump_json() + "\n")
            # Taken before the renaming, which keeps it: afterwards another process may have written already.
            self._known = self._mark(part)
            part.replace(self._path)
        except OSError:
            log.exception("the canary's state cannot be written to %s: other processes do not learn of it", self._path)
            with suppress(OSError):
                part.unlink()

    @staticmethod
    def _mark(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_size
