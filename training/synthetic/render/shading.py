"""Deferred shading of the z-buffer: procedural materials lit by sun, sky and shadow map; compiled by numba.

Colours are linear RGB; 1 is a white surface in full sun. Materials are rows of numbers, see `materials.WIDTH`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CLOTH, SKIN, EYE, HAIR, SOLID = 0, 1, 2, 3, 4
"""Kinds of surface, column 0 of a material."""
PLAIN, HOOPS, STRIPES, CHECKS, BLOTCHES, DOTS, PRINT, BLOCK = 0, 1, 2, 3, 4, 5, 6, 7
"""Patterns, column 7 of a material."""
FACE_LEFT, FACE_BOTTOM, FACE_SIZE = -0.11, 0.605, 0.22
"""Left edge, bottom edge and side length, m, of the square on the template's front that a face picture covers."""
IRIS, PUPIL = 0.0066, 0.003
"""Radii of the iris and the pupil, m."""


@njit(cache=True)
def _hash(x: int, y: int, z: int) -> float:
    """Return a pseudo-random value 0..1 for a lattice point."""
    n = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    n = (n ^ (n >> 13)) * 1274126177
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@njit(cache=True)
def noise(x: float, y: float, z: float) -> float:
    """Return value noise, 0..1, at a point: random values on the integer lattice, smoothly interpolated between."""
    ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for k in range(8):
        dx, dy, dz = k & 1, (k >> 1) & 1, k >> 2
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
        total += weight * _hash(ix + dx, iy + dy, iz + dz)
    return total


@njit(cache=True)
def _pattern(row: np.ndarray, x: float, y: float, z: float) -> float:  # noqa: PLR0911 (one return per pattern)
    """Return the share of a material's second colour, 0..1, at a point of the template, m."""
    kind, rate = int(row[7]), row[8]
    if kind == HOOPS:
        return 1.0 if (y * rate) % 1.0 < row[12] else 0.0
    if kind == STRIPES:
        return 1.0 if ((x + 0.3 * z) * rate) % 1.0 < row[12] else 0.0
    if kind == CHECKS:
        across, along = (x + 0.3 * z) * rate % 1.0, y * rate % 1.0
        return 0.5 * ((1.0 if across < row[12] else 0.0) + (1.0 if along < row[12] else 0.0))
    if kind == BLOTCHES:
        share = noise(x * rate, y * rate, z * rate) + 0.5 * noise(2.1 * x * rate, 2.1 * y * rate, 2.1 * z * rate)
        return min(max((share - 0.75) * 6 + 0.5, 0.0), 1.0)
    if kind == DOTS:
        u, v = (x + 0.3 * z) * rate % 1.0 - 0.5, y * rate % 1.0 - 0.5
        return 1.0 if u * u + v * v < 0.06 + 0.1 * row[12] else 0.0
    if kind == PRINT:
        u, v = x / 0.085, (y - 0.40) / 0.09
        if z < 0.03 or abs(u) > 1 or abs(v) > 1:
            return 0.0
        return 1.0 if noise(x * rate * 3 + 7 * row[12], y * rate * 3, 3.3) > 0.45 else 0.0
    if kind == BLOCK:
        return 1.0 if y > row[12] * 0.8 - 0.1 else 0.0
    return 0.0


@njit(cache=True)
def _tile(picture: np.ndarray, u: float, v: float, channel: int) -> float:
    """Sample one channel of a repeating texture (S, S, 3) bilinearly; ``u`` and ``v`` are in tiles."""
    size = picture.shape[0]
    x, y = (u % 1.0) * size, (v % 1.0) * size
    ix, iy = int(x), int(y)
    fx, fy = x - ix, y - iy
    x0, y0, x1, y1 = ix % size, iy % size, (ix + 1) % size, (iy + 1) % size
    upper = picture[y0, x0, channel] * (1 - fx) + picture[y0, x1, channel] * fx
    lower = picture[y1, x0, channel] * (1 - fx) + picture[y1, x1, channel] * fx
    return float(upper * (1 - fy) + lower * fy)


