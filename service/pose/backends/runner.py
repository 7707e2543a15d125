"""Run a bundle's graph on the chosen backend."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Backend = Literal["onnxruntime", "openvino"]
BATCH_AXES = ("people", "pictures")
"""Names of the batch axis in graphs that posewright exports."""


class BackendError(ValueError):
    """The chosen backend is not installed."""


class Runner(Protocol):
    """Anything that turns uint8 images into the graph's outputs."""

    backend: str

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run uint8 (N, H, W, 3) RGB, N >= 1; return the graph's outputs in its order. Safe from several threads."""
        ...


class OnnxRunner:
    """onnxruntime on the CPU."""

    backend = "onnxruntime-cpu"

    def __init__(self, onnx: bytes, threads: int) -> None:
        """Load a graph.

        Args:
            onnx: The graph's bytes.
            threads: Threads inside one call.
        """
        self._session = open_session(onnx, threads, BATCH_AXES)
        self._input_name = self._session.get_inputs()[0].name

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Runner.run`. Images are run one by one: a batch is no faster on a CPU."""
        answers = [self._session.run(None, {self._input_name: pixels[i : i + 1]}) for i in range(len(pixels))]
        if len(answers) == 1:
            return list(answers[0])
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def open_runner(backend: Backend, onnx: bytes, threads: int, calls: int = 1) -> Runner:
    """Load a graph on a backend.

    Args:
        backend: Its name.
        onnx: The graph's bytes.
        threads: Threads inside one call.
        calls: Calls that can run at the same time; onnxruntime has no limit.

    Raises:
        BackendError: The backend is not installed.
    """
    if backend == "onnxruntime":
        return OnnxRunner(onnx, threads)
    require_installed(backend)
    from service.pose.backends.openvino_runner import OpenVinoRunner  # noqa: PLC0415 (an optional extra)

    return OpenVinoRunner(onnx, threads, calls)


def require_installed(backend: Backend) -> Backend:
    """Return the backend if it can be imported.

    Raises:
        BackendError: It is not installed.
    """
    if backend != "onnxruntime" and find_spec(backend) is None:
        raise BackendError(
            f"expected the package {backend}, which is not installed; pip install '.[{backend}]' in posewright's "
            "folder, or choose onnxruntime"
        )
    return backend


@cache
def _share_memory() -> None:
    """Let all graphs of onnxruntime share one memory arena: separate ones would each keep their peak memory."""
    ort.disable_telemetry_events()
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)


def open_session(onnx: bytes | Path, threads: int, single: tuple[str, ...] = ()) -> ort.InferenceSession:
    """Open a graph on the CPU.

    Its threads sleep when idle, because spinning would take cores from other calls. The arena keeps the memory of a run
    for the next one, because allocating new pages is slow; callers therefore keep batches small.

    Args:
        onnx: The graph's bytes, or its file.
        threads: Threads inside one call.
        single: Axes to fix at length 1; onnxruntime optimizes better where all lengths are known.
    """
    _share_memory()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for axis in single:
        options.add_free_dimension_override_by_name(axis, 1)
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
