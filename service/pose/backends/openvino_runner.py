"""Run a bundle's graph on OpenVINO: an optional extra for CPUs with bf16 instructions, on which it is faster."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.pose.backends.execution_provider import SMALL_BATCH

CPU = "CPU"


class OpenVinoRunner:
    """OpenVINO on the CPU, in bf16 where the CPU has instructions for it, else in float32.

    The graph is compiled for a batch of one, and images are run one by one: a dynamic batch size would be slower, and
    batches gain nothing on a CPU.
    """

    preferred_batch_size = SMALL_BATCH

    def __init__(self, onnx: bytes, threads: int, calls: int) -> None:
        """Compile a graph.

        Args:
            onnx: The graph's bytes.
            threads: Threads inside one call.
            calls: Calls that can run at the same time; further ones wait.
        """
        core = ov.Core()
        has_bf16 = "BF16" in core.get_property(CPU, "OPTIMIZATION_CAPABILITIES")
        self.backend = f"openvino-cpu-{'bf16' if has_bf16 else 'f32'}"
        model = core.read_model(model=onnx)
        shape = model.inputs[0].partial_shape
        shape[0] = 1
        model.reshape(shape)
        compiled = core.compile_model(
            model,
            CPU,
            {
                "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
                "NUM_STREAMS": calls,
                "INFERENCE_NUM_THREADS": threads * calls,
                "ENABLE_CPU_PINNING": False,  # other processes and the other networks need the cores too
            },
        )
        self._outputs = range(len(compiled.outputs))
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(calls):
            self._idle.put(compiled.create_infer_request())

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Runner.run`."""
        request = self._idle.get()
        try:
            answers = [self._answer(request, picture[None]) for picture in np.ascontiguousarray(pixels)]
        finally:
            self._idle.put(request)
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _answer(self, request: ov.InferRequest, picture: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        request.set_input_tensor(ov.Tensor(picture, shared_memory=True))
        request.infer()
        # Copied, because the next image overwrites the request's memory.
        return [np.array(request.get_output_tensor(i).data, np.float32) for i in self._outputs]
