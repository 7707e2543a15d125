"""One person's body: MakeHuman's shape targets, mixed by a few numbers."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.synthetic.body import makehuman
from training.synthetic.body.makehuman import BodyModel

AGES = ("child", "young", "old")
"""About 11, 25 and 90 years."""
LEVELS = ("min", "average", "max")


@dataclass(frozen=True, slots=True)
class Build:
    """What a body is like; each number is 0..1.

    Attributes:
        female: 0 male, 1 female.
        age: 0 about 11 years, 0.5 about 25, 1 about 90.
        muscle: From slack to muscular.
        weight: From thin to heavy.
        height: From short to tall.
        proportions: From uncommon to ideal.
        ancestry: Shares of MakeHuman's African, Asian and Caucasian faces and skulls; they sum to 1.
    """

    female: float
    age: float
    muscle: float
    weight: float
    height: float
    proportions: float
    ancestry: tuple[float, float, float]


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a build; one person in eight is a child or a teenager."""
    child = rng.random() < 0.125
    ancestry = rng.dirichlet((0.5, 0.5, 0.5))
    return Build(
        female=float(np.clip(rng.choice([0.05, 0.95]) + rng.normal(0, 0.06), 0, 1)),
        age=float(rng.uniform(0.0, 0.3) if child else rng.beta(1.4, 2.6) * 0.6 + 0.38),
        muscle=float(np.clip(rng.normal(0.5, 0.18), 0.05, 0.95)),
        weight=float(np.clip(rng.normal(0.52, 0.2), 0.1, 0.98)),
        height=float(np.clip(rng.normal(0.37, 0.065), 0.15, 0.6)),  # 1.77 +- 0.07 m men, 1.63 m women
        proportions=float(rng.uniform(0.2, 0.9)),
        ancestry=(float(ancestry[0]), float(ancestry[1]), float(ancestry[2])),
    )


def rest_vertices(model: BodyModel, build: Build) -> np.ndarray:
    """Mix the shape targets into a body at rest: float32 (V, 3) in m, ground at no particular height."""
    vertices = model.template.copy()
    for path, share in _mixture(model.targets / "macrodetails", build):
        if share > 1e-3:
            index, offset = makehuman.target(path)
            vertices[index] += np.float32(share) * offset
    return vertices


def bone_heads(model: BodyModel, rest: np.ndarray) -> np.ndarray:
    """Place the bones in a body at rest: float64 (B, 3) in m."""
    return np.array([rest[vertices].mean(0) for vertices in model.heads], np.float64)


def _mixture(folder: Path, build: Build) -> list[tuple[Path, float]]:
    """Files of the targets and their shares: products of linear interpolations, as in MakeHuman."""
    genders = {"male": 1 - build.female, "female": build.female}
    ages = _hats(build.age, AGES)
    muscles = {f"{k}muscle": v for k, v in _hats(build.muscle, LEVELS).items()}
    weights = {f"{k}weight": v for k, v in _hats(build.weight, LEVELS).items()}
    heights = {"minheight": 1 - build.height, "maxheight": build.height}
    proportions = {"idealproportions": build.proportions, "uncommonproportions": 1 - build.proportions}
    races = dict(zip(("african", "asian", "caucasian"), build.ancestry, strict=True))
    figure = (genders, ages, muscles, weights)
    return (
        _products(folder, (races, genders, ages))
        + _products(folder, ({"universal": 1.0}, *figure))
        + _products(folder / "height", (*figure, heights))
        + _products(folder / "proportions", (*figure, proportions))
    )


def _products(folder: Path, axes: tuple[dict[str, float], ...]) -> list[tuple[Path, float]]:
    found = []
    for chosen in itertools.product(*(axis.items() for axis in axes)):
        share = float(np.prod([value for _, value in chosen]))
        if share > 0:
            found.append((folder / ("-".join(name for name, _ in chosen) + ".target.gz"), share))
    return found


def _hats(value: float, names: tuple[str, ...]) -> dict[str, float]:
    """Share of each of three equally spaced anchors in a linear interpolation."""
    return {name: max(0.0, 1 - abs(value * 2 - k)) for k, name in enumerate(names)}


@functools.cache
def neighbours(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Edges of a part of the mesh in both directions, for smoothing: int32 (E,) from, (E,) to."""
    triangles = makehuman.load().triangles[name]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    return edges[:, 0], edges[:, 1]
