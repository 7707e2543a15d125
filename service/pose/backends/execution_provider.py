"""What runs a graph: the execution providers of onnxruntime by short names, and the package openvino."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

ProviderName = Literal["cpu", "cuda", "tensorrt", "coreml", "directml", "openvino"]
PROVIDER_NAMES: tuple[ProviderName, ...] = get_args(ProviderName)
ONNXRUNTIME_NAMES: Mapping[ProviderName, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
NUMBERED: tuple[ProviderName, ...] = ("cuda", "tensorrt", "directml")
"""Providers of which a machine can have several devices. They also gain from batches."""
SMALL_BATCH = 2
"""Images in one call where a batch gains nothing: more are no faster, and take memory that is never returned."""
_WRITTEN = re.compile(rf"({'|'.join(PROVIDER_NAMES)})(?::(\d{{1,3}}))?")
_DEFAULT_OPTIONS: Mapping[ProviderName, Mapping[str, str]] = {
    # The default, an exhaustive search, would stop a request for each new size of a picture or batch.
    "cuda": {"cudnn_conv_algo_search": "HEURISTIC"},
    "coreml": {"ModelFormat": "MLProgram"},
}


class BackendError(ValueError):
    """The chosen execution provider is not installed, or does not work on this machine."""


@dataclass(frozen=True, slots=True)
class ExecutionProvider:
    """One execution provider.

    Attributes:
        name: Its short name; ``openvino`` is the package openvino, not onnxruntime's provider of that name.
        device_id: Which device of its kind.
        options: Options by onnxruntime's names; they win over the defaults.
    """

    name: ProviderName = "cpu"
    device_id: int = 0
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, options: tuple[tuple[str, str], ...] = ()) -> ExecutionProvider:
        """Read ``cuda``, or ``cuda:1`` for the second device.

        Raises:
            BackendError: It is no such text, the provider has no numbered devices, or it takes no options.
        """
        match = _WRITTEN.fullmatch(text)
        name = cast("ProviderName", match[1]) if match else None
        if match is None or name is None or (match[2] and name not in NUMBERED):
            raise BackendError(
                f"expected one of {', '.join(PROVIDER_NAMES)}, or a numbered device of {', '.join(NUMBERED)} such as "
                f"cuda:1, got {text!r}"
            )
        if options and name in {"cpu", "openvino"}:
            raise BackendError(f"expected no provider options with {name}, got {', '.join(key for key, _ in options)}")
        return cls(name, int(match[2] or 0), options)

    def __str__(self) -> str:
        return f"{self.name}:{self.device_id}" if self.device_id else self.name

    @property
    def backend(self) -> str:
        """The provider in replies and metrics, e.g. ``onnxruntime-cuda``."""
        return "openvino-cpu" if self.name == "openvino" else f"onnxruntime-{self}"

    @property
    def gains_from_batches(self) -> bool:
        """Whether a batch costs it less than its images one by one."""
        return self.name in NUMBERED

    def for_graph(self, size_varies: bool) -> ExecutionProvider:
        """Choose the provider of one graph.

        TensorRT builds an engine, which takes seconds to minutes, for each new range of sizes: a detector's picture
        size varies, so that it runs on CUDA.

        Args:
            size_varies: Whether width and height of the graph's input are free.
        """
        return ExecutionProvider("cuda", self.device_id) if self.name == "tensorrt" and size_varies else self

    def for_onnxruntime(self) -> list[tuple[str, dict[str, str]]]:
        """List onnxruntime's providers with their options, in order: a node runs on the first that implements it."""
        chain: tuple[ProviderName, ...] = ("tensorrt", "cuda") if self.name == "tensorrt" else (self.name,)
        listed = []
        for name in chain:
            options = dict(_DEFAULT_OPTIONS.get(name, {}))
            if name in NUMBERED:
                options["device_id"] = str(self.device_id)
            listed.append((ONNXRUNTIME_NAMES[name], options | dict(self.options if name == self.name else ())))
        return listed if self.name == "cpu" else [*listed, (ONNXRUNTIME_NAMES["cpu"], {})]


CPU = ExecutionProvider()
