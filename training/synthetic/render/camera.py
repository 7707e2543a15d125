"""A pinhole camera; world: y up, ground at 0, m."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Camera:
    """Pixel centres lie at integer coordinates.

    Attributes:
        size: (width, height) in px.
        focal: In px.
        centre: float64 (2,), where the optical axis meets the picture, px.
        position: float64 (3,), in the world, m.
        rotation: float64 (3, 3), world to camera: rows are the picture's right, its down, and the way it looks.
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
        """Place a camera at ``position`` that looks at ``aim``, both (3,) in m; ``roll`` in rad."""
        ahead = (aim - position) / np.linalg.norm(aim - position)
        right = np.cross(ahead, np.array([0.0, 1.0, 0.0]))
        right /= np.linalg.norm(right)
        down = np.cross(ahead, right)
        cosine, sine = np.cos(roll), np.sin(roll)
        rotation = np.stack([cosine * right + sine * down, cosine * down - sine * right, ahead])
        centre = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2])
        return cls(size, focal, centre, np.asarray(position, np.float64), rotation)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points (..., 3) in m: float64 (..., 3), x and y in px and depth z in m; behind the camera z <= 0."""
        inside = (np.asarray(points, np.float64) - self.position) @ self.rotation.T
        z = inside[..., 2:]
        xy = inside[..., :2] / np.where(np.abs(z) < 1e-6, 1e-6, z) * self.focal + self.centre
        return np.concatenate([xy, z], axis=-1)

    def finer(self, factor: int) -> Camera:
        """Give the same view in ``factor`` times as many pixels a side; old pixels cover whole new ones."""
        centre = (self.centre + 0.5) * factor - 0.5
        size = (self.size[0] * factor, self.size[1] * factor)
        return Camera(size, self.focal * factor, centre, self.position, self.rotation)

    def rays(self) -> np.ndarray:
        """Give (3, 3) whose product with (x, y, 1) is the direction in the world of a pixel, at depth 1."""
        to_camera = np.array(
            [
                [1 / self.focal, 0, -self.centre[0] / self.focal],
                [0, 1 / self.focal, -self.centre[1] / self.focal],
                [0, 0, 1],
            ]
        )
        return np.asarray(self.rotation.T @ to_camera)

    def horizon(self) -> float:
        """Row, px, of the horizon at the middle column."""
        ahead = self.rotation[2]
        level = np.array([ahead[0], 0.0, ahead[2]])
        shown = self.rotation @ (level / np.linalg.norm(level))
        return float(shown[1] / max(shown[2], 1e-3) * self.focal + self.centre[1])
