"""Furniture and occluders: boxes, posts, balls, seats, tables, bushes and walls."""

from __future__ import annotations

import numpy as np

from training.synthetic.body.rig import turn_y
from training.synthetic.render import materials, shading
from training.synthetic.render.stage import Mesh

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (0, 2) for z in (-1, 1)], np.float64)
_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def box(size: tuple[float, float, float], at: tuple[float, float, float], material: np.ndarray) -> Mesh:
    """Build a box of ``size`` (width, height, depth) in m, whose bottom face has its centre at ``at`` in m."""
    half = np.array(size) / 2
    points = np.concatenate([_CORNERS[list(face)] * half for face in _FACES])
    triangles = [[4 * k, 4 * k + a, 4 * k + a + 1] for k in range(6) for a in (1, 2)]
    return _mesh(points, points + np.array(at), np.array(triangles), material)


def post(radius: float, height: float, at: tuple[float, float, float], material: np.ndarray, sides: int = 14) -> Mesh:
    """Build an upright cylinder, m, whose bottom has its centre at ``at``."""
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([np.cos(turn) * radius, np.zeros(sides), np.sin(turn) * radius], axis=1)
    points = np.concatenate([ring, ring + np.array([0, height, 0]), np.array([[0, height, 0]])])
    k, n = np.arange(sides), (np.arange(sides) + 1) % sides
    top = np.full(sides, 2 * sides)
    triangles = np.concatenate(
        [
            np.stack([k, k + sides, n + sides], 1),
            np.stack([k, n + sides, n], 1),
            np.stack([k + sides, top, n + sides], 1),
        ]
    )
    return _mesh(points, points + np.array(at), triangles, material)


def ball(radius: float, at: np.ndarray, material: np.ndarray) -> Mesh:
    """Build a sphere, m, with its centre at ``at``, (3,)."""
    rows, columns = 8, 12
    v, u = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns + 1), indexing="ij")
    points = np.stack([np.sin(v) * np.cos(u), np.cos(v), np.sin(v) * np.sin(u)], axis=-1).reshape(-1, 3) * radius
    k = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)[None]).ravel()
    triangles = np.concatenate(
        [np.stack([k, k + 1, k + columns + 1], 1), np.stack([k + 1, k + columns + 2, k + columns + 1], 1)]
    )
    return _mesh(points, points + at, triangles, material)


def bush(rng: np.random.Generator, size: float, at: tuple[float, float, float]) -> Mesh:
    """Build a bush of random leaves that stands at ``at`` and is about ``size`` m high."""
    count = 260
    middle = rng.normal(0, 1, (count, 3)) * np.array([0.3, 0.26, 0.3]) * size + np.array([0, 0.5 * size, 0])
    middle[:, 1] = np.abs(middle[:, 1])
    leaves = middle[:, None] + rng.normal(0, 0.055 * size, (count, 3, 3))
    points = leaves.reshape(-1, 3)
    green = materials.linear(np.clip(np.array([60, 100, 40]) + rng.normal(0, 22, 3), 10, 200))
    leaf = materials.row(shading.SOLID, green, green * 0.5, shading.BLOTCHES, 9.0)
    mesh = _mesh(points, points + np.array(at), np.arange(count * 3).reshape(-1, 3), leaf)
    mesh.closed[:] = 0
    return mesh


def seat(rng: np.random.Generator, height: float) -> list[Mesh]:
    """Sample a seat in the frame of the seated person, with its top ``height`` m above the ground under the origin."""
    style = str(rng.choice(["stool", "chair", "chair", "block", "sofa"]))
    skin, frame = surface(rng), surface(rng)
    wide, deep = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.5)
    front = 0.16
    if style == "block":
        return [box((rng.uniform(0.5, 1.8), height, deep), (0, 0, front - deep / 2), skin)]
    if style == "sofa":
        wide, deep = rng.uniform(0.8, 1.9), 0.75
        back = box((wide, height + 0.42, 0.16), (0, 0, front - deep + 0.05), skin)
        base = box((wide, height, deep), (0, 0, front - deep / 2), skin)
        rests = [box((0.14, height + 0.18, deep), (s * (wide / 2 + 0.07), 0, front - deep / 2), skin) for s in (-1, 1)]
        return [base, back, *rests]
    thin = rng.uniform(0.02, 0.06)
    plate = box((wide, thin, deep), (0, height - thin, front - deep / 2), skin)
    legs = [
        box((0.035, height - thin, 0.035), (x * (wide / 2 - 0.03), 0, z), frame)
        for x in (-1, 1)
        for z in (front - 0.04, front - deep + 0.04)
    ]
    if style == "stool":
        return [plate, *legs]
    low = rng.uniform(0.05, 0.2)
    back = box((wide, rng.uniform(0.25, 0.5), 0.035), (0, height + low, front - deep - 0.01), skin)
    return [
        plate,
        back,
        *legs,
        *(box((0.03, low, 0.03), (x * wide * 0.4, height, front - deep), frame) for x in (-1, 1)),
    ]


