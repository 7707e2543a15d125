"""The problems with video jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from service.errors import RETRY_AFTER, ServiceError


class JobsDisabled(ServiceError):
    """The server runs no video jobs."""

    status, slug, title = 403, "jobs-disabled", "Video jobs are off"
    meaning = "The server runs without `--jobs-dir`, or a web page of another site asked it to start a job."
    advice = "The operator starts the server with `--jobs-dir FOLDER`. Send the call from a program, not a page."


class UnknownJob(ServiceError):
    """There is no such video job."""

    status, slug, title = 404, "unknown-job", "No such job"
    meaning = "There is no video job of this id: it was deleted, it has expired, or it belongs to another API key."
    advice = "`GET /jobs` lists the jobs of your API key. Results are kept for the hours of `--jobs-keep-hours`."


class JobUnfinished(ServiceError):
    """A result needs a job that has ended, or one with at least one frame."""

    status, slug, title = 409, "job-unfinished", "The job has no such result yet"
    meaning = "Only `format=jsonl` can be read while a job runs, and the other formats need at least one frame."
    advice = "Ask for the job until its `state` is `done`, or read `format=jsonl`, with `follow=true` as it grows."
    fields: ClassVar[Mapping[str, str]] = {"state": "State of the job.", "frames": "Frames that are answered."}


class VideoTooLarge(ServiceError):
    """A video has too many bytes, frames, pixels or seconds."""

    status, slug, title = 413, "video-too-large", "The video is too large"
    meaning = "The video has more bytes, frames, seconds, or pixels in a frame than the server accepts."
    advice = (
        "Cut the video into parts, or scale it down. The operator can raise the limits with `--job-max-bytes`, "
        "`--job-max-frames`, `--job-max-duration-s` and `--max-pixels`."
    )
    fields: ClassVar[Mapping[str, str]] = {
        "limit": "Name of the limit: `bytes`, `frames`, `seconds` or `pixels`.",
        "maximum": "Its value.",
        "got": "What the video has, as far as it was read.",
    }


class ResultRefused(ServiceError):
    """The results of a job cannot be written in a format."""

    status, slug, title = 422, "result-refused", "The results do not fit the format"
    meaning = "The format cannot hold these results, for example because the model's skeleton lacks its keypoints."
    advice = "The `detail` says why. Choose another format or layout; `jsonl` holds everything."


class MissingPackage(ServiceError):
    """The server lacks an optional package that the call needs."""

    status, slug, title = 501, "missing-package", "The server lacks a package"
    meaning = "The call needs a Python package that is optional and not installed on the server."
    advice = "The operator installs what the `detail` names, and starts the server again."
    fields: ClassVar[Mapping[str, str]] = {"package": "Name of the package."}


class ResultPending(ServiceError):
    """The server is still writing the results in the format."""

    status, slug, title = 503, "result-pending", "The result is being written"
    meaning = "The server is writing the results in this format, which takes longer than a call should wait."
    advice = "Ask again after `retry_after_s` seconds, for example with `curl --retry 100`; the work goes on meanwhile."
    fields: ClassVar[Mapping[str, str]] = RETRY_AFTER


class JobsDiskFull(ServiceError):
    """The videos and results of all jobs take too much space."""

    status, slug, title = 507, "jobs-disk-full", "The disk is full"
    meaning = "The videos and results of all jobs would take more space than the server allows, or than the disk has."
    advice = (
        "Delete jobs that are no longer needed, or wait until they expire. The operator can raise the limit with "
        "`--jobs-max-bytes`."
    )
    fields: ClassVar[Mapping[str, str]] = {
        "used_bytes": "Bytes that all jobs take now.",
        "max_bytes": "Maximum number of bytes.",
    }
