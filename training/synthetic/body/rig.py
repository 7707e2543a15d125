"""Pose a skeleton by forward and two-bone inverse kinematics, and deform the mesh by linear blend skinning.

Every bone b has a local rotation ``D_b`` relative to its parent, in axes that are parallel to the world's in the rest
pose. Forward kinematics gives its orientation ``A_b = A_parent D_b`` and the position of its head
``p_b = p_parent + A_parent (h_b - h_parent)``, where h are the heads in the rest pose. Linear blend skinning with
weights w moves a vertex x of the rest pose to ``sum_b w_b (A_b (x - h_b) + p_b)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.synthetic.body.makehuman import BodyModel

STRETCH = 0.995
"""Greatest extension of a limb in inverse kinematics, as a share of its length; fully straight limbs look stiff."""


@dataclass(slots=True)
class Rig:
    """A skeleton and its current pose.

    Attributes:
        model: The body model; gives the bones' names and parents.
        heads: float64 (B, 3), heads of the bones in the rest pose, m.
        turns: float64 (B, 3, 3), local rotations ``D`` of the bones; identity in the rest pose.
        shift: float64 (3,), position of the root bone's head, m.
    """

    model: BodyModel
    heads: np.ndarray
    turns: np.ndarray
    shift: np.ndarray

    @classmethod
    def at_rest(cls, model: BodyModel, heads: np.ndarray) -> Rig:
        """Create a rig in the rest pose from the heads of the bones, float64 (B, 3) in m."""
        return cls(model, heads, np.tile(np.eye(3), (len(heads), 1, 1)), heads[0].copy())

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the orientations ``A``, float64 (B, 3, 3), and the heads ``p``, float64 (B, 3) in m, of all bones."""
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
        """Compute the orientation, float64 (3, 3), and the head, float64 (3,) in m, of one bone."""
        chain = [self.model.bone(name)]
        while self.model.parents[chain[0]] >= 0:
            chain.insert(0, int(self.model.parents[chain[0]]))
        orientation, position = self.turns[chain[0]], self.shift
        for parent, b in pairwise(chain):
            position = position + orientation @ (self.heads[b] - self.heads[parent])
            orientation = orientation @ self.turns[b]
        return orientation, position

    def turn(self, name: str, rotation: np.ndarray) -> None:
        """Set the local rotation (3, 3) of one bone."""
        self.turns[self.model.bone(name)] = rotation

    def face(self, name: str, orientation: np.ndarray) -> None:
        """Set the orientation (3, 3) of one bone in the rig's frame; its ancestors must be posed already."""
        parent = self.model.bones[self.model.parents[self.model.bone(name)]]
        self.turn(name, self.frame(parent)[0].T @ orientation)

    def reach(self, limb: str, side: str, aim: np.ndarray, pole: np.ndarray) -> None:
        """Move a wrist or an ankle to a target by two-bone inverse kinematics, or as near as the limb can reach.

        Args:
            limb: "arm" or "leg".
            side: "L" or "R".
            aim: (3,), target of the wrist or ankle in the rig's frame, m.
            pole: (3,), direction in which the elbow or knee points, in the rig's frame.
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
        """Set a limb by its joint angles.

        Args:
            limb: "arm" or "leg".
            side: "L" or "R".
            rotation: (3, 3), rotation of the upper arm or thigh relative to its parent bone.
            angle: Flexion of the elbow or knee, rad.
        """
        names = (f"upper{limb}01", f"lower{limb}01", "wrist" if limb == "arm" else "foot")
        root, middle, tip = (self.heads[self.model.bone(f"{name}.{side}")] for name in names)
        hinge = _hinge(root, middle, tip, limb)
        first = self.frame(self.model.bones[self.model.parents[self.model.bone(f"{names[0]}.{side}")]])[0] @ rotation
        self._place_limb(limb, side, first, first @ about(hinge, angle))

    def _place_limb(self, limb: str, side: str, first: np.ndarray, last: np.ndarray) -> None:
        """Set the bones of a limb from the orientations (3, 3) of its upper and lower part, ``first`` and ``last``.

        Each of the two bones of the upper part takes half of its twist, because linear blend skinning pinches the mesh
        where neighbouring bones differ by a large twist.
        """
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
    """Deform a mesh by linear blend skinning.

    Args:
        rest: float32 (V, 3), vertices in the rest pose, m.
        weights: float32 (V, B), skinning weights.
        heads: float64 (B, 3), heads of the bones in the rest pose, m.
        orientation: float64 (B, 3, 3), orientations of the posed bones.
        position: float64 (B, 3), heads of the posed bones, m.

    Returns:
        float32 (V, 3): vertices of the posed mesh, m.
    """
    offset = position - np.einsum("bij,bj->bi", orientation, heads)
    bones = np.concatenate([orientation, offset[..., None]], axis=2).reshape(len(heads), 12).astype(np.float32)
    blend = (weights @ bones).reshape(-1, 3, 4)
    return np.asarray(np.einsum("vij,vj->vi", blend[..., :3], rest) + blend[..., 3], np.float32)


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation by ``angle`` rad about a unit ``axis`` (Rodrigues' formula), float64 (3, 3)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def turn_x(degrees: float) -> np.ndarray:
    """Return the rotation about x; a positive angle tilts the up axis to the front, as in a nod."""
    return about(np.array([1.0, 0.0, 0.0]), np.radians(degrees))


def turn_y(degrees: float) -> np.ndarray:
    """Return the rotation about y; a positive angle turns the front to the person's left."""
    return about(np.array([0.0, 1.0, 0.0]), np.radians(degrees))


def turn_z(degrees: float) -> np.ndarray:
    """Return the rotation about z; a positive angle tilts the up axis to the person's right."""
    return about(np.array([0.0, 0.0, 1.0]), np.radians(degrees))


def unit(vector: np.ndarray) -> np.ndarray:
    """Scale a vector to length 1."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the smallest rotation (3, 3) that takes unit vector ``start`` to unit vector ``end``."""
    axis = np.cross(start, end)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3) if start @ end > 0 else about(unit(np.cross(start, [0.3, 0.5, 0.8])), np.pi)
    return about(axis / sine, float(np.arctan2(sine, start @ end)))


def half_turn(rotation: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) about the same axis by half the angle."""
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine = float(np.linalg.norm(axis)) / 2
    if sine < 1e-9:
        return np.eye(3)
    angle = float(np.arctan2(sine, (np.trace(rotation) - 1) / 2))
    return about(axis / (2 * sine), angle / 2)


def _hinge(root: np.ndarray, middle: np.ndarray, tip: np.ndarray, limb: str) -> np.ndarray:
    """Return the unit axis, in the rest pose, about which a positive angle flexes the elbow or knee."""
    along = unit(middle - root)
    if limb == "leg":
        return unit(np.array([1.0, 0.0, 0.0]) - along * along[0])
    return unit(np.cross(along, tip - middle))


def _frame(along: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """Return a right-handed frame (3, 3) with columns: the bone's direction, hinge x direction, and the hinge axis."""
    hinge = unit(hinge - along * (hinge @ along))
    return np.stack([along, np.cross(hinge, along), hinge], axis=1)
