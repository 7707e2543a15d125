"""Run a bundle's graph on the chosen execution provider."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.pose.backends.execution_provider import (
    CPU,
    ONNXRUNTIME_NAMES,
    SMALL_BATCH,
    BackendError,
    ExecutionProvider,
)

BATCH_AXES = ("people", "pictures")
"""Names of the batch axis in graphs that posewright exports."""
_DIRECTML_LOCK = Lock()
"""DirectML allows one run at a time, of all sessions of a process (onnxruntime's manual; its issue 20713)."""


class Runner(Protocol):
    """Anything that turns uint8 images into the graph's outputs.

    Attributes:
        backend: What runs the graph, e.g. ``onnxruntime-cpu``.
        preferred_batch_size: Images in one call from which more gain nothing. Callers with many images make several
            calls; a call with more images is right too.
    """

    backend: str
    preferred_batch_size: int

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run uint8 (N, H, W, 3) RGB, N >= 1; return the graph's outputs in its order. Safe from several threads."""
        ...


class OnnxRunner:
    """onnxruntime."""

    def __init__(self, onnx: bytes, threads: int, provider: ExecutionProvider = CPU, batch_size: int = 1) -> None:
        """Load a graph.

        Args:
            onnx: The graph's bytes.
            threads: Threads inside one call on the CPU.
            provider: Runs the graph.
            batch_size: Images in one run of the graph. With 1 the batch axis is fixed: onnxruntime optimizes better
                where all lengths are known, and a batch is no faster on a CPU.

        Raises:
            BackendError: onnxruntime ran the graph on another provider.
        """
        single = BATCH_AXES if batch_size == 1 else ()
        self._session = open_session(onnx, threads, single, provider)
        count, *size = self._session.get_inputs()[0].shape[:3]  # a name where the length is free
        size_varies = not all(isinstance(it, int) for it in size)
        used = provider.for_graph(size_varies)
        if used != provider:
            self._session = open_session(onnx, threads, single, used)
        self.backend = used.backend
        self.preferred_batch_size = max(SMALL_BATCH, batch_size)
        self._batch_size = 1 if isinstance(count, int) else batch_size
        self._input_name = self._session.get_inputs()[0].name
        self._turn: AbstractContextManager[object] = _DIRECTML_LOCK if used.name == "directml" else nullcontext()

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Runner.run`."""
        step = self._batch_size
        with self._turn:
            answers = [
                self._session.run(None, {self._input_name: pixels[i : i + step]}) for i in range(0, len(pixels), step)
            ]
        if len(answers) == 1:
            return list(answers[0])
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def open_runner(provider: ExecutionProvider, onnx: bytes, threads: int, calls: int = 1, batch_size: int = 1) -> Runner:
    """Load a graph on an execution provider that `provider_choice.choose` returned.

    Args:
        provider: Runs the graph.
        onnx: The graph's bytes.
        threads: Threads inside one call on the CPU.
        calls: Calls that can run at the same time; onnxruntime has no limit.
        batch_size: Images in one run of the graph; openvino always runs one.

    Raises:
        BackendError: onnxruntime ran the graph on another provider.
    """
    if provider.name != "openvino":
        return OnnxRunner(onnx, threads, provider, batch_size)
    from service.pose.backends.openvino_runner import OpenVinoRunner  # noqa: PLC0415 (an optional extra)

    return OpenVinoRunner(onnx, threads, calls)


@cache
def _share_memory() -> None:
    """Let all graphs of onnxruntime share one memory arena: separate ones would each keep their peak memory."""
    ort.disable_telemetry_events()
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)


def open_session(
    onnx: bytes | Path, threads: int, single: tuple[str, ...] = (), provider: ExecutionProvider = CPU
) -> ort.InferenceSession:
    """Open a graph.

    Its threads sleep when idle, because spinning would take cores from other calls. The arena keeps the memory of a run
    for the next one, because allocating new pages is slow; callers therefore keep batches small.

    Args:
        onnx: The graph's bytes, or its file.
        threads: Threads inside one call on the CPU.
        single: Axes to fix at length 1; onnxruntime optimizes better where all lengths are known.
        provider: Runs the graph.

    Raises:
        BackendError: The provider's libraries or its device are missing, so that onnxruntime chose another one.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for axis in single:
        options.add_free_dimension_override_by_name(axis, 1)
    if provider.name == "cpu":
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = provider.name != "directml"  # which does not support it
    # Without `enable_fallback=0` onnxruntime would catch a provider's error, print it, and open the graph on the CPU.
    session = ort.InferenceSession(onnx, options, providers=provider.for_onnxruntime(), enable_fallback=0)
    wanted, got = ONNXRUNTIME_NAMES[provider.name], session.get_providers()
    if wanted not in got:
        # For missing libraries and devices it only logs an error.
        raise BackendError(f"onnxruntime used {', '.join(got)} in place of {wanted}; its own message is above")
    return session
