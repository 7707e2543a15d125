"""Pinhole camera model.

World coordinates are in metres and right-handed, with y pointing up and the ground plane at y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Camera:
    """Position, orientation and intrinsics of a pinhole camera; pixel centres lie at integer coordinates.

    Attributes:
        size: Image size (width, height), px.
        focal: Focal length, px.
        centre: float64 (2,), principal point (x, y), px.
        position: float64 (3,), camera position in world coordinates, m.
        rotation: float64 (3, 3), world to camera; its rows are the image's right, the image's down and the viewing
            direction, as unit vectors in world coordinates.
    """

    size: tuple[int, int]
    focal: float
    centre: np.ndarray
    position: np.ndarray
    rotation: np.ndarray

    @classmethod
    def looking(
        cls, size: tuple[int, int], focal: float, position: np.ndarray, aim: np.ndarray, roll: float = 0.0
    ) -> Camera:
        """Create a camera that looks from one point at another; the line of sight must not be vertical.

        Args:
            size: Image size (width, height), px.
            focal: Focal length, px.
            position: float (3,), camera position in world coordinates, m.
            aim: float (3,), point in world coordinates that appears at the image centre, m.
            roll: Rotation about the optical axis, rad.
        """
        ahead = (aim - position) / np.linalg.norm(aim - position)
        right = np.cross(ahead, np.array([0.0, 1.0, 0.0]))
        right /= np.linalg.norm(right)
        down = np.cross(ahead, right)
        cosine, sine = np.cos(roll), np.sin(roll)
        rotation = np.stack([cosine * right + sine * down, cosine * down - sine * right, ahead])
        centre = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
        return cls(size, focal, centre, np.asarray(position, np.float64), rotation)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points onto the image.

        Args:
            points: float (..., 3), world coordinates, m.

        Returns:
            float64 (..., 3): image x and y in px, and depth z along the optical axis in m. Where z <= 0 the point is
            behind the camera and x and y have no meaning.
        """
        inside = (np.asarray(points, np.float64) - self.position) @ self.rotation.T
        z = inside[..., 2:]
        xy = inside[..., :2] / np.where(np.abs(z) < 1e-6, 1e-6, z) * self.focal + self.centre
        return np.concatenate([xy, z], axis=-1)

    def finer(self, factor: int) -> Camera:
        """Return the same view for supersampling: each pixel becomes a block of ``factor`` x ``factor`` pixels."""
        centre = (self.centre + 0.5) * factor - 0.5
        size = (self.size[0] * factor, self.size[1] * factor)
        return Camera(size, self.focal * factor, centre, self.position, self.rotation)

    def rays(self) -> np.ndarray:
        """Return the matrix from pixels to viewing rays.

        Returns:
            float64 (3, 3): its product with (x, y, 1), x and y in px, is the direction of that pixel's ray in world
            coordinates, scaled to unit depth along the optical axis.
        """
        to_camera = np.array(
            [
                [1 / self.focal, 0, -self.centre[0] / self.focal],
                [0, 1 / self.focal, -self.centre[1] / self.focal],
                [0, 0, 1],
            ]
        )
        return np.asarray(self.rotation.T @ to_camera)

    def horizon(self) -> float:
        """Return the image row (px) at which the horizon lies straight ahead of the camera."""
        ahead = self.rotation[2]
        level = np.array([ahead[0], 0.0, ahead[2]])
        shown = self.rotation @ (level / np.linalg.norm(level))
        return float(shown[1] / max(shown[2], 1e-3) * self.focal + self.centre[1])
