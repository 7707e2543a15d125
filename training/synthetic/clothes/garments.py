"""Cut clothes and hair from MakeHuman's helper meshes and from the skin mesh.

The edge of a garment is the zero level of a signed function of the position on the neutral body, roughly a distance in
m: positive inside the garment, negative where it is cut away. The rasteriser interpolates the function across each
triangle, so that hems are smooth and do not follow the triangles' edges.
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
    """One mesh of a dressed body: skin, a garment, a shoe or hair.

    Attributes:
        base: int64 (n,), the body model's vertices that give the skinning weights and texture coordinates.
        rest: float32 (n, 3), vertices in the rest pose, m.
        keep: float32 (n,), signed cut function; the mesh is cut away where its interpolation is negative.
        triangles: int32 (m, 3), indices into the n vertices.
        material: float32 (13,), the material (see `materials.row`).
        closed: Whether the back of the triangles is never visible, so that they can be culled.
    """

    base: np.ndarray
    rest: np.ndarray
    keep: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    closed: bool


@dataclass(frozen=True, slots=True)
class Regions:
    """Position of every vertex relative to the limbs of the neutral body.

    Attributes:
        arm: float32 (V,), sum of the skinning weights of the arms, hands included.
        arm_way: float32 (V,), position along the arm: 0 at the shoulder, 1 at the wrist.
        leg: float32 (V,), sum of the skinning weights of the legs and feet.
        leg_way: float32 (V,), position along the leg: 0 at the hip, 1 at the ankle.
        head: float32 (V,), sum of the skinning weights of the head and the upper neck.
    """

    arm: np.ndarray
    arm_way: np.ndarray
    leg: np.ndarray
    leg_way: np.ndarray
    head: np.ndarray


@functools.cache
def regions() -> Regions:
    """Compute the regions of the neutral body; the result is cached for the life of the process."""
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
    """Project points (n, 3) onto a limb of two bones: float32 (n,), 0 at ``start``, 1 at ``end``."""
    long, short = np.linalg.norm(middle - start), np.linalg.norm(end - middle)
    first = (points - start) @ ((middle - start) / long)
    second = (points - middle) @ ((end - middle) / short)
    return np.asarray(np.where(first < long, first, long + second) / (long + short), np.float32)


def top_cut(sleeve: float, hem: float, neck: float, vee: float) -> np.ndarray:
    """Compute the cut function of a top: float32 (V,), positive where the top covers the body.

    Args:
        sleeve: Length of the sleeves as a share of the arm; 0 for a sleeveless top.
        hem: Height of the lower edge on the template, m.
        neck: Height of the neckline at the throat on the template, m.
        vee: Slope of the neckline from the sides down to the throat; 0 gives a round neckline.
    """
    where, p = regions(), makehuman.load().template
    sleeves = np.where(where.arm > 0.5, (sleeve - where.arm_way) * 0.5, (0.5 - where.arm) * 0.1 if sleeve <= 0 else FAR)
    collar = neck + vee * np.abs(p[:, 0]) - 0.35 * np.maximum(p[:, 2] - 0.02, 0) - p[:, 1]
    collar = np.where(where.arm > 0.3, FAR, collar + 1.2 * np.maximum(np.abs(p[:, 0]) - 0.055, 0))
    bottom = np.where(where.arm > 0.5, FAR, p[:, 1] - hem)
    return np.asarray(np.minimum(np.minimum(sleeves, collar), bottom), np.float32)


def legs_cut(length: float, waist: float) -> np.ndarray:
    """Compute the cut function of trousers: float32 (V,), positive where they cover the body.

    Args:
        length: Length of the trouser legs as a share of the leg.
        waist: Height of the upper edge on the template, m.
    """
    where, p = regions(), makehuman.load().template
    leg = np.where(where.leg > 0.3, (length - where.leg_way) * 0.8, FAR)
    return np.asarray(np.where(where.arm > 0.4, -FAR, np.minimum(leg, waist - p[:, 1])), np.float32)


def skirt_cut(length: float) -> np.ndarray:
    """Compute the cut function of a skirt: float32 (V,), positive in the skirt; a larger ``length`` lowers the hem."""
    p = makehuman.load().template
    knee = 0.05 - length * 0.8
    return np.asarray(np.minimum(p[:, 1] - knee, 0.2 - p[:, 1]), np.float32)


def shoe_cut() -> np.ndarray:
    """Compute the cut function of the skin that shoes hide: float32 (V,), positive beyond a plane across the ankle."""
    where = regions()
    return np.asarray(np.where(where.leg > 0.5, (where.leg_way - 0.985) * 0.8, -FAR), np.float32)


def hair_cut(fringe: float, nape: float, *, ears: bool = False) -> np.ndarray:
    """Compute the cut function of hair: float32 (V,), positive where hair covers the head.

    Args:
        fringe: Distance by which the hairline is lowered on the forehead, m.
        nape: Distance by which the hairline is lowered on the neck, m.
        ears: Whether the hair covers the ears.
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
    """Cut a layer from a part of the mesh and offset it along the vertex normals.

    Args:
        part: Name of the part, a key of `makehuman.BodyModel.triangles`.
        rest: float32 (V, 3), the body in its rest pose, m.
        keep: float32 (V,), cut function of the layer.
        thickness: Offset along the normals in m, (V,) or one number; negative moves the layer inwards.
        material: float32 (13,), the material.
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
    """Build a layer from triangles of the whole mesh and keep only the vertices that they use.

    Args:
        rest: float32 (V, 3), vertices of the whole mesh in the rest pose, m.
        keep: float32 (V,), cut function.
        triangles: int32 (m, 3), indices into the V vertices.
        material: float32 (13,), the material.
        closed: See `Layer`.
    """
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
    """Smooth a part of the mesh (Laplacian smoothing): move vertices to the mean of their neighbours, repeatedly.

    Args:
        part: Name of the part, a key of `makehuman.BodyModel.triangles`.
        rest: float32 (V, 3), the vertices in m; not changed.
        where: bool (V,), the vertices to move. Those that do not belong to the part end at the origin.
        rounds: Number of iterations.

    Returns:
        float32 (V, 3): the smoothed vertices, m.
    """
    start, end = shape.neighbours(part)
    inside = where[start]
    start, end = start[inside], end[inside]
    count = np.maximum(np.bincount(start, minlength=len(rest)), 1)[:, None]
    moved = rest.copy()
    for _ in range(rounds):
        total = np.stack([np.bincount(start, moved[end, k], len(rest)) for k in range(3)], axis=1)
        moved[where] = (total / count)[where]
    return moved
