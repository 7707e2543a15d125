"""Bundles: a trained network as a folder. Only bundles cross from training to service.

A bundle holds ``manifest.json``, ``model.onnx`` (uint8 RGB NHWC in, normalisation inside) and ``MODEL_CARD.md``. The
manifest lists the sha256 of the other two; `read` refuses a bundle whose bytes differ.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.pose.calibration import Calibration
from service.pose.covariance import CovarianceCalibration
from service.pose.fitting import Fitting
from service.pose.skeleton import SKELETONS, Skeleton

MANIFEST = "manifest.json"
ONNX = "model.onnx"
CARD = "MODEL_CARD.md"
_LATER_KEYS = ("fitting", "iou_threshold", "covariance")
"""Written only where they are set, because older versions refuse keys that they do not know."""


class BundleError(Exception):
    """A bundle is missing, unreadable, or differs from its manifest."""


class Quantized(BaseModel):
    """How a graph was quantized.

    Attributes:
        precision: Of its convolutions; decoder and head stay float.
        source: Name of the float bundle.
        source_version: Version of the float bundle.
        source_sha256: sha256 (hex) of the float bundle's graph.
        inputs: Number of inputs from which the value ranges were taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["int8"] = "int8"
    source: str
    source_version: str
    source_sha256: str
    inputs: int


