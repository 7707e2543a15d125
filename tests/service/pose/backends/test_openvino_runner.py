"""OpenVINO gives the outputs of onnxruntime, to the precision that it reports."""

import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from service.pose import bundle
from service.pose.backends import runner
from service.pose.backends.runner import BackendError, OnnxRunner, open_runner
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.settings import PREFIX, SettingsError, load
from tests import spots

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: posewright[openvino]")
BOX = np.array([[0, 0, 512, 512]], np.float32)


def test_a_backend_that_is_not_installed_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match=r"pip install '\.\[openvino\]'"):
        open_runner("openvino", spots.pose_network(), threads=1)
    with pytest.raises(SettingsError, match=r"POSEWRIGHT_BACKEND \(--backend\).*not installed; pip install"):
        load({PREFIX + "BACKEND": "openvino"})
    assert load({}).backend == "onnxruntime"


@installed
@pytest.mark.parametrize("count", [1, 3])
def test_both_backends_give_the_same_outputs(count: int) -> None:
    pixels = np.stack([spots.paint(spots.Person((96, 128 + i)), size=spots.POSE_SIZE) for i in range(count)])
    expected = OnnxRunner(spots.pose_network(), threads=1).run(pixels)
    other = open_runner("openvino", spots.pose_network(), threads=1)
    assert other.backend in {"openvino-cpu-bf16", "openvino-cpu-f32"}
    got = other.run(pixels)
    assert [it.shape for it in got] == [it.shape for it in expected]
    assert all(it.dtype == np.float32 for it in got)
    # The painted colours' squares cancel to the last digits, which bf16 has not: there the peaks' places are compared.
    peaks = [it[0].reshape(count * 17, -1).argmax(axis=1) for it in (expected, got)]
    if other.backend.endswith("f32"):
        np.testing.assert_allclose(got[0], expected[0], atol=1e-4)
    assert (peaks[0] == peaks[1]).mean() > 0.9


@installed
def test_the_shipped_networks_give_the_same_people_on_both_backends(photo: np.ndarray) -> None:
    models = Path(bundle.__file__).parent.parent / "models"
    found = {}
    for backend in ("onnxruntime", "openvino"):
        opened = {name: bundle.read(models / name) for name in ("detector", "student-s")}
        ready = {name: open_runner(backend, it.onnx, 1) for name, it in opened.items()}
        boxes, _ = PersonDetector(opened["detector"], ready["detector"]).detect(photo)
        poses = PoseEstimator(opened["student-s"], ready["student-s"]).estimate(photo, BOX)
        found[backend] = (boxes, poses.keypoints, poses.scores)
    ours, theirs = found.values()
    assert len(ours[0]) == len(theirs[0]) == 1
    assert np.abs(ours[0] - theirs[0]).max() < 10  # px, of a box 450 wide
    apart = np.linalg.norm(ours[1] - theirs[1], axis=2)[ours[2] > 0.5]
    assert len(apart) >= 5
    assert np.median(apart) < 2  # px; a pixel of the crop is 3.3
    assert np.abs(ours[2] - theirs[2]).max() < 0.1


@pytest.fixture
def photo() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut(), np.uint8)


@installed
def test_threads_that_wait_for_a_free_request_get_their_own_outputs() -> None:
    shared = open_runner("openvino", spots.pose_network(), threads=1, calls=2)
    pictures = [spots.paint(spots.Person((80 + 4 * i, 128)), size=spots.POSE_SIZE)[None] for i in range(8)]
    alone = [shared.run(it)[0] for it in pictures]
    answers: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        for _ in range(5):
            answers[i] = shared.run(pictures[i])[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(answers[i], expected)
