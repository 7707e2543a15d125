"""Turn bones: forward kinematics, limbs that reach for a point, skin that follows.

A bone's turn is a rotation of the rest pose in world axes, relative to its parent's. Orientation of bone b is then
``A_b = A_parent D_b`` and its head ``p_b = p_parent + A_parent (h_b - h_parent)``, with h the heads at rest; a vertex
follows its bones by ``sum_b w_b (A_b (x - h_b) + p_b)`` (linear blend skinning).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.synthetic.body.makehuman import BodyModel

STRETCH = 0.995
"""A limb that reaches for a point stays this share of its length or less: fully straight limbs look like dolls'."""


@dataclass(slots=True)
class Rig:
    """A body's bones, being posed.

    Attributes:
        model: Names and parents.
        heads: float64 (B, 3), at rest, in m.
        turns: float64 (B, 3, 3), D above; identity at rest.
        shift: float64 (3,), where the root's head lies.
    """

    model: BodyModel
    heads: np.ndarray
    turns: np.ndarray
    shift: np.ndarray

    @classmethod
    def at_rest(cls, model: BodyModel, heads: np.ndarray) -> Rig:
        """Make a rig whose bones lie as in the rest pose."""
        return cls(model, heads, np.tile(np.eye(3), (len(heads), 1, 1)), heads[0].copy())

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Give orientations A, float64 (B, 3, 3), and heads p, float64 (B, 3)."""
        orientation = np.empty_like(self.turns)
        position = np.empty_like(self.heads)
        for b, parent in enumerate(self.model.parents):
            if parent < 0:
                orientation[b], position[b] = self.turns[b], self.shift
            else:
                orientation[b] = orientation[parent] @ self.turns[b]
                position[b] = position[parent] + orientation[parent] @ (self.heads[b] - self.heads[parent])
        return orientation, position

    def frame(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Give one bone's orientation, (3, 3), and head, (3,)."""
        chain = [self.model.bone(name)]
        while self.model.parents[chain[0]] >= 0:
            chain.insert(0, int(self.model.parents[chain[0]]))
        orientation, position = self.turns[chain[0]], self.shift
        for parent, b in pairwise(chain):
            position = position + orientation @ (self.heads[b] - self.heads[parent])
            orientation = orientation @ self.turns[b]
        return orientation, position

    def turn(self, name: str, rotation: np.ndarray) -> None:
        """Set one bone's turn relative to its parent's."""
        self.turns[self.model.bone(name)] = rotation

    def face(self, name: str, orientation: np.ndarray) -> None:
        """Set one bone's orientation in the world."""
        parent = self.model.bones[self.model.parents[self.model.bone(name)]]
        self.turn(name, self.frame(parent)[0].T @ orientation)

    def reach(self, limb: str, side: str, aim: np.ndarray, pole: np.ndarray) -> None:
        """Bring an ankle (``limb`` = "leg") or a wrist ("arm") to a point, or as near as the limb reaches.

        Args:
            limb: "arm" or "leg".
            side: "L" or "R".
            aim: (3,) in m, in the world.
            pole: (3,), the direction in which knee or elbow points.
        """
        upper, lower, end = (f"upper{limb}01", f"lower{limb}01", "wrist" if limb == "arm" else "foot")
        root, bend, tip = (self.heads[self.model.bone(f"{name}.{side}")] for name in (upper, lower, end))
        long, short = float(np.linalg.norm(bend - root)), float(np.linalg.norm(tip - bend))
        start = self.frame(f"{upper}.{side}")[1]
        distance = float(np.clip(np.linalg.norm(aim - start), 0.35 * (long + short), STRETCH * (long + short)))
        axis = unit(aim - start)
        pole = unit(pole - axis * (pole @ axis))
        along = (long**2 - short**2 + distance**2) / (2 * distance)
        aside = np.sqrt(max(long**2 - along**2, 0.0))
        middle = start + along * axis + aside * pole
        hinge_rest = _hinge(root, bend, tip, limb)
        hinge = unit(np.cross(pole, axis))
        first = _frame(unit(middle - start), hinge) @ _frame(unit(bend - root), hinge_rest).T
        last = _frame(unit(start + distance * axis - middle), hinge) @ _frame(unit(tip - bend), hinge_rest).T
        self._place_limb(limb, side, first, last)

    def bend(self, limb: str, side: str, rotation: np.ndarray, angle: float) -> None:
        """Set a limb by its first bone's orientation relative to its parent, and the angle of knee or elbow in rad."""
        names = (f"upper{limb}01", f"lower{limb}01", "wrist" if limb == "arm" else "foot")
        root, middle, tip = (self.heads[self.model.bone(f"{name}.{side}")] for name in names)
        hinge = _hinge(root, middle, tip, limb)
        first = self.frame(self.model.bones[self.model.parents[self.model.bone(f"{names[0]}.{side}")]])[0] @ rotation
        self._place_limb(limb, side, first, first @ about(hinge, angle))

    def _place_limb(self, limb: str, side: str, first: np.ndarray, last: np.ndarray) -> None:
        """Orient a limb's bones; the twist of its first one is spread over both halves, as muscles do."""
        names = [f"upper{limb}01.{side}", f"upper{limb}02.{side}", f"lower{limb}01.{side}"]
        parent = self.frame(self.model.bones[self.model.parents[self.model.bone(names[0])]])[0]
        along = unit(self.heads[self.model.bone(names[2])] - self.heads[self.model.bone(names[0])])
        local = parent.T @ first
        swing = between(along, local @ along)
        half = half_turn(swing.T @ local)
        self.turn(names[0], swing @ half)
        self.turn(names[1], half.T @ swing.T @ local)
        self.turn(names[2], first.T @ last)