class Manifest(BaseModel):
    """What a bundle holds, how to feed its graph, and how to read the outputs.

    Attributes:
        format_version: Version of the bundle's layout.
        name: Name in the API, e.g. ``student-s``; also the folder's name.
        version: Changes with every training.
        role: What the service uses the bundle for.
        files: sha256 (hex) of each other file by name.
        skeleton: Name in `skeleton.SKELETONS`, or a whole skeleton; None for a detector.
        input_size: (width, height) of the graph's input, px; for a detector without `fitting` the largest area
            (`detector.grid`).
        heatmap_size: (w, h) in cells; for ``simcc`` those of the network's feature map; None without crops.
        box_padding: Factor on a box before it is cropped; None without crops.
        fitting: How the whole image fills the input of a one-stage network, or of a detector whose size is fixed;
            None for other networks.
        decoder: How the outputs are read: ``heatmap`` or ``simcc`` of a network that sees one person's crop,
            ``one_stage`` of one that finds people and keypoints in the whole image, ``detector`` (maps of centres and
            distances) or ``boxes`` (a list of boxes and scores) of a detector.
        iou_threshold: Of a detector's non-maximum suppression; 1 where the graph's boxes need none; None:
            `detector.IOU_THRESHOLD`.
        parameters: Number of weights.
        gflops: 10⁹ multiply-adds for one input of `input_size`.
        metrics: Measured figures, e.g. ``{"ap": 0.5}``.
        calibration: Turns raw scores into meaningful ones; None: scores are raw.
        covariance: Turns the spread of heatmaps into the covariance of keypoints' errors; None: that is not known.
        trained_by: Revision, recipe and its sha256, teachers, data, images that were trained on.
        quantized: The float bundle of which this is an int8 copy; None: this one is float.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str
    role: Literal["detector", "student", "teacher"]
    files: dict[str, str]
    skeleton: str | Skeleton | None
    input_size: tuple[int, int]
    heatmap_size: tuple[int, int] | None
    box_padding: float | None
    fitting: Fitting | None = None
    decoder: Literal["heatmap", "simcc", "one_stage", "detector", "boxes"]
    iou_threshold: float | None = Field(None, gt=0, le=1)
    parameters: int
    gflops: float
    metrics: dict[str, float] = {}
    calibration: Calibration | None = None
    covariance: CovarianceCalibration | None = None
    trained_by: dict[str, Any] = {}
    quantized: Quantized | None = None

    @model_validator(mode="after")
    def _calibrated_for_its_outputs(self) -> Manifest:
        if self.calibration is None:
            return self
        known = self.known_skeleton
        curves = len(self.calibration.offsets)
        expected = 1 if self.is_detector else curves if known is None else len(known)
        meaning = "probability_of_person" if self.is_detector else "expected_oks"
        if (curves, self.calibration.meaning) != (expected, meaning):
            raise ValueError(
                f"expected a calibration of {expected} curves that means {meaning}, got {curves} that mean "
                f"{self.calibration.meaning}; calibrate the bundle again"
            )
        return self

    @model_validator(mode="after")
    def _covariance_of_its_keypoints(self) -> Manifest:
        if self.covariance is None:
            return self
        known, got = self.known_skeleton, len(self.covariance.offsets)
        expected = "no covariance of a detector" if self.is_detector else ""
        if known is not None and got != len(known):
            expected = f"a covariance of {len(known)} keypoints"
        if expected:
            raise ValueError(f"expected {expected}, got one of {got}; calibrate the bundle again")
        return self

    @property
    def kind(self) -> Literal["detector", "top_down", "one_stage"]:
        """What the network does: locates people, estimates the pose in one person's crop, or both in a whole image."""
        return "detector" if self.is_detector else "one_stage" if self.decoder == "one_stage" else "top_down"

    @property
    def is_detector(self) -> bool:
        """Whether the network only locates people in whole images."""
        return self.decoder in {"detector", "boxes"}

    @property
    def known_skeleton(self) -> Skeleton | None:
        """The skeleton itself; None for a detector, or if the name is not in `skeleton.SKELETONS`."""
        return SKELETONS.get(self.skeleton) if isinstance(self.skeleton, str) else self.skeleton


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory.

    Attributes:
        path: The folder.
        manifest: What the bundle holds.
        onnx: Bytes of the graph.
        card: The model card, Markdown.
    """

    path: Path
    manifest: Manifest
    onnx: bytes
    card: str


def sha256(content: bytes) -> str:
    """sha256 of ``content``, lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> Bundle:
    """Read a bundle and verify every file against its manifest.

    Raises:
        BundleError: The folder or a file is missing, the manifest is invalid, or a hash differs.
    """
    manifest = _read_manifest(path)
    contents = {}
    for name in (ONNX, CARD):
        expected = manifest.files.get(name)
        if expected is None:
            raise BundleError(
                f"bundle {path.name!r} ({path}): expected the manifest to list {name}, got {sorted(manifest.files)}"
            )
        try:
            contents[name] = (path / name).read_bytes()
        except OSError as error:
            raise BundleError(
                f"bundle {path.name!r}: expected {path / name}, got {error.strerror}; copy it again"
            ) from error
        got = sha256(contents[name])
        if got != expected:
            raise BundleError(
                f"bundle {path.name!r}: {path / name} is not what its manifest says: "
                f"expected sha256 {expected}, got {got}; the file was damaged or changed, copy the bundle again"
            )
    try:
        card = contents[CARD].decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"bundle {path.name!r}: expected {path / CARD} in UTF-8, got: {error}") from error
    return Bundle(path, manifest, contents[ONNX], card)


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except OSError as error:
        raise BundleError(
            f"bundle {path.name!r}: expected a folder with {MANIFEST} at {path}, got {error.strerror}; "
            "check the models folder"
        ) from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, it['loc'])) or 'it'}: {it['msg']}" for it in error.errors(include_url=False)]
        raise BundleError(
            f"bundle {path.name!r}: {path / MANIFEST} is not a valid manifest: {'; '.join(faults)}; copy the bundle "
            "again"
        ) from error


def write(path: Path, manifest: Manifest, onnx: bytes, card: str) -> Bundle:
    """Write a bundle atomically: into a temporary folder, flushed, then renamed to ``path``.

    An older bundle at ``path`` is moved aside first and removed last; it is restored if writing fails.

    Args:
        path: Folder to create or replace.
        manifest: Its ``files`` are filled in here.
        onnx: Bytes of the graph.
        card: The model card, Markdown.

    Raises:
        BundleError: ``path`` exists and is not a bundle.
    """
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(
            f"{path}: expected no folder, or a bundle to replace, got a folder without {MANIFEST}; "
            "name the bundle's own folder"
        )
    contents = {ONNX: onnx, CARD: card.encode()}
    manifest = manifest.model_copy(update={"files": {name: sha256(content) for name, content in contents.items()}})
    unset = {name for name in _LATER_KEYS if getattr(manifest, name) is None}
    contents[MANIFEST] = (manifest.model_dump_json(indent=2, exclude=unset) + "\n").encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process with the same id
    partial.mkdir(parents=True)
    try:
        for name, content in contents.items():
            with (partial / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        if path.exists():
            path.rename(old)
        partial.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return Bundle(path, manifest, onnx, card)
