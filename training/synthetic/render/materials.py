"""Colours, and materials encoded as rows of numbers for the compiled code in `shading`."""

from __future__ import annotations

import numpy as np

from training.synthetic.render import shading

WIDTH = 13
"""Number of columns of a material row.

The columns are: 0 kind; 1-3 albedo, linear RGB; 4-6 second albedo, linear RGB; 7 pattern; 8 spatial frequency of the
pattern, 1/m; 9 strength of the folds; 10 strength of the specular highlight; 11 index of the face picture; 12 free
parameter of the pattern, 0..1. For the kind `shading.EYE`, columns 4 and 5 hold x and y of the eye's centre on the
template, m.
"""

NEUTRALS = ((24, 24, 26), (60, 62, 66), (120, 122, 125), (225, 225, 222), (32, 40, 66), (58, 78, 112), (150, 132, 104))
"""Neutral clothing colours, sRGB 0..255: black, greys, white, navy, denim, khaki."""
HAIR_COLOURS = ((18, 14, 12), (36, 24, 17), (66, 42, 26), (104, 70, 40), (168, 132, 84), (96, 44, 24), (150, 148, 144))
"""Hair colours, sRGB 0..255; the first two are the darkest and the last is grey."""
IRISES = ((60, 36, 20), (44, 26, 16), (90, 66, 36), (70, 104, 130), (84, 110, 84))
"""Iris colours, sRGB 0..255."""
SKINS = ((236, 196, 172), (224, 176, 148), (200, 150, 118), (164, 114, 82), (120, 78, 54), (84, 54, 40))
"""Skin colours from light to dark, sRGB 0..255."""


def linear(colour: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Convert sRGB 0..255 to linear RGB 0..1 of the same shape, float64; approximates the sRGB curve by a power law."""
    return np.asarray((np.asarray(colour, np.float64) / 255) ** 2.2)


def row(
    kind: int,
    colour: np.ndarray,
    second: np.ndarray | None = None,
    pattern: int = shading.PLAIN,
    rate: float = 10.0,
    folds: float = 0.0,
    gloss: float = 0.0,
    parameter: float = 0.5,
) -> np.ndarray:
    """Encode a material.

    Args:
        kind: Kind of surface, such as `shading.CLOTH`.
        colour: float (3,), linear RGB albedo.
        second: float (3,), linear RGB albedo of the pattern; ``colour`` if None.
        pattern: Pattern, such as `shading.STRIPES`.
        rate: Spatial frequency of the pattern, 1/m.
        folds: Strength of the bump mapping that imitates folds; 0 for none.
        gloss: Strength of the specular highlight; 0 for none.
        parameter: Free parameter of the pattern, 0..1.

    Returns:
        float32 (13,), with the columns that `WIDTH` lists.
    """
    second = colour if second is None else second
    numbers = [kind, *colour, *second, pattern, rate, folds, gloss, 0, parameter]
    return np.array(numbers, np.float32)


def sample_colour(rng: np.random.Generator) -> np.ndarray:
    """Sample a clothing colour, linear RGB float64 (3,): a varied neutral half the time, otherwise any hue."""
    if rng.random() < 0.5:
        base = np.array(NEUTRALS[rng.integers(len(NEUTRALS))], np.float64)
        return linear(np.clip(base * rng.uniform(0.75, 1.25) + rng.normal(0, 5, 3), 8, 240))
    hue, value, saturation = rng.uniform(0, 6), rng.uniform(70, 235), rng.uniform(0.15, 0.85)
    wave = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return linear(value * (1 - saturation + saturation * wave))


def sample_cloth(rng: np.random.Generator, folds: float, patterned: float = 0.45) -> np.ndarray:
    """Sample a cloth material.

    Args:
        rng: Random number generator.
        folds: Strength of the folds, see `row`.
        patterned: Probability of a pattern; otherwise the cloth is plain.

    Returns:
        float32 (13,), see `row`.
    """
    colour, second = sample_colour(rng), sample_colour(rng)
    kinds = ("HOOPS", "STRIPES", "CHECKS", "BLOTCHES", "DOTS", "PRINT", "BLOCK")
    pattern = shading.PLAIN
    rate = rng.uniform(10, 45)
    if rng.random() < patterned:
        kind = str(rng.choice(kinds, p=[0.22, 0.08, 0.16, 0.14, 0.08, 0.2, 0.12]))
        pattern = getattr(shading, kind)
        rate = rng.uniform(15, 60) if kind in ("BLOTCHES", "DOTS") else rate
    gloss = rng.choice([0.0, 0.02, 0.1], p=[0.6, 0.3, 0.1])
    return row(shading.CLOTH, colour, second, pattern, rate, folds, gloss, rng.uniform(0.15, 0.85))


def sample_skin(rng: np.random.Generator, ancestry: tuple[float, float, float]) -> np.ndarray:
    """Sample a skin colour that suits an ancestry (see `shape.Build`), linear RGB float64 (3,)."""
    african, asian, _ = ancestry
    tone = np.clip(0.6 + 3.9 * african + 1.0 * asian + rng.normal(0, 0.5), 0, len(SKINS) - 1.001)
    k = int(tone)
    mixed = np.array(SKINS[k]) * (1 - tone + k) + np.array(SKINS[k + 1]) * (tone - k)
    return linear(np.clip(mixed + rng.normal(0, 3, 3), 20, 245))
