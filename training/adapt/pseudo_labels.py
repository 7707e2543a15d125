"""Pseudo-labels of unlabelled footage by a detector and a teacher, and which of them to train on.

The teacher infers each person twice, the second time on the mirror image of a wider crop. A joint passes if its score
is high, both inferences agree on it, and in a video it does not jump away and back within three frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.oks import oks
from service.pose.skeleton import Skeleton
from service.pose.types import Boxes, Floats, Image, Poses
from training import files
from training.adapt.footage import Footage
from training.data import images as pictures
from training.data.coco import AREA_SHARE

SHARD = 16
"""Frames in one file on disk."""
WIDER = 1.15
"""Size of the second crop as a factor on the first. With equal crops, a teacher whose graph averages over the mirror
image would agree with itself by construction."""
NEXT_S = 0.6
"""Frames further apart than this are not compared for jumps."""


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits that a joint must keep to be trained on.

    Attributes:
        box_score: Minimum score of the person's box.
        joint_score: Minimum score of the joint.
        disagreement: Maximum distance of the two inferences in OKS widths (2 sigma sqrt(area)).
        jump: Maximum distance in OKS widths from the mean position of the frames before and after, in addition to half
            of the distance between these two positions.
    """

    box_score: float = 0.45
    joint_score: float = 0.45
    disagreement: float = 0.5
    jump: float = 3.0


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The people of one frame.

    Attributes:
        poses: N poses of the first inference.
        disagreement: float32 (N, K), distance of the two inferences in OKS widths.
    """

    poses: Poses
    disagreement: Floats


class Labeller:
    """A detector and a teacher that label frames."""

    def __init__(self, detector: PersonDetector, teacher: PoseEstimator, gates: Gates) -> None:
        self._detector = detector
        self._teacher = teacher
        self._gates = gates

    def label(self, image: Image) -> LabelledFrame:
        """Label all people of an image uint8 (H, W, 3) RGB."""
        boxes, box_scores = self._detector.detect(image, max_people=50, min_score=self._gates.box_score)
        poses = self._teacher.estimate(image, boxes, box_scores)
        if not len(poses):
            return LabelledFrame(poses, np.zeros(poses.scores.shape, np.float32))
        right = image.shape[1] - 1
        mirrored = self._teacher.estimate(np.ascontiguousarray(image[:, ::-1]), _mirror(_grow(boxes, WIDER), right))
        again = mirrored.keypoints[:, list(self._teacher.skeleton.flip)]
        again[..., 0] = right - again[..., 0]
        widths = oks_widths(boxes, self._teacher.skeleton.sigma_array)
        return LabelledFrame(poses, np.asarray(np.linalg.norm(again - poses.keypoints, axis=2) / widths, np.float32))


def label_all(labeller: Labeller, footage: Footage, shards: Path, key: str) -> list[LabelledFrame]:
    """Label every frame. After an interruption, a later call continues after the last complete shard.

    Args:
        labeller: Labels the frames.
        footage: The frames.
        shards: Folder for the results.
        key: Hash of labeller and footage; shards with another key are made anew.
    """
    found: list[LabelledFrame] = []
    with tqdm(total=len(footage.frames), desc=f"label {footage.name}", unit="picture") as progress:
        for start in range(0, len(footage.frames), SHARD):
            frames = footage.frames[start : start + SHARD]
            path = shards / f"{start:06d}.json"
            stored = json.loads(path.read_text()) if path.is_file() else {}
            if stored.get("key") != key:
                packed = [_pack(labeller.label(pictures.read(footage.images / frame.file))) for frame in frames]
                stored = {"key": key, "frames": packed}
                files.write(path, json.dumps(stored).encode())
            found += [_unpack(it) for it in stored["frames"]]
            progress.update(len(frames))
    return found


def passing(found: Sequence[LabelledFrame], footage: Footage, gates: Gates, sigmas: Floats) -> list[NDArray[np.bool_]]:
    """Return which joints pass the gates, bool (N, K) for each frame."""
    sure = [(it.poses.scores >= gates.joint_score) & (it.disagreement <= gates.disagreement) for it in found]
    if not footage.is_video:
        return sure
    times = [frame.time_s for frame in footage.frames]
    for i in range(1, len(found) - 1):
        if times[i + 1] - times[i] <= NEXT_S and times[i] - times[i - 1] <= NEXT_S:
            sure[i] &= ~jumps(found[i - 1].poses, found[i].poses, found[i + 1].poses, gates.jump, sigmas)
    return sure


def jumps(before: Poses, now: Poses, after: Poses, limit: float, sigmas: Floats) -> NDArray[np.bool_]:
    """Return which joints of ``now`` jump away for one frame, bool (N, K).

    People are matched by the mean of IoU and OKS, as in tracking. A person without a match in both frames has no jumps.
    """
    jumped = np.zeros(now.scores.shape, bool)
    if not (len(before) and len(now) and len(after)):
        return jumped
    partners = [_partners(now, other, sigmas) for other in (before, after)]
    known = np.flatnonzero((partners[0] >= 0) & (partners[1] >= 0))
    first, last = before.keypoints[partners[0][known]], after.keypoints[partners[1][known]]
    off = np.linalg.norm(now.keypoints[known] - (first + last) / 2, axis=2)
    way = np.linalg.norm(last - first, axis=2)
    jumped[known] = off > limit * oks_widths(now.boxes[known], sigmas) + way / 2
    return jumped


def _partners(people: Poses, others: Poses, sigmas: Floats) -> NDArray[np.intp]:
    """Return the index of each person's mutual best match among ``others``, (N,); -1 for none."""
    areas = AREA_SHARE * boxes_.areas(others.boxes)
    alike = (boxes_.iou(people.boxes, others.boxes) + oks(people.keypoints, others.keypoints, areas, sigmas)) / 2
    best, back = alike.argmax(axis=1), alike.argmax(axis=0)
    rows = np.arange(len(people))
    return np.where((back[best] == rows) & (alike[rows, best] > 0.3), best, -1)


