"""What stands in the place of a detector where no model needs one."""

from __future__ import annotations

from typing import NoReturn

from service.errors import Unavailable
from service.pose.bundle import Manifest
from service.pose.detector import PersonDetector
from service.pose.types import Image


class NoDetector:
    """Takes the place of the detector where every model that answers by default finds people itself."""

    def __init__(self, name: str) -> None:
        """Name the bundle that is missing."""
        self._name = name

    def detect(self, image: Image, max_people: int = 20, min_score: float = 0.3) -> NoReturn:  # noqa: ARG002
        """Refuse.

        Raises:
            Unavailable: Always.
        """
        raise Unavailable(
            f"expected a detector {self._name!r} in the models folder, which this model needs, got none; ask for a "
            "one-stage model (`kind` in /models), or give `boxes`",
        )


def can_find_people(manifest: Manifest, detector: PersonDetector | NoDetector) -> bool:
    """Whether a pose model finds people in whole images, with the detector or without."""
    return manifest.kind == "one_stage" or not isinstance(detector, NoDetector)
