"""The answer to one frame of a source, written once in every form that somebody wants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.inference import image
from service.inference.predict import Stopwatch
from service.inference.state import Service
from service.streaming.follower import TrackedPrediction
from service.streaming.frame_queue import QueuedFrame
from service.streaming.frame_worker import describe, finish
from service.streaming.frames import HEADER, VERSION
from service.wire import documents
from service.wire.poses import write_prediction
from service.wire.query import Format, PoseQuery


@dataclass(frozen=True, slots=True)
class WantedForms:
    """What viewers, the webhook and the recording want.

    Attributes:
        formats: Formats of people.
        pictures: Whether somebody wants the frame as a JPEG.
        recording: Session that a line of a recording names; None if nothing is recorded.
    """

    formats: frozenset[Format]
    pictures: bool
    recording: str | None


@dataclass(frozen=True, slots=True)
class SourceResult:
    """The answer to one frame.

    Attributes:
        texts: JSON of the result by format, without its last brace: each viewer has a number of dropped results.
        picture: A stream's binary message with the frame as a JPEG; None if nobody wants pictures.
        line: A line of a recording; None if there is none.
    """

    texts: dict[Format, bytes]
    picture: bytes | None
    line: bytes | None


def write_result(
    wanted: WantedForms,
    query: PoseQuery,
    service: Service,
    taken: QueuedFrame,
    tracked: TrackedPrediction,
    stopwatch: Stopwatch,
) -> SourceResult:
    """Write a result, and end the stopwatch. Overwrites the pixels of the frame."""
    prediction = tracked.prediction
    recorded: set[Format] = set() if wanted.recording is None else {"compact"}
    poses = {
        it: write_prediction(prediction, replace(query, format=it), track_ids=tracked.ids)
        for it in wanted.formats | recorded
    }
    head = describe(taken, prediction) | {"time_ms": round(taken.frame.time_s * 1e3, 1)}
    head |= finish(service, taken, prediction, stopwatch)
    line = None
    if wanted.recording is not None:
        document = documents.recording_line(
            prediction, poses["compact"], frame=head["seq"], time_ms=head["time_ms"], session=wanted.recording
        )
        line = documents.to_json(document)
    texts = {it: documents.to_json(head | {"poses": poses[it]})[:-1] for it in wanted.formats}
    picture = None
    if wanted.pictures:
        header = HEADER.pack(VERSION, 0, 0, head["seq"], head["capture_us"])
        picture = header + image.encode(prediction.image.pixels, "image/jpeg")
    return SourceResult(texts, picture, line)