@njit(cache=True)
def _face(picture: np.ndarray, x: float, y: float, channel: int) -> float:
    """Sample one channel of a face picture (F, F, 3) bilinearly at a point of the template, m, clamped to its edges."""
    size = picture.shape[0]
    u = min(max((x - FACE_LEFT) / FACE_SIZE, 0.0), 0.999) * (size - 1)
    v = min(max(1 - (y - FACE_BOTTOM) / FACE_SIZE, 0.0), 0.999) * (size - 1)
    ix, iy = int(u), int(v)
    fx, fy = u - ix, v - iy
    upper = picture[iy, ix, channel] * (1 - fx) + picture[iy, ix + 1, channel] * fx
    lower = picture[iy + 1, ix, channel] * (1 - fx) + picture[iy + 1, ix + 1, channel] * fx
    return float(upper * (1 - fy) + lower * fy)


@njit(cache=True)
def _lit(shadow: np.ndarray, to_shadow: np.ndarray, x: float, y: float, z: float, bias: float) -> float:
    """Return the share of sunlight, 0..1, that reaches a point in world coordinates, m.

    The shadow map is filtered with 3 x 3 taps of percentage-closer filtering (Reeves et al. 1987). An occluder counts
    only if it is more than ``bias`` (m) nearer to the sun than the point; otherwise surfaces would shadow themselves.
    """
    u = to_shadow[0, 0] * x + to_shadow[0, 1] * y + to_shadow[0, 2] * z + to_shadow[0, 3]
    v = to_shadow[1, 0] * x + to_shadow[1, 1] * y + to_shadow[1, 2] * z + to_shadow[1, 3]
    w = to_shadow[2, 0] * x + to_shadow[2, 1] * y + to_shadow[2, 2] * z + to_shadow[2, 3]
    size = shadow.shape[0]
    total = 0.0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            i, j = int(np.floor(u + 0.5 + dx * 0.9)), int(np.floor(v + 0.5 + dy * 0.9))
            if i < 0 or j < 0 or i >= size or j >= size or shadow[j, i] < w + bias:
                total += 1.0
    return total / 9.0


@njit(cache=True)
def _albedo(row: np.ndarray, faces: np.ndarray, tx: float, ty: float, tz: float, out: np.ndarray) -> None:
    """Write a material's albedo, linear RGB, at a point of the template (m) into ``out``, float64 (3,)."""
    kind = int(row[0])
    if kind == EYE:
        aside = np.sqrt((abs(tx) - row[4]) ** 2 + (ty - row[5]) ** 2)
        for c in range(3):
            out[c] = 0.015 if aside < PUPIL else (row[1 + c] if aside < IRIS else 0.72)
        if abs(aside - IRIS) < 0.0007:
            out *= 0.45
        return
    share = _pattern(row, tx, ty, tz) if kind in (CLOTH, SOLID) else 0.0
    grain = 1.0
    if kind == HAIR:
        grain = 0.55 + 0.5 * noise(tx * 900, ty * 60, tz * 700) + 0.4 * noise(tx * 160, ty * 25, tz * 160)
    elif kind == SKIN:
        grain = 0.9 + 0.2 * noise(tx * 60, ty * 60, tz * 60)
    else:
        grain = 0.93 + 0.14 * noise(tx * 400, ty * 400, tz * 400)
    for c in range(3):
        out[c] = (row[1 + c] * (1 - share) + row[4 + c] * share) * grain
    if kind == SKIN and ty > FACE_BOTTOM:
        front = min(max((tz - 0.045) / 0.03, 0.0), 1.0)
        for c in range(3):
            out[c] *= 1 - front + front * _face(faces[int(row[11])], tx, ty, c)


@njit(cache=True)
def _bump(row: np.ndarray, tx: float, ty: float, tz: float, n: np.ndarray) -> None:
    """Perturb a unit normal ``n``, float64 (3,), in place by a bump map of noise that imitates folds of cloth."""
    strength = row[9]
    if strength <= 0:
        return
    bend = 0.05 * noise(tx * 9, ty * 9, tz * 9)
    x, y, z = tx * 22, (ty + bend) * 34, tz * 22
    for k in range(3):
        n[k] += strength * (noise(x + 17 * k, y, z) + 0.5 * noise(2.3 * x, 2.3 * y + 31 * k, 2.3 * z) - 0.75)
    n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9


