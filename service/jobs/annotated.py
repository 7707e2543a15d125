"""The video of a job with the skeletons and ids drawn, as an MP4 that browsers play (H.264, yuv420p)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.jobs import journal
from service.jobs.video_limits import opened
from service.pose.drawing import draw
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Image, Poses

TIME_BASE = Fraction(1, 90_000)
"""Unit of the times in the file, s: small enough for the times of any camera."""
CODECS = ("libx264", "mpeg4")
"""The first that FFmpeg has is taken; builds without GPL code lack the first."""
OPTIONS = {"libx264": {"crf": "23", "preset": "veryfast"}, "mpeg4": {"qscale": "4"}}
FALLBACK_RATE = 25
MAX_PIXELS = 2**31 - 1
"""No limit: the job has kept the server's."""


def write(video: Path, results: Path, out: Path, keypoint_threshold: float) -> None:
    """Draw the results on the frames that they are of; each frame is shown at its time in the original.

    Args:
        video: The job's video.
        results: The job's journal.
        out: The MP4 file.
        keypoint_threshold: Keypoints with a lower score are not drawn.

    Raises:
        ServiceError: The video cannot be read.
        OSError: The file cannot be written.
    """
    import av  # noqa: PLC0415 - an extra

    codec = next(it for it in CODECS if it in av.codecs_available)
    with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        last_pts = -1
        for canvas, time_s in _frames(video, results, keypoint_threshold):
            if stream is None:
                height, width = (max(2, side - side % 2) for side in canvas.shape[:2])  # yuv420p halves both
                stream = container.add_stream(codec, rate=FALLBACK_RATE, options=OPTIONS[codec])
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = TIME_BASE
                stream.time_base = TIME_BASE
            picture = av.VideoFrame.from_ndarray(_fitted(canvas, (stream.width, stream.height)), format="rgb24")
            last_pts = picture.pts = max(last_pts + 1, round(time_s / TIME_BASE))
            picture.time_base = TIME_BASE
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode(None))


def _fitted(canvas: Image, size: tuple[int, int]) -> Image:
    """Return a picture of ``size`` (width, height): without an odd last row or column, or with bars around it.

    Frames of a video may change their size, but those of an MP4 file do not.
    """
    width, height = size
    h, w = canvas.shape[:2]
    if (w - w % 2, h - h % 2) == size:
        return np.ascontiguousarray(canvas[:height, :width])
    scale = min(width / w, height / h)
    w, h = max(1, round(scale * w)), max(1, round(scale * h))
    left, top = (width - w) // 2, (height - h) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + h, left : left + w] = cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA)
    return fitted


def _frames(video: Path, results: Path, keypoint_threshold: float) -> Iterator[tuple[Image, float]]:
    """Yield the frames that have a line, drawn on, with their times."""
    lines = journal.read(results)
    line = next(lines, None)
    with opened(video, MAX_PIXELS) as (_, frames):
        for frame in frames:
            if line is None:
                return
            if frame.index == line["frame"]:
                yield _drawn(frame.pixels(), line, keypoint_threshold), frame.time_s
                line = next(lines, None)


def _drawn(pixels: Image, line: Mapping[str, Any], keypoint_threshold: float) -> Image:
    people = line["poses"]
    skeleton = _skeleton(line)
    points = np.array([it["keypoints"] for it in people], np.float32).reshape(len(people), len(skeleton), 3)
    boxes = np.array([it["box"] for it in people], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([it["score"] for it in people], np.float32)
    canvas = draw(pixels, Poses(points[..., :2], points[..., 2], boxes, scores), skeleton, keypoint_threshold)
    for person, box in zip(people, boxes, strict=True):
        if person["id"] is not None:
            _write(canvas, person["id"], (round(float(box[0])), round(float(box[1])) - 4))
    return canvas


def _write(canvas: Image, text: str, corner: tuple[int, int]) -> None:
    """Write white text with a dark outline; ``corner`` is its bottom left, moved so that the text is in the picture."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 4)
    corner = (max(2, min(corner[0], canvas.shape[1] - width)), max(corner[1], height + 2))
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness, cv2.LINE_AA)


def _skeleton(line: Mapping[str, Any]) -> Skeleton:
    """Return the skeleton of a line, as far as drawing needs it."""
    if "keypoints" not in line:
        return COCO17
    names = tuple(line["keypoints"])
    edges = tuple((int(a), int(b)) for a, b in line["edges"])
    return Skeleton("drawn", names, edges, tuple(range(len(names))), (1.0,) * len(names))
