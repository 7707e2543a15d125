"""Results as frozen dataclasses. Fields that this version does not know are in ``raw``.

Coordinates are pixels of the upright picture (EXIF applied), origin top left, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import MissingExtra
from posewright_client._skeleton import EDGES, KEYPOINTS

Raw = Mapping[str, Any]
Box = tuple[float, float, float, float]
Covariance = tuple[tuple[float, float], tuple[float, float]]
"""((xx, xy), (xy, yy))."""


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One keypoint of a person.

    Attributes:
        name: E.g. ``left_wrist``.
        x: px.
        y: px.
        score: 0..1.
        visible: Whether the score reaches `keypoint_threshold`; None in streams without `keypoint_threshold`.
        covariance: Of the keypoint's error, px²; None without the option ``covariance``, or where the model that
            answered has none.
    """

    name: str
    x: float
    y: float
    score: float
    visible: bool | None = None
    covariance: Covariance | None = None


@dataclass(frozen=True, slots=True)
class Pose(Mapping[str, Keypoint]):
    """A person with all keypoints, in the order of the model's skeleton, which is usually COCO's.

    A pose is a mapping from names to keypoints: ``pose["nose"]``, ``"nose" in pose``, ``list(pose)``, ``pose.items()``.

    Attributes:
        id: Track id, stable within a session of a stream; None elsewhere.
        score: 0..1.
        box: x, y, width, height; px.
        keypoints: K keypoints; 17 with COCO's skeleton.
        fallback: Why the teacher was used for this person, or None.
        edges: Pairs of keypoint indices, from 0, that a drawing connects.
    """

    id: str | None
    score: float
    box: Box
    keypoints: tuple[Keypoint, ...]
    fallback: str | None = None
    edges: tuple[tuple[int, int], ...] = field(default=EDGES, repr=False)

    def __getitem__(self, name: str) -> Keypoint:
        """Return a keypoint by name.

        Raises:
            KeyError: The skeleton has no such keypoint.
        """
        for keypoint in self.keypoints:
            if keypoint.name == name:
                return keypoint
        raise KeyError(f"expected one of {list(self)}, got {name!r}")

    def __iter__(self) -> Iterator[str]:
        return (keypoint.name for keypoint in self.keypoints)

    def __len__(self) -> int:
        return len(self.keypoints)


class People(Sequence[Pose]):
    """Base class of results with ``poses``: a sequence of them, which can be converted for other libraries.

    ``for pose in result``, ``len(result)``, ``result[0]``, ``result[:2]``. As every sequence, a result without people
    is false: ``if result:`` asks whether somebody was found, and ``if result is None:`` whether there is a result.
    """

    __slots__ = ()
    poses: tuple[Pose, ...]

    def __len__(self) -> int:
        return len(self.poses)

    @overload
    def __getitem__(self, index: int) -> Pose: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Pose, ...]: ...
    def __getitem__(self, index: int | slice) -> Pose | tuple[Pose, ...]:
        return self.poses[index]

    def to_numpy(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return keypoints float32 (N, K, 2) xy px, and their scores float32 (N, K); K is 17 if N is 0."""
        rows = [[(it.x, it.y, it.score) for it in pose.keypoints] for pose in self.poses]
        count = len(rows[0]) if rows else len(KEYPOINTS)
        table = np.asarray(rows, np.float32).reshape(len(rows), count, 3)
        return np.ascontiguousarray(table[..., :2]), np.ascontiguousarray(table[..., 2])

    def covariances(self) -> NDArray[np.float32]:
        """Return each keypoint's covariance, float32 (N, K, 2, 2) px²; NaN where it has none. K is 17 if N is 0."""
        unknown = ((np.nan, np.nan), (np.nan, np.nan))
        rows = [[it.covariance or unknown for it in pose.keypoints] for pose in self.poses]
        return np.asarray(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else len(KEYPOINTS), 2, 2)

    def to_supervision(self) -> Any:
        """Return `supervision.KeyPoints`.

        Its ``data`` have the boxes as ``xywh``, the track ids as ``id``, and `covariances`, which supervision's ellipse
        annotators draw, as ``covariance`` if any keypoint has one.

        Raises:
            MissingExtra: supervision 0.29 or newer is not installed.
        """
        try:
            from supervision import KeyPoints  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise MissingExtra("to_supervision() needs: pip install 'posewright-client[supervision]'") from error
        keypoints, scores = self.to_numpy()
        boxes = np.asarray([pose.box for pose in self.poses], np.float32).reshape(-1, 4)
        data: dict[str, Any] = {"xywh": boxes, "id": np.asarray([pose.id or "" for pose in self.poses], str)}
        covariances = self.covariances()
        if np.isfinite(covariances).any():
            data["covariance"] = covariances
        return KeyPoints(
            xy=keypoints,
            class_id=np.zeros(len(self.poses), int),
            keypoint_confidence=scores,
            detection_confidence=np.asarray([pose.score for pose in self.poses], np.float32),
            data=data,
        )


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model that produced the poses.

    Attributes:
        name: Name of the bundle.
        version: Version of the bundle.
        role: ``student`` or ``teacher``.
        sha256: Hash of the model file.
        backend: Inference backend.
        fallback: Why the teacher was used instead of the student, or None.
    """

    name: str
    version: str
    role: str
    sha256: str = ""
    backend: str = ""
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction(People):
    """The people in one picture.

    Attributes:
        id: Id of the request in the server's logs.
        model: The model that produced the poses.
        image_size: Width and height of the upright picture, px.
        poses: N people.
        timings_ms: Time per stage on the server, and their ``total``.
        raw: The server's reply.
    """

    id: str
    model: ModelRef
    image_size: tuple[int, int]
    poses: tuple[Pose, ...]
    timings_ms: Mapping[str, float]
    raw: Raw = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Side(People):
    """One model's part of a comparison; ``pose_ms`` is its inference time."""

    model: ModelRef
    poses: tuple[Pose, ...]
    pose_ms: float


@dataclass(frozen=True, slots=True)
class Match:
    """One person whom both models found.

    Attributes:
        student: Index into the student's poses.
        teacher: Index into the teacher's poses.
        oks: Object keypoint similarity with the teacher as reference, 0..1.
        distances_px: Distance of each keypoint, px, (K,).
        distances_relative: The same, divided by the square root of the box area.
    """

    student: int
    teacher: int
    oks: float
    distances_px: tuple[float, ...]
    distances_relative: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The student's and the teacher's poses in the same picture."""

    id: str
    image_size: tuple[int, int]
    student: Side
    teacher: Side
    matches: tuple[Match, ...]
    timings_ms: Mapping[str, float]
    raw: Raw = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the server has.

    Attributes:
        name: Name for the option ``model``.
        version: Version of the bundle.
        role: ``detector``, ``student`` or ``teacher``.
        state: ``ready``, ``warming_up`` or ``unavailable``.
        default: Whether it is used for its role by default.
        metrics: Measured metrics, e.g. ``ap``.
        card: Model card in Markdown; None in lists of models.
        failure: Why the model is unavailable, or None.
        raw: The server's entry, with the manifest.
    """

    name: str
    version: str
    role: str
    state: str
    default: bool
    metrics: Mapping[str, float]
    card: str | None
    failure: str | None
    raw: Raw = field(repr=False, compare=False)
