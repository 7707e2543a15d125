"""Image to keypoints through onnxruntime, with exactly known answers."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose import boxes as boxes_
from service.pose import bundle
from service.pose.backends.execution_provider import SMALL_BATCH
from service.pose.backends.runner import OnnxRunner
from service.pose.boxes import from_xywh
from service.pose.bundle import BundleError
from service.pose.detector import PersonDetector
from service.pose.drawing import draw
from service.pose.estimator import MAX_UNLIKELY_IN_A_ROW, PoseEstimator
from service.pose.oks import oks
from service.pose.skeleton import COCO17
from tests import spots

PEOPLE = [spots.Person((100, 180)), spots.Person((300, 200)), spots.Person((500, 150))]


class Counting:
    """Runs a pose network and records its batch sizes."""

    def __init__(self, path: Path) -> None:
        self.bundle = bundle.read(path)
        self.batches: list[int] = []
        self._runner = OnnxRunner(self.bundle.onnx, threads=1)
        self.backend = self._runner.backend
        self.preferred_batch_size = self._runner.preferred_batch_size

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.batches.append(len(pixels))
        return self._runner.run(pixels)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    opened = bundle.read(spots.write_pose_bundle(tmp_path_factory.mktemp("models"), "student-s", "student"))
    return PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))


@pytest.mark.parametrize("count", [1, 3])
def test_every_keypoint_of_everyone_is_located(estimator: PoseEstimator, count: int) -> None:
    image = spots.paint(*PEOPLE[:count])
    boxes = from_xywh([p.box_xywh for p in PEOPLE[:count]])
    poses = estimator.estimate(image, boxes)
    for person, found in zip(PEOPLE, poses.keypoints, strict=False):
        np.testing.assert_allclose(found, person.keypoints, atol=1.0)
    assert poses.scores.min() == 1
    np.testing.assert_array_equal(poses.person_scores, np.ones(count))


def test_people_together_have_the_poses_of_people_one_by_one(estimator: PoseEstimator) -> None:
    image, boxes = spots.paint(*PEOPLE), from_xywh([p.box_xywh for p in PEOPLE])
    together = estimator.estimate(image, boxes)
    for i in range(len(PEOPLE)):
        np.testing.assert_allclose(
            estimator.estimate(image, boxes[i : i + 1]).keypoints[0], together.keypoints[i], atol=1e-3
        )


@pytest.mark.parametrize("flip_test", [False, True])
def test_batches_are_small(tmp_path: Path, flip_test: bool) -> None:
    counting = Counting(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    image, boxes = spots.paint(*PEOPLE), from_xywh([p.box_xywh for p in PEOPLE] * 9)
    poses = PoseEstimator(counting.bundle, counting, flip_test).estimate(image, boxes)
    assert sum(counting.batches) == (54 if flip_test else 27)
    assert max(counting.batches) <= (2 if flip_test else 1) * SMALL_BATCH
    np.testing.assert_array_equal(poses.boxes, boxes)
    # The network of spots does not recognise a mirrored person, so that the flip test spoils its poses.
    for i, pose in enumerate([] if flip_test else poses.keypoints):
        np.testing.assert_allclose(pose, PEOPLE[i % 3].keypoints, atol=1.0)


def test_boxes_after_several_unlikely_ones_are_skipped(tmp_path: Path) -> None:
    counting = Counting(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    estimator = PoseEstimator(counting.bundle, counting)
    image, boxes = spots.paint(PEOPLE[0]), from_xywh([PEOPLE[0].box_xywh] + [[300, 50, 120, 200]] * 30)
    scores = np.linspace(0.9, 0.3, 31, dtype=np.float32)
    found = estimator.estimate_detections(image, boxes, scores, min_score=0.15)
    np.testing.assert_allclose(found.keypoints, [PEOPLE[0].keypoints], atol=1.0)
    assert sum(counting.batches) <= 1 + MAX_UNLIKELY_IN_A_ROW + SMALL_BATCH
    counting.batches.clear()
    # Without a minimum score no box is skipped.
    assert len(estimator.estimate_refined(image, boxes, scores)) == len(boxes)
    assert sum(counting.batches) >= len(boxes)


def test_a_box_is_not_refined_when_its_person_cannot_reach_the_minimum_score(tmp_path: Path) -> None:
    counting = Counting(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    estimator = PoseEstimator(counting.bundle, counting)
    image = spots.paint(PEOPLE[0])
    wide = from_xywh([PEOPLE[0].box_xywh]) + np.array([[-90, -80, 110, 90]], np.float32)
    for box_score, runs in ((0.9, 2), (0.2, 1)):
        counting.batches.clear()
        estimator.estimate_detections(image, wide, np.array([box_score], np.float32), min_score=0.5)
        assert sum(counting.batches) == runs


@settings(max_examples=12, deadline=None)
@given(
    jitters=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-25, 25), st.integers(-25, 25), st.integers(0, 40)), max_size=8
    ),
    seed=st.integers(0, 99),
)
def test_each_person_is_returned_once(
    estimator: PoseEstimator, jitters: list[tuple[int, int, int, int]], seed: int
) -> None:
    image = spots.paint(*PEOPLE)
    boxes = from_xywh([p.box_xywh for p in PEOPLE])
    others = [boxes[i] + np.array([x, y, x + wider, y + wider], np.float32) for i, x, y, wider in jitters]
    boxes = np.concatenate([boxes, np.reshape(others, (-1, 4)).astype(np.float32)])
    scores = np.random.default_rng(seed).uniform(0.5, 1, len(boxes)).astype(np.float32)
    order = np.argsort(-scores)
    found = estimator.estimate_detections(image, boxes[order], scores[order], min_score=0.15)
    assert len(found) == len(PEOPLE)
    alike = oks(found.keypoints, found.keypoints, boxes_.areas(found.boxes), COCO17.sigma_array)
    assert np.triu(alike, 1).max() < 0.8
    assert (np.diff(found.person_scores) <= 0).all()


def test_no_boxes_give_no_poses(estimator: PoseEstimator) -> None:
    poses = estimator.estimate(spots.paint(), np.zeros((0, 4), np.float32))
    assert len(poses) == 0
    assert poses.person_scores.shape == (0,)


def test_a_wrong_box_is_refined(estimator: PoseEstimator) -> None:
    people = [PEOPLE[0], PEOPLE[2]]  # far enough apart that no crop shows two
    image, boxes = spots.paint(*people), from_xywh([p.box_xywh for p in people])
    true_box = boxes[:1].copy()
    boxes[0] += np.array([-90, -80, 110, 90], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    once, refined = estimator.estimate(image, boxes, scores), estimator.estimate_detections(image, boxes, scores)
    assert boxes_.iou(boxes[:1], true_box)[0, 0] < 0.3
    assert boxes_.iou(refined.boxes[:1], true_box)[0, 0] > 0.85
    errors = [np.abs(poses.keypoints[0] - people[0].keypoints).mean() for poses in (once, refined)]
    assert errors[1] < errors[0]  # the spots are larger in the second crop
    np.testing.assert_array_equal(refined.boxes[1], boxes[1])
    np.testing.assert_array_equal(refined.keypoints[1], once.keypoints[1])
    np.testing.assert_array_equal(refined.box_scores, scores)


def test_a_box_is_not_refined_by_an_uncertain_pose(estimator: PoseEstimator) -> None:
    image = spots.paint(PEOPLE[0])
    elsewhere = np.array([[300, 200, 420, 380]], np.float32)
    found = estimator.estimate_detections(image, elsewhere, np.ones(1, np.float32))
    np.testing.assert_array_equal(found.boxes, elsewhere)


def test_boxes_stay_when_refining_is_turned_off(tmp_path: Path) -> None:
    opened = bundle.read(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    once = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1), refine_boxes=False)
    wide = np.array([[30, 50, 190, 320]], np.float32)
    np.testing.assert_array_equal(once.estimate_detections(spots.paint(PEOPLE[0]), wide).boxes, wide)


def test_several_threads_get_the_same_poses(estimator: PoseEstimator) -> None:
    image, boxes = spots.paint(*PEOPLE), from_xywh([p.box_xywh for p in PEOPLE])
    expected, answers = estimator.estimate(image, boxes).keypoints, []
    threads = [
        threading.Thread(target=lambda: answers.append(estimator.estimate(image, boxes).keypoints)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


def test_a_pose_bundle_is_refused_as_a_detector(tmp_path: Path) -> None:
    opened = bundle.read(spots.write_pose_bundle(tmp_path, "student-s", "student"))
    with pytest.raises(BundleError, match="expected a detector, got decoder"):
        PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))


def test_drawing_changes_only_a_copy_near_the_keypoints(estimator: PoseEstimator) -> None:
    image = spots.paint(PEOPLE[0])
    before = image.copy()
    poses = estimator.estimate(image, from_xywh([PEOPLE[0].box_xywh]))
    drawn = draw(image, poses, COCO17, keypoint_threshold=0.3)
    np.testing.assert_array_equal(image, before)
    rows, columns = np.nonzero((drawn != image).any(axis=2))
    assert columns.max() < PEOPLE[0].box_xywh[0] + 140
    assert len(rows) > 500
    np.testing.assert_array_equal(draw(image, poses, COCO17, keypoint_threshold=1.1), image)
