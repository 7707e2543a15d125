"""Records of the pictures that a network was trained on, by ids that copies of a picture share.

The id is COCO's own if the file is named by it, so that re-encoded copies have the same id; otherwise it is a hash of
the file's content, so that equal names in different data sets have different ids. Crop caches, checkpoints and bundles
carry the record. It contains the pictures that the network's weights were trained on, in earlier stages too, but not
the training pictures of its teachers.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.bundle import BundleError, Manifest
from training.data import coco

COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?0{6}(\d{6})(?:_(?:jpe?g|png)\.rf\.\w+)?")
"""Name of a COCO picture's file without suffix, also as Roboflow exports it."""
OTHERS = 1 << 48
"""First id of pictures that are not COCO's; the range is so large that millions of hashes hardly ever collide."""
HASHED = 4096
"""Bytes at the beginning and at the end of a file that are hashed, with its size."""

Ids = NDArray[np.int64]
"""int64 (N,): unique ids of pictures in ascending order."""


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """The pictures of a training.

    Attributes:
        ids: Known pictures.
        unrecorded: Names of networks and data sets whose pictures belong to it too but are not recorded.
    """

    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    unrecorded: tuple[str, ...] = ()

    @staticmethod
    def of(ids: Iterable[int]) -> PictureRecord:
        """Return a record of pictures, given in any order and possibly more than once."""
        return PictureRecord(np.unique(np.fromiter(ids, np.int64)))

    def __or__(self, other: PictureRecord) -> PictureRecord:
        """Return the union of two records."""
        unrecorded = tuple(dict.fromkeys([*self.unrecorded, *other.unrecorded]))
        return PictureRecord(np.union1d(self.ids, other.ids), unrecorded)

    def packed(self) -> dict[str, Any]:
        """Encode for a manifest: differences of the ids, as byte planes from the lowest, deflated, in base64."""
        steps = np.diff(self.ids, prepend=0).astype("<u8").view(np.uint8).reshape(-1, 8)
        deflated = zlib.compress(steps.T.tobytes(), 9)
        return {
            "count": len(self.ids),
            "ids": base64.b64encode(deflated).decode(),
            "unrecorded": list(self.unrecorded),
        }

    @staticmethod
    def unpacked(tree: Mapping[str, Any]) -> PictureRecord:
        """Decode the result of `packed`.

        Raises:
            ValueError: It is damaged.
        """
        try:
            content = zlib.decompress(base64.b64decode(tree["ids"], validate=True))
            planes = np.frombuffer(content, np.uint8).reshape(8, tree["count"])
            ids = np.cumsum(planes.T.copy().view("<u8").ravel().astype(np.int64))
            return PictureRecord(ids, tuple(map(str, tree["unrecorded"])))
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(
                f"expected a record of pictures as export writes it, got a damaged one ({error})"
            ) from error


def of_bundle(manifest: Manifest) -> PictureRecord:
    """Return the record of a bundle; an imported bundle has none and is listed as unrecorded itself.

    Raises:
        BundleError: Its record is damaged.
    """
    made = manifest.trained_by
    if "pictures" not in made:
        origin = f" ({made['origin']})" if made.get("origin") else ""
        return PictureRecord(unrecorded=(f"{manifest.name} {manifest.version}{origin}",))
    try:
        return PictureRecord.unpacked(made["pictures"])
    except ValueError as error:
        raise BundleError(f"bundle {manifest.name!r}: trained_by.pictures: {error}; export it again") from error


def picture_ids(images: Path, infos: Iterable[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Return ids int64 (N,) for N entries of a COCO file, whose pictures are in the folder ``images``."""
    return np.array([picture_id(coco.picture_path(images, info["file_name"])) for info in infos], np.int64)


def picture_id(picture: Path) -> int:
    """Return COCO's id if a file is named by it, else `OTHERS` plus a hash of its size, beginning and end."""
    match = COCO_NAME.fullmatch(picture.stem)
    if match is not None:
        return int(match[1])
    try:
        with picture.open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - HASHED))
            end = stream.read()
            stream.seek(0)
            content = b"%d %b%b" % (size, stream.read(HASHED), end)
    except OSError:
        content = picture.name.encode()  # a missing file is reported when it is read
    return OTHERS + int.from_bytes(hashlib.sha256(content).digest()[:6])
