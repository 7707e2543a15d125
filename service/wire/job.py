"""The wire format of /jobs: what a job is asked for with, and how it is told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.wire.query import Format, PoseOptions, Score
from service.wire.reply import Problem

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ResultFormat = Literal["jsonl", "coco", "csv", "parquet", "openpose", "sleap", "label-studio", "mp4"]
Layout = Literal["body25", "coco18", "own"]


class JobOptions(PoseOptions):
    """Query of POST /jobs: what is computed for each frame, and for which frames."""

    track: bool = Field(default=True, description="Follow people from frame to frame and give them ids.")
    smooth: bool = Field(default=True, description="Smooth the keypoints of tracked people; requires `track`.")
    every: int = Field(1, ge=1, le=10_000, description="Answer every n-th frame of the video alone.")
    max_fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = Field(
        None, description="Leave out frames, so that at most so many are answered for a second of the video."
    )
    format: Format = Field(
        "compact",
        exclude=True,
        description="Always `compact`; the result's format is chosen when it is read.",
    )

    @field_validator("format")
    @classmethod
    def _is_compact(cls, value: Format) -> Format:
        if value != "compact":
            raise ValueError("no format here: it is chosen when the result is read, /jobs/{id}/result?format=")
        return value


class JobQuery(JobOptions):
    """The options, and the video's name."""

    name: str | None = Field(
        None, max_length=200, description="Name of the video, for the names of results; default: the uploaded file's."
    )


class JobRequest(BaseModel):
    """JSON body of POST /jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Address of a video file; `--source-hosts` must allow it.")
    name: str | None = Field(None, max_length=200, description="As in the query.")
    options: JobOptions = Field(JobOptions(), description="As in the query; they win over it.")


class ResultQuery(BaseModel):
    """Query of GET /jobs/{id}/result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: ResultFormat = Field(
        "jsonl",
        description="`jsonl`: a line of JSON for each frame, also while the job runs. `openpose`, `label-studio`: "
        "zip archives, `mp4` is the video with the skeletons drawn.",
    )
    follow: bool = Field(
        default=False, description="With `jsonl`: send further lines as they are written, until the job ends."
    )
    keypoint_threshold: Score | None = Field(
        None,
        description="With `coco`, `label-studio` and `mp4`: keypoints with a lower score are left out. Default: the "
        "job's.",
    )
    layout: Layout = Field("body25", description="With `openpose`: order of the keypoints.")


class JobModel(BaseModel):
    """The model that answers a job's frames."""

    name: str
    version: str
    sha256: str


class JobReply(BaseModel):
    """A job."""

    id: str
    name: str
    state: JobState
    url: str | None = Field(description="Where the video came from, without secrets; null for uploads.")
    options: JobOptions
    created: datetime
    started: datetime | None = Field(description="When the job first ran; null before.")
    ended: datetime | None
    expires: datetime | None = Field(description="When video and results are deleted; null before the end.")
    frames: int = Field(description="Frames that are answered.")
    position: int = Field(description="Frames of the video that were read so far, also those that were left out.")
    total: int | None = Field(description="Number of frames that the file states; null if it states none.")
    progress: float | None = Field(description="Share of the video that is done, 0..1; null if it is unknown.")
    fps: float | None = Field(description="Frames answered a second, lately; null before there are some.")
    restarts: int = Field(description="How often the job went on after the server had ended.")
    model: JobModel | None = Field(description="null before the first frame.")
    error: Problem | None = Field(description="Why the job failed.")


class JobList(BaseModel):
    """Reply of GET /jobs."""

    jobs: list[JobReply] = Field(description="The caller's, the newest first.")
