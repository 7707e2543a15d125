"""Pose the spine, neck, legs, arms and hands of a rig, by angles or by target points (inverse kinematics).

`bow`, `look` and `leg` clamp their angles to the joints' ranges of motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.body.rig import STRETCH, Rig, about, turn_x, turn_y, turn_z, unit

LIMITS = {
    "knee": (2.0, 140.0),
    "elbow": (0.0, 135.0),
    "hip flexion": (-25.0, 115.0),
    "hip abduction": (-15.0, 55.0),
    "hip twist": (-30.0, 40.0),
    "spine flexion": (-25.0, 70.0),
    "spine tilt": (-30.0, 30.0),
    "spine turn": (-40.0, 40.0),
    "neck flexion": (-35.0, 40.0),
    "neck tilt": (-25.0, 25.0),
    "neck turn": (-65.0, 65.0),
}
"""Smallest and largest angle of each joint, in degrees from the rest pose. The values follow the ranges of motion of
healthy adults (American Academy of Orthopaedic Surgeons); some are narrower, where skinning would distort the mesh."""

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")
OUTWARD = {"L": 1.0, "R": -1.0}


@dataclass(frozen=True, slots=True)
class Foot:
    """Target of a foot in the person's frame: x to the person's left, y up, z to the front.

    Attributes:
        x: Position of the ankle along x, m.
        z: Position of the ankle along z, m.
        lift: Height of the ankle above the ankle of a foot that stands flat on the ground, m.
        yaw: Angle by which the toes point outward, degrees.
        pitch: Angle by which the toes point down, degrees.
    """

    x: float
    z: float
    lift: float = 0.0
    yaw: float = 10.0
    pitch: float = 0.0


def limit(joint: str, degrees: float) -> float:
    """Clamp an angle in degrees to the range of a joint, a key of `LIMITS`."""
    low, high = LIMITS[joint]
    return float(np.clip(degrees, low, high))


def bow(rig: Rig, flexion: float = 0, tilt: float = 0, turn: float = 0) -> None:
    """Bend the spine and spread the rotation evenly over its bones.

    Args:
        rig: The rig whose spine bones are set.
        flexion: Forward bend in degrees, with the sign of `rig.turn_x`.
        tilt: Sideways bend in degrees, with the sign of `rig.turn_z`.
        turn: Rotation about the vertical in degrees, with the sign of `rig.turn_y`.
    """
    angles = (limit("spine flexion", flexion), limit("spine tilt", tilt), limit("spine turn", turn))
    x, z, y = (angle / len(SPINE) for angle in angles)
    for bone in SPINE:
        rig.turn(bone, turn_y(y) @ turn_z(z) @ turn_x(x))


def look(rig: Rig, nod: float = 0, tilt: float = 0, turn: float = 0) -> None:
    """Turn the head and spread the rotation evenly over the neck and head bones; angles and signs as in `bow`."""
    angles = (limit("neck flexion", nod), limit("neck tilt", tilt), limit("neck turn", turn))
    x, z, y = (angle / len(NECK) for angle in angles)
    for bone in NECK:
        rig.turn(bone, turn_y(y) @ turn_z(z) @ turn_x(x))


def plant(rig: Rig, feet: dict[str, Foot], pelvis: np.ndarray, straight: float, sway: tuple[float, float]) -> None:
    """Make the person stand on both feet: set the height of the pelvis, then solve both legs.

    Args:
        rig: The rig whose root and leg bones are set.
        feet: Targets of the feet by side, "L" and "R".
        pelvis: (3, 3), orientation of the root bone.
        straight: Distance from hip to ankle of the straighter leg, as a share of the leg's full length.
        sway: Position (x, z) of the pelvis in the person's frame, m.
    """
    rig.turn("root", pelvis)
    rig.shift = np.array([sway[0], 0.0, sway[1]])
    heights = []
    for side, foot in feet.items():
        hip = rig.frame(f"upperleg01.{side}")[1]
        aside = float(np.hypot(foot.x - hip[0], foot.z - hip[2]))
        length = leg_length(rig, side) * min(straight, STRETCH)
        heights.append(foot.lift - hip[1] + np.sqrt(max(length**2 - aside**2, 0.04)))
    rig.shift = rig.shift + np.array([0.0, min(heights), 0.0])
    for side, foot in feet.items():
        step(rig, side, foot)


def step(rig: Rig, side: str, foot: Foot) -> None:
    """Move one foot to its target without moving the pelvis; the knee points in the direction of the toes."""
    yaw = OUTWARD[side] * foot.yaw
    ahead = turn_y(yaw * 0.6)[:, 2] + np.array([OUTWARD[side] * 0.08, 0.0, 0.0])
    rig.reach("leg", side, np.array([foot.x, foot.lift, foot.z]), ahead)
    rig.face(f"foot.{side}", turn_y(yaw) @ turn_x(foot.pitch))


def leg(rig: Rig, side: str, flexion: float, abduction: float, twist: float, knee: float, ankle: float = 0) -> None:
    """Set a leg by its joint angles; all but ``ankle`` are clamped to `LIMITS`.

    Args:
        rig: The rig whose leg bones are set.
        side: "L" or "R".
        flexion: Angle of the thigh forward, degrees.
        abduction: Angle of the thigh outward, degrees.
        twist: Rotation of the thigh about its length, degrees; positive turns the toes outward.
        knee: Flexion of the knee, degrees.
        ankle: Angle of the toes down, degrees.
    """
    out = OUTWARD[side]
    swing = turn_z(out * limit("hip abduction", abduction)) @ turn_x(-limit("hip flexion", flexion))
    rotation = swing @ turn_y(out * limit("hip twist", twist))
    rig.bend("leg", side, rotation, np.radians(limit("knee", knee)))
    rig.turn(f"foot.{side}", turn_x(ankle))


def arm(rig: Rig, side: str, way: tuple[float, float, float], reach: float, pole: tuple[float, float, float]) -> None:
    """Extend an arm in a direction.

    Args:
        rig: The rig whose clavicle and arm bones are set.
        side: "L" or "R".
        way: Direction from the shoulder to the wrist, (outward, up, forward) in the chest's frame.
        reach: Distance from the shoulder to the wrist as a share of the arm's length.
        pole: Direction in which the elbow points, in the same axes.
    """
    out = OUTWARD[side]
    chest, _ = rig.frame("spine01")
    direction = unit(np.array([out * way[0], way[1], way[2]]))
    raise_ = float(np.clip(18 + 40 * direction[1], 0, 38))
    rig.turn(f"clavicle.{side}", turn_z(out * raise_) @ turn_y(-out * 12 * float(direction[2])))
    _, shoulder = rig.frame(f"upperarm01.{side}")
    aim = shoulder + chest @ direction * reach * arm_length(rig, side)
    rig.reach("arm", side, aim, chest @ np.array([out * pole[0], pole[1], pole[2]]))


def hand_to(rig: Rig, side: str, point: np.ndarray, pole: tuple[float, float, float]) -> None:
    """Move a wrist to a point (3,) in the person's frame, m; ``pole`` is the elbow's direction as in `arm`."""
    chest, _ = rig.frame("spine01")
    rig.reach("arm", side, point, chest @ np.array([OUTWARD[side] * pole[0], pole[1], pole[2]]))


def relax_hand(rig: Rig, side: str, curl: float, twist: float, drop: float) -> None:
    """Curl the fingers and rotate the hand.

    Args:
        rig: The rig whose forearm, wrist and finger bones are set.
        side: "L" or "R".
        curl: Flexion of every finger joint except the thumb's, degrees.
        twist: Rotation of the hand about the forearm's axis, degrees.
        drop: Flexion of the wrist towards the palm, degrees.
    """
    points = {name: rig.heads[rig.model.bone(f"{name}.{side}")] for name in ("wrist", "finger2-1", "finger5-1")}
    fore = unit(points["wrist"] - rig.heads[rig.model.bone(f"lowerarm01.{side}")])
    across = unit(points["finger5-1"] - points["finger2-1"])
    for finger in range(2, 6):
        for joint in range(1, 4):
            rig.turn(f"finger{finger}-{joint}.{side}", about(across, OUTWARD[side] * np.radians(curl)))
    half = about(fore, OUTWARD[side] * np.radians(twist / 2))
    rig.turn(f"lowerarm02.{side}", half)
    rig.turn(f"wrist.{side}", half @ about(across, OUTWARD[side] * np.radians(drop)))


def arm_length(rig: Rig, side: str) -> float:
    """Sum of the lengths of the upper arm and the forearm, m."""
    return _length(rig, side, ("upperarm01", "lowerarm01", "wrist"))


def leg_length(rig: Rig, side: str) -> float:
    """Sum of the lengths of the thigh and the shank, m."""
    return _length(rig, side, ("upperleg01", "lowerleg01", "foot"))


def _length(rig: Rig, side: str, bones: tuple[str, str, str]) -> float:
    first, middle, last = (rig.heads[rig.model.bone(f"{bone}.{side}")] for bone in bones)
    return float(np.linalg.norm(middle - first) + np.linalg.norm(last - middle))
