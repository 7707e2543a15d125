"""Run a bundle's graph."""

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
"""Names of the batch axis in exported graphs."""


class BackendError(ValueError):
    """What shall run the graphs is not installed."""


class Runner(Protocol):
    """Anything that answers uint8 pictures with the graph's outputs."""

    backend: str

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run uint8 (N, H, W, 3) RGB, N >= 1, through the graph; outputs in its order. Safe from several threads."""
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
        """See `Runner.run`. Picture by picture: a batch takes no less time on a CPU."""
        answers = [self._session.run(None, {self._input_name: pixels[i : i + 1]}) for i in range(len(pixels))]
        if len(answers) == 1:
            return list(answers[0])
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def open_runner(backend: Backend, onnx: bytes, threads: int, calls: int = 1) -> Runner:
    """Load a graph on what shall run it.

    Args:
        backend: What runs it.
        onnx: The graph's bytes.
        threads: Threads inside one call.
        calls: Calls at the same time; onnxruntime takes any number.

    Raises:
        BackendError: It is not installed.
    """
    if backend == "onnxruntime":
        return OnnxRunner(onnx, threads)
    require_installed(backend)
    from service.pose.backends.openvino_runner import OpenVinoRunner  # noqa: PLC0415 (an optional extra)

    return OpenVinoRunner(onnx, threads, calls)


def require_installed(backend: Backend) -> Backend:
    """Give the backend back.

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
    """Let onnxruntime keep one store of memory for all graphs: each of its own keeps what its busiest moment took."""
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)


def open_session(onnx: bytes | Path, threads: int, single: tuple[str, ...] = ()) -> ort.InferenceSession:
    """Open a graph on the CPU. Its threads sleep when idle: spinning would steal the cores of other calls.

    Axes named in ``single`` have length 1. onnxruntime fuses additions into convolutions where all lengths are known.

    Memory that a run has taken stays taken for the next one, since new pages cost as much time as the network: callers
    keep batches small, and all graphs take it from one place.
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
