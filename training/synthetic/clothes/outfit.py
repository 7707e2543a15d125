"""Draw outfits: which garments go together, their lengths, their looseness and their cloth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.body import makehuman
from training.synthetic.clothes import garments, shoes
from training.synthetic.clothes.garments import Layer
from training.synthetic.render import materials, shading

STYLES = ("casual", "sport", "smart", "dress")
FOLDS = {"casual": 0.5, "sport": 0.35, "smart": 0.4, "dress": 0.4}
"""Strength of the folds of the cloth in each style (see `materials.row`)."""
LEGS = {"casual": (1.02, 1.02, 1.0, 0.42), "sport": (0.28, 0.4, 1.0, 0.35), "smart": (1.03, 1.03, 1.03, 1.0)}
"""Lengths of trousers in each style, as shares of the leg."""
SLEEVES = {
    "casual": (0.38, 0.45, 0.99, 0.99, 0.0),
    "sport": (0.0, 0.35, 0.4, 0.99),
    "smart": (0.99, 0.99, 0.99, 0.4),
    "dress": (0.0, 0.2, 0.55, 0.98),
}
"""Lengths of sleeves in each style, as shares of the arm."""


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """A body and the clothes that it wears so far.

    Attributes:
        rest: float32 (V, 3), the body in its rest pose, m.
        draped: float32 (V, 3), the body smoothed to the shape of loose cloth, m.
        covered: float32 (V,), approximate distance along the skin to the edge of the clothes, m; positive under
            clothes, negative on bare skin. Modified in place.
        layers: The clothes that were put on. Modified in place.
    """

    rest: np.ndarray
    draped: np.ndarray
    covered: np.ndarray
    layers: list[Layer]

    def wear(self, part: str, keep: np.ndarray, thickness: np.ndarray | float, cloth: np.ndarray) -> None:
        """Put on a garment cut from ``part`` (see `garments.piece`); tops and trousers use the smoothed body."""
        shape = self.draped if part == "helper-tights" else self.rest
        self.layers.append(garments.piece(part, shape, keep, thickness, cloth))
        np.maximum(self.covered, keep, out=self.covered)

    def skirt(self, length: float, thickness: float, cloth: np.ndarray) -> None:
        """Put on a skirt; the legs keep their skin, because they can be visible below it."""
        self.wear("helper-skirt", garments.skirt_cut(length), thickness, cloth)
        where = garments.regions()
        self.covered[:] = np.where((where.leg > 0.5) & (where.leg_way > 0.1), -1, self.covered)


def sample(rng: np.random.Generator, rest: np.ndarray, *, female: bool) -> tuple[list[Layer], np.ndarray]:
    """Draw an outfit for a body.

    Args:
        rng: Source of randomness.
        rest: float32 (V, 3), the body in its rest pose, m.
        female: Whether skirts and dresses may be drawn.

    Returns:
        The clothes, and how far each vertex lies under them, float32 (V,) in m (see `Wardrobe.covered`).
    """
    everywhere = np.ones(len(rest), bool)
    draped = garments.smooth("helper-tights", rest, everywhere, 2)
    wardrobe = Wardrobe(rest, draped, np.full(len(rest), -1.0, np.float32), [])
    style = str(rng.choice(STYLES, p=[0.5, 0.2, 0.15, 0.15] if female else [0.6, 0.2, 0.2, 0]))
    cloth = materials.sample_cloth(rng, FOLDS[style])
    if style == "dress":
        _dress(rng, wardrobe, cloth)
    else:
        _top_and_legs(rng, wardrobe, style, cloth, skirt=female and style != "sport" and rng.random() < 0.2)
    if rng.random() < 0.92:
        leather = materials.row(shading.CLOTH, materials.sample_colour(rng), gloss=0.15, folds=0.1)
        sole = materials.row(shading.SOLID, rng.choice([0.02, 0.75]) * np.ones(3))
        wardrobe.layers.extend(shoes.pair(rest, leather, sole))
        np.maximum(wardrobe.covered, garments.shoe_cut(), out=wardrobe.covered)
    return wardrobe.layers, wardrobe.covered


def _dress(rng: np.random.Generator, wardrobe: Wardrobe, cloth: np.ndarray) -> None:
    sleeve = float(rng.choice(SLEEVES["dress"]))
    wardrobe.skirt(rng.uniform(0.28, 0.95), 0.006, cloth)
    wardrobe.wear("helper-tights", garments.top_cut(sleeve, 0.1, rng.uniform(0.5, 0.57), 0.3), 0.004, cloth)
    where = garments.regions()
    wardrobe.covered[:] = np.where((where.leg > 0.5) & (where.leg_way > 0.1), -1, wardrobe.covered)


def _top_and_legs(rng: np.random.Generator, wardrobe: Wardrobe, style: str, cloth: np.ndarray, *, skirt: bool) -> None:
    below = materials.sample_cloth(rng, FOLDS[style], 0.12)
    waist, loose = rng.uniform(0.1, 0.17), rng.uniform(0.002, 0.02)
    if skirt:
        wardrobe.skirt(rng.uniform(0.22, 0.9), 0.005, below)
    else:
        length = float(rng.choice(LEGS[style])) + rng.normal(0, 0.02)
        flare = 0.003 + loose * np.clip(garments.regions().leg_way * 1.4, 0.3, 1.0)
        wardrobe.wear("helper-tights", garments.legs_cut(length, waist), flare, below)
    hem = waist - rng.uniform(0.03, 0.16) if rng.random() < 0.75 else waist - 0.02
    cut = garments.top_cut(float(rng.choice(SLEEVES[style])), hem, rng.uniform(0.545, 0.6), rng.choice([0.0, 0.0, 0.5]))
    fall = np.clip(1.2 - (makehuman.load().template[:, 1] - hem) / 0.4, 0.35, 1.0)
    wardrobe.wear("helper-tights", cut, 0.006 + (loose + 0.002) * fall, cloth)
