"""Sample the surroundings of a scene: light, ground, and a room, a landscape or a photo as the background."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.data import images
from training.synthetic.render import materials, shading
from training.synthetic.render.camera import Camera
from training.synthetic.render.stage import Mesh, Surroundings
from training.synthetic.scene import things

TILE = 128
"""Side of a ground texture, px."""


def sample(
    rng: np.random.Generator, camera: Camera, depth: float, photos: tuple[Path, ...]
) -> tuple[Surroundings, list[Mesh], bool]:
    """Sample the surroundings of a scene.

    Args:
        rng: Random generator.
        camera: The camera.
        depth: Depth of the farthest person, m.
        photos: Background photos to choose from; an empty tuple selects generated surroundings.

    Returns:
        The surroundings, the meshes that belong to them, and whether the scene is a room.
    """
    if photos:
        far = _photo(photos[rng.integers(len(photos))], camera.size, rng)
        return Surroundings(far, photo=True, tile=_plain_tile(), rate=1.0, reach=1e3, light=_light(rng, 0.5)), [], False
    room = bool(rng.random() < 0.5)
    tile, rate = _ground(rng, room)
    if room:
        wall = depth + rng.uniform(0.7, 4.0)
        light = _light(rng, rng.uniform(0.3, 1.0))
        far = np.full((8, 8, 3), 0.5, np.float32) * light[2].astype(np.float32)
        return (
            Surroundings(far, photo=False, tile=tile, rate=rate, reach=wall + 0.5, light=light),
            _walls(rng, wall),
            True,
        )
    light = _light(rng, rng.uniform(0.0, 0.6))
    far = _outdoors(rng, camera, light)
    return Surroundings(far, photo=False, tile=tile, rate=rate, reach=rng.uniform(25, 80), light=light), [], False


def _light(rng: np.random.Generator, soft: float) -> np.ndarray:
    """Sample the light, float64 (5, 3), see `shading.shade`; ``soft`` is 0 for direct sun and 1 for an overcast sky."""
    height, way = np.radians(rng.uniform(25, 80)), rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(height) * np.cos(way), np.sin(height), np.cos(height) * np.sin(way)])
    if rng.random() < 0.65:
        sun[2] = -abs(sun[2])  # The light mostly comes from behind the camera.
    warm = rng.uniform(-0.15, 0.25)
    strength = rng.uniform(0.75, 1.15)
    colour = np.array([1 + warm * 0.6, 1.0, 1 - warm]) * strength * (1 - 0.8 * soft)
    sky = np.array([1 - warm * 0.2, 1.0, 1 + warm * 0.3]) * (0.22 + 0.45 * soft) * rng.uniform(0.7, 1.25)
    ground = sky * np.array([0.62, 0.56, 0.5])
    return np.stack([sun, colour, sky, ground, np.full(3, 0.05 + 0.15 * soft * rng.random())])


def _photo(path: Path, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Crop a photo at random to ``size`` (width, height) in px and return it as float32 (H, W, 3) linear RGB."""
    photo = images.read(path)
    height, width = photo.shape[:2]
    scale = max(size[0] / width, size[1] / height) * rng.uniform(1.0, 1.4)
    grown = cv2.resize(
        photo, (max(size[0], round(width * scale)), max(size[1], round(height * scale))), interpolation=3
    )
    x, y = rng.integers(grown.shape[1] - size[0] + 1), rng.integers(grown.shape[0] - size[1] + 1)
    return materials.linear(grown[y : y + size[1], x : x + size[0]]).astype(np.float32)


def _plain_tile() -> np.ndarray:
    """Return a uniform grey ground texture, float32 (2, 2, 3) linear RGB."""
    return np.full((2, 2, 3), 0.3, np.float32)


