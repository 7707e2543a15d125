"""Reads the JSON lines that ``posewright-client video``, ``webcam`` and ``predict --json`` write, one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posewright_client._errors import PosewrightError
from posewright_client._parsing import COCO, ReplySkeleton, skeleton_of
from posewright_client._results import Box

Point = tuple[float, float, float]
Size = tuple[int, int]
KINDS = "a result of `posewright-client video`, `webcam` or `predict --json`"


class ResultsError(PosewrightError):
    """Results cannot be read, or cannot be written in a format; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class RecordedPerson:
    """One person in one frame.

    Attributes:
        track: Number of the person, unique in the whole file; None without tracking.
        score: 0..1.
        box: x, y, width, height; px.
        keypoints: K keypoints, each x px, y px, score 0..1.
    """

    track: int | None
    score: float
    box: Box
    keypoints: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One line of the file.

    Attributes:
        index: Number of the frame in its video or camera, or of the photo in the file, from 0.
        time_s: Time since the beginning; None for photos.
        file: The photo as it was named on the command line; None in videos.
        size: Width and height of the picture, px; None if the file lacks it.
        turned: Whether the picture has an EXIF orientation, so that its stored pixels are not upright.
        people: N people; none in a frame with a problem.
    """

    index: int
    time_s: float | None
    file: str | None
    size: Size | None
    turned: bool
    people: tuple[RecordedPerson, ...]


class Recording:
    """A file of results.

    Attributes:
        path: The file.
        name: What frames are named after: the video, or the file of results.
    """

    def __init__(self, path: Path, *, video: Path | None = None, size: Size | None = None) -> None:
        """Describe a file; `frames` opens it.

        Args:
            path: JSON lines.
            video: The video that the results are of, for names.
            size: Width and height of all pictures, px, where the lines do not say it.
        """
        self.path, self._size = path, size
        self.name = path.stem if video is None else video.stem
        self._skeleton: ReplySkeleton | None = None
        self._tracks: dict[tuple[str, str], int] = {}
        self._start_us: int | None = None

    @property
    def skeleton(self) -> ReplySkeleton:
        """The skeleton of the people read so far; COCO's before the first one."""
        return self._skeleton or COCO

    def picture_name(self, frame: RecordedFrame) -> str:
        """Return the photo's name, or the name that a frame of a video has as a picture."""
        return frame.file or f"{self.name}_{frame.index:012d}.jpg"

    def size_of(self, frame: RecordedFrame) -> Size:
        """Return the width and height of a frame.

        Raises:
            ResultsError: Neither the file nor the caller named it.
        """
        if frame.size is None:
            raise ResultsError(
                f"{self.path}: frame {frame.index}: this format needs the picture's width and height, which files of "
                "older versions lack; give --size WIDTHxHEIGHT or --video"
            )
        return frame.size

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the frames in order; only one line is in memory.

        Raises:
            ResultsError: A line is not a result, or has another skeleton than those before.
            OSError: The file cannot be read.
        """
        last = -1
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                where = f"{self.path}: line {number + 1}"
                frame = self._frame(where, _document(where, line), number)
                if frame.index <= last:
                    raise ResultsError(
                        f"{where}: expected a frame after {last}, got {frame.index}; if this is several files in "
                        "one, convert each on its own"
                    )
                last = frame.index
                yield frame
        if last < 0:
            raise ResultsError(f"{self.path}: expected a line of JSON per frame, got an empty file")

    def _frame(self, where: str, document: Mapping[str, Any], number: int) -> RecordedFrame:
        try:
            if document.get("keypoints"):  # named although there may be no people
                self._require_skeleton(where, skeleton_of(document), len(document["keypoints"]))
            image = document.get("image")
            size = self._size if image is None else (int(image["width"]), int(image["height"]))
            return RecordedFrame(
                int(document.get("frame", document.get("seq", number))),
                self._time_s(document),
                document.get("file"),
                size,
                image is not None and (image.get("exif_orientation") or 1) != 1,
                tuple(self._person(where, document, it) for it in document.get("poses") or ()),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultsError(f"{where}: expected {KINDS}, got {type(error).__name__}: {error}") from error

    def _time_s(self, document: Mapping[str, Any]) -> float | None:
        if document.get("time_ms") is not None:
            return round(float(document["time_ms"]) / 1e3, 6)
        if document.get("capture_us") is None:
            return None
        capture_us = int(document["capture_us"])
        self._start_us = capture_us if self._start_us is None else self._start_us
        return (capture_us - self._start_us) / 1e6

    def _person(self, where: str, document: Mapping[str, Any], entry: Mapping[str, Any]) -> RecordedPerson:
        points = tuple(_point(it) for it in entry["keypoints"])
        self._require_skeleton(where, _skeleton(document, entry["keypoints"]), len(points))
        track = None if entry.get("id") is None else self._track(str(document.get("session")), str(entry["id"]))
        box = _around(points) if entry.get("box") is None else tuple(float(it) for it in entry["box"])
        if len(box) != 4:
            raise ValueError(f"box: expected 4 numbers, got {len(box)}")
        return RecordedPerson(track, float(entry["score"]), box, points)

    def _require_skeleton(self, where: str, skeleton: ReplySkeleton, count: int) -> None:
        if len(skeleton.keypoints) != count:
            raise ResultsError(
                f"{where}: expected the names of {count} keypoints in `keypoints`, got {len(skeleton.keypoints)}; "
                "older versions wrote none: run the command that made this file again"
            )
        if self._skeleton is None:
            self._skeleton = skeleton
        elif skeleton.keypoints != self._skeleton.keypoints:
            raise ResultsError(
                f"{where}: expected the {len(self._skeleton.keypoints)} keypoints of the lines before "
                f"({', '.join(self._skeleton.keypoints[:3])}, …), got {count} ({', '.join(skeleton.keypoints[:3])}, …)"
                "; convert the results of each model on their own"
            )

    def _track(self, session: str, name: str) -> int:
        """Return the id itself where it is new; ids start again in every session, so later ones are renumbered."""
        key = session, name
        if key not in self._tracks:
            taken = self._tracks.values()
            number = int(name) if name.isdecimal() else -1
            self._tracks[key] = number if number >= 0 and number not in taken else max(taken, default=-1) + 1
        return self._tracks[key]


def _document(where: str, line: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        hint = "" if line.endswith(b"\n") else "; the line is incomplete: run the command that writes this file again"
        raise ResultsError(f"{where}: expected {KINDS} as a line of JSON, got {error}{hint}") from error
    if not isinstance(document, dict) or not ({"poses", "problem"} & document.keys()):
        got = f"an object with {', '.join(document) or 'no keys'}" if isinstance(document, dict) else "no object"
        raise ResultsError(f"{where}: expected {KINDS}, which is an object with `poses`, got {got}")
    return document


def _skeleton(document: Mapping[str, Any], points: Sequence[Any]) -> ReplySkeleton:
    """Return the skeleton that a line names, or that its keypoints name, or COCO's."""
    skeleton = skeleton_of(document)
    if points and isinstance(points[0], Mapping):
        names = tuple(str(it["name"]) for it in points)
        return skeleton if names == skeleton.keypoints else ReplySkeleton(names, ())
    return skeleton


def _point(point: Any) -> Point:
    x, y, score = (point["x"], point["y"], point["score"]) if isinstance(point, Mapping) else point
    numbers = float(x), float(y), float(score)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"keypoint: expected finite numbers, got {numbers}")
    return numbers


def _around(points: Sequence[Point]) -> Box:
    """Return the box of the keypoints, for lines of older versions, which have no boxes."""
    xs, ys = [it[0] for it in points], [it[1] for it in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
