"""Compose and render a scene: actors, poses, furniture, background, occluders, camera and light.

A picture depends only on the settings, which include the seed, and on its number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.pose.types import Image
from training.synthetic.body import poses
from training.synthetic.render import drawing, labels, sensor
from training.synthetic.render.camera import Camera
from training.synthetic.render.stage import Actor, Mesh, Stage
from training.synthetic.scene import backdrop, cast, things
from training.synthetic.scene.person import person


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """The settings that all pictures of a data set share.

    Attributes:
        seed: Seed of all random choices except those that belong to an identity.
        size: (width, height) in px.
        people: (minimum, maximum) number of people in a picture.
        framing: ``scene`` shows people in a place; ``crop`` fills the picture with one person.
        identities: (first, last) identity that may appear, both inclusive.
        samples: Samples per pixel along each axis.
        masks: Whether the annotations contain segmentation masks.
        photos: Background photos; an empty tuple selects generated backgrounds.
    """

    seed: int
    size: tuple[int, int]
    people: tuple[int, int]
    framing: str
    identities: tuple[int, int]
    samples: int
    masks: bool
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered picture and its annotations.

    Attributes:
        jpeg: The content of the JPEG file.
        people: One COCO annotation per visible person, without ids; see `labels.annotate`.
    """

    jpeg: bytes
    people: list[dict]


def render(settings: RenderSettings, number: int) -> Picture:
    """Render picture ``number`` of a data set."""
    rng = np.random.default_rng([settings.seed, number])
    return develop(compose(settings, rng), settings, sensor.sample(rng), rng)


def develop(stage: Stage, settings: RenderSettings, taken: sensor.Sensor, rng: np.random.Generator) -> Picture:
    """Rasterise a scene, simulate the sensor, encode the picture and annotate it."""
    drawn = drawing.draw(stage, settings.samples)
    pixels: Image = sensor.expose(drawn.linear, taken, rng)
    return Picture(sensor.encode(pixels, taken.quality), labels.annotate(stage, drawn, settings.masks))


def compose(settings: RenderSettings, rng: np.random.Generator) -> Stage:
    """Sample a scene."""
    count = int(rng.integers(settings.people[0], settings.people[1] + 1))
    low, high = settings.identities
    pool = min(count, high - low + 1)
    who = low + rng.choice(high - low + 1, pool, replace=False)
    posed = [cast.pose(person(int(identity)), poses.sample_kind(rng), rng) for identity in who]
    camera, distance = _camera(settings, rng)
    actors, furniture = _arrange(posed, camera, distance, rng, settings.framing)
    if settings.framing == "crop" and actors:
        camera = _frame(camera, actors[0], rng)
    depth = max((float(actor.mesh.points[:, 2].max()) for actor in actors), default=distance)
    around, decor, room = backdrop.sample(rng, camera, depth, settings.photos)
    furniture += decor + _obstacles(actors, rng, room)
    return Stage(camera, tuple(actors), tuple(furniture), around)


def _camera(settings: RenderSettings, rng: np.random.Generator) -> tuple[Camera, float]:
    """Sample a camera above the world origin that looks along +z, and the distance to the people in m."""
    width, height = settings.size
    focal = max(width, height) * float(np.exp(rng.uniform(np.log(0.75), np.log(2.0))))
    tall = height * float(np.exp(rng.uniform(np.log(0.3), np.log(1.15))))
    distance = float(np.clip(1.7 * focal / tall, 1.3, 14.0))
    above = rng.uniform(2.0, 4.0) if rng.random() < 0.12 else rng.uniform(0.5, 1.9)
    aim = np.array([0.0, float(np.clip(rng.normal(0.9, 0.12), 0.5, 1.3)), distance])
    return Camera.looking(settings.size, focal, np.array([0.0, above, 0.0]), aim, rng.normal(0, 0.03)), distance


def _arrange(
    posed: list[cast.Posed], camera: Camera, distance: float, rng: np.random.Generator, framing: str
) -> tuple[list[Actor], list[Mesh]]:
    """Place people on the ground, at a minimum distance from each other, and add their seats and balls.

    A person for whom no free place is found is left out.

    Args:
        posed: People in their own frames.
        camera: The camera.
        distance: Distance to the people, m.
        rng: Random generator.
        framing: ``scene`` or ``crop``.

    Returns:
        The actors, and the meshes of seats and balls, all in the world frame.
    """
    taken: list[tuple[float, float]] = []
    actors: list[Actor] = []
    furniture: list[Mesh] = []
    for k, each in enumerate(posed):
        z, x = distance, 0.0
        for _ in range(20):
            z = distance * (1.0 if k == 0 and framing == "crop" else float(rng.uniform(0.8, 1.7)))
            reach = 0.4 * camera.size[0] / camera.focal * z
            x = 0.0 if k == 0 and framing == "crop" else float(rng.uniform(-reach, reach))
            if all(np.hypot(x - a, z - b) > 0.55 for a, b in taken):
                break
        else:
            continue
        taken.append((x, z))
        yaw = 180 + (rng.normal(0, 50) if rng.random() < 0.7 else rng.uniform(-180, 180))
        actors.append(cast.place(each, yaw, x, z, track=k + 1))
        if each.kind == "sit":
            furniture += [things.turned(part, yaw, x, z) for part in things.seat(rng, max(each.seat, 0.15))]
        if each.kind == "kick" and rng.random() < 0.6:
            foot = actors[-1].joints[rng.choice([15, 16])]
            at = np.array([foot[0] + rng.normal(0, 0.25), max(foot[1], 0.12), foot[2] + rng.normal(0, 0.25)])
            furniture.append(things.ball(0.11, at, things.surface(rng)))
    return actors, furniture


def _frame(camera: Camera, actor: Actor, rng: np.random.Generator) -> Camera:
    """Return a camera whose view is cropped to one actor, or sometimes to a part of the body."""
    unit = replace(camera, focal=1.0, centre=np.zeros(2))
    seen = unit.project(actor.mesh.points)
    seen = seen[seen[:, 2] > drawing.NEAR][:, :2]
    low, high = seen.min(0), seen.max(0)
    spare = rng.uniform(1.05, 1.45)
    size = np.array(camera.size)
    focal = float((size / (np.maximum(high - low, 1e-3) * spare)).min())
    middle = (low + high) / 2
    if rng.random() < 0.15:  # Show only a part of the body.
        focal *= rng.uniform(1.3, 2.2)
        middle = middle + (high - low) * [0, rng.uniform(-0.3, 0.1)]
    slack = rng.normal(0, 0.05, 2) * size
    return replace(camera, focal=focal, centre=(size - 1) / 2 - middle * focal + slack)


def _obstacles(actors: list[Actor], rng: np.random.Generator, room: bool) -> list[Mesh]:
    """Sample occluders between the camera and the actors, and objects behind the actors."""
    found: list[Mesh] = []
    for actor in actors:
        hips = actor.joints[11:13].mean(0)
        if rng.random() < 0.2:
            share = rng.uniform(0.55, 0.85)
            x, z = hips[0] * share + rng.normal(0, 0.35), hips[2] * share
            if hips[2] - z > 0.5 and z > 0.9:
                found += things.obstacle(rng, float(x), float(z), room)
        if rng.random() < 0.3:
            z = hips[2] + rng.uniform(0.8, 2.0)
            found += things.obstacle(rng, float(hips[0] + rng.normal(0, 1.2)), float(z), room)
    return found
