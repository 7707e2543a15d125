"""Paint the texture of a face: brows, lips, lashes, cheeks and beard.

The texture holds factors that multiply the linear skin colour. It is projected from the front onto the square of the
template mesh that `shading` defines (`FACE_LEFT`, `FACE_BOTTOM`, `FACE_SIZE`). Positions in this module are (x, y) on
the front of the template mesh, in m.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.synthetic.render import shading

SIZE = 256
EYE = (0.0308, 0.7284)
MOUTH_Y = 0.662
NOSTRIL = (0.0085, 0.6905)


@dataclass(frozen=True, slots=True)
class Looks:
    """Appearance of one face.

    Attributes:
        hair: Colour of brows and beard divided by the skin colour, both linear RGB; (3,).
        brows: Thickness of the eyebrows in m.
        lips: Colour of the lips divided by the skin colour, both linear RGB; (3,).
        beard: Density of the beard: 0 is clean-shaven, 1 is a full beard.
        shadow: Darkness of the eye sockets, 0..1.
    """

    hair: np.ndarray
    brows: float
    lips: np.ndarray
    beard: float
    shadow: float


def sample_looks(rng: np.random.Generator, female: bool, adult: bool, hair_on_skin: np.ndarray) -> Looks:
    """Draw the appearance of one face at random.

    Args:
        rng: Source of randomness.
        female: Whether the body is female. Only female adults are drawn with make-up, and only male adults with beards.
        adult: Whether the body is an adult's.
        hair_on_skin: (3,), the hair colour divided by the skin colour, both linear RGB.
    """
    made_up = female and adult and rng.random() < 0.4
    lips = np.array([0.92, 0.6, 0.6]) if not made_up else np.array([0.85, 0.28, 0.32])
    bearded = not female and adult and rng.random() < 0.45
    return Looks(
        hair=np.clip(hair_on_skin, 0.05, 1.1),
        brows=rng.uniform(0.0022, 0.0042) * (0.8 if female else 1.0),
        lips=np.clip(lips + rng.normal(0, 0.05, 3), 0.15, 1),
        beard=float(rng.uniform(0.25, 1.0)) if bearded else 0.0,
        shadow=float(rng.uniform(0.05, 0.3) + (0.25 if made_up else 0)),
    )


def paint(looks: Looks, rng: np.random.Generator) -> np.ndarray:
    """Paint a face texture: float32 (256, 256, 3), factors on the linear RGB skin colour, with row 0 at the top."""
    picture = np.ones((SIZE, SIZE, 3), np.float32)
    cheeks = _blob([(0.05, 0.695), (-0.05, 0.695)], 0.022)
    picture *= 1 - cheeks[..., None] * np.array([0.0, 0.12, 0.12], np.float32)
    _beard(picture, looks, rng)
    sockets = _blob([(EYE[0], EYE[1] + 0.003), (-EYE[0], EYE[1] + 0.003)], 0.015)
    picture *= 1 - sockets[..., None] * np.float32(looks.shadow)
    nostrils = _blob([NOSTRIL, (-NOSTRIL[0], NOSTRIL[1])], 0.0035)
    picture *= 1 - 0.65 * nostrils[..., None]
    _lips(picture, looks)
    _lashes(picture)
    _brows(picture, looks, rng)
    return picture


def _pixel(x: float, y: float) -> tuple[int, int]:
    """Convert (x, y) on the template, m, to (column, row) in 1/16 texture pixels, for OpenCV's ``shift=4``."""
    u = (x - shading.FACE_LEFT) / shading.FACE_SIZE * (SIZE - 1)
    v = (1 - (y - shading.FACE_BOTTOM) / shading.FACE_SIZE) * (SIZE - 1)
    return round(u * 16), round(v * 16)


def _pixels(metres: float) -> float:
    """Convert a length on the template, m, to texture pixels."""
    return metres / shading.FACE_SIZE * (SIZE - 1)


