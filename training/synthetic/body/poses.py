"""Draw random poses of people; each kind of pose has one function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.synthetic.body.arms import arms, place_arm
from training.synthetic.body.limbs import OUTWARD, Foot, arm, bow, leg, leg_length, look, plant, relax_hand, step
from training.synthetic.body.rig import Rig, turn_x, turn_y, turn_z

Rng = np.random.Generator


def stand(rig: Rig, rng: Rng) -> None:
    """Stand, as when people talk, wait, point or hold a telephone; the pelvis may tilt towards one leg."""
    wide = rng.uniform(0.05, 0.22)
    feet = {
        side: Foot(out * wide + rng.normal(0, 0.02), rng.normal(0, 0.07), yaw=rng.uniform(0, 30))
        for side, out in OUTWARD.items()
    }
    hang = rng.normal(0, 4)
    pelvis = turn_y(rng.normal(0, 6)) @ turn_z(hang) @ turn_x(rng.normal(2, 4))
    bow(rig, rng.normal(2, 6), -hang + rng.normal(0, 3), rng.normal(0, 8))
    plant(rig, feet, pelvis, rng.uniform(0.97, 0.995), (rng.normal(0, 0.03), rng.normal(0, 0.02)))
    gaze(rig, rng)
    arms(rig, rng, ("hang", "hang", "hang", "bent", "hip", "front", "face", "cross", "side", "back"))


def walk(rig: Rig, rng: Rng) -> None:
    """Walk, at a random phase of the gait cycle."""
    stride(rig, rng.uniform(0, 1), rng.uniform(0.28, 0.42), rng.uniform(0.5, 1.2))
    gaze(rig, rng)
    if rng.random() < 0.35:
        arms(rig, rng, ("hang", "bent", "face", "front"))


def run(rig: Rig, rng: Rng) -> None:
    """Run with bent elbows, a long stride and a trunk that leans forward."""
    lead, trail = rng.permutation(["L", "R"])
    rig.turn("root", turn_x(rng.uniform(2, 14)))
    bow(rig, rng.uniform(2, 12), 0, OUTWARD[lead] * rng.uniform(-14, -2))
    leg(rig, lead, rng.uniform(35, 85), rng.uniform(-4, 6), 0, rng.uniform(40, 110), rng.uniform(-10, 15))
    leg(rig, trail, rng.uniform(-25, 10), rng.uniform(-4, 6), 0, rng.uniform(10, 105), rng.uniform(10, 40))
    for side, forward in ((lead, rng.uniform(-0.8, -0.3)), (trail, rng.uniform(0.4, 1.0))):
        reach = rng.uniform(0.6, 0.8)
        arm(rig, side, (0.2, -0.75, forward), reach, (0.35, -0.5, -0.9))
        relax_hand(rig, side, rng.uniform(40, 70), rng.uniform(-20, 40), 0)
    gaze(rig, rng, 0.6)


def sit(rig: Rig, rng: Rng) -> None:
    """Sit on a seat of ordinary height, with the hands on the thighs, in front of the body or at the face."""
    recline = rng.normal(-4, 9)
    rig.turn("root", turn_x(recline))
    bow(rig, rng.uniform(-4, 22), rng.normal(0, 4), rng.normal(0, 8))
    rig.shift = np.array([0.0, rng.uniform(0.82, 1.08) * leg_length(rig, "L") / 2, 0.0])
    thigh = leg_length(rig, "L") * 0.5
    wide = rng.uniform(0.08, 0.28)
    for side, out in OUTWARD.items():
        step(rig, side, Foot(out * wide, thigh + rng.uniform(-0.16, 0.22), 0, rng.uniform(0, 25)))
    if rng.random() < 0.25:  # cross the legs
        side, other = rng.permutation(["L", "R"])
        leg(rig, side, 100, -12, 12, rng.uniform(60, 90), rng.uniform(0, 25))
        step(rig, other, Foot(OUTWARD[other] * 0.06, thigh + rng.uniform(-0.05, 0.1)))
    gaze(rig, rng)
    arms(rig, rng, ("thigh", "thigh", "thigh", "bent", "front", "face", "cross"))


def sit_low(rig: Rig, rng: Rng) -> None:
    """Sit on the ground with stretched legs, drawn-up knees or crossed legs."""
    rig.turn("root", turn_x(rng.uniform(-22, 4)))
    bow(rig, rng.uniform(5, 35), rng.normal(0, 5), rng.normal(0, 10))
    style = rng.choice(["stretched", "drawn", "crossed"])
    for side in OUTWARD:
        if style == "stretched":
            leg(rig, side, rng.uniform(78, 92), rng.uniform(0, 25), 10, rng.uniform(2, 30), rng.uniform(-10, 10))
        elif style == "drawn":
            leg(rig, side, rng.uniform(105, 115), rng.uniform(0, 20), 5, rng.uniform(95, 120), rng.uniform(0, 20))
        else:
            leg(rig, side, rng.uniform(72, 82), rng.uniform(40, 50), 40, rng.uniform(115, 130), 20)
    gaze(rig, rng)
    arms(rig, rng, ("thigh", "knee", "back low", "bent", "front"))


def squat(rig: Rig, rng: Rng) -> None:
    """Squat with the arms forward, bent, raised or on the knees."""
    wide = rng.uniform(0.14, 0.3)
    feet = {side: Foot(out * wide, rng.normal(0, 0.03), yaw=rng.uniform(10, 35)) for side, out in OUTWARD.items()}
    depth = rng.uniform(0.45, 0.8)
    bow(rig, rng.uniform(5, 30), 0, rng.normal(0, 5))
    plant(rig, feet, turn_x(rng.uniform(10, 35)), depth, (0.0, -0.28 * (1.1 - depth)))
    gaze(rig, rng)
    arms(rig, rng, ("front", "front", "knee", "bent", "up"))


def lunge(rig: Rig, rng: Rng) -> None:
    """Step one foot far forward, as in a lunge, in fencing or in a wide stance."""
    lead, trail = rng.permutation(["L", "R"])
    long = rng.uniform(0.25, 0.5)
    feet = {
        lead: Foot(OUTWARD[lead] * 0.12, long, yaw=5),
        trail: Foot(OUTWARD[trail] * 0.14, -long, 0.07, yaw=15, pitch=rng.uniform(15, 35)),
    }
    bow(rig, rng.uniform(-5, 20), 0, rng.normal(0, 15))
    plant(rig, feet, turn_x(rng.uniform(0, 14)), rng.uniform(0.85, 0.99), (0.0, long * rng.uniform(0, 0.5)))
    gaze(rig, rng)
    arms(rig, rng, ("hip", "front", "side", "up", "bent", "hang", "knee"))


def kneel(rig: Rig, rng: Rng) -> None:
    """Kneel on one knee or on both knees."""
    rig.turn("root", turn_x(rng.uniform(-4, 14)))
    bow(rig, rng.uniform(0, 25), 0, rng.normal(0, 8))
    both = rng.random() < 0.5
    first, second = rng.permutation(["L", "R"])
    low = rng.uniform(-4, 25)
    leg(rig, first, low, 6, 0, rng.uniform(85, 100) + low * 0.6, 35)
    if both:
        leg(rig, second, low, 6, 0, rng.uniform(85, 100) + low * 0.6, 35)
    else:
        leg(rig, second, rng.uniform(80, 95), 8, 5, rng.uniform(80, 95), 0)
    gaze(rig, rng)
    arms(rig, rng, ("hang", "thigh", "knee", "front", "bent", "up"))


def bend(rig: Rig, rng: Rng) -> None:
    """Bend forward, as when people pick something up or stretch."""
    wide = rng.uniform(0.08, 0.25)
    feet = {side: Foot(out * wide, rng.normal(0, 0.06), yaw=rng.uniform(0, 20)) for side, out in OUTWARD.items()}
    lean = rng.uniform(15, 60)
    bow(rig, rng.uniform(20, 65), rng.normal(0, 8), rng.normal(0, 15))
    plant(rig, feet, turn_x(lean), rng.uniform(0.75, 0.98), (0.0, -0.002 * lean))
    gaze(rig, rng)
    arms(rig, rng, ("front", "low", "low", "knee", "hang"))


def jump(rig: Rig, rng: Rng) -> None:
    """Jump, with the arms in any position."""
    rig.turn("root", turn_x(rng.normal(0, 12)) @ turn_z(rng.normal(0, 8)))
    bow(rig, rng.uniform(-15, 20), rng.normal(0, 8), rng.normal(0, 12))
    alike = rng.random() < 0.4
    flexion, knee, wide = rng.uniform(-10, 70), rng.uniform(10, 100), rng.uniform(0, 40)
    for side in OUTWARD:
        if not alike:
            flexion, knee, wide = rng.uniform(-20, 90), rng.uniform(5, 110), rng.uniform(-5, 45)
        leg(rig, side, flexion, wide, rng.uniform(-5, 20), knee, rng.uniform(10, 45))
    gaze(rig, rng)
    arms(rig, rng, ("up", "up", "side", "front", "bent", "wild"))


def kick(rig: Rig, rng: Rng) -> None:
    """Kick with one leg, low as at a ball, or high."""
    side, other = rng.permutation(["L", "R"])
    rig.turn("root", turn_x(rng.uniform(-25, 5)) @ turn_z(OUTWARD[side] * rng.uniform(0, 18)))
    bow(rig, rng.uniform(-5, 20), 0, OUTWARD[side] * rng.uniform(-5, 20))
    leg(rig, side, rng.uniform(30, 110), rng.uniform(-5, 40), rng.uniform(0, 20), rng.uniform(3, 60), 30)
    leg(rig, other, rng.uniform(-15, 12), rng.uniform(-4, 10), 5, rng.uniform(3, 40), 0)
    gaze(rig, rng, 0.6)
    arms(rig, rng, ("side", "bent", "side", "front", "wild"))


def throw(rig: Rig, rng: Rng) -> None:
    """Swing one arm, as when people throw, serve or strike overhead."""
    side, other = rng.permutation(["L", "R"])
    long = rng.uniform(0.1, 0.35)
    feet = {
        other: Foot(OUTWARD[other] * 0.1, long, yaw=5),
        side: Foot(OUTWARD[side] * 0.12, -long, 0.05, yaw=25, pitch=rng.uniform(5, 30)),
    }
    bow(rig, rng.uniform(-20, 15), OUTWARD[side] * rng.uniform(-15, 12), -OUTWARD[side] * rng.uniform(0, 35))
    plant(rig, feet, turn_x(rng.uniform(-8, 8)), rng.uniform(0.93, 0.99), (0.0, rng.uniform(-0.1, 0.1)))
    gaze(rig, rng, 0.6)
    arm(rig, side, (0.5, rng.uniform(0.2, 1.2), rng.uniform(-0.8, 0.5)), rng.uniform(0.6, 0.97), (1.0, 0.1, -0.3))
    relax_hand(rig, side, 45, rng.uniform(-60, 40), 0)
    place_arm(rig, rng, other, str(rng.choice(["front", "side", "bent"])))


def lie(rig: Rig, rng: Rng) -> None:
    """Lie on the back, on the belly or on one side."""
    roll = rng.choice([0.0, 180.0, 90.0, -90.0]) + rng.normal(0, 12)
    rig.turn("root", turn_x(-90) @ turn_y(roll))
    bow(rig, rng.normal(0, 6), rng.normal(0, 6), rng.normal(0, 8))
    prone = abs(roll) > 120
    for side in OUTWARD:
        flexion = rng.uniform(-5, 10) if prone else rng.uniform(0, 60)
        leg(rig, side, flexion, rng.uniform(0, 20), rng.uniform(0, 20), rng.uniform(2, 25 if prone else 90), 25)
    look(rig, rng.normal(0, 8), rng.normal(0, 6), rng.normal(0, 25))
    arms(rig, rng, ("hang", "side", "up", "hang") if prone else ("hang", "side", "up", "cross", "bent"))


def plank(rig: Rig, rng: Rng) -> None:
    """Support the body on hands and feet, as in press-ups or a plank, or on all fours."""
    all_fours = rng.random() < 0.5
    lean = 88 if all_fours else rng.uniform(70, 80)
    rig.turn("root", turn_x(lean))
    bow(rig, rng.normal(0, 6), 0, rng.normal(0, 4))
    for side in OUTWARD:
        leg(rig, side, rng.uniform(75, 92) if all_fours else 0, 5, 0, rng.uniform(80, 95) if all_fours else 3, -20)
        arm(rig, side, (0.15, rng.normal(0, 0.1), 1.0), rng.uniform(0.7, 0.98), (0.8, -0.6, 0.0))
        relax_hand(rig, side, 8, rng.uniform(-10, 20), -60)
    look(rig, rng.uniform(-35, 10), 0, rng.normal(0, 20))


def cheer(rig: Rig, rng: Rng) -> None:
    """Stand with raised or spread arms, as when people cheer, stretch or dance."""
    stand(rig, rng)
    bow(rig, rng.normal(-4, 6), rng.normal(0, 8), rng.normal(0, 10))
    arms(rig, rng, ("up", "up", "side", "wild", "bent", "head"))


KINDS: dict[str, tuple[float, Callable[[Rig, Rng], None]]] = {
    "stand": (0.21, stand),
    "walk": (0.13, walk),
    "run": (0.06, run),
    "sit": (0.16, sit),
    "sit_low": (0.05, sit_low),
    "squat": (0.04, squat),
    "lunge": (0.05, lunge),
    "kneel": (0.04, kneel),
    "bend": (0.05, bend),
    "jump": (0.04, jump),
    "kick": (0.04, kick),
    "throw": (0.04, throw),
    "lie": (0.03, lie),
    "plank": (0.02, plank),
    "cheer": (0.04, cheer),
}
"""Probability of each kind of pose, and the function that draws one."""


def strike(kind: str, rig: Rig, rng: Rng) -> None:
    """Apply a random pose of a kind in `KINDS` to a rig at rest; the caller sets the height above the ground."""
    for side in OUTWARD:
        relax_hand(rig, side, rng.uniform(5, 35), rng.uniform(-30, 30), rng.uniform(-10, 15))
    KINDS[kind][1](rig, rng)


def sample_kind(rng: Rng, kinds: tuple[str, ...] = tuple(KINDS)) -> str:
    """Draw one of ``kinds`` with the probabilities in `KINDS`, normalised over ``kinds``."""
    shares = np.array([KINDS[kind][0] for kind in kinds])
    return str(rng.choice(kinds, p=shares / shares.sum()))


def gaze(rig: Rig, rng: Rng, calm: float = 1.0) -> None:
    """Turn the head in a random direction; ``calm`` scales the angles."""
    look(rig, rng.normal(-3, 10) * calm, rng.normal(0, 5) * calm, rng.normal(0, 20) * calm)


def stride(rig: Rig, phase: float, long: float, swing: float) -> None:
    """Pose the rig at one phase of the gait cycle; the pose changes smoothly with ``phase``, so clips can use it too.

    Args:
        rig: The rig; root, spine, legs and arms are set, the head is not.
        phase: Phase of the cycle of two steps, 0..1; the left heel strikes the ground at 0.
        long: Half the length of a step in m, for legs 0.85 m long; it scales with the leg's length.
        swing: Amplitude of the arm swing; 1 is a brisk walk.
    """
    long *= leg_length(rig, "L") / 0.85
    feet = {}
    for side, out in OUTWARD.items():
        t = (phase + (0.0 if side == "L" else 0.5)) % 1.0
        if t < 0.6:  # stance: the foot moves back under the pelvis at constant speed
            z, lift = long * (1 - 2 * t / 0.6), 0.0
            pitch = 40 * max(t / 0.6 - 0.65, 0.0) / 0.35 - 18 * max(1 - t / 0.12, 0.0)
            lift = 0.13 * np.sin(np.radians(max(pitch, 0.0)))
        else:  # swing: the foot moves forward through the air
            s = (t - 0.6) / 0.4
            z = -long * np.cos(np.pi * s)
            pitch = 40 * (1 - s) ** 2 - 18 * s**2
            lift = 0.09 * np.sin(np.pi * s) + 0.13 * np.sin(np.radians(40)) * (1 - s) ** 2
        feet[side] = Foot(out * 0.075, z, float(lift), 6, float(pitch))
    wave = float(np.cos(2 * np.pi * phase))
    bow(rig, 3, 0, 8 * wave)
    plant(rig, feet, turn_y(-5 * wave) @ turn_x(2), 0.99, (0.0, 0.0))
    for side, out in OUTWARD.items():
        forward = -out * wave * 0.5 * swing
        arm(rig, side, (0.16, -1.0, forward + 0.08), 0.965 - 0.05 * max(forward, 0.0), (0.3, 0.0, -1.0))
