"""A pose estimator's answers on every labelled person, beside the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from tqdm import tqdm

from service.pose import boxes
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Poses
from training.data import coco, images
from training.data.coco import DatasetError
from training.evaluation import error_analysis
from training.evaluation.bootstrap import Interval
from training.evaluation.coco_ap import Evaluation, as_results, coco_eval

COCO_FIGURES = ("AP", "AP50", "AP75", "AP medium", "AP large", "AR", "AR50", "AR75", "AR medium", "AR large")
"""pycocotools' figures for keypoints, in its order. Medium people cover 32² to 96² px, large ones more."""
RELIABILITY_BINS = 10


@dataclass(frozen=True, slots=True)
class Predictions:
    """N people of all pictures, each answered in its labelled box.

    Attributes:
        skeleton: Of truth and answers.
        picture_ids: Every picture looked at.
        image_ids: int64 (N,), each person's picture.
        annotation_ids: int64 (N,), each person's annotation.
        poses: N poses.
        truth: float32 (N, K, 2), image px.
        labelled: bool (N, K).
        areas: float32 (N,), px².
        kinds: int8 (N, K), see `mistakes.KINDS`.
    """

    skeleton: Skeleton
    picture_ids: list[int]
    image_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    poses: Poses
    truth: Floats
    labelled: NDArray[np.bool_]
    areas: Floats
    kinds: error_analysis.Kinds

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def similarities(self) -> Floats:
        """Keypoint similarity of each answer to its own joint, float32 (N, K), 0..1; means nothing where unlabelled."""
        sigmas = self.skeleton.sigma_array
        return error_analysis.similarity(self.poses.keypoints, self.truth, self.areas[:, None], sigmas)

    @property
    def oks(self) -> Floats:
        """OKS of each person, float32 (N,), 0..1: the mean similarity of the labelled keypoints."""
        known = self.labelled.sum(axis=1)
        return np.asarray((self.similarities * self.labelled).sum(axis=1) / np.maximum(known, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far scores tell similarity, over B bins of score; empty bins are left out.

    Attributes:
        scores: float64 (B,), mean score in each bin.
        similarities: float64 (B,), mean keypoint similarity there.
        keypoints: int64 (B,), how many.
    """

    scores: NDArray[np.float64]
    similarities: NDArray[np.float64]
    keypoints: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean |score - similarity| of the bins (Guo et al., ICML 2017, equation 3).

        There accuracy stands in the place of the similarity.
        """
        gaps = np.abs(self.scores - self.similarities)
        return float((gaps * self.keypoints).sum() / max(1, self.keypoints.sum()))


def collect(source: coco.Source, estimator: PoseEstimator, every: int = 1) -> Predictions:
    """Answer everyone with a labelled keypoint, in the labelled box.

    Args:
        source: Labelled pictures.
        estimator: Who answers.
        every: Only pictures whose id this number divides.

    Raises:
        DatasetError: A file is missing or unreadable, or nobody is labelled.
    """
    truth = coco.load(source.annotations)
    coco.require_skeleton(truth, source.annotations, estimator.skeleton)
    picture_ids = [i for i in sorted(truth.imgs) if i % every == 0]
    found = []
    for image_id in tqdm(picture_ids, desc=f"answer {estimator.manifest.name}", unit="picture"):
        people = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd") and a.get("num_keypoints")]
        if people:
            image = images.read_labelled(source.images, truth.imgs[image_id])
            poses = estimator.estimate(image, boxes.from_xywh([a["bbox"] for a in people]))
            found.append(_beside_truth(people, poses, estimator.skeleton, picture_ids))
    if not found:
        raise DatasetError(
            f"{source.annotations}: expected people with labelled keypoints, got none on {len(picture_ids)} pictures; "
            "check --annotations and --every"
        )
    return _joined(found)


def _beside_truth(people: list[dict], poses: Poses, skeleton: Skeleton, picture_ids: list[int]) -> Predictions:
    truth, labelled, areas = coco.labelled_joints(people, skeleton)
    return Predictions(
        skeleton,
        picture_ids,
        np.array([a["image_id"] for a in people], np.int64),
        np.array([a["id"] for a in people], np.int64),
        poses,
        truth,
        labelled,
        areas,
        error_analysis.classify(poses.keypoints, truth, labelled, areas, skeleton),
    )


def _joined(parts: list[Predictions]) -> Predictions:
    def join(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        parts[0],
        image_ids=join("image_ids"),
        annotation_ids=join("annotation_ids"),
        poses=Poses(
            np.concatenate([part.poses.keypoints for part in parts]),
            np.concatenate([part.poses.scores for part in parts]),
            np.concatenate([part.poses.boxes for part in parts]),
            np.concatenate([part.poses.box_scores for part in parts]),
        ),
        truth=join("truth"),
        labelled=join("labelled"),
        areas=join("areas"),
        kinds=join("kinds"),
    )


def coco_figures(truth: COCO, answers: Predictions) -> dict[str, float]:
    """Score the answers with pycocotools: `COCO_FIGURES`, 0..1; -1 where nothing of the kind is labelled."""
    return dict(zip(COCO_FIGURES, compared(truth, answers).stats.tolist(), strict=True))


def coco_intervals(truth: COCO, answers: Predictions) -> dict[str, Interval | None]:
    """Intervals of the answers' precisions, by the names of `COCO_FIGURES`; None where nobody of a size is labelled."""
    found = compared(truth, answers)
    sizes = {f"AP {size}": found.intervals(size)[0] for size in ("medium", "large")}
    return dict(zip(COCO_FIGURES, found.intervals(), strict=False)) | sizes


def compared(truth: COCO, answers: Predictions) -> Evaluation:
    """Have pycocotools compare the answers with the labels."""
    results = []
    for image_id in np.unique(answers.image_ids).tolist():
        results += as_results(image_id, answers.poses.select(answers.image_ids == image_id))
    return coco_eval(truth, results, answers.picture_ids, "keypoints", answers.skeleton)


def without(answers: Predictions, kind: int) -> Predictions:
    """Put every keypoint of one kind of mistake where its truth is.

    The AP of that says at most what the mistake costs. (Ronchi and Perona, section 3.1, move a keypoint only as far as
    the next better kind.)
    """
    keypoints = np.where((answers.kinds == kind)[..., None], answers.truth, answers.poses.keypoints)
    return replace(answers, poses=replace(answers.poses, keypoints=keypoints))


def reliability(answers: Predictions, bins: int = RELIABILITY_BINS) -> Reliability:
    """Sort the labelled keypoints by score into ``bins`` equally wide bins."""
    return told(answers.poses.scores[answers.labelled], answers.similarities[answers.labelled], bins)


def told(scores: Floats, similarities: Floats, bins: int = RELIABILITY_BINS) -> Reliability:
    """Sort scores (M,), 0..1, with what each was worth, (M,), into ``bins`` equally wide bins."""
    bin_of = np.clip((scores.astype(np.float64) * bins).astype(int), 0, bins - 1)
    total = np.bincount(bin_of, minlength=bins)
    full = total > 0
    means = [np.bincount(bin_of, values, minlength=bins)[full] / total[full] for values in (scores, similarities)]
    return Reliability(means[0], means[1], total[full])
