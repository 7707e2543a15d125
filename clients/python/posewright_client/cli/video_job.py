"""Processes every frame of a video in order; an interrupted job continues where it stopped."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from posewright_client._client import Client
from posewright_client._drawing import draw
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._frames import Frame, StreamArguments, StreamResult
from posewright_client._parsing import parse_poses, skeleton_of
from posewright_client._pictures import require_cv2
from posewright_client._retries import Retries
from posewright_client.cli.journal import Job, Journal, read
from posewright_client.cli.movie import Movie, MovieFrame, even_fps, require_writable, writing
from posewright_client.cli.result_line import image_of, poses_of

T = TypeVar("T")
PATIENCE_S = 300.0
"""Default time to wait for an unreachable server."""
JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class VideoJob:
    """A video to process.

    Attributes:
        video: The file to read.
        journal: JSON lines to write: frame, time_ms, image, and either session and poses, or problem.
        out: Video to write, with the skeletons drawn, or None.
        model: As in `Options`.
        track: Give people ids, and smooth their keypoints.
        overwrite: Start from the beginning, and replace existing files.
        quiet: Show no progress.
        patience_s: Time to wait for a server that is unreachable or restarts, seconds.
    """

    video: Path
    journal: Path
    out: Path | None
    model: str = "auto"
    track: bool = True
    overwrite: bool = False
    quiet: bool = False
    patience_s: float = PATIENCE_S


@dataclass(frozen=True, slots=True)
class VideoReport:
    """Counts of a finished job.

    Attributes:
        frames: Frames in the journal.
        problems: Frames with a problem instead of poses.
        missing: Frames that the video declares but lacks, because the file is truncated.
    """

    frames: int
    problems: int
    missing: int


def run(client: Client, job: VideoJob) -> VideoReport:
    """Process a video, or the rest of it.

    Raises:
        PosewrightError: The job cannot continue; the finished frames are kept.
    """
    movie = Movie(job.video)
    outputs = [job.journal] if job.out is None else [job.journal, job.out]
    for output in outputs:  # checked before the work starts, and before a file is overwritten
        if output.exists() and output.samefile(job.video):
            raise PosewrightError(f"{output}: expected another file than the video itself; choose another name")
        if not output.parent.is_dir():
            raise PosewrightError(f"{output}: expected a folder that exists, got {output.parent}; create it first")
    if job.out is not None:
        require_writable(job.out)
    claim = Job(job.journal, _description(job), outputs, overwrite=job.overwrite)
    try:
        _process(client, job, movie)
        problems = ["problem" in line for line in read(job.journal)]
        _require_frames(job, len(problems))
        if job.out is not None:
            _render(job, movie, job.out)
    except BaseException:
        claim.leave()
        raise
    claim.finish()
    return VideoReport(len(problems), sum(problems), movie.missing(len(problems)))


def _require_frames(job: VideoJob, count: int) -> None:
    if not count:
        raise PosewrightError(
            f"{job.video}: expected a frame that OpenCV can decode, got none; convert the video to H.264 in MP4, or "
            "send it to a server that runs video jobs"
        )


def _description(job: VideoJob) -> dict[str, Any]:
    digest = hashlib.sha256()
    with job.video.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    out = None if job.out is None else str(job.out.resolve())
    return {"video": digest.hexdigest(), "out": out, "model": job.model, "track": job.track}


def _process(client: Client, job: VideoJob, movie: Movie) -> None:
    with Journal(job.journal) as journal:
        start = journal.frames
        frames = (_encoded(frame) for frame in movie.read(start))
        retries = Retries(attempts=1000, max_backoff_s=10.0, budget_s=job.patience_s)
        options: StreamArguments = {"policy": "all", "model": job.model, "track": job.track, "reconnects": retries}
        with client.stream(frames, **options) as stream:
            progress = _progress(stream, job, "processing", movie.frames, start)
            for result in progress:
                journal.append(_line(start, result))


@dataclass(frozen=True, slots=True)
class _EncodedFrame(Frame):
    image: dict[str, int] = field(default_factory=dict)


def _encoded(frame: MovieFrame) -> _EncodedFrame:
    cv2 = require_cv2("sending videos")
    ok, encoded = cv2.imencode(".jpg", frame.bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise PosewrightError(f"frame {frame.index} of {frame.bgr.shape} cannot be encoded as JPEG")
    return _EncodedFrame(bytes(encoded), frame.time_us, image_of(frame.bgr))


def _line(start: int, result: StreamResult) -> dict[str, Any]:
    assert isinstance(result.frame, _EncodedFrame)
    line: dict[str, Any] = {"frame": start + result.seq, "time_ms": result.capture_us / 1000}
    line["image"] = result.frame.image
    if result.problem is not None:
        problem = result.problem
        return line | {"problem": {"type": problem.type, "status": problem.status, "detail": problem.detail}}
    # Ids start again in every session, so a person is identified by session and id.
    return line | {"session": result.session, **poses_of(result)}


def _render(job: VideoJob, movie: Movie, out: Path) -> None:
    """Draw the journal on the video. After an interruption this starts again, since it is quick."""
    times_us = [round(line["time_ms"] * 1000) for line in read(job.journal)]
    pairs = zip(movie.read(), read(job.journal), strict=True)
    fps = even_fps(times_us, movie.fps)
    with closing(_progress(pairs, job, "drawing", len(times_us), 0)) as progress:
        first = next(progress, None)
        if first is None:
            raise PosewrightError(f"{job.video}: the video has no frames to draw on")
        height, width = first[0].bgr.shape[:2]
        with writing(out, fps, (width, height)) as writer:
            writer.write(_drawn(*first), first[0].time_us)
            for frame, line in progress:
                writer.write(_drawn(frame, line), frame.time_us)


def _drawn(frame: MovieFrame, line: Mapping[str, Any]) -> Any:
    assert line["frame"] == frame.index
    rgb = frame.bgr[..., ::-1]
    return np.ascontiguousarray(draw(rgb, parse_poses(line.get("poses", ()), skeleton_of(line)))[..., ::-1])


def _progress(items: Iterable[T], job: VideoJob, title: str, total: int, start: int) -> Generator[T]:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtra("progress bars need tqdm: pip install 'posewright-client[video]'") from error
    options: dict[str, Any] = {"total": max(total, start) or None, "initial": start, "unit": "frame"}
    hidden = job.quiet or not sys.stderr.isatty()
    yield from tqdm(items, desc=title, disable=hidden, **options)


def summary(job: VideoJob, report: VideoReport, elapsed_s: float) -> str:
    """Return a summary in one line."""
    files = str(job.journal) if job.out is None else f"{job.journal}, {job.out}"
    problems = f", {report.problems} of them with a problem instead of poses" if report.problems else ""
    return f"{files}: {report.frames} frames{problems}, {elapsed_s:.1f} s"