def skin(
    rest: np.ndarray, weights: np.ndarray, heads: np.ndarray, orientation: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Let vertices follow the bones: float32 (V, 3) in m, from ``rest`` (V, 3) and ``weights`` (V, B)."""
    offset = position - np.einsum("bij,bj->bi", orientation, heads)
    bones = np.concatenate([orientation, offset[..., None]], axis=2).reshape(len(heads), 12).astype(np.float32)
    blend = (weights @ bones).reshape(-1, 3, 4)
    return np.asarray(np.einsum("vij,vj->vi", blend[..., :3], rest) + blend[..., 3], np.float32)


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation by ``angle`` rad about a unit ``axis`` (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def turn_x(degrees: float) -> np.ndarray:
    """Nod: positive leans what is up to the front."""
    return about(np.array([1.0, 0.0, 0.0]), np.radians(degrees))


def turn_y(degrees: float) -> np.ndarray:
    """Turn: positive to the person's left."""
    return about(np.array([0.0, 1.0, 0.0]), np.radians(degrees))


def turn_z(degrees: float) -> np.ndarray:
    """Tilt: positive leans what is up to the person's right."""
    return about(np.array([0.0, 0.0, 1.0]), np.radians(degrees))


def unit(vector: np.ndarray) -> np.ndarray:
    """Scale to length 1."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Smallest rotation that takes one unit vector to another."""
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3) if start @ end > 0 else about(unit(np.cross(start, [0.3, 0.5, 0.8])), np.pi)
    return about(axis / sine, float(np.arctan2(sine, start @ end)))


def half_turn(rotation: np.ndarray) -> np.ndarray:
    """Rotation by half the angle of another, about the same axis."""
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine = float(np.linalg.norm(axis)) / 2
    if sine < 1e-9:
        return np.eye(3)
    angle = float(np.arctan2(sine, (np.trace(rotation) - 1) / 2))
    return about(axis / (2 * sine), angle / 2)


def _hinge(root: np.ndarray, middle: np.ndarray, tip: np.ndarray, limb: str) -> np.ndarray:
    """Unit axis at rest about which a positive angle bends knee or elbow."""
    along = unit(middle - root)
    if limb == "leg":
        return unit(np.array([1.0, 0.0, 0.0]) - along * along[0])
    return unit(np.cross(along, tip - middle))


def _frame(along: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """Right-handed frame, columns: along a bone, aside, hinge."""
    hinge = unit(hinge - along * (hinge @ along))
    return np.stack([along, np.cross(hinge, along), hinge], axis=1)
