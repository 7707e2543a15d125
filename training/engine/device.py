"""Chooses the device that a training runs on: an accelerator if there is one, unless the user asks for another."""

from __future__ import annotations

import os

import torch

CHOICES = ("auto", "cuda", "cpu")


class DeviceError(ValueError):
    """The requested device is not available."""


def choose(asked: str = "auto") -> torch.device:
    """Choose this process's device; each of torchrun's processes takes an accelerator of its own.

    Args:
        asked: One of `CHOICES`.

    Raises:
        DeviceError: There is no accelerator, or there are fewer accelerators than processes.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"--device cuda: expected an accelerator, got none: {_why_not()}; pass --device cpu or leave it out"
        )
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"process {number}: expected an accelerator for each process, got {torch.cuda.device_count()}; "
            "lower torchrun's --nproc-per-node, or pass --device cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def describe(device: torch.device, asked: str = "auto") -> str:
    """Describe the device, and why it was chosen."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, in bf16"
    threads = f"CPU, {torch.get_num_threads()} thread(s)"
    if asked == "cpu":
        return f"{threads}, as --device says"
    return f"{threads}, as {_why_not()}"


def _why_not() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for CPUs only"
    return f"torch {torch.__version__} finds no GPU that it can use (nvidia-smi lists what the driver sees)"
