"""Compute the 17 COCO keypoints of a posed body.

Shoulders, elbows, wrists, hips, knees and ankles are the heads of bones. The nose, eyes and ears are means of skin
vertices. Human annotators do not always mark the anatomical joint; `HABIT` moves those keypoints to where they mark it.
"""

from __future__ import annotations

import functools

import numpy as np

from training.synthetic.body import makehuman
from training.synthetic.body.makehuman import BodyModel
from training.synthetic.body.rig import skin

BONES = ("upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")
"""Bones whose heads give keypoints 5 to 16; each bone gives a left and then a right keypoint."""
FLESH = np.array([0.03, 0.025, 0.025, 0.04, 0.04] + [f for f in (0.11, 0.08, 0.06, 0.17, 0.1, 0.09) for _ in "LR"])
"""Greatest depth of each keypoint below skin and clothes, (17,) in m, in COCO's order. A keypoint that lies deeper
behind the visible surface is occluded."""
HABIT: dict[str, tuple[float, float, float]] = {
    "upperarm01": (-0.01, 0.028, 0.0),
    "lowerarm01": (-0.012, 0.023, 0.0),
    "wrist": (-0.006, 0.006, -0.007),
    "upperleg01": (-0.013, 0.008, 0.0),
    "foot": (0.0, 0.005, 0.0),
}
"""Offset from the bone's head to the place that human annotators mark: (outward, up, forward) in the rest pose, m, for
a body 1.7 m tall. `joints` scales it with the height of the body and rotates it with the parent bone. docs/synthetic.md
says how the offsets were measured."""


def joints(
    model: BodyModel, heads: np.ndarray, body: np.ndarray, orientation: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Compute the keypoints of a posed body.

    Args:
        model: The body model with B bones and V vertices.
        heads: float64 (B, 3), heads of the bones in the rest pose, m.
        body: float32 (V, 3), vertices of the undressed body in the rest pose, m.
        orientation: float64 (B, 3, 3), orientations of the posed bones (see `Rig.solve`).
        position: float64 (B, 3), heads of the posed bones, m.

    Returns:
        float64 (17, 3): keypoints in COCO's order, m, in the same frame as ``position``.
    """
    size = float(np.ptp(body[: makehuman.SKIN_END, 1])) / 1.7
    spots = [skin(body[v], model.weights[v], heads, orientation, position).mean(0) for v in face_vertices()]
    for bone in BONES:
        for side, out in (("L", 1.0), ("R", -1.0)):
            b = model.bone(f"{bone}.{side}")
            habit = np.array(HABIT.get(bone, (0.0, 0.0, 0.0))) * [out, 1, 1] * size
            spots.append(position[b] + orientation[model.parents[b]] @ habit)
    return np.array(spots, np.float64)


@functools.cache
def face_vertices() -> tuple[np.ndarray, ...]:
    """Find the vertices whose mean is the nose, left eye, right eye, left ear and right ear, in this order."""
    model = makehuman.load()
    p = model.template
    skin_vertices = np.unique(model.triangles["body"])
    x, y, z = p[skin_vertices].T
    nose = skin_vertices[(np.abs(x) < 0.006) & (y > 0.685) & (y < 0.7) & (z > 0.16)]
    found = [nose]
    for side in "lr":
        eye = np.unique(model.triangles[f"helper-{side}-eye"])
        found.append(eye[p[eye, 2] > p[eye, 2].max() - 0.004])
    for out in (1, -1):
        ear = (out * x > 0.071) & (y > 0.68) & (y < 0.725) & (z > -0.02) & (z < 0.035)
        found.append(skin_vertices[ear])
    return tuple(found)