def clouds(rng: np.random.Generator, size: int, grains: tuple[int, ...]) -> np.ndarray:
    """Sample smooth noise that tiles without seams.

    Args:
        rng: Random generator.
        size: Side of the texture, px.
        grains: Random values per side, one number per octave.

    Returns:
        float32 (size, size), about 0..1, the mean of the octaves.
    """
    total = np.zeros((size, size), np.float32)
    for grain in grains:
        padded = np.pad(rng.random((grain, grain)).astype(np.float32), 2, mode="wrap")
        scale = size // grain
        grown = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        window = grown[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
        total += cv2.resize(window, (size, size))
    return total / len(grains)


def _ground(rng: np.random.Generator, room: bool) -> tuple[np.ndarray, float]:
    """Sample a ground texture, float32 (TILE, TILE, 3) linear RGB, and its number of repetitions per metre."""
    kind = str(rng.choice(["planks", "tiles", "carpet"] if room else ["grass", "asphalt", "sand", "tiles", "court"]))
    base = {
        "planks": (140, 100, 64), "tiles": (170, 165, 155), "carpet": (110, 100, 105), "grass": (84, 106, 50),
        "asphalt": (98, 98, 100), "sand": (186, 166, 128), "court": (120, 84, 66),
    }[kind]  # fmt: skip
    colour = materials.linear(np.clip(np.array(base) * rng.uniform(0.65, 1.3) + rng.normal(0, 14, 3), 12, 235))
    if kind in ("carpet", "court"):
        colour = 0.75 * colour + 0.25 * materials.sample_colour(rng)
    rough = {"grass": 1.3, "asphalt": 0.5, "sand": 0.5}.get(kind, 0.3)
    grain = clouds(rng, TILE, (4, 16, 64, 128)) - 0.5
    tile = colour * (1 + rough * 1.6 * grain)[..., None]
    if kind in ("planks", "tiles"):
        step = TILE // int(rng.choice([2, 4]))
        for k in range(0, TILE, step):
            shade = rng.uniform(0.8, 1.15) if kind == "planks" else 1.0
            tile[k : k + step] *= shade
            tile[k : k + 2] *= 0.55
            if kind == "tiles":
                tile[:, k : k + 2] *= 0.55
    return np.maximum(tile, 0.004).astype(np.float32), float(rng.uniform(0.5, 1.3))


def _walls(rng: np.random.Generator, depth: float) -> list[Mesh]:
    """Sample a back wall at ``depth`` m with a skirting board, and pictures, doors or cupboards in front of it."""
    pattern = int(rng.choice([shading.PLAIN, shading.PLAIN, shading.STRIPES, shading.BLOTCHES, shading.CHECKS]))
    colour = materials.linear(
        np.clip(np.array([196, 188, 176]) * rng.uniform(0.5, 1.2) + rng.normal(0, 18, 3), 20, 245)
    )
    wall = materials.row(shading.SOLID, colour, colour * rng.uniform(0.7, 0.95), pattern, rng.uniform(0.8, 4))
    found = [
        things.box((40.0, 5.0, 0.1), (0, 0, depth + 0.05), wall),
        things.box((40.0, 0.1, 0.04), (0, 0, depth - 0.02), things.surface(rng)),
    ]
    for _ in range(rng.integers(2, 8)):
        x = rng.uniform(-0.6, 0.6) * depth
        style = rng.random()
        if style < 0.5:
            size = (rng.uniform(0.3, 1.2), rng.uniform(0.3, 0.9), 0.03)
            picture = materials.sample_cloth(rng, 0.0, 1.0)
            picture[0], picture[8] = shading.SOLID, rng.uniform(2, 9)
            found.append(things.box(size, (x, rng.uniform(1.0, 1.8), depth - 0.03), picture))
        elif style < 0.65:
            found.append(things.box((0.85, 2.05, 0.05), (x, 0, depth - 0.03), things.surface(rng)))
        else:
            size = (rng.uniform(0.5, 1.6), rng.uniform(0.4, 2.0), rng.uniform(0.25, 0.5))
            found.append(things.box(size, (x, 0, depth - size[2] / 2), things.surface(rng)))
    return found


def _outdoors(rng: np.random.Generator, camera: Camera, light: np.ndarray) -> np.ndarray:
    """Paint sky, clouds, houses and trees above the horizon, float32 (H, W, 3) linear RGB."""
    width, height = camera.size
    horizon = camera.horizon()
    v = np.arange(height, dtype=np.float32)[:, None]
    up = np.clip((horizon - v) / max(height, 1), 0, 1)[..., None]
    high = materials.linear(np.array([96, 140, 205]) * rng.uniform(0.6, 1.15)) + 0.2 * light[2]
    low = materials.linear(np.array([205, 215, 225]) * rng.uniform(0.75, 1.05))
    sky = low * (1 - up) + high * up
    cover = cv2.resize(clouds(rng, 256, (2, 8, 32)), (width, height))[..., None]
    sky = np.repeat(sky, width, axis=1) if sky.shape[1] == 1 else sky
    cloud = np.clip((cover - rng.uniform(0.4, 0.75)) * 5, 0, 1)
    sky = (sky * (1 - cloud) + 0.85 * cloud).astype(np.float32)
    bright = float(light[2].mean() + light[1].mean() * 0.6)
    pixel = camera.focal / rng.uniform(15, 60)  # px per metre at the distance of the houses and trees
    for _ in range(rng.integers(0, 9)):
        colour = materials.linear(
            np.clip(np.array([150, 140, 130]) * rng.uniform(0.5, 1.4) + rng.normal(0, 20, 3), 10, 240)
        )
        _house(sky, rng, horizon, pixel, colour * bright)
    for _ in range(rng.integers(0, 14)):
        green = materials.linear(np.clip(np.array([70, 92, 48]) * rng.uniform(0.5, 1.3) + rng.normal(0, 10, 3), 5, 200))
        _tree(sky, rng, horizon, pixel, green * bright)
    below = v[..., None] > horizon
    sky = np.where(below, (low * 0.5).astype(np.float32), sky)
    return cv2.GaussianBlur(
        np.ascontiguousarray(sky, np.float32), (0, 0), float(rng.uniform(0.3, 0.008 * height + 0.4))
    )


def _house(sky: np.ndarray, rng: np.random.Generator, horizon: float, pixel: float, colour: np.ndarray) -> None:
    """Paint a house with windows into ``sky``, float32 (H, W, 3), in place.

    Args:
        sky: The background, linear RGB.
        rng: Random generator.
        horizon: Row of the horizon, px.
        pixel: px per metre at the distance of the house.
        colour: (3,), linear RGB.
    """
    height, width = sky.shape[:2]
    wide, high = rng.uniform(6, 25) * pixel, rng.uniform(4, 25) * pixel
    left, top = rng.uniform(-0.2, 1.0) * width, horizon - high
    cv2.rectangle(sky, (int(left), int(top)), (int(left + wide), height), colour.tolist(), -1)
    dark = (colour * rng.uniform(0.25, 0.6)).tolist()
    step = max(3.2 * pixel, 4)
    for y in np.arange(top + 0.8 * pixel, horizon - 2 * pixel, step):
        for x in np.arange(left + pixel, left + wide - 1.6 * pixel, step):
            cv2.rectangle(sky, (int(x), int(y)), (int(x + 1.4 * pixel), int(y + 1.7 * pixel)), dark, -1)


def _tree(sky: np.ndarray, rng: np.random.Generator, horizon: float, pixel: float, colour: np.ndarray) -> None:
    """Paint a tree into ``sky`` in place; the arguments are those of `_house`."""
    size = rng.uniform(2, 8) * pixel
    x = rng.uniform(-0.05, 1.05) * sky.shape[1]
    cv2.rectangle(
        sky, (int(x - size * 0.06), int(horizon - size)), (int(x + size * 0.06), int(horizon)), (0.05, 0.035, 0.02), -1
    )
    for _ in range(24):
        cx, cy = x + rng.normal(0, 0.3) * size, horizon - size * rng.uniform(0.6, 1.4)
        tint = (colour * rng.uniform(0.6, 1.3)).tolist()
        cv2.circle(sky, (int(cx), int(cy)), max(1, int(size * rng.uniform(0.08, 0.22))), tint, -1, cv2.LINE_AA)
