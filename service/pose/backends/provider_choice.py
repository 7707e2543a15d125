"""Choose the execution provider: the one that was asked for or, for ``auto``, the first accelerator that works."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy as np
import onnxruntime as ort

from service.pose.backends.execution_provider import (
    CPU,
    ONNXRUNTIME_NAMES,
    BackendError,
    ExecutionProvider,
    ProviderName,
)
from service.pose.backends.runner import open_session

AUTO = "auto"
AUTOMATIC: tuple[ProviderName, ...] = ("cuda", "directml")
"""What ``auto`` tries, best first: providers of packages that nobody installs by chance, with float32 answers."""
_NEITHER = " nor ".join(AUTOMATIC)
PROBE = b64decode(
    "CAg6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABQgF3SgQAAIA/WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAQoCCAFiGwoBeRIWChQI"
    "ARIQCgIIAQoCCAEKAggBCgIIAUIECgAQDQ=="
)
"""An ONNX graph of one convolution, x (1, 1, 1, 1) float32 to y = x: shows whether a provider works."""
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")
"""Builds of onnxruntime; each overwrites the files of the others."""
_GPU = "'onnxruntime-gpu[cuda,cudnn]'"
_REMEDIES: Mapping[ProviderName, str] = {
    "cuda": f"python -m pip uninstall -y onnxruntime, then python -m pip install {_GPU}",
    "tensorrt": f"python -m pip uninstall -y onnxruntime, then python -m pip install {_GPU}, and TensorRT's libraries",
    "coreml": "use macOS, where the package onnxruntime contains it",
    "directml": "on Windows, python -m pip uninstall -y onnxruntime, then python -m pip install onnxruntime-directml",
    "openvino": "pip install '.[openvino]' in posewright's folder",
}


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """The execution provider of a process.

    Attributes:
        provider: Works on this machine.
        reason: Why it was chosen.
    """

    provider: ExecutionProvider
    reason: str


@cache
def choose(wanted: str = AUTO, options: tuple[tuple[str, str], ...] = ()) -> ProviderChoice:
    """Choose the execution provider, and make sure that it works.

    Args:
        wanted: ``auto``, or what `ExecutionProvider.parse` reads.
        options: See `ExecutionProvider`.

    Raises:
        BackendError: What was asked for is not installed or does not work.
    """
    if wanted != AUTO:
        provider = ExecutionProvider.parse(wanted, options)
        require_installed(wanted)
        fault = _fault(provider)
        if fault:
            raise BackendError(
                f"expected {provider} to work, got from {_installed()}: {fault}; install what is missing "
                f"({_REMEDIES[provider.name]}; see docs/accelerators.md), or choose cpu"
            )
        return ProviderChoice(provider, "as configured")
    if options:
        raise BackendError("expected the name of the execution provider whose options are given, got auto")
    faults = []
    for name in AUTOMATIC:
        if ONNXRUNTIME_NAMES[name] not in ort.get_available_providers():
            continue
        fault = _fault(ExecutionProvider(name))
        if not fault:
            return ProviderChoice(ExecutionProvider(name), f"auto: the first of {', '.join(AUTOMATIC)} that works")
        faults.append(f"{name} does not work: {fault}")
    return ProviderChoice(CPU, f"auto: {'; '.join(faults) or f'this onnxruntime has neither {_NEITHER}'}")


def require_installed(wanted: str) -> str:
    """Return what was asked for if its package is installed; nothing is loaded.

    Raises:
        BackendError: It is no provider, or not installed.
    """
    if wanted == AUTO:
        return wanted
    name = ExecutionProvider.parse(wanted).name
    if name == "openvino":
        if find_spec("openvino") is None:
            raise BackendError(f"expected the package openvino, which is not installed; {_REMEDIES[name]}")
    elif ONNXRUNTIME_NAMES[name] not in (available := ort.get_available_providers()):
        raise BackendError(
            f"expected an onnxruntime with {ONNXRUNTIME_NAMES[name]}, got {_installed()} with {', '.join(available)}; "
            f"{_REMEDIES[name]}; see docs/accelerators.md"
        )
    return wanted


def _fault(provider: ExecutionProvider) -> str:
    """Run a small graph; return why that failed, in one line, or nothing."""
    if provider.name in {"cpu", "openvino"}:
        return ""
    missing = _preload_libraries() if provider.name in {"cuda", "tensorrt"} else []
    try:
        session = open_session(PROBE, 1, provider=provider)
        session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        return "; ".join([*missing, " ".join(str(error).split())])
    return ""


def _preload_libraries() -> list[str]:
    """Load CUDA's and cuDNN's libraries from the packages of Nvidia; return a sentence for each that is missing."""
    preload = getattr(ort, "preload_dlls", None)  # from onnxruntime 1.21 on
    if preload is None:
        return []
    with redirect_stdout(io.StringIO()) as printed:
        preload()
    return re.findall(r"Failed to load \S+(?=:)", printed.getvalue())


def _installed() -> str:
    """Name the installed packages of onnxruntime; two at once are one cause of a provider that is missing."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if len(found) > 1:
        return f"{' and '.join(found)} (they overwrite each other: uninstall both, then install one)"
    return found[0] if found else f"onnxruntime {ort.__version__}"
