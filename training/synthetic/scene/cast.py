"""Turn persons into actors: pose the skeleton, skin the mesh, and place it on the ground in the world frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.synthetic.body import keypoints, makehuman, poses
from training.synthetic.body.rig import Rig, skin, turn_y
from training.synthetic.render.stage import Actor, Mesh
from training.synthetic.scene.person import Person

HIGHEST = {"jump": 0.55, "run": 0.12}
"""Maximum height above the ground, m, of the kinds of poses that leave it."""


@dataclass(frozen=True, slots=True)
class Posed:
    """A posed person in its own frame: the origin is on the ground under the pelvis, and the person faces +z.

    Attributes:
        person: The person.
        kind: Name of the pose.
        points: float32 (N, 3), vertices of the dressed mesh, m.
        joints: float64 (17, 3), positions of the COCO keypoints, m.
        seat: Height of the underside of the pelvis above the ground, m.
    """

    person: Person
    kind: str
    points: np.ndarray
    joints: np.ndarray
    seat: float


def pose(who: Person, kind: str, rng: np.random.Generator) -> Posed:
    """Put a person into a random pose of a kind."""
    return pose_by(who, kind, lambda rig: poses.strike(kind, rig, rng), rng.uniform(0, HIGHEST.get(kind, 0.0)))


def pose_by(who: Person, kind: str, move: Callable[[Rig], None], lift: float = 0.0) -> Posed:
    """Put a person into the pose that ``move`` sets on the rig, with the lowest point ``lift`` m above the ground."""
    model = makehuman.load()
    rig = Rig.at_rest(model, who.heads)
    move(rig)
    orientation, position = rig.solve()
    position = position - np.array([position[0, 0], 0.0, position[0, 2]])
    points = skin(who.rest, model.weights[who.base], who.heads, orientation, position)
    joints = keypoints.joints(model, who.heads, who.body, orientation, position)
    up = lift - float(points[who.keep >= 0, 1].min())
    points[:, 1] += np.float32(up)
    joints[:, 1] += up
    under = skin(who.body[_seat()], model.weights[_seat()], who.heads, orientation, position)
    return Posed(who, kind, points, joints, float(under[:, 1].min()) + up)


def place(posed: Posed, yaw: float, x: float, z: float, track: int = 0) -> Actor:
    """Place a posed person in the world frame.

    Args:
        posed: The person in its own frame.
        yaw: Rotation about the y axis, degrees; at 180 the person faces a camera that looks along +z.
        x: Position on the ground, m.
        z: Position on the ground, m.
        track: Track id; 0 for none.

    Returns:
        The actor.
    """
    who, turn, shift = posed.person, turn_y(yaw), np.array([x, 0.0, z])
    points = (posed.points @ turn.T + shift).astype(np.float32)
    mesh = Mesh(points, who.places, who.keep, who.triangles, who.closed, who.material, who.materials, who.face)
    size = float(np.ptp(who.body[: makehuman.SKIN_END, 1])) / 1.7
    return Actor(mesh, posed.joints @ turn.T + shift, keypoints.FLESH * size, posed.kind, who.identity, track)


def _seat() -> np.ndarray:
    """Return the indices of the skin vertices that follow the pelvis and the upper thighs."""
    model = makehuman.load()
    carried = model.weights[:, [model.bone(bone) for bone in ("root", "upperleg01.L", "upperleg01.R")]].sum(1)
    return np.flatnonzero(carried[: makehuman.SKIN_END] > 0.85)