def _blob(centres: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Draw Gaussian spots around centres (x, y), m: float32 (256, 256), 0..1; ``radius`` is in m."""
    v, u = np.mgrid[:SIZE, :SIZE]
    total = np.zeros((SIZE, SIZE), np.float32)
    for x, y in centres:
        cx, cy = (k / 16 for k in _pixel(x, y))
        total += np.exp(-((u - cx) ** 2 + (v - cy) ** 2) / (2 * (_pixels(radius) / 1.5) ** 2)).astype(np.float32)
    return np.minimum(total, 1)


def _stroke(mask: np.ndarray, points: list[tuple[float, float]], width: float) -> None:
    """Draw an open polyline through points (x, y) into ``mask``; points and line width are in m."""
    line = np.array([_pixel(x, y) for x, y in points], np.int32)
    cv2.polylines(
        mask, [line], isClosed=False, color=1.0, thickness=max(1, round(_pixels(width))), lineType=cv2.LINE_AA, shift=4
    )


def _mix(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """Blend ``colour`` (3,) into ``picture`` in place, with ``mask`` (H, W), 0..1, as its opacity."""
    picture += mask[..., None] * (colour.astype(np.float32) - picture)


def _brows(picture: np.ndarray, looks: Looks, rng: np.random.Generator) -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    arch = rng.uniform(0.001, 0.005)
    for side in (1, -1):
        along = np.linspace(0, 1, 8)
        xs = side * (0.013 + 0.038 * along)
        ys = EYE[1] + 0.0175 + arch * np.sin(np.pi * along**0.8) - 0.004 * along**3
        _stroke(mask, list(zip(xs.tolist(), ys.tolist(), strict=True)), looks.brows * 1.6)
    _mix(picture, cv2.GaussianBlur(mask, (0, 0), 1.3) * 0.85, looks.hair)


def _lashes(picture: np.ndarray) -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    for side in (1, -1):
        along = np.linspace(0, 1, 9)
        xs = side * (EYE[0] - 0.0155 + 0.031 * along)
        upper = EYE[1] + 0.0055 * np.sin(np.pi * along)
        _stroke(mask, list(zip(xs.tolist(), upper.tolist(), strict=True)), 0.0016)
        lower = EYE[1] - 0.0055 * np.sin(np.pi * along)
        _stroke(mask, list(zip(xs.tolist(), lower.tolist(), strict=True)), 0.0008)
    _mix(picture, cv2.GaussianBlur(mask, (0, 0), 0.7) * 0.8, np.array([0.08, 0.07, 0.07]))


def _lips(picture: np.ndarray, looks: Looks) -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    along = np.linspace(-1, 1, 17)
    bow = 0.0065 * (1 - along**2) - 0.002 * np.exp(-((along / 0.18) ** 2))
    upper = [(0.0245 * t, MOUTH_Y + b) for t, b in zip(along, bow, strict=True)]
    lower = [(0.0245 * t, MOUTH_Y - 0.0085 * (1 - t**2)) for t in along[::-1]]
    cv2.fillPoly(mask, [np.array([_pixel(x, y) for x, y in upper + lower], np.int32)], 1.0, cv2.LINE_AA, 4)
    _mix(picture, cv2.GaussianBlur(mask, (0, 0), 1.2) * 0.9, looks.lips)
    line = np.zeros((SIZE, SIZE), np.float32)
    _stroke(line, [(0.0235 * t, MOUTH_Y - 0.0005 - 0.001 * t * t) for t in along], 0.0012)
    _mix(picture, cv2.GaussianBlur(line, (0, 0), 0.8) * 0.75, looks.lips * 0.35)


def _beard(picture: np.ndarray, looks: Looks, rng: np.random.Generator) -> None:
    if looks.beard <= 0:
        return
    v, u = np.mgrid[:SIZE, :SIZE]
    x = u / (SIZE - 1) * shading.FACE_SIZE + shading.FACE_LEFT
    y = (1 - v / (SIZE - 1)) * shading.FACE_SIZE + shading.FACE_BOTTOM
    jaw = 1 / (1 + np.exp((y - 0.668 - 0.9 * np.maximum(np.abs(x) - 0.03, 0)) / 0.004))
    lip = np.exp(-(((y - MOUTH_Y - 0.0125) / 0.005) ** 2)) * (np.abs(x) < 0.032)
    grain = 0.75 + 0.25 * rng.random((SIZE, SIZE))
    mask = np.clip(np.maximum(jaw, lip) * grain * looks.beard, 0, 0.92).astype(np.float32)
    _mix(picture, cv2.GaussianBlur(mask, (0, 0), 0.8), looks.hair)
