"""OpenVINO gives the outputs of onnxruntime, to the precision that it reports."""

import threading
from importlib.util import find_spec

import numpy as np
import pytest

from service.pose.backends.execution_provider import ExecutionProvider
from service.pose.backends.runner import OnnxRunner, open_runner
from tests import spots

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed: posewright[openvino]")
OPENVINO = ExecutionProvider("openvino")


@installed
@pytest.mark.parametrize("count", [1, 3])
def test_both_runtimes_give_the_same_outputs(count: int) -> None:
    pixels = np.stack([spots.paint(spots.Person((96, 128 + i)), size=spots.POSE_SIZE) for i in range(count)])
    expected = OnnxRunner(spots.pose_network(), threads=1).run(pixels)
    other = open_runner(OPENVINO, spots.pose_network(), threads=1)
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
def test_threads_that_wait_for_a_free_request_get_their_own_outputs() -> None:
    shared = open_runner(OPENVINO, spots.pose_network(), threads=1, calls=2)
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
