"""Gather rows of several large arrays into one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class RowGatherer:
    """Gathers rows of several uint8 arrays: from memory maps on a CPU, from resident tensors on an accelerator."""

    def __init__(self, arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> None:
        """Take arrays (Ni, ...) that differ in Ni only. An accelerator's memory holds them whole from here on."""
        self._arrays = arrays
        self._device = device
        self._tensors = []
        if device.type != "cpu":
            self._tensors = [torch.from_numpy(np.array(array)).to(device) for array in arrays]

    def take(self, sources: NDArray[np.intp], rows: NDArray[np.intp]) -> Tensor:
        """Gather row ``rows[n]`` of array ``sources[n]`` for each of N samples: uint8 (N, ...) on the device."""
        if not self._tensors:
            return torch.from_numpy(np.stack([self._arrays[s][r] for s, r in zip(sources, rows, strict=True)]))
        shape = (len(rows), *self._arrays[0].shape[1:])
        taken = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for source in np.unique(sources):
            where = np.flatnonzero(sources == source)
            there = torch.from_numpy(rows[where]).to(self._device)
            taken[torch.from_numpy(where).to(self._device)] = self._tensors[source][there]
        return taken
