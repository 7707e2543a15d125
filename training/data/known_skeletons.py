"""Skeletons of public data sets beyond COCO's seventeen, by name.

Both begin with COCO's keypoints. Halpe26 adds head, neck, the middle of the hips and the feet
(github.com/Fang-Haoshu/Halpe-FullBody); COCO-WholeBody adds the feet, 68 points of the face and 21 of each hand
(github.com/jin-s13/COCO-WholeBody). Their orders are those of Halpe's README and of MMPose's
``configs/_base_/datasets/coco_wholebody.py``, whose hands begin at the wrist and go from the thumb to the little
finger, the left one first. Their sigmas are those of the two projects' own evaluation: ``computeOks`` in Halpe's
``HalpeCOCOAPI/PythonAPI/halpecocotools/cocoeval.py`` (MMPose's ``halpe26.py`` has smaller ones) and in COCO-WholeBody's
``evaluation/myeval_wholebody.py``.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from service.pose.skeleton import COCO17, Skeleton
from training.data.formats import category_skeleton
from training.recipe import skeletons

FEET = ("big_toe", "small_toe", "heel")
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
BODY_EDGES = COCO17.edges


def find(name: Path) -> Skeleton:
    """Return the skeleton of a name in `KNOWN`, or read a TOML file or a COCO category as JSON.

    Raises:
        SkeletonError: The name is neither; see `skeletons.load` and `category_skeleton.load`.
    """
    known = KNOWN.get(str(name))
    if known is not None and not name.exists():
        return known
    return category_skeleton.load(name) if name.suffix == ".json" else skeletons.load(name)


def _made(
    name: str,
    more: tuple[str, ...],
    sigmas: tuple[float, ...],
    edges: tuple[tuple[int, int], ...],
    mirrored: dict[int, int],
) -> Skeleton:
    keypoints = COCO17.keypoints + more
    flip = tuple(mirrored.get(k, other) for k, other in enumerate(skeletons.by_sides(keypoints)))
    return Skeleton(name, keypoints, BODY_EDGES + edges, flip, COCO17.sigmas + sigmas, COCO17.upper)


def _halpe26() -> Skeleton:
    more = ("head", "neck", "hip", *(f"{side}_{part}" for part in FEET for side in ("left", "right")))
    edges = ((17, 18), (18, 19), *((15 + side, 20 + 2 * part + side) for side in (0, 1) for part in range(3)))
    return _made("halpe26", more, (*[0.08] * 3, *[0.089] * 6), edges, {})


FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
    0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
    0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034,
    0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
    0.008, 0.008, 0.010, 0.008,
)  # fmt: skip
HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
    0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip
FACE_MIRRORS = ((0, 16), (17, 26), (31, 35), (36, 45), (40, 47), (48, 54), (55, 59), (60, 64), (65, 67))
"""First point of a sequence and its mirror partner; the partners of the next points count down."""
FACE_LINES = ((0, 16), (17, 21), (22, 26), (27, 30), (31, 35), (36, 41), (42, 47), (48, 59), (60, 67))
"""First and last point of each line to draw; the lines from 36 on, eyes and lips, are closed."""


def _wholebody() -> Skeleton:
    sides, face = ("left", "right"), len(COCO17) + 2 * len(FEET)
    hands = [face + len(FACE_SIGMAS) + len(HAND_SIGMAS) * i for i in range(2)]
    more = [f"{side}_{part}" for side in sides for part in FEET] + [f"face-{i}" for i in range(len(FACE_SIGMAS))]
    for which in sides:
        more += [f"{which}_hand_root", *(f"{which}_{finger}{i}" for finger in FINGERS for i in range(1, 5))]
    edges = [(15 + side, 17 + 3 * side + part) for side in (0, 1) for part in range(3)]
    edges += [(face + i, face + i + 1) for first, last in FACE_LINES for i in range(first, last)]
    edges += [(face + last, face + first) for first, last in FACE_LINES if first >= 36]
    for side, root in enumerate(hands):
        edges.append((9 + side, root))
        for k in range(len(FINGERS)):
            joints = [root, *(root + 1 + 4 * k + i for i in range(4))]
            edges += list(pairwise(joints))
    mirrored: dict[int, int] = {}
    for first, partner in FACE_MIRRORS:
        length = {17: 5, 36: 4, 40: 2}.get(first, (partner - first) // 2 + 1)
        for i in range(length):
            mirrored |= {face + first + i: face + partner - i, face + partner - i: face + first + i}
    sigmas = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094, *FACE_SIGMAS, *HAND_SIGMAS, *HAND_SIGMAS)
    return _made("coco-wholebody133", tuple(more), sigmas, tuple(edges), mirrored)


KNOWN = {made.name: made for made in (_halpe26(), _wholebody())}
KNOWN["coco-wholebody"] = KNOWN["coco-wholebody133"]
KNOWN[COCO17.name] = COCO17
