"""Render a stage: rasterize, build the shadow map, shade, and downsample to the image size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.synthetic.render import raster, shading
from training.synthetic.render.camera import Camera
from training.synthetic.render.stage import Mesh, Stage

SHADOW_SIZE = 512
"""Width and height of the shadow map, px."""
NEAR = 0.15
"""Depth of the near plane, m; triangles with a vertex nearer than this are not drawn."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rendered image and the buffers that labels are read from.

    Attributes:
        linear: float32 (H, W, 3), linear RGB at image size.
        depth: float32 (sH, sW), inverse depth 1 / z in 1/m at s times the image size; 0 where no mesh is drawn.
        owner: int32 (sH, sW), index of the visible mesh (actors first, then things), or -1 for none.
        finer: Supersampling factor s, samples per pixel side.
    """

    linear: np.ndarray
    depth: np.ndarray
    owner: np.ndarray
    finer: int


def draw(stage: Stage, finer: int) -> Drawn:
    """Render a stage with ``finer`` x ``finer`` samples per pixel."""
    meshes = [actor.mesh for actor in stage.actors] + list(stage.things)
    whole = join(meshes)
    camera = stage.camera.finer(finer)
    screen = camera.project(whole.points)
    screen[:, 2] = np.where(screen[:, 2] > NEAR, 1 / np.maximum(screen[:, 2], NEAR), -1)
    screen = screen.astype(np.float32)
    width, height = camera.size
    depth = np.zeros((height, width), np.float32)
    owner = np.full((height, width), raster.EMPTY, np.int32)
    raster.draw(screen, whole.keep, whole.triangles, whole.closed, depth, owner)
    around = stage.surroundings
    to_shadow, shadow = _shadow(whole, _casters(meshes), around.light[0])
    out = _resized(around.far, camera.size)
    shading.shade_ground(
        owner, camera.rays(), camera.position, around.reach, around.tile, around.rate, 1 / camera.focal,
        around.light, shadow, to_shadow, _contacts(meshes), around.photo, out,
    )  # fmt: skip
    faces = np.stack([actor.mesh.face for actor in stage.actors if actor.mesh.face is not None] or [_NO_FACE])
    shading.shade(
        owner, depth, screen, whole.points, raster.normals(whole.points, whole.triangles), whole.places,
        whole.triangles, whole.material, whole.materials, faces, camera.position, around.light, shadow, to_shadow, out,
    )  # fmt: skip
    numbers = np.repeat(np.arange(len(meshes), dtype=np.int32), [len(mesh.triangles) for mesh in meshes])
    owner = np.where(owner >= 0, numbers[np.maximum(owner, 0)] if len(numbers) else -1, -1).astype(np.int32)
    _crease(out, depth, (owner >= 0) & (owner < len(stage.actors)), camera)
    return Drawn(cv2.resize(out, stage.camera.size, interpolation=cv2.INTER_AREA), depth, owner, finer)


_NO_FACE = np.ones((2, 2, 3), np.float32)


def join(meshes: list[Mesh]) -> Mesh:
    """Concatenate meshes; column 11 of each material (its face picture) is set to the index of the material's mesh."""
    if not meshes:
        empty = np.zeros((0, 3), np.float32)
        none = np.zeros(0, np.int32)
        return Mesh(empty, empty, empty[:, 0], empty.astype(np.int32), none.astype(np.uint8), none, np.zeros((0, 13)))
    starts = np.cumsum([0] + [len(mesh.points) for mesh in meshes])
    rows = np.cumsum([0] + [len(mesh.materials) for mesh in meshes])
    materials = [mesh.materials.copy() for mesh in meshes]
    for k, table in enumerate(materials):
        table[:, 11] = k
    return Mesh(
        points=np.concatenate([mesh.points for mesh in meshes]),
        places=np.concatenate([mesh.places for mesh in meshes]),
        keep=np.concatenate([mesh.keep for mesh in meshes]),
        triangles=np.concatenate([m.triangles + s for m, s in zip(meshes, starts[:-1], strict=True)]).astype(np.int32),
        closed=np.concatenate([mesh.closed for mesh in meshes]),
        material=np.concatenate([m.material + r for m, r in zip(meshes, rows[:-1], strict=True)]).astype(np.int32),
        materials=np.concatenate(materials),
    )


