"""A pose network's predictions for all labelled people, with their labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from service.pose import boxes
from service.pose.estimators import Estimator
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
    """Predictions for N people in their labelled boxes.

    Attributes:
        skeleton: Of labels and predictions.
        picture_ids: All pictures, also those without people.
        image_ids: int64 (N,), each person's picture.
        annotation_ids: int64 (N,), each person's annotation.
        poses: N poses.
        truth: float32 (N, K, 2), labelled keypoints, image px.
        labelled: bool (N, K).
        areas: float32 (N,), px².
        kinds: int8 (N, K), see `error_analysis.KINDS`.
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
        """Similarity of each keypoint to its label, float32 (N, K), 0..1; undefined where there is no label."""
        sigmas = self.skeleton.sigma_array
        return error_analysis.similarity(self.poses.keypoints, self.truth, self.areas[:, None], sigmas)

    @property
    def oks(self) -> Floats:
        """OKS of each person, float32 (N,), 0..1: the mean similarity of the labelled keypoints."""
        known = self.labelled.sum(axis=1)
        return np.asarray((self.similarities * self.labelled).sum(axis=1) / np.maximum(known, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram: scores against similarities in B bins of the score; empty bins are left out.

    Attributes:
        scores: float64 (B,), mean score in each bin.
        similarities: float64 (B,), mean keypoint similarity in each bin.
        keypoints: int64 (B,), count in each bin.
    """

    scores: NDArray[np.float64]
    similarities: NDArray[np.float64]
    keypoints: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean |score - similarity| of the bins.

        Guo et al., ICML 2017, equation 3, with the similarity in the place of the accuracy.
        """
        gaps = np.abs(self.scores - self.similarities)
        return float((gaps * self.keypoints).sum() / max(1, self.keypoints.sum()))


def collect(source: coco.Source, estimator: Estimator, every: int = 1, *, covariance: bool = False) -> Predictions:
    """Predict everyone with a labelled keypoint in the labelled box.

    Args:
        source: Labelled pictures.
        estimator: The pose network.
        every: Only pictures whose id is divisible by this.
        covariance: Whether the poses get their covariances.

    Raises:
        DatasetError: A file is missing or unreadable, or nobody is labelled.
    """
    truth = coco.load(source.annotations)
    coco.require_skeleton(truth, source.annotations, estimator.skeleton)
    picture_ids = coco.picture_ids(truth, every)
    people = {i: coco.people(truth, i, with_keypoints=True) for i in picture_ids}
    inhabited = [i for i in picture_ids if people[i]]
    found = []
    for image_id, image in images.iterate_labelled(source, truth, inhabited, f"predict {estimator.manifest.name}"):
        people_boxes = boxes.from_xywh([a["bbox"] for a in people[image_id]])
        poses = estimator.estimate(image, people_boxes, covariance=covariance)
        found.append(_with_labels(people[image_id], poses, estimator.skeleton, picture_ids))
    if not found:
        raise DatasetError(
            f"{source.annotations}: expected people with labelled keypoints, got none on {len(picture_ids)} pictures; "
            "check --annotations and --every"
        )
    return _joined(found)


def _with_labels(people: list[dict], poses: Poses, skeleton: Skeleton, picture_ids: list[int]) -> Predictions:
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
        poses=Poses.concatenate([part.poses for part in parts]),
        truth=join("truth"),
        labelled=join("labelled"),
        areas=join("areas"),
        kinds=join("kinds"),
    )


def coco_figures(truth: COCO, predicted: Predictions) -> dict[str, float]:
    """Score predictions with pycocotools: `COCO_FIGURES`, 0..1; -1 where nothing of the kind is labelled."""
    return dict(zip(COCO_FIGURES, compared(truth, predicted).stats.tolist(), strict=True))


def coco_intervals(truth: COCO, predicted: Predictions) -> dict[str, Interval | None]:
    """Return 95 % intervals by the names of `COCO_FIGURES`; None where nobody of a size is labelled."""
    found = compared(truth, predicted)
    sizes = {f"AP {size}": found.intervals(size)[0] for size in ("medium", "large")}
    return dict(zip(COCO_FIGURES, found.intervals(), strict=False)) | sizes


def compared(truth: COCO, predicted: Predictions) -> Evaluation:
    """Compare predictions with the labels by pycocotools."""
    results = []
    for image_id in np.unique(predicted.image_ids).tolist():
        results += as_results(image_id, predicted.poses.select(predicted.image_ids == image_id))
    return coco_eval(truth, results, predicted.picture_ids, "keypoints", predicted.skeleton)


def with_mistake_corrected(predicted: Predictions, kind: int) -> Predictions:
    """Move every keypoint with one kind of mistake to its label.

    The gain in AP is an upper bound of what the mistake costs. (Ronchi and Perona, section 3.1, move a keypoint only as
    far as the next better kind.)
    """
    keypoints = np.where((predicted.kinds == kind)[..., None], predicted.truth, predicted.poses.keypoints)
    return replace(predicted, poses=replace(predicted.poses, keypoints=keypoints))


def reliability(predicted: Predictions, bins: int = RELIABILITY_BINS) -> Reliability:
    """Return the reliability diagram of the labelled keypoints in ``bins`` equally wide bins."""
    return reliability_of(predicted.poses.scores[predicted.labelled], predicted.similarities[predicted.labelled], bins)


def reliability_of(scores: Floats, similarities: Floats, bins: int = RELIABILITY_BINS) -> Reliability:
    """Return the reliability diagram of scores (M,), 0..1, and similarities (M,) in ``bins`` equally wide bins."""
    bin_of = np.clip((scores.astype(np.float64) * bins).astype(int), 0, bins - 1)
    total = np.bincount(bin_of, minlength=bins)
    full = total > 0
    means = [np.bincount(bin_of, values, minlength=bins)[full] / total[full] for values in (scores, similarities)]
    return Reliability(means[0], means[1], total[full])
