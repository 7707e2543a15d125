"""Cut clothes, shoes and hair from MakeHuman's helper meshes and from the skin itself.

Where a garment ends is a function of the place on the neutral body, in m: positive inside, negative cut away. The
rasteriser interpolates it, so hems are smooth whatever the triangles.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from training.synthetic.body import makehuman, shape
from training.synthetic.render import raster

FAR = np.float32(1.0)


@dataclass(frozen=True, slots=True)
class Layer:
    """A piece of a dressed body.

    Attributes:
        base: int64 (n,), vertices of the body model that carry it.
        rest: float32 (n, 3), where they lie at rest, in m.
        keep: float32 (n,), negative where the piece is cut away.
        triangles: int32 (m, 3), into these vertices.
        material: Row of its material, (13,).
        closed: Whether its back can never be seen.
    """

    base: np.ndarray
    rest: np.ndarray
    keep: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    closed: bool


@dataclass(frozen=True, slots=True)
class Regions:
    """Where every vertex lies on the neutral body.

    Attributes:
        arm: float32 (V,), share of its weight that arms carry.
        arm_way: float32 (V,), along the arm: 0 shoulder, 1 wrist.
        leg: float32 (V,), share that legs and feet carry.
        leg_way: float32 (V,), 0 hip, 1 ankle.
        head: float32 (V,), share that head and upper neck carry.
    """

    arm: np.ndarray
    arm_way: np.ndarray
    leg: np.ndarray
    leg_way: np.ndarray
    head: np.ndarray


@functools.cache
def regions() -> Regions:
    """Measure the neutral body, once a process."""
    model = makehuman.load()

    def share(*names: str) -> np.ndarray:
        columns = [k for k, bone in enumerate(model.bones) if bone.startswith(names)]
        return np.asarray(model.weights[:, columns].sum(1))

    def joint(name: str) -> np.ndarray:
        return np.asarray(model.template[model.cubes[f"joint-l-{name}"]].mean(0))

    mirrored = np.abs(model.template * [1, 0, 0]) + model.template * [0, 1, 1]
    return Regions(
        arm=share("upperarm", "lowerarm", "wrist", "finger"),
        arm_way=_way(mirrored, joint("shoulder"), joint("elbow"), joint("hand")),
        leg=share("upperleg", "lowerleg", "foot"),
        leg_way=_way(mirrored, joint("upper-leg"), joint("knee"), joint("ankle")),
        head=share("neck03", "head"),
    )


def _way(points: np.ndarray, start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How far along a limb of two bones points lie: 0 at ``start``, 1 at ``end``."""
    long, short = np.linalg.norm(middle - start), np.linalg.norm(end - middle)
    first = (points - start) @ ((middle - start) / long)
    second = (points - middle) @ ((end - middle) / short)
    return np.asarray(np.where(first < long, first, long + second) / (long + short), np.float32)


def top_cut(sleeve: float, hem: float, neck: float, vee: float) -> np.ndarray:
    """What a top covers: float32 (V,).

    Args:
        sleeve: Share of the arm; 0 for none.
        hem: Height of its lower edge on the template, m.
        neck: Height of the neckline at the throat.
        vee: How steeply it falls from the sides to the throat; 0 is round.
    """
    where, p = regions(), makehuman.load().template
    sleeves = np.where(where.arm > 0.5, (sleeve - where.arm_way) * 0.5, (0.5 - where.arm) * 0.1 if sleeve <= 0 else FAR)
    collar = neck + vee * np.abs(p[:, 0]) - 0.35 * np.maximum(p[:, 2] - 0.02, 0) - p[:, 1]
    collar = np.where(where.arm > 0.3, FAR, collar + 1.2 * np.maximum(np.abs(p[:, 0]) - 0.055, 0))
    bottom = np.where(where.arm > 0.5, FAR, p[:, 1] - hem)
    return np.asarray(np.minimum(np.minimum(sleeves, collar), bottom), np.float32)


