"""Put limbs where people put them: feet on the ground, hands on hips, a nod; within what joints allow."""

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
"""Of joints, in degrees from the rest pose; about the ranges of healthy adults (AAOS), narrowed where skin tears."""

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")
OUTWARD = {"L": 1.0, "R": -1.0}


@dataclass(frozen=True, slots=True)
class Foot:
    """Where a foot goes, in the person's frame (x to the left, y up, z to the front; m and degrees).

    Attributes:
        x: To the left of the pelvis.
        z: Before the pelvis.
        lift: Of the ankle above that of a foot standing flat.
        yaw: Toes outward.
        pitch: Toes down.
    """

    x: float
    z: float
    lift: float = 0.0
    yaw: float = 10.0
    pitch: float = 0.0


def limit(joint: str, degrees: float) -> float:
    """Hold an angle within a joint's limits."""
    low, high = LIMITS[joint]
    return float(np.clip(degrees, low, high))


def bow(rig: Rig, flexion: float = 0, tilt: float = 0, turn: float = 0) -> None:
    """Bend the spine, evenly over its bones; degrees as in `rig.turn_x`, `turn_z`, `turn_y`."""
    angles = (limit("spine flexion", flexion), limit("spine tilt", tilt), limit("spine turn", turn))
    x, z, y = (angle / len(SPINE) for angle in angles)
    for bone in SPINE:
        rig.turn(bone, turn_y(y) @ turn_z(z) @ turn_x(x))


def look(rig: Rig, nod: float = 0, tilt: float = 0, turn: float = 0) -> None:
    """Turn the head, evenly over neck and skull."""
    angles = (limit("neck flexion", nod), limit("neck tilt", tilt), limit("neck turn", turn))
    x, z, y = (angle / len(NECK) for angle in angles)
    for bone in NECK:
        rig.turn(bone, turn_y(y) @ turn_z(z) @ turn_x(x))


def plant(rig: Rig, feet: dict[str, Foot], pelvis: np.ndarray, straight: float, sway: tuple[float, float]) -> None:
    """Stand on both feet.

    Args:
        rig: Root and legs are set.
        feet: By side.
        pelvis: (3, 3), orientation of the root.
        straight: How straight the legs are: the straighter one's length as a share of its full length.
        sway: (x, z) of the pelvis in m.
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
    """Put one foot down without moving the pelvis; the knee points where the toes do."""
    yaw = OUTWARD[side] * foot.yaw
    ahead = turn_y(yaw * 0.6)[:, 2] + np.array([OUTWARD[side] * 0.08, 0.0, 0.0])
    rig.reach("leg", side, np.array([foot.x, foot.lift, foot.z]), ahead)
    rig.face(f"foot.{side}", turn_y(yaw) @ turn_x(foot.pitch))


def leg(rig: Rig, side: str, flexion: float, abduction: float, twist: float, knee: float, ankle: float = 0) -> None:
    """Set a leg by its angles in degrees: thigh forward, thigh outward, toes outward, knee bent, toes down."""
    out = OUTWARD[side]
    swing = turn_z(out * limit("hip abduction", abduction)) @ turn_x(-limit("hip flexion", flexion))
    rotation = swing @ turn_y(out * limit("hip twist", twist))
    rig.bend("leg", side, rotation, np.radians(limit("knee", knee)))
    rig.turn(f"foot.{side}", turn_x(ankle))


def arm(rig: Rig, side: str, way: tuple[float, float, float], reach: float, pole: tuple[float, float, float]) -> None:
    """Stretch an arm.

    Args:
        rig: The arm is set.
        side: "L" or "R".
        way: Direction of the wrist from the shoulder, (outward, up, forward) of the chest.
        reach: Its distance as a share of the arm's length.
        pole: Where the elbow points, in the same axes.
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
    """Bring a wrist to a point (3,) in the person's frame, m; ``pole`` as in `arm`."""
    chest, _ = rig.frame("spine01")
    rig.reach("arm", side, point, chest @ np.array([OUTWARD[side] * pole[0], pole[1], pole[2]]))


def relax_hand(rig: Rig, side: str, curl: float, twist: float, drop: float) -> None:
    """Curl the fingers and turn the hand; degrees (``twist`` along the forearm, ``drop`` towards the palm)."""
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
    """Of upper and lower arm, in m."""
    return _length(rig, side, ("upperarm01", "lowerarm01", "wrist"))


def leg_length(rig: Rig, side: str) -> float:
    """Of thigh and shank, in m."""
    return _length(rig, side, ("upperleg01", "lowerleg01", "foot"))


def _length(rig: Rig, side: str, bones: tuple[str, str, str]) -> float:
    first, middle, last = (rig.heads[rig.model.bone(f"{bone}.{side}")] for bone in bones)
    return float(np.linalg.norm(middle - first) + np.linalg.norm(last - middle))
