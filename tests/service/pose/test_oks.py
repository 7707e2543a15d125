"""OKS as pycocotools computes it, and non-maximum suppression by it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from service.pose.oks import oks, oks_nms, same_person
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from tests.spots import FIGURE


def test_oks_equals_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 300, (5, 17, 2)).astype(np.float32)
    found = (truth[rng.integers(0, 5, 7)] + rng.normal(0, 12, (7, 17, 2))).astype(np.float32)
    labelled = rng.random((5, 17)) > 0.3
    areas = rng.uniform(2000, 30000, 5).astype(np.float32)

    evaluation = COCOeval(iouType="keypoints")
    evaluation.params.useCats = 1
    evaluation._gts[1, 1] = [
        {
            "keypoints": np.concatenate([p, 2 * v[:, None]], axis=1).ravel().tolist(),
            "bbox": [0, 0, 300, 300],
            "area": float(a),
        }
        for p, v, a in zip(truth, labelled, areas, strict=True)
    ]
    evaluation._dts[1, 1] = [
        {"keypoints": np.concatenate([p, np.ones((17, 1))], axis=1).ravel().tolist(), "score": 1 - i / 10}
        for i, p in enumerate(found)
    ]
    expected = evaluation.computeOks(1, 1)
    got = oks(found, truth, areas, COCO17.sigma_array, labelled)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_pose_has_oks_1_with_itself() -> None:
    pose = np.random.default_rng(1).uniform(0, 100, (3, 17, 2)).astype(np.float32)
    areas = np.full(3, 5000, np.float32)
    np.testing.assert_allclose(np.diag(oks(pose, pose, areas, COCO17.sigma_array)), 1)


def test_oks_is_0_for_a_reference_without_labels() -> None:
    pose = np.zeros((1, 17, 2), np.float32)
    assert oks(pose, pose, np.ones(1, np.float32), COCO17.sigma_array, np.zeros((1, 17)))[0, 0] == 0


def people(offsets: list[tuple[float, float]], scores: list[float]) -> Poses:
    """`FIGURE`s, moved by ``offsets`` px, whose keypoints all have one score."""
    keypoints = FIGURE + np.asarray(offsets, np.float32).reshape(-1, 1, 2)
    count = len(keypoints)
    boxes = np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1)
    every = np.broadcast_to(np.asarray(scores, np.float32)[:, None], (count, len(FIGURE)))
    return Poses(keypoints, every, boxes, np.ones(count, np.float32))


@given(
    st.lists(
        st.tuples(st.floats(0, 60, width=32), st.floats(0, 60, width=32), st.sampled_from([0.0, 0.3, 0.6, 0.9])),
        max_size=12,
    )
)
def test_nms_keeps_the_best_pose_of_each_person(rows: list[tuple[float, float, float]]) -> None:
    poses = people([row[:2] for row in rows], [row[2] for row in rows])
    kept = oks_nms(poses, COCO17.sigma_array)
    left = poses.select(kept)
    assert not np.triu(same_person(left, COCO17.sigma_array).T, 1).any()
    assert (np.diff(left.person_scores) <= 0).all()
    alike = same_person(poses, COCO17.sigma_array)
    for i in set(range(len(poses))) - set(kept.tolist()):
        better = [j for j in kept.tolist() if poses.person_scores[j] >= poses.person_scores[i]]
        assert alike[i, better].any()


@pytest.mark.parametrize(("px", "left"), [(0, 1), (2, 1), (40, 2)])
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_nms_keeps_poses_that_lie_apart(px: float, left: int, score: float) -> None:
    assert len(oks_nms(people([(0, 0), (px, 0)], [score, score]), COCO17.sigma_array)) == left