def legs_cut(length: float, waist: float) -> np.ndarray:
    """What trousers cover: float32 (V,), to a share of the leg and up to a height on the template."""
    where, p = regions(), makehuman.load().template
    leg = np.where(where.leg > 0.3, (length - where.leg_way) * 0.8, FAR)
    return np.asarray(np.where(where.arm > 0.4, -FAR, np.minimum(leg, waist - p[:, 1])), np.float32)


def skirt_cut(length: float) -> np.ndarray:
    """What a skirt covers: float32 (V,)."""
    p = makehuman.load().template
    knee = 0.05 - length * 0.8
    return np.asarray(np.minimum(p[:, 1] - knee, 0.2 - p[:, 1]), np.float32)


def shoe_cut() -> np.ndarray:
    """Skin that shoes hide, float32 (V,): in front of and below a plane across the ankle."""
    where = regions()
    return np.asarray(np.where(where.leg > 0.5, (where.leg_way - 0.985) * 0.8, -FAR), np.float32)


def hair_cut(fringe: float, nape: float, *, ears: bool = False) -> np.ndarray:
    """Where hair grows: float32 (V,).

    Args:
        fringe: How far the hairline comes down the forehead, m.
        nape: How far it comes down the neck.
        ears: Whether it covers the ears.
    """
    p = makehuman.load().template
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    line = np.interp(
        z,
        [-0.1, -0.03, 0.0, 0.02, 0.045, 0.07, 0.1, 0.13],
        [0.675 - nape, 0.68 - nape, 0.70, 0.725, 0.735, 0.772, 0.797 - fringe, 0.80 - fringe],
    )
    keep = y - line
    if not ears:
        ear = (np.abs(x) > 0.071) & (y < 0.768) & (y > 0.66) & (z > -0.03) & (z < 0.05)
        keep = np.where(ear, -0.02, keep)
    ragged = 0.003 * np.sin(310 * x + 2) + 0.003 * np.sin(530 * x + 190 * z)
    return np.asarray(np.where(regions().head > 0.3, keep + ragged, -FAR), np.float32)


def piece(
    part: str,
    rest: np.ndarray,
    keep: np.ndarray,
    thickness: np.ndarray | float,
    material: np.ndarray,
    *,
    closed: bool = False,
) -> Layer:
    """Cut a piece from a part of the mesh and lift it off along its normals.

    Args:
        part: Name of the part (`makehuman.BodyModel.triangles`).
        rest: float32 (V, 3), the body at rest.
        keep: float32 (V,), where the piece is.
        thickness: m, (V,) or one number.
        material: Row of the material.
        closed: See `Layer`.
    """
    triangles = makehuman.load().triangles[part]
    triangles = triangles[(keep[triangles] >= 0).any(1)]
    normals = raster.normals(rest, makehuman.load().triangles[part])
    lifted = rest + normals * np.broadcast_to(np.asarray(thickness, np.float32), len(rest))[:, None]
    return gather(lifted, keep, triangles, material, closed=closed)


def gather(
    rest: np.ndarray, keep: np.ndarray, triangles: np.ndarray, material: np.ndarray, *, closed: bool = False
) -> Layer:
    """Make a layer of some triangles of the whole mesh, with only the vertices that they use."""
    base, inverse = np.unique(triangles, return_inverse=True)
    return Layer(
        base,
        np.asarray(rest[base], np.float32),
        np.asarray(keep[base], np.float32),
        inverse.reshape(-1, 3).astype(np.int32),
        material,
        closed,
    )


def smooth(part: str, rest: np.ndarray, where: np.ndarray, rounds: int) -> np.ndarray:
    """Smooth some vertices (bool (V,)) of a part by moving each to the mean of its neighbours, ``rounds`` times."""
    start, end = shape.neighbours(part)
    inside = where[start]
    start, end = start[inside], end[inside]
    count = np.maximum(np.bincount(start, minlength=len(rest)), 1)[:, None]
    moved = rest.copy()
    for _ in range(rounds):
        total = np.stack([np.bincount(start, moved[end, k], len(rest)) for k in range(3)], axis=1)
        moved[where] = (total / count)[where]
    return moved
