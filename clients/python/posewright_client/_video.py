"""``posewright-client video``: every frame answered, in order; killed at any moment it goes on where it was."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from posewright_client._client import Client
from posewright_client._drawing import draw
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._frames import Frame, StreamResult, StreamWishes
from posewright_client._journal import Job, Journal, read
from posewright_client._movie import Movie, MovieFrame, even_fps, require_writable, writing
from posewright_client._parsing import parse_poses, skeleton_of
from posewright_client._pictures import require_cv2
from posewright_client._results import Pose
from posewright_client._retries import Retries
from posewright_client._skeleton import KEYPOINTS

T = TypeVar("T")
PATIENCE_S = 300.0
"""For so long a video waits for a server that is gone."""
QUALITY = 95


@dataclass(frozen=True, slots=True)
class VideoJob:
    """What is to be done.

    Attributes:
        video: To read.
        journal: JSON lines to write: frame, time_ms, and either session and poses, or problem.
        out: Video with the skeletons drawn, or None.
        model: As in `Options`.
        track: Give people ids, and smooth their keypoints.
        overwrite: Begin anew, whatever is there.
        quiet: Show no progress.
        patience_s: How long to wait for a server that is gone, or restarts.
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
class Done:
    """What was done.

    Attributes:
        frames: With a line each.
        problems: Frames with a problem in place of poses.
        missing: Frames that the video says it has and that are cut off.
    """

    frames: int
    problems: int
    missing: int


def run(client: Client, job: VideoJob) -> Done:
    """Do the job, or what is left of it.

    Raises:
        PosewrightError: It cannot go on; what is done stays done.
    """
    movie = Movie(job.video)
    outputs = [job.journal] if job.out is None else [job.journal, job.out]
    for output in outputs:  # before an hour's answers, and before anything is overwritten
        if output.exists() and output.samefile(job.video):
            raise PosewrightError(f"{output}: expected another file than the video itself; name another one")
        if not output.parent.is_dir():
            raise PosewrightError(f"{output}: expected a folder that exists, got {output.parent}; make it first")
    if job.out is not None:
        require_writable(job.out)
    claim = Job(job.journal, _description(job), outputs, overwrite=job.overwrite)
    try:
        _answer(client, job, movie)
        problems = ["problem" in line for line in read(job.journal)]
        if job.out is not None:
            _render(job, movie, job.out)
    except BaseException:
        claim.leave()
        raise
    claim.finish()
    return Done(len(problems), sum(problems), movie.missing(len(problems)))


def _description(job: VideoJob) -> dict[str, Any]:
    with job.video.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    out = None if job.out is None else str(job.out.resolve())
    return {"video": digest, "out": out, "model": job.model, "track": job.track}


def _answer(client: Client, job: VideoJob, movie: Movie) -> None:
    with Journal(job.journal) as journal:
        begun = journal.frames
        frames = (_encoded(frame) for frame in movie.read(begun))
        patient = Retries(attempts=1000, max_backoff_s=10.0, budget_s=job.patience_s)
        options: StreamWishes = {"policy": "all", "model": job.model, "track": job.track, "reconnects": patient}
        with client.stream(frames, **options) as stream:
            progress = _progress(stream, job, "answering", movie.frames, begun)
            for result in progress:
                journal.append(_line(begun, result))


def _encoded(frame: MovieFrame) -> Frame:
    cv2 = require_cv2("sending videos")
    ok, encoded = cv2.imencode(".jpg", frame.bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise PosewrightError(f"frame {frame.index} of {frame.bgr.shape} cannot be encoded as JPEG")
    return Frame(bytes(encoded), frame.time_us)


def _line(begun: int, result: StreamResult) -> dict[str, Any]:
    line: dict[str, Any] = {"frame": begun + result.seq, "time_ms": result.capture_us / 1000}
    if result.problem is not None:
        problem = result.problem
        return line | {"problem": {"type": problem.type, "status": problem.status, "detail": problem.detail}}
    # Ids count anew in every session, e.g. after a kill: the two together name a person.
    return line | {"session": result.session, **_skeleton(result), "poses": [_pose(pose) for pose in result.poses]}


def _skeleton(result: StreamResult) -> dict[str, Any]:
    """The keypoints' names and edges, where they are not COCO's."""
    for pose in result.poses[:1]:
        names = tuple(it.name for it in pose.keypoints)
        if names != KEYPOINTS:
            return {"keypoints": names, "edges": pose.edges}
    return {}


def _pose(pose: Pose) -> dict[str, Any]:
    keypoints = [[it.x, it.y, it.score] for it in pose.keypoints]
    return {"id": pose.id, "score": pose.score, "box": list(pose.box), "keypoints": keypoints}


def _render(job: VideoJob, movie: Movie, out: Path) -> None:
    """Draw the journal on the video. Cheap beside the answering: after a kill it begins anew."""
    times_us = [round(line["time_ms"] * 1000) for line in read(job.journal)]
    pairs = zip(movie.read(), read(job.journal), strict=True)
    fps = even_fps(times_us, movie.fps)
    with closing(_progress(pairs, job, "drawing", len(times_us), 0)) as progress:
        first = next(progress, None)
        if first is None:
            raise PosewrightError(f"{job.video}: there is no frame that could be drawn on")
        height, width = first[0].bgr.shape[:2]
        with writing(out, fps, (width, height)) as writer:
            writer.write(_drawn(*first), first[0].time_us)
            for frame, line in progress:
                writer.write(_drawn(frame, line), frame.time_us)


def _drawn(frame: MovieFrame, line: Mapping[str, Any]) -> Any:
    assert line["frame"] == frame.index
    rgb = frame.bgr[..., ::-1]
    return np.ascontiguousarray(draw(rgb, parse_poses(line.get("poses", ()), skeleton_of(line)))[..., ::-1])


def _progress(items: Iterable[T], job: VideoJob, what: str, total: int, begun: int) -> Generator[T]:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtra("progress bars need tqdm: pip install 'posewright-client[video]'") from error
    options: dict[str, Any] = {"total": max(total, begun) or None, "initial": begun, "unit": "frame"}
    hidden = job.quiet or not sys.stderr.isatty()
    yield from tqdm(items, desc=what, disable=hidden, **options)


def summary(job: VideoJob, done: Done, began_s: float) -> str:
    """Say what was done.

    Args:
        job: It.
        done: What came of it.
        began_s: On the monotonic clock.
    """
    files = str(job.journal) if job.out is None else f"{job.journal}, {job.out}"
    unanswered = f", {done.problems} of them with a problem in place of poses" if done.problems else ""
    return f"{files}: {done.frames} frames{unanswered}, {time.monotonic() - began_s:.1f} s"
