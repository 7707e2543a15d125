"""Contents of a scene to render: people, objects, surroundings and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.render.camera import Camera


@dataclass(frozen=True, slots=True)
class Mesh:
    """A triangle mesh with materials.

    Attributes:
        points: float32 (N, 3), vertices in world coordinates, m.
        places: float32 (N, 3), texture coordinates, m: of a person, the vertices on the neutral template; of an object,
            its vertices before it is placed.
        keep: float32 (N,), clip function: the mesh is cut away where its interpolated value is negative.
        triangles: int32 (T, 3), vertex indices.
        closed: uint8 (T,), 1 where the back of a triangle can never be seen and is culled.
        material: int32 (T,), row of ``materials``.
        materials: float32 (M, 13), see `materials.WIDTH`.
        face: float32 (F, F, 3), face picture: factors on the albedo of skin; None for objects.
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
    """A posed person.

    Attributes:
        mesh: The dressed body, in world coordinates.
        joints: float64 (17, 3), COCO keypoints in world coordinates, m.
        flesh: float64 (17,), greatest depth of each keypoint below the surface of skin and clothes, m.
        kind: Kind of pose.
        identity: Identity number; it determines body, face and clothes.
        track: Track id, the same in all frames of a clip.
    """

    mesh: Mesh
    joints: np.ndarray
    flesh: np.ndarray
    kind: str
    identity: int
    track: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Background image, ground and light.

    Attributes:
        far: float32 (h, w, 3), background image, linear RGB, of any size: it is stretched to the image.
        photo: Whether ``far`` is a photo that already shows ground; the renderer then adds only shadows.
        tile: float32 (S, S, 3), repeating ground texture, linear RGB.
        rate: Texture tiles per metre.
        reach: World z at which the ground ends, m.
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
    """Everything that is rendered into one image.

    Attributes:
        camera: The camera.
        actors: The people.
        things: Meshes of objects such as furniture and walls.
        surroundings: Background, ground and light.
    """

    camera: Camera
    actors: tuple[Actor, ...]
    things: tuple[Mesh, ...]
    surroundings: Surroundings
