"""What is known of one job, as it is kept in its folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.jobs import files
from service.wire.job import JobModel, JobOptions, JobState

ENDED: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})


class JobRecord(BaseModel):
    """A job's options, state and progress.

    Attributes:
        layout: Version of the folder's files.
        id: Random, so that nobody guesses it; the folder's name.
        owner: Name of the API key that made it; None without keys: it is everybody's.
        name: Name of the video.
        url: Where the video has to be fetched from, with its secrets; None for uploads.
        shown_url: The same without secrets.
        options: What to compute.
        state: Whether it waits, runs, or how it ended.
        created: When it was made.
        started: When it first ran.
        ended: When it ended.
        frames: Frames in the journal.
        position: Frames of the video that were read so far.
        total: Number of frames that the file states.
        progress: Share of the video that is done, 0..1.
        fps: Frames answered a second, lately.
        restarts: How often it went on after an interruption.
        model: The model that answers its frames.
        error: Problem document of a failed job.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = 1
    id: str
    owner: str | None
    name: str
    url: str | None = None
    shown_url: str | None = None
    options: JobOptions
    state: JobState = "queued"
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    frames: int = 0
    position: int = 0
    total: int | None = None
    progress: float | None = None
    fps: float | None = None
    restarts: int = 0
    model: JobModel | None = None
    error: dict[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it will not run again."""
        return self.state in ENDED

    def changed(self, **values: Any) -> JobRecord:
        """Return a copy with other values."""
        return self.model_copy(update=values)

    def expires(self, keep_hours: float) -> datetime | None:
        """When an ended job is deleted."""
        return None if self.ended is None else self.ended + timedelta(hours=keep_hours)


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        """Name the files; they need not exist."""
        self.path = path
        self.video = path / "video"
        self.results = path / "results.jsonl"
        self.checkpoint = path / "checkpoint.json"
        self.exports = path / "exports"
        self.cancel = path / "cancel"
        """Exists if the job was asked to stop for good."""
        self.record_file = path / "job.json"

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop for good."""
        return self.cancel.exists()

    def read(self) -> JobRecord:
        """Read the record. A job that was asked to stop counts as cancelled already.

        Raises:
            OSError: The job was deleted.
            ValueError: The file is damaged.
        """
        record = JobRecord.model_validate_json(self.record_file.read_bytes())
        if not record.has_ended and self.cancelled:
            return record.changed(state="cancelled", ended=now())
        return record

    def write(self, record: JobRecord, *, durable: bool = True) -> None:
        """Replace the record in one step.

        Raises:
            OSError: The job was deleted, or the disk is full.
        """
        files.write_whole(self.record_file, record.model_dump_json().encode(), durable=durable)
