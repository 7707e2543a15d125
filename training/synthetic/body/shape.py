"""Build one person's body: blend MakeHuman's morph targets according to a few parameters."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.synthetic.body import makehuman
from training.synthetic.body.makehuman import BodyModel

AGES = ("child", "young", "old")
"""MakeHuman's anchors on the axis of age: about 11, 25 and 90 years."""
LEVELS = ("min", "average", "max")


@dataclass(frozen=True, slots=True)
class Build:
    """Parameters of a body's shape, each 0..1.

    Attributes:
        female: 0 is male, 1 is female.
        age: 0 is about 11 years old, 0.5 about 25, 1 about 90.
        muscle: 0 is slack, 1 is muscular.
        weight: 0 is thin, 1 is heavy.
        height: 0 is short, 1 is tall.
        proportions: 0 is MakeHuman's "uncommon", 1 is its "ideal".
        ancestry: Weights of MakeHuman's African, Asian and Caucasian faces and skulls; they sum to 1.
    """

    female: float
    age: float
    muscle: float
    weight: float
    height: float
    proportions: float
    ancestry: tuple[float, float, float]


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a body's parameters at random; one person in eight is a child or a teenager."""
    child = rng.random() < 0.125
    ancestry = rng.dirichlet((0.5, 0.5, 0.5))
    return Build(
        female=float(np.clip(rng.choice([0.05, 0.95]) + rng.normal(0, 0.06), 0, 1)),
        age=float(rng.uniform(0.0, 0.3) if child else rng.beta(1.4, 2.6) * 0.6 + 0.38),
        muscle=float(np.clip(rng.normal(0.5, 0.18), 0.05, 0.95)),
        weight=float(np.clip(rng.normal(0.52, 0.2), 0.1, 0.98)),
        height=float(np.clip(rng.normal(0.37, 0.065), 0.15, 0.6)),  # chosen for realistic heights of adults
        proportions=float(rng.uniform(0.2, 0.9)),
        ancestry=(float(ancestry[0]), float(ancestry[1]), float(ancestry[2])),
    )


def rest_vertices(model: BodyModel, build: Build) -> np.ndarray:
    """Blend the morph targets into a body in its rest pose: float32 (V, 3) in m; the feet are not placed on y = 0."""
    vertices = model.template.copy()
    for path, share in _mixture(model.targets / "macrodetails", build):
        if share > 1e-3:
            index, offset = makehuman.target(path)
            vertices[index] += np.float32(share) * offset
    return vertices


def bone_heads(model: BodyModel, rest: np.ndarray) -> np.ndarray:
    """Compute the heads of the bones of a body in its rest pose: float64 (B, 3) in m."""
    return np.array([rest[vertices].mean(0) for vertices in model.heads], np.float64)


def _mixture(folder: Path, build: Build) -> list[tuple[Path, float]]:
    """List the files of the morph targets and their weights, products of linear interpolations as in MakeHuman."""
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
    """List the file and weight of every combination of one name per axis whose weight is above 0."""
    found = []
    for chosen in itertools.product(*(axis.items() for axis in axes)):
        share = float(np.prod([value for _, value in chosen]))
        if share > 0:
            found.append((folder / ("-".join(name for name, _ in chosen) + ".target.gz"), share))
    return found


def _hats(value: float, names: tuple[str, ...]) -> dict[str, float]:
    """Return the weights of three anchors at 0, 0.5 and 1 for a linear interpolation at ``value``."""
    return {name: max(0.0, 1 - abs(value * 2 - k)) for k, name in enumerate(names)}


@functools.cache
def neighbours(name: str) -> tuple[np.ndarray, np.ndarray]:
    """List the edges of a part of the mesh, each in both directions: int32 (E,) start and (E,) end vertices."""
    triangles = makehuman.load().triangles[name]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    return edges[:, 0], edges[:, 1]
