"""What a detector and a teacher saw on footage nobody labelled, and which of it is fit to teach.

The teacher looks twice at everybody, the second time at the mirror image of a wider crop. Three gates follow: a joint
must be sure, both looks must agree on it, and in a video it must not jump away and back within three frames.
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
"""Frames looked at between two files on disk."""
WIDER = 1.15
"""The second look's crop, as a factor on the first's. Without it a teacher whose graph averages over the mirror image
agrees with itself by construction. Of 2,608 joints of COCO pictures that the shipped teacher scored .6 or more, 3 lay
half an OKS width apart without it and 140 with it: 72 % of these were right (within an OKS width), 91 % of the rest."""
NEXT_S = 0.6
"""Frames further apart than this say nothing on each other's joints."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a joint must pass to teach.

    Attributes:
        box_score: People the detector is less sure of are left out.
        joint_score: Joints the teacher is less sure of are left out.
        apart: Both looks' distance, in OKS widths (2 sigma sqrt(area)), at most.
        jump: Distance, in OKS widths, from the middle between the frames before and after, at most, beyond half of the
            way that the joint went between these.
    """

    box_score: float = 0.45
    joint_score: float = 0.45
    apart: float = 0.5
    jump: float = 3.0


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The people of one frame.

    Attributes:
        poses: N poses of the first look.
        apart: float32 (N, K), both looks' distance in OKS widths.
    """

    poses: Poses
    apart: Floats


class Labeller:
    """A detector and a teacher, as they serve."""

    def __init__(self, detector: PersonDetector, teacher: PoseEstimator, gates: Gates) -> None:
        self._detector = detector
        self._teacher = teacher
        self._gates = gates

    def look(self, image: Image) -> LabelledFrame:
        """Find everybody on uint8 (H, W, 3) RGB and look twice."""
        found, box_scores = self._detector.find(image, max_people=50, min_score=self._gates.box_score)
        poses = self._teacher.estimate(image, found, box_scores)
        if not len(poses):
            return LabelledFrame(poses, np.zeros(poses.scores.shape, np.float32))
        right = image.shape[1] - 1
        mirrored = self._teacher.estimate(np.ascontiguousarray(image[:, ::-1]), _mirror(_grow(found, WIDER), right))
        again = mirrored.keypoints[:, list(self._teacher.skeleton.flip)]
        again[..., 0] = right - again[..., 0]
        widths = oks_widths(found, self._teacher.skeleton.sigma_array)
        return LabelledFrame(poses, np.asarray(np.linalg.norm(again - poses.keypoints, axis=2) / widths, np.float32))


def label_all(witness: Labeller, footage: Footage, shards: Path, key: str) -> list[LabelledFrame]:
    """Look at every frame; killed, a later call goes on behind the last shard.

    Args:
        witness: Who looks.
        footage: At what.
        shards: Folder for what was seen.
        key: Names witness and footage by their content: shards of another key are looked at anew.
    """
    seen: list[LabelledFrame] = []
    with tqdm(total=len(footage.frames), desc=f"label {footage.name}", unit="picture") as progress:
        for start in range(0, len(footage.frames), SHARD):
            frames = footage.frames[start : start + SHARD]
            path = shards / f"{start:06d}.json"
            stored = json.loads(path.read_text()) if path.is_file() else {}
            if stored.get("key") != key:
                looks = [_pack(witness.look(pictures.read(footage.images / frame.file))) for frame in frames]
                stored = {"key": key, "frames": looks}
                files.write(path, json.dumps(stored).encode())
            seen += [_unpack(it) for it in stored["frames"]]
            progress.update(len(frames))
    return seen


def passed(seen: Sequence[LabelledFrame], footage: Footage, gates: Gates, sigmas: Floats) -> list[NDArray[np.bool_]]:
    """Which joints teach, bool (N, K) a frame."""
    sure = [(it.poses.scores >= gates.joint_score) & (it.apart <= gates.apart) for it in seen]
    if not footage.is_video:
        return sure
    times = [frame.time_s for frame in footage.frames]
    for i in range(1, len(seen) - 1):
        if times[i + 1] - times[i] <= NEXT_S and times[i] - times[i - 1] <= NEXT_S:
            sure[i] &= ~jumps(seen[i - 1].poses, seen[i].poses, seen[i + 1].poses, gates.jump, sigmas)
    return sure


def jumps(before: Poses, now: Poses, after: Poses, limit: float, sigmas: Floats) -> NDArray[np.bool_]:
    """Joints that are away for one frame and back in the next, bool (N, K) of ``now``.

    People are matched by the mean of IoU and OKS, as tracking does; nobody is judged without a match on both sides.
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
    """Index of each one's mutual best match among ``others``, (N,); -1 for none."""
    areas = AREA_SHARE * boxes_.areas(others.boxes)
    alike = (boxes_.iou(people.boxes, others.boxes) + oks(people.keypoints, others.keypoints, areas, sigmas)) / 2
    best, back = alike.argmax(axis=1), alike.argmax(axis=0)
    rows = np.arange(len(people))
    return np.where((back[best] == rows) & (alike[rows, best] > 0.3), best, -1)


def oks_widths(boxes: Boxes, sigmas: Floats) -> Floats:
    """Deviation of the OKS Gaussian of each joint, float32 (N, K), image px."""
    return np.asarray(2 * sigmas[None] * np.sqrt(AREA_SHARE * boxes_.areas(boxes))[:, None], np.float32)


def write_coco(
    seen: Sequence[LabelledFrame],
    sure: Sequence[NDArray[np.bool_]],
    footage: Footage,
    part: str,
    skeleton: Skeleton,
    out: Path,
    *,
    as_labels: bool = False,
) -> int:
    """Write a part of the footage as a COCO file; returns how many joints it teaches.

    Args:
        seen: Of every frame.
        sure: Which joints teach.
        footage: The frames.
        part: Which.
        skeleton: The teacher's.
        out: COCO json to write.
        as_labels: Sure joints are ``keypoints``, to be measured against; otherwise ``teacher_keypoints``, as
            `labelling.label` writes them, to be learned from.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for i in footage.part(part):
        height, width = pictures.read(footage.images / footage.frames[i].file).shape[:2]
        images.append({"id": i + 1, "file_name": footage.frames[i].file, "width": width, "height": height})
        for person in _people(seen[i].poses, sure[i], as_labels):
            annotations.append({**person, "id": len(annotations) + 1, "image_id": i + 1})
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    files.write(out, json.dumps(content).encode())
    return sum(int(sure[i].sum()) for i in footage.part(part))


def _people(poses: Poses, sure: NDArray[np.bool_], as_labels: bool) -> list[dict]:
    """Annotations of one frame's people."""
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


def _pack(seen: LabelledFrame) -> dict[str, list]:
    poses = seen.poses
    parts: dict[str, Floats] = {
        "keypoints": poses.keypoints,
        "scores": poses.scores,
        "boxes": poses.boxes,
        "box_scores": poses.box_scores,
        "apart": seen.apart,
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
    return LabelledFrame(poses, arrays["apart"].reshape(n, k))
