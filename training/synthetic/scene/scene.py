"""Compose a picture: who, in what pose, where, before what, seen from where; a function of (seed, number) alone."""

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
class Look:
    """What all pictures of a set have in common.

    Attributes:
        seed: Of everything that is drawn by chance.
        size: (width, height) in px.
        people: (fewest, most) a picture.
        framing: ``scene``: people in a place; ``crop``: one person fills the picture.
        identities: (first, last) number of the people that may appear.
        finer: Samples a pixel along each axis.
        masks: Whether annotations carry segmentations.
        photos: Backgrounds; none for painted ones.
    """

    seed: int
    size: tuple[int, int]
    people: tuple[int, int]
    framing: str
    identities: tuple[int, int]
    finer: int
    masks: bool
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what is on it.

    Attributes:
        jpeg: The file.
        people: COCO annotations but for ids, see `labels.annotate`.
    """

    jpeg: bytes
    people: list[dict]


def render(look: Look, number: int) -> Picture:
    """Render picture ``number`` of a set."""
    rng = np.random.default_rng([look.seed, number])
    return develop(compose(look, rng), look, sensor.sample(rng), rng)


def develop(stage: Stage, look: Look, taken: sensor.Sensor, rng: np.random.Generator) -> Picture:
    """Draw a stage, take its picture and annotate it."""
    drawn = drawing.draw(stage, look.finer)
    pixels: Image = sensor.expose(drawn.linear, taken, rng)
    return Picture(sensor.encode(pixels, taken.quality), labels.annotate(stage, drawn, look.masks))


def compose(look: Look, rng: np.random.Generator) -> Stage:
    """Draw a stage."""
    count = int(rng.integers(look.people[0], look.people[1] + 1))
    low, high = look.identities
    pool = min(count, high - low + 1)
    who = low + rng.choice(high - low + 1, pool, replace=False)
    posed = [cast.pose(person(int(identity)), poses.sample_kind(rng), rng) for identity in who]
    camera, distance = _camera(look, rng)
    actors, furniture = _arrange(posed, camera, distance, rng, look.framing)
    if look.framing == "crop" and actors:
        camera = _frame(camera, actors[0], rng)
    depth = max((float(actor.mesh.points[:, 2].max()) for actor in actors), default=distance)
    around, decor, room = backdrop.sample(rng, camera, depth, look.photos)
    furniture += decor + _obstacles(actors, rng, room)
    return Stage(camera, tuple(actors), tuple(furniture), around)


def _camera(look: Look, rng: np.random.Generator) -> tuple[Camera, float]:
    """Draw a camera that stands at x = z = 0 and looks along z, and how far away people are, m."""
    width, height = look.size
    focal = max(width, height) * float(np.exp(rng.uniform(np.log(0.75), np.log(2.0))))
    tall = height * float(np.exp(rng.uniform(np.log(0.3), np.log(1.15))))
    distance = float(np.clip(1.7 * focal / tall, 1.3, 14.0))
    above = rng.uniform(2.0, 4.0) if rng.random() < 0.12 else rng.uniform(0.5, 1.9)
    aim = np.array([0.0, float(np.clip(rng.normal(0.9, 0.12), 0.5, 1.3)), distance])
    return Camera.looking(look.size, focal, np.array([0.0, above, 0.0]), aim, rng.normal(0, 0.03)), distance


def _arrange(
    posed: list[cast.Posed], camera: Camera, distance: float, rng: np.random.Generator, framing: str
) -> tuple[list[Actor], list[Mesh]]:
    """Place people on the ground, apart from each other, with the seats they sit on."""
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
    """Crop the view to one person, at times only to a part of it."""
    unit = replace(camera, focal=1.0, centre=np.zeros(2))
    seen = unit.project(actor.mesh.points)
    seen = seen[seen[:, 2] > drawing.NEAR][:, :2]
    low, high = seen.min(0), seen.max(0)
    spare = rng.uniform(1.05, 1.45)
    size = np.array(camera.size)
    focal = float((size / (np.maximum(high - low, 1e-3) * spare)).min())
    middle = (low + high) / 2
    if rng.random() < 0.15:  # a part of the body only
        focal *= rng.uniform(1.3, 2.2)
        middle = middle + (high - low) * [0, rng.uniform(-0.3, 0.1)]
    slack = rng.normal(0, 0.05, 2) * size
    return replace(camera, focal=focal, centre=(size - 1) / 2 - middle * focal + slack)


def _obstacles(actors: list[Actor], rng: np.random.Generator, room: bool) -> list[Mesh]:
    """Things between camera and people, and about."""
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
