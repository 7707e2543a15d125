"""Predictions and labels: a network that finds every painted joint exactly, and one that is off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from tests import spots
from training.data import coco
from training.data.coco import DatasetError
from training.evaluation import coco_ap, error_analysis, predictions
from training.evaluation.predictions import Predictions, Reliability


def estimator(folder: Path, shift_cells: int) -> PoseEstimator:
    opened = bundle.read(spots.write_pose_bundle(folder, f"shift-{shift_cells}", "student", shift_cells=shift_cells))
    return PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))


@pytest.fixture(scope="module")
def exact(painted: coco.Source, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    return predictions.collect(painted, estimator(tmp_path_factory.mktemp("exact"), 0))


@pytest.fixture(scope="module")
def moved(painted: coco.Source, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    return predictions.collect(painted, estimator(tmp_path_factory.mktemp("moved"), 2))


def test_predictions_are_paired_with_the_right_labels(exact: Predictions) -> None:
    assert len(exact) == 12
    assert exact.picture_ids == [1, 2, 3, 4, 5, 6]
    assert exact.annotation_ids.tolist() == list(range(1, 13))
    assert (exact.kinds == error_analysis.GOOD).all()
    assert exact.oks.min() > 0.9


def test_moved_joints_are_no_longer_good(exact: Predictions, moved: Predictions) -> None:
    assert (moved.kinds != error_analysis.GOOD).mean() > 0.1
    assert moved.oks.max() < exact.oks.min()


def test_only_some_pictures_are_predicted(painted: coco.Source, tmp_path: Path) -> None:
    found = predictions.collect(painted, estimator(tmp_path, 0), every=3)
    assert found.picture_ids == [3, 6]
    assert set(found.image_ids.tolist()) == {3, 6}


def test_a_set_without_labelled_people_is_refused(painted: coco.Source, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected people with labelled keypoints, got none on 0 pictures"):
        predictions.collect(painted, estimator(tmp_path, 0), every=7)


def test_figures_equal_those_of_evaluate(painted: coco.Source, moved: Predictions, tmp_path: Path) -> None:
    figures = predictions.coco_figures(coco.load(painted.annotations), moved)
    score = coco_ap.score_poses(painted, estimator(tmp_path, 2))
    assert list(figures) == list(predictions.COCO_FIGURES)
    assert (figures["AP"], figures["AP50"], figures["AP75"], figures["AR"]) == (
        score.ap, score.ap50, score.ap75, score.ar
    )  # fmt: skip
    assert figures["AP medium"] == -1  # the painted people are all large
    assert score.inversions == error_analysis.inversions(error_analysis.counts(moved.kinds), moved.skeleton)


def test_oks_equals_that_of_pycocotools(painted: coco.Source, moved: Predictions) -> None:
    """AR at one threshold is the share of people above it."""
    figures = predictions.coco_figures(coco.load(painted.annotations), moved)
    assert figures["AR75"] == pytest.approx((moved.oks >= 0.75).mean(), abs=1e-6)


def test_correcting_a_kind_of_mistake_moves_its_keypoints_only(moved: Predictions) -> None:
    kind = int(np.bincount(moved.kinds[moved.kinds > error_analysis.GOOD]).argmax())
    mended = predictions.with_mistake_corrected(moved, kind)
    changed = moved.kinds == kind
    assert (mended.poses.keypoints[changed] == moved.truth[changed]).all()
    assert (mended.poses.keypoints[~changed] == moved.poses.keypoints[~changed]).all()
    assert mended.oks.mean() > moved.oks.mean()


def test_the_reliability_diagram_counts_labelled_keypoints(exact: Predictions) -> None:
    labelled = exact.labelled.copy()
    labelled[:, 0] = False
    told = predictions.reliability(replace(exact, labelled=labelled))
    assert told.keypoints.sum() == 12 * 16
    assert told.error == pytest.approx(1 - exact.similarities[:, 1:].mean(), abs=1e-6)  # every score is 1


def test_scores_equal_to_the_similarity_have_no_calibration_error() -> None:
    level = np.array([0.1, 0.5, 0.9])
    assert Reliability(level, level, np.array([5, 1, 3])).error == 0
    assert Reliability(level, level + 0.1, np.array([5, 1, 3])).error == pytest.approx(0.1)