def table(rng: np.random.Generator, at: tuple[float, float, float]) -> list[Mesh]:
    """Sample a table that stands at ``at``, m."""
    wide, deep, high = rng.uniform(0.7, 1.6), rng.uniform(0.5, 0.8), rng.uniform(0.65, 0.78)
    x, y, z = at
    top, frame = surface(rng), surface(rng)
    legs = [
        box((0.05, high, 0.05), (x + i * (wide / 2 - 0.05), y, z + j * (deep / 2 - 0.05)), frame)
        for i in (-1, 1)
        for j in (-1, 1)
    ]
    return [box((wide, 0.04, deep), (x, y + high, z), top), *legs]


def obstacle(rng: np.random.Generator, x: float, z: float, room: bool) -> list[Mesh]:
    """Sample an occluder.

    Args:
        rng: Random generator.
        x: Position on the ground, m.
        z: Position on the ground, m.
        room: Whether the scene is a room, which changes the choice of objects.

    Returns:
        The meshes of the occluder in the world frame.
    """
    styles = ["post", "table", "crate", "wall", "bush"] if not room else ["table", "table", "crate", "counter", "bush"]
    style = str(rng.choice(styles))
    if style == "post":
        return [post(rng.uniform(0.03, 0.16), rng.uniform(1.0, 4.0), (x, 0, z), surface(rng))]
    if style == "table":
        return [turned(part, rng.uniform(-40, 40), x, z) for part in table(rng, (0, 0, 0))]
    if style == "bush":
        return [bush(rng, rng.uniform(0.5, 1.3), (x, 0, z))]
    size = {
        "crate": (rng.uniform(0.3, 0.8), rng.uniform(0.3, 1.0), rng.uniform(0.3, 0.7)),
        "wall": (rng.uniform(0.8, 2.5), rng.uniform(0.4, 1.0), 0.2),
        "counter": (rng.uniform(0.9, 2.2), rng.uniform(0.8, 1.1), 0.5),
    }[style]
    return [turned(box(size, (0, 0, 0), surface(rng)), rng.uniform(-40, 40), x, z)]


def surface(rng: np.random.Generator) -> np.ndarray:
    """Sample a material for furniture, float32 (13,): wood, a pattern or a plain colour."""
    style = rng.random()
    if style < 0.4:
        wood = materials.linear(np.array([150, 104, 64]) * rng.uniform(0.4, 1.35))
        return materials.row(shading.SOLID, wood, wood * 0.72, shading.HOOPS, rng.uniform(8, 30), 0.0, 0.05)
    colour = materials.sample_colour(rng)
    if style < 0.6:
        return materials.row(shading.SOLID, colour, materials.sample_colour(rng), shading.CHECKS, rng.uniform(2, 9))
    return materials.row(shading.SOLID, colour, gloss=float(rng.choice([0.0, 0.2])))


def turned(mesh: Mesh, yaw: float, x: float, z: float) -> Mesh:
    """Rotate a mesh by ``yaw`` degrees about the y axis, then move it by (x, z) in m."""
    points = (mesh.points @ turn_y(yaw).T + np.array([x, 0.0, z])).astype(np.float32)
    return Mesh(points, mesh.places, mesh.keep, mesh.triangles, mesh.closed, mesh.material, mesh.materials)


def _mesh(places: np.ndarray, points: np.ndarray, triangles: np.ndarray, material: np.ndarray) -> Mesh:
    """Build a two-sided mesh of one material.

    Args:
        places: (N, 3), vertices in the frame that anchors patterns, m.
        points: (N, 3), vertices in the world frame, m.
        triangles: (T, 3), vertex indices.
        material: (13,), see `materials.row`.

    Returns:
        The mesh.
    """
    return Mesh(
        points.astype(np.float32),
        places.astype(np.float32),
        np.ones(len(points), np.float32),
        triangles.astype(np.int32),
        np.zeros(len(triangles), np.uint8),
        np.zeros(len(triangles), np.int32),
        material[None],
    )
