"""Composition of affines (2, 3)."""

from __future__ import annotations

import numpy as np

from service.pose.types import Floats


def compose(outer: Floats, *inner: Floats) -> Floats:
    """Compose affines (..., 2, 3), float32: the last one is applied first."""
    result = outer
    for affine in inner:
        last = np.broadcast_to(np.array([0, 0, 1], np.float32), (*affine.shape[:-2], 1, 3))
        result = result @ np.concatenate([affine, last], axis=-2)
    return np.asarray(result, np.float32)
