"""Build shoes: a closed tube lofted around each foot, and a sole. Shoes made from the skin mesh would show toes."""

from __future__ import annotations

import numpy as np

from training.synthetic.body import makehuman
from training.synthetic.clothes.garments import Layer

STATIONS = 11
"""Number of cross-sections along a shoe."""
RING = 14
"""Number of vertices in a cross-section."""
SOLE = 0.014
"""Thickness of the sole, m."""


def pair(rest: np.ndarray, upper: np.ndarray, sole: np.ndarray) -> list[Layer]:
    """Build both shoes with their soles.

    Args:
        rest: float32 (V, 3), the body in its rest pose, m.
        upper: float32 (13,), material of the shoes.
        sole: float32 (13,), material of the soles.
    """
    return [layer for side in "LR" for layer in _shoe(rest, side, upper, sole)]


def _shoe(rest: np.ndarray, side: str, upper: np.ndarray, sole: np.ndarray) -> list[Layer]:
    model = makehuman.load()
    weights = model.weights[:, model.bone(f"foot.{side}")]
    foot = np.flatnonzero((weights > 0.5) & (np.arange(len(weights)) < makehuman.SKIN_END))
    foot = foot[np.argsort(-weights[foot], kind="stable")]
    skin = rest[foot]
    ankle = rest[model.cubes[f"joint-{side.lower()}-ankle"]].mean(0)
    ground = float(skin[:, 1].min())
    low, high = float(skin[:, 2].min()) - 0.012, float(skin[:, 2].max()) + 0.014
    at = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, STATIONS))) / 2  # closer together at toe and heel
    rings = np.stack([_ring(skin, z, ground, float(ankle[1]) + 0.012, (low, high)) for z in at])
    soles = rings.copy()
    soles[:, :, 1] = np.minimum(soles[:, :, 1], ground + 0.004)
    soles[:, :, 0] += (soles[:, :, 0] - soles[:, :, 0].mean(1, keepdims=True)) * 0.06
    soles[:, :, 1] -= SOLE * (rings[:, :, 1] < ground + 0.012)
    return [_loft(rings, foot, upper), _loft(soles, foot, sole)]


def _ring(skin: np.ndarray, z: float, ground: float, collar: float, ends: tuple[float, float]) -> np.ndarray:
    """Compute the cross-section of a shoe at ``z``: float64 (RING, 3) in m.

    Args:
        skin: float32 (n, 3), vertices of the foot in the rest pose, m.
        z: Position along the foot, m.
        ground: Height of the lowest vertex of the foot, m.
        collar: Greatest height of the shoe, m.
        ends: Positions (z) of the heel and the tip of the shoe, m.
    """
    near = skin[np.abs(skin[:, 2] - z) < 0.022]
    left, right = float(near[:, 0].min()) - 0.008, float(near[:, 0].max()) + 0.008
    top = min(float(near[:, 1].max()) + 0.008, collar)
    # Scaling the width by half an ellipse near both ends rounds the tip and the heel.
    edge = min(z - ends[0], ends[1] - z) / 0.035
    narrow = np.sqrt(max(1 - (1 - min(edge, 1.0)) ** 2, 0.02))
    turn = np.linspace(0, 2 * np.pi, RING, endpoint=False)
    across, up = (np.sign(f) * np.abs(f) ** 0.65 for f in (np.cos(turn), np.sin(turn)))
    middle, wide = (left + right) / 2, (right - left) / 2 * narrow
    high = ground + (top - ground) * (0.35 + 0.65 * narrow)
    return np.stack([middle + wide * across, (ground + high) / 2 + (high - ground) / 2 * up, np.full(RING, z)], axis=1)


def _loft(rings: np.ndarray, foot: np.ndarray, material: np.ndarray) -> Layer:
    """Join cross-sections (S, RING, 3), m, into a closed tube; its vertices move with the first vertex of ``foot``."""
    count = len(rings)
    ends = np.stack([rings[0].mean(0), rings[-1].mean(0)])
    points = np.concatenate([rings.reshape(-1, 3), ends]).astype(np.float32)
    first = (np.arange(count - 1)[:, None] * RING + np.arange(RING)[None]).ravel()
    second = (np.arange(count - 1)[:, None] * RING + (np.arange(RING) + 1)[None] % RING).ravel()
    k, n = np.arange(RING), (np.arange(RING) + 1) % RING
    back, front = np.full(RING, count * RING), np.full(RING, count * RING + 1)
    triangles = np.concatenate(
        [
            np.stack([first, first + RING, second + RING], 1),
            np.stack([first, second + RING, second], 1),
            np.stack([k, n, back], 1),
            np.stack([k + (count - 1) * RING, front, n + (count - 1) * RING], 1),
        ]
    )
    rigid = np.full(len(points), foot[0])  # one vertex's skinning weights for the whole shoe keep it rigid
    return Layer(rigid, points, np.ones(len(points), np.float32), triangles.astype(np.int32), material, closed=False)