def _casters(meshes: list[Mesh]) -> np.ndarray:
    """Return which triangles cast shadows, bool (T,).

    Large meshes such as walls cast none: the shadow map would have to cover them too and would lose resolution.
    """
    small = [bool(np.ptp(mesh.points, axis=0).max() < 6) for mesh in meshes]
    return np.repeat(np.array(small, bool), [len(mesh.triangles) for mesh in meshes])


def _shadow(mesh: Mesh, casts: np.ndarray, sun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Render the shadow map with an orthographic projection along the sun's direction.

    Args:
        mesh: All meshes as one, in world coordinates.
        casts: bool (T,), triangles that cast shadows.
        sun: float64 (3,), unit vector towards the sun, in world coordinates.

    Returns:
        float64 (3, 4), the matrix from world coordinates in m to the shadow map: x and y in its px, and height
        towards the sun in m. And float32 (S, S), the map, see `raster.draw_shadow`.
    """
    depth = np.full((SHADOW_SIZE, SHADOW_SIZE), -1e6, np.float32)
    triangles = mesh.triangles[casts]
    if not len(triangles):
        return np.zeros((3, 4)), depth
    aside = np.cross(sun, [0.31, 0.2, 0.93])
    aside /= np.linalg.norm(aside)
    basis = np.stack([aside, np.cross(sun, aside), sun])
    seen = mesh.points[np.unique(triangles)] @ basis.T
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    scale = (SHADOW_SIZE - 4) / max(float((high - low).max()), 0.1)
    matrix = np.zeros((3, 4))
    matrix[:2, :3], matrix[:2, 3] = basis[:2] * scale, 2 - low * scale
    matrix[2, :3] = basis[2]
    points = (mesh.points @ matrix[:, :3].T + matrix[:, 3]).astype(np.float32)
    raster.draw_shadow(points, mesh.keep, triangles, depth)
    return matrix, depth


def _contacts(meshes: list[Mesh]) -> np.ndarray:
    """Place contact shadows where meshes touch the ground.

    Vertices close to the ground are snapped to a coarse grid. Each occupied cell gets one shadow, up to a limit per
    mesh.

    Returns:
        float64 (C, 3): world x, world z and radius of each contact shadow, m.
    """
    found = []
    for mesh in meshes:
        low = mesh.points[mesh.points[:, 1] < 0.05][:, [0, 2]]
        cells = np.unique(np.round(low / 0.15).astype(int), axis=0) if len(low) else np.zeros((0, 2))
        found += [(x * 0.15, z * 0.15, 0.13) for x, z in cells[:12]]
    return np.array(found, np.float64).reshape(-1, 3)


def _crease(out: np.ndarray, depth: np.ndarray, people: np.ndarray, camera: Camera) -> None:
    """Darken creases and gaps on people: samples that lie slightly behind the mean depth around them.

    The method is unsharp masking of the depth buffer (Luft et al. 2006).

    Args:
        out: float32 (sH, sW, 3), linear RGB; changed in place.
        depth: float32 (sH, sW), inverse depth 1 / z, 1/m.
        people: bool (sH, sW), samples that show a person.
        camera: The supersampled camera.
    """
    known = people.astype(np.float32)
    z = known / np.maximum(depth, 1e-6)
    size = (max(camera.size[0] // 4, 1), max(camera.size[1] // 4, 1))
    small = cv2.resize(z, size, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    sigma = max(size[1] / 60, 1.0)
    mean = cv2.GaussianBlur(small, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    gap = z - _resized(mean, camera.size)
    behind = np.clip(gap / 0.2, 0, 1) * np.clip((0.6 - gap) / 0.3, 0, 1) * known
    out *= (1 - 0.35 * behind)[..., None]


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a copy of a picture stretched to ``size`` (width, height), float32."""
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.float32)
