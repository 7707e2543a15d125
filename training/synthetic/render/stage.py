"""Everything that is drawn: people and things as meshes in the world, and what surrounds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.render.camera import Camera


@dataclass(frozen=True, slots=True)
class Mesh:
    """A thing in the world.

    Attributes:
        points: float32 (N, 3), m.
        places: float32 (N, 3), where patterns are anchored.
        keep: float32 (N,), negative where cut away.
        triangles: int32 (T, 3).
        closed: uint8 (T,), see `person.Person`.
        material: int32 (T,), row of ``materials``.
        materials: float32 (M, 13).
        face: float32 (F, F, 3); None for things.
    """

    points: np.ndarray
    places: np.ndarray
    keep: np.ndarray
    triangles: np.ndarray
    closed: np.ndarray
    material: np.ndarray
    materials: np.ndarray
    face: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """A person in the world.

    Attributes:
        mesh: The dressed body.
        joints: float64 (17, 3), COCO keypoints, m.
        flesh: float64 (17,), how deep a joint lies under its own skin and cloth, m.
        kind: Name of the pose.
        identity: Number of the person.
        track: Number that stays with a person through a clip.
    """

    mesh: Mesh
    joints: np.ndarray
    flesh: np.ndarray
    kind: str
    identity: int
    track: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is not a mesh.

    Attributes:
        far: float32 (H, W, 3), linear colour of what lies beyond, at the size that is drawn.
        photo: Whether ``far`` is a photo that shows its own ground.
        tile: float32 (S, S, 3), linear colour of the ground.
        rate: Tiles of it a metre.
        reach: How far it goes, m of depth.
        light: float64 (5, 3), see `shading.shade`.
    """

    far: np.ndarray
    photo: bool
    tile: np.ndarray
    rate: float
    reach: float
    light: np.ndarray


@dataclass(frozen=True, slots=True)
class Stage:
    """One picture to be drawn."""

    camera: Camera
    actors: tuple[Actor, ...]
    things: tuple[Mesh, ...]
    surroundings: Surroundings
