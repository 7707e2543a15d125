"""Pose arms in named styles, such as hanging, on the hips, crossed, raised, at the face or on a knee.

Each call draws a random variation of its style.
"""

from __future__ import annotations

import numpy as np

from training.synthetic.body.limbs import OUTWARD, arm, arm_length, hand_to, relax_hand
from training.synthetic.body.rig import Rig, turn_z

Rng = np.random.Generator


def arms(rig: Rig, rng: Rng, styles: tuple[str, ...]) -> None:
    """Pose both arms in styles drawn at random; both arms share one style at least half the time.

    Args:
        rig: The rig whose arm bones are set.
        rng: Source of randomness.
        styles: Names of the styles to draw from (see `place_arm`); repeating a name makes it more likely.
    """
    first, second = (str(style) for style in rng.choice(styles, 2))
    if rng.random() < 0.5 or "cross" in (first, second):
        second = first
    for side, style in (("L", first), ("R", second)):
        place_arm(rig, rng, side, style)


WAYS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float]]] = {
    "hang": ((0.17, -1.0, 0.05), (0.05, 0.05, 0.12), (0.93, 0.985)),
    "bent": ((0.12, -0.45, 0.8), (0.2, 0.3, 0.15), (0.5, 0.75)),
    "front": ((0.0, -0.05, 1.0), (0.2, 0.35, 0.1), (0.7, 0.98)),
    "side": ((1.0, 0.0, 0.1), (0.1, 0.4, 0.25), (0.7, 0.98)),
    "up": ((0.3, 1.0, 0.1), (0.25, 0.1, 0.25), (0.7, 0.98)),
    "back": ((0.1, -0.9, -0.5), (0.1, 0.05, 0.1), (0.75, 0.95)),
    "back low": ((0.35, -0.8, -0.6), (0.15, 0.1, 0.1), (0.9, 0.98)),
    "low": ((0.05, -0.6, 0.8), (0.15, 0.3, 0.2), (0.85, 0.98)),
    "wild": ((0.5, 0.0, 0.4), (0.4, 0.7, 0.5), (0.55, 0.98)),
}
"""Styles that are defined by a direction. Each holds the mean direction from the shoulder to the wrist as (outward, up,
forward) in the chest's frame, its standard deviation on the same axes, and the smallest and largest distance from the
shoulder to the wrist as a share of the arm's length."""


def place_arm(rig: Rig, rng: Rng, side: str, style: str) -> None:
    """Pose one arm in a style.

    Args:
        rig: The rig whose arm bones are set.
        rng: Source of randomness.
        side: "L" or "R".
        style: A key of `WAYS`, or "hip", "cross", "thigh", "knee", "face" or "head": where the hand rests.
    """
    out = OUTWARD[side]
    relax_hand(rig, side, rng.uniform(5, 40), rng.uniform(-25, 35), rng.uniform(-10, 15))
    if style in WAYS:
        mean, spread, (near, far) = WAYS[style]
        way = tuple(m + s * rng.normal() for m, s in zip(mean, spread, strict=True))
        elbow_out = 0.9 if style == "up" else 0.45
        pole = (elbow_out + rng.normal(0, 0.1), -0.5 + rng.normal(0, 0.15), -0.7 + rng.normal(0, 0.15))
        if style == "up":
            pole = (0.9, 0.0, 0.4)
        arm(rig, side, (way[0], way[1], way[2]), rng.uniform(near, far), pole)
        return
    chest, heart = rig.frame("spine01")
    pelvis, hip = rig.frame("root")
    head, skull = rig.frame("head")
    size = arm_length(rig, side)
    low = 0.12 * size
    wobble = rng.normal(0, 0.015, 3)
    rig.turn(f"clavicle.{side}", turn_z(out * 4))
    if style == "hip":
        hand_to(rig, side, hip + pelvis @ np.array([out * 0.33, 0.2, 0.02]) * size + wobble, (1.0, 0.0, -0.6))
        relax_hand(rig, side, 30, 40, 25)
    elif style == "cross":
        lower = -0.1 if side == "L" else -0.02
        hand_to(rig, side, heart + chest @ np.array([-out * 0.18, lower, 0.36]) * size, (0.7, -0.7, 0.2))
    elif style in ("thigh", "knee"):
        knee = rig.frame(f"lowerleg01.{side}")[1]
        thigh = rig.frame(f"upperleg01.{side}")[1]
        share = rng.uniform(0.45, 0.75) if style == "thigh" else rng.uniform(0.85, 1.0)
        aim = thigh + (knee - thigh) * share
        hand_to(rig, side, aim + np.array([0.0, low + 0.03, 0.02]) + wobble, (0.8, -0.3, -0.7))
        relax_hand(rig, side, 20, rng.uniform(-10, 30), 5)
    elif style == "face":
        hand_to(rig, side, skull + head @ np.array([out * 0.16, -0.04, 0.24]) * size + wobble, (0.4, -0.9, 0.2))
        relax_hand(rig, side, 45, rng.uniform(-30, 30), 10)
    else:  # style == "head"
        hand_to(rig, side, skull + head @ np.array([out * 0.22, 0.3, 0.0]) * size + wobble, (1.0, 0.2, 0.1))
