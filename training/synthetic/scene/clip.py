"""Render clips: the same people move smoothly, and every frame has exact keypoints and track ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.synthetic.body import limbs, makehuman, poses
from training.synthetic.body.makehuman import SyntheticError
from training.synthetic.body.rig import Rig
from training.synthetic.render import sensor
from training.synthetic.render.camera import Camera
from training.synthetic.render.stage import Actor, Mesh, Stage, Surroundings
from training.synthetic.scene import backdrop, cast, scene
from training.synthetic.scene.person import Person, person
from training.synthetic.scene.scene import Picture, RenderSettings

FASTEST, SLOWEST = 1.25, 0.5
"""Limits of the walking speed, m/s. People walk more slowly in longer clips, to stay in the picture."""


@dataclass(frozen=True, slots=True)
class Film:
    """The state that all frames of a clip share.

    Attributes:
        camera: The camera, which does not move.
        around: Background, ground and light, see `backdrop.sample`.
        things: Static meshes.
        taken: Properties of the sensor.
        at: Function from a time in s to the actors at that time.
    """

    camera: Camera
    around: Surroundings
    things: tuple[Mesh, ...]
    taken: sensor.Sensor
    at: Callable[[float], tuple[Actor, ...]]


def render(settings: RenderSettings, kind: str, number: int, frames: int, fps: float) -> Picture:
    """Render frame ``number``, counted from 1, of a clip of ``frames`` frames.

    Raises:
        SyntheticError: The kind is unknown, or it needs more identities than the settings allow.
    """
    film = _film(settings, kind, (frames - 1) / fps)
    stage = Stage(film.camera, film.at((number - 1) / fps), film.things, film.around)
    return scene.develop(stage, settings, film.taken, np.random.default_rng([settings.seed, number]))


@functools.lru_cache(maxsize=2)
def _film(settings: RenderSettings, kind: str, length: float) -> Film:
    """Sample the shared state of a clip that lasts ``length`` s; the cache keeps it between frames."""
    if kind not in KINDS:
        raise SyntheticError(f"--clip: expected one of {', '.join(KINDS)}, got {kind!r}; choose one")
    rng = np.random.default_rng([settings.seed, 0])
    width, height = settings.size
    focal = max(width, height) * 1.1
    distance = 1.7 * focal / (height * 0.6)
    camera = Camera.looking(settings.size, focal, np.array([0.0, 1.4, 0.0]), np.array([0.0, 0.95, distance]))
    around, decor, _ = backdrop.sample(rng, camera, distance + 1.5, settings.photos)
    low, high = settings.identities
    who = [person(int(low + k)) for k in rng.choice(high - low + 1, min(2, high - low + 1), replace=False)]
    reach = 0.42 * width / focal * distance
    at = KINDS[kind](who, rng, distance, reach, length)
    taken = sensor.sample(rng)
    return Film(camera, around, tuple(decor), taken, at)


def _pacer(
    who: Person, rng: np.random.Generator, sign: float, z: float, reach: float, length: float, track: int
) -> Callable[[float], Actor]:
    """Make a person walk along the x axis and reach x = 0 in the middle of the clip.

    Args:
        who: The person.
        rng: Random generator.
        sign: Direction of the walk: +1 towards +x, which is left in the picture, -1 towards -x.
        z: Depth of the path, m.
        reach: Largest visible abs(x) at the depth of the people, m.
        length: Duration of the clip, s.
        track: Track id.

    Returns:
        A function from a time in s to the actor at that time.
    """
    long, swing, start = float(rng.uniform(0.3, 0.36)), float(rng.uniform(0.6, 1.1)), float(rng.uniform(0, 1))
    nod, turn = float(rng.normal(0, 5)), float(rng.normal(0, 10))
    cycle = long * limbs.leg_length(Rig.at_rest(makehuman.load(), who.heads), "L") / 0.85 * 2 / 0.6

    speed = float(np.clip(2.4 * reach / max(length, 1e-3), SLOWEST, FASTEST))

    def at(time: float) -> Actor:
        way = speed * (time - length / 2)

        def move(rig: Rig) -> None:
            poses.stride(rig, start + way / cycle, long, swing)
            limbs.look(rig, nod, 0, turn)

        return cast.place(cast.pose_by(who, "walk", move), 90 * sign, sign * way, z, track)

    return at


def _two_crossing(
    who: list[Person], rng: np.random.Generator, distance: float, reach: float, length: float
) -> Callable[[float], tuple[Actor, ...]]:
    """Make two people walk past each other; the nearer one occludes the other in the middle of the clip.

    Raises:
        SyntheticError: Only one identity is available.
    """
    if len(who) < 2:
        raise SyntheticError(
            "--identities: expected at least two people for --clip two-crossing, got 1; widen the range"
        )
    near = _pacer(who[0], rng, 1.0, distance, reach, length, 1)
    far = _pacer(who[1], rng, -1.0, distance + 0.9, reach, length, 2)
    return lambda time: (near(time), far(time))


def _walk(
    who: list[Person], rng: np.random.Generator, distance: float, reach: float, length: float
) -> Callable[[float], tuple[Actor, ...]]:
    """Make one person walk through the picture."""
    walker = _pacer(who[0], rng, float(rng.choice([-1.0, 1.0])), distance, reach, length, 1)
    return lambda time: (walker(time),)


def _still(
    who: list[Person], rng: np.random.Generator, distance: float, reach: float, length: float
) -> Callable[[float], tuple[Actor, ...]]:
    """Make people stand, breathe, sway and look around."""
    del length
    seeds = rng.integers(0, 2**31, len(who))

    def sway(k: int, time: float) -> Actor:
        def move(rig: Rig) -> None:
            poses.strike("stand", rig, np.random.default_rng(seeds[k]))
            limbs.look(rig, 3 * np.sin(1.1 * time + k), 0, 12 * np.sin(0.6 * time + 2 * k))
            limbs.bow(rig, 1.5 * np.sin(1.6 * time + k), np.sin(0.9 * time), 0)

        x = 0.0 if len(who) == 1 else reach * (0.45 if k else -0.45)
        yaw = 180 + 25 * (1 - 2 * k)
        return cast.place(cast.pose_by(who[k], "stand", move), yaw, x, distance, k + 1)

    return lambda time: tuple(sway(k, time) for k in range(len(who)))


KINDS = {"two-crossing": _two_crossing, "walk": _walk, "still": _still}
