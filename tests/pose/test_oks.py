"""OKS is pycocotools' OKS."""

import numpy as np
from pycocotools.cocoeval import COCOeval

from service.pose.oks import oks
from service.pose.skeleton import COCO17


def test_equals_pycocotools() -> None:
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


def test_a_pose_equals_itself() -> None:
    pose = np.random.default_rng(1).uniform(0, 100, (3, 17, 2)).astype(np.float32)
    areas = np.full(3, 5000, np.float32)
    np.testing.assert_allclose(np.diag(oks(pose, pose, areas, COCO17.sigma_array)), 1)


def test_nothing_labelled_is_zero() -> None:
    pose = np.zeros((1, 17, 2), np.float32)
    assert oks(pose, pose, np.ones(1, np.float32), COCO17.sigma_array, np.zeros((1, 17)))[0, 0] == 0
