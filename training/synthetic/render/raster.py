"""Rasterizer with a z-buffer: writes depth and triangle indices, on one CPU core, compiled by numba.

Pixel centres lie at integer screen coordinates. The z-buffer stores inverse depth 1 / z, because it is linear in screen
space and 0 at infinity.
"""

from __future__ import annotations

import numpy as np
from numba import njit

EMPTY = -1
"""Value of a buffer of triangle indices where no triangle is drawn."""


@njit(cache=True)
def normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Compute unit vertex normals as the area-weighted mean of the normals of the adjacent triangles.

    Args:
        points: float32 (N, 3), vertices, m.
        triangles: int32 (T, 3), vertex indices.

    Returns:
        float32 (N, 3); zero for a vertex without triangles.
    """
    total = np.zeros_like(points)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            total[k, 0] += nx
            total[k, 1] += ny
            total[k, 2] += nz
    for k in range(points.shape[0]):
        length = np.sqrt(total[k, 0] ** 2 + total[k, 1] ** 2 + total[k, 2] ** 2) + np.float32(1e-12)
        total[k] /= length
    return total


@njit(cache=True)
def _corner(screen: np.ndarray, k: int) -> tuple[float, float, float]:
    return screen[k, 0], screen[k, 1], screen[k, 2]


@njit(cache=True)
def draw(
    screen: np.ndarray,
    keep: np.ndarray,
    triangles: np.ndarray,
    closed: np.ndarray,
    depth: np.ndarray,
    owner: np.ndarray,
) -> None:
    """Rasterize triangles into a z-buffer.

    A triangle with a vertex in front of the near plane or behind the camera is skipped, not clipped.

    Args:
        screen: float32 (N, 3): x and y in px, 1 / z in 1/m; 1 / z <= 0 marks a vertex that is too near or behind the
            camera.
        keep: float32 (N,), clip function; a triangle is cut away where its interpolated value is negative.
        triangles: int32 (T, 3), vertex indices.
        closed: uint8 (T,), 1 where the back of a triangle can never be seen and is culled.
        depth: float32 (H, W), greatest 1 / z so far, 1/m; changed in place.
        owner: int32 (H, W), index of the visible triangle or `EMPTY`; changed in place.
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        ax, ay, az = _corner(screen, a)
        bx, by, bz = _corner(screen, b)
        cx, cy, cz = _corner(screen, c)
        if az <= 0 or bz <= 0 or cz <= 0 or (keep[a] < 0 and keep[b] < 0 and keep[c] < 0):
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # Front faces are counter-clockwise; their signed area is negative because screen y points down.
        if area == 0 or (closed[t] == 1 and area > 0):
            continue
        left, right = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), width - 1)
        top, bottom = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), height - 1)
        whole = keep[a] >= 0 and keep[b] >= 0 and keep[c] >= 0
        scale = 1.0 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * scale
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * scale
                wa = 1.0 - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                near = wa * az + wb * bz + wc * cz
                if near <= depth[y, x]:
                    continue
                if not whole and wa * az * keep[a] + wb * bz * keep[b] + wc * cz * keep[c] < 0:
                    continue
                depth[y, x] = near
                owner[y, x] = t


@njit(cache=True)
def draw_shadow(points: np.ndarray, keep: np.ndarray, triangles: np.ndarray, depth: np.ndarray) -> None:
    """Rasterize triangles into a shadow map, with an orthographic projection along the light's direction.

    A triangle with a vertex that is cut away (``keep`` < 0) casts no shadow.

    Args:
        points: float32 (N, 3): x and y in px of the shadow map, height towards the light in m.
        keep: float32 (N,), clip function, see `draw`.
        triangles: int32 (T, 3), vertex indices.
        depth: float32 (S, S), greatest height towards the light so far, m; changed in place.
    """
    size = depth.shape[0]
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t]
        if keep[a] < 0 or keep[b] < 0 or keep[c] < 0:
            continue
        ax, ay, az = _corner(points, a)
        bx, by, bz = _corner(points, b)
        cx, cy, cz = _corner(points, c)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        left, right = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), size - 1)
        top, bottom = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), size - 1)
        scale = 1.0 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * scale
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * scale
                wa = 1.0 - wb - wc
                if wa >= 0 and wb >= 0 and wc >= 0:
                    depth[y, x] = max(depth[y, x], wa * az + wb * bz + wc * cz)