def oks_widths(boxes: Boxes, sigmas: Floats) -> Floats:
    """Return the standard deviation of each joint's OKS Gaussian, float32 (N, K), image px."""
    return np.asarray(2 * sigmas[None] * np.sqrt(AREA_SHARE * boxes_.areas(boxes))[:, None], np.float32)


def write_coco(
    found: Sequence[LabelledFrame],
    sure: Sequence[NDArray[np.bool_]],
    footage: Footage,
    part: str,
    skeleton: Skeleton,
    out: Path,
    *,
    as_labels: bool = False,
) -> int:
    """Write a part of the footage as a COCO file; returns the count of its passing joints.

    Args:
        found: The labels of every frame.
        sure: Which joints pass, for every frame.
        footage: The frames.
        part: Name of the part.
        skeleton: The teacher's skeleton.
        out: COCO JSON file to write.
        as_labels: Write passing joints as ``keypoints``, to measure against; otherwise as ``teacher_keypoints``, to
            train on, as `data.pseudo_labels.label` does.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for i in footage.part(part):
        height, width = pictures.read(footage.images / footage.frames[i].file).shape[:2]
        images.append({"id": i + 1, "file_name": footage.frames[i].file, "width": width, "height": height})
        for person in _people(found[i].poses, sure[i], as_labels):
            annotations.append({**person, "id": len(annotations) + 1, "image_id": i + 1})
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    files.write(out, json.dumps(content).encode())
    return sum(int(sure[i].sum()) for i in footage.part(part))


def _people(poses: Poses, sure: NDArray[np.bool_], as_labels: bool) -> list[dict]:
    """Return the annotations of one frame's people."""
    count = poses.scores.shape[1]
    people = []
    for box, box_score, points, scores, known in zip(
        boxes_.to_xywh(poses.boxes), poses.box_scores, poses.keypoints, poses.scores, sure, strict=True
    ):
        if as_labels and not known.any():
            continue
        joints = np.concatenate([points, np.where(known, scores, 0)[:, None]], axis=1)
        labels = np.where(known[:, None], np.concatenate([points, np.full((count, 1), 2)], axis=1), 0)
        people.append(
            {
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [round(float(v), 2) for v in box],
                "area": round(float(AREA_SHARE * box[2] * box[3]), 2),
                "box_score": round(float(box_score), 4),
                "keypoints": [round(float(v), 3) for v in (labels if as_labels else np.zeros_like(labels)).ravel()],
                "num_keypoints": int(known.sum()) if as_labels else 0,
                "teacher_keypoints": [round(float(v), 3) for v in joints.ravel()],
            }
        )
    return people


def _grow(boxes: Boxes, factor: float) -> Boxes:
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)


def _mirror(boxes: Boxes, right: int) -> Boxes:
    return np.stack([right - boxes[:, 2], boxes[:, 1], right - boxes[:, 0], boxes[:, 3]], axis=1).astype(np.float32)


def _pack(found: LabelledFrame) -> dict[str, list]:
    poses = found.poses
    parts: dict[str, Floats] = {
        "keypoints": poses.keypoints,
        "scores": poses.scores,
        "boxes": poses.boxes,
        "box_scores": poses.box_scores,
        "disagreement": found.disagreement,
    }
    return {"shape": list(poses.scores.shape)} | {name: np.round(it, 3).tolist() for name, it in parts.items()}


def _unpack(stored: dict[str, list]) -> LabelledFrame:
    n, k = stored["shape"]
    arrays = {name: np.asarray(it, np.float32) for name, it in stored.items()}
    poses = Poses(
        arrays["keypoints"].reshape(n, k, 2),
        arrays["scores"].reshape(n, k),
        arrays["boxes"].reshape(n, 4),
        arrays["box_scores"].reshape(n),
    )
    return LabelledFrame(poses, arrays["disagreement"].reshape(n, k))