@njit(cache=True)
def shade(
    owner: np.ndarray,
    depth: np.ndarray,
    screen: np.ndarray,
    points: np.ndarray,
    vertex_normals: np.ndarray,
    places: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray,
    materials: np.ndarray,
    faces: np.ndarray,
    view: np.ndarray,
    light: np.ndarray,
    shadow: np.ndarray,
    to_shadow: np.ndarray,
    out: np.ndarray,
) -> None:
    """Shade every sample that shows a triangle.

    Lighting is the sun with wrapped diffuse reflection and a shadow map, ambient light from sky and ground, a fill
    light at the camera, and specular highlights from the half vector (Blinn 1977). Normals are turned towards the
    camera.

    Args:
        owner: int32 (H, W), index of the visible triangle or -1.
        depth: float32 (H, W), inverse depth 1 / z, 1/m.
        screen: float32 (N, 3), x and y in px and 1 / z in 1/m.
        points: float32 (N, 3), vertices in world coordinates, m.
        vertex_normals: float32 (N, 3), unit normals in world coordinates.
        places: float32 (N, 3), texture coordinates, m, see `stage.Mesh`.
        triangles: int32 (T, 3), vertex indices.
        material: int32 (T,), row of ``materials``.
        materials: float32 (M, 13), see `materials.WIDTH`.
        faces: float32 (P, F, F, 3), face pictures: factors on the albedo of skin.
        view: float64 (3,), camera position in world coordinates, m.
        light: float64 (5, 3): unit vector towards the sun, then linear RGB of the sun, of the sky, of light from the
            ground, and of the fill light at the camera.
        shadow: float32 (S, S), shadow map, see `raster.draw_shadow`.
        to_shadow: float64 (3, 4), matrix from world coordinates to the shadow map.
        out: float32 (H, W, 3), linear RGB; changed in place where a triangle is visible.
    """
    n = np.empty(3)
    colour = np.empty(3)
    height, width = owner.shape
    for y in range(height):
        for x in range(width):
            t = owner[y, x]
            if t < 0:
                continue
            a, b, c = triangles[t]
            ax, ay = screen[a, 0], screen[a, 1]
            scale = 1.0 / ((screen[b, 0] - ax) * (screen[c, 1] - ay) - (screen[b, 1] - ay) * (screen[c, 0] - ax))
            wb = ((x - ax) * (screen[c, 1] - ay) - (y - ay) * (screen[c, 0] - ax)) * scale
            wc = ((screen[b, 0] - ax) * (y - ay) - (screen[b, 1] - ay) * (x - ax)) * scale
            z = 1.0 / depth[y, x]
            wb, wc = wb * screen[b, 2] * z, wc * screen[c, 2] * z
            wa = 1.0 - wb - wc
            px = wa * points[a, 0] + wb * points[b, 0] + wc * points[c, 0]
            py = wa * points[a, 1] + wb * points[b, 1] + wc * points[c, 1]
            pz = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
            for k in range(3):
                n[k] = wa * vertex_normals[a, k] + wb * vertex_normals[b, k] + wc * vertex_normals[c, k]
            tx = wa * places[a, 0] + wb * places[b, 0] + wc * places[c, 0]
            ty = wa * places[a, 1] + wb * places[b, 1] + wc * places[c, 1]
            tz = wa * places[a, 2] + wb * places[b, 2] + wc * places[c, 2]
            n /= np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9
            vx, vy, vz = view[0] - px, view[1] - py, view[2] - pz
            far = np.sqrt(vx * vx + vy * vy + vz * vz)
            if n[0] * vx + n[1] * vy + n[2] * vz < 0:
                n *= -1.0
            row = materials[material[t]]
            _albedo(row, faces, tx, ty, tz, colour)
            _bump(row, tx, ty, tz, n)
            sun = n[0] * light[0, 0] + n[1] * light[0, 1] + n[2] * light[0, 2]
            wrap = 0.25 if int(row[0]) == SKIN else 0.08
            sun = max((sun + wrap) / (1 + wrap), 0.0)
            if sun > 0:
                sun *= _lit(shadow, to_shadow, px + 0.01 * n[0], py + 0.01 * n[1], pz + 0.01 * n[2], 0.02)
            up = 0.5 + 0.5 * n[1]
            fill = max((n[0] * vx + n[1] * vy + n[2] * vz) / far, 0.0)
            hx, hy, hz = vx / far + light[0, 0], vy / far + light[0, 1], vz / far + light[0, 2]
            half = (n[0] * hx + n[1] * hy + n[2] * hz) / (np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
            shine = row[10] * max(half, 0.0) ** (18.0 if int(row[0]) != EYE else 90.0) * min(sun * 4, 1.0)
            near_ground = 0.65 + 0.35 * min(max(py / 0.5, 0.0), 1.0)
            for k in range(3):
                ambient = (light[2, k] * up + light[3, k] * (1 - up)) * near_ground + light[4, k] * fill
                out[y, x, k] = colour[k] * (ambient + light[1, k] * sun) + shine * light[1, k]


@njit(cache=True)
def shade_ground(  # noqa: C901 (a single loop over samples)
    owner: np.ndarray,
    rays: np.ndarray,
    view: np.ndarray,
    reach: float,
    tile: np.ndarray,
    rate: float,
    footprint: float,
    light: np.ndarray,
    shadow: np.ndarray,
    to_shadow: np.ndarray,
    contacts: np.ndarray,
    photo: bool,
    out: np.ndarray,
) -> None:
    """Shade the ground plane y = 0, with cast shadows and contact shadows, wherever no triangle is visible.

    The texture fades to its mean colour with distance, which avoids aliasing.

    Args:
        owner: int32 (H, W), index of the visible triangle; only samples below 0 are shaded.
        rays: float64 (3, 3): the ray of sample (x, y) has the direction ``rays @ (x, y, 1)`` in world coordinates.
        view: float64 (3,), camera position in world coordinates, m.
        reach: World z at which the ground ends, m.
        tile: float32 (S, S, 3), repeating ground texture, linear RGB.
        rate: Texture tiles per metre.
        footprint: Angle that a sample covers, rad.
        light: float64 (5, 3), see `shade`.
        shadow: float32 (S, S), see `shade`.
        to_shadow: float64 (3, 4), see `shade`.
        contacts: float64 (C, 3): world x, world z and radius of the contact shadows, m.
        photo: Whether ``out`` holds a photo, which is then only darkened by the shadows.
        out: float32 (H, W, 3), linear RGB; changed in place.
    """
    height, width = owner.shape
    mean = np.zeros(3)
    for c in range(3):
        mean[c] = tile[:, :, c].mean()
    for y in range(height):
        for x in range(width):
            if owner[y, x] >= 0:
                continue
            dx = rays[0, 0] * x + rays[0, 1] * y + rays[0, 2]
            dy = rays[1, 0] * x + rays[1, 1] * y + rays[1, 2]
            dz = rays[2, 0] * x + rays[2, 1] * y + rays[2, 2]
            if dy >= -1e-6:
                continue
            far = -view[1] / dy
            px, pz = view[0] + far * dx, view[2] + far * dz
            if pz > reach or far < 0:
                continue
            lit = _lit(shadow, to_shadow, px, 0.0, pz, 0.02)
            dark = 1.0
            for k in range(contacts.shape[0]):
                aside = ((px - contacts[k, 0]) ** 2 + (pz - contacts[k, 1]) ** 2) / contacts[k, 2] ** 2
                if aside < 6:
                    dark *= 1 - 0.55 * np.exp(-aside)
            if photo:
                for c in range(3):
                    whole = light[2, c] + light[1, c] * light[0, 1]
                    out[y, x, c] *= (light[2, c] * dark + light[1, c] * light[0, 1] * lit) / whole
                continue
            length = far * np.sqrt(dx * dx + dy * dy + dz * dz)
            blur = min(length * length * footprint / max(view[1], 0.2) * rate * tile.shape[0] / 3.0, 1.0)
            for c in range(3):
                colour = _tile(tile, px * rate, pz * rate, c) * (1 - blur) + mean[c] * blur
                colour *= 0.8 + 0.4 * noise(px * 0.9, 0.5, pz * 0.9)
                out[y, x, c] = colour * (light[2, c] * dark + light[1, c] * max(light[0, 1], 0.0) * lit)
