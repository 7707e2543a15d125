"""Which pictures a training learned from, by ids that copies of a picture share.

The id is COCO's own where the file is named by it, however often the picture was encoded again; else it is made of the
file's content, so that namesakes of different data sets differ. Crop caches, checkpoints and bundles carry the record.
Only pictures that gave crops or boxes to a network's weights count, also those of earlier stages; what its teachers
learned from does not.
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
"""Of a file, without its ending; also as Roboflow exports it."""
OTHERS = 1 << 48
"""Ids of pictures that are not COCO's begin here; as many follow, so that millions hardly ever share one."""
HASHED = 4096
"""Bytes at either end of a file that its id is made of, beside its size."""

Ids = NDArray[np.int64]
"""int64 (N,): ids of pictures, ascending, each once."""


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """What a training learned from.

    Attributes:
        ids: Pictures that are known.
        unrecorded: Networks and data sets, by name, that it also learned from and whose pictures nobody recorded.
    """

    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    unrecorded: tuple[str, ...] = ()

    @staticmethod
    def of(ids: Iterable[int]) -> PictureRecord:
        """A record of these pictures, in any order, some perhaps more than once."""
        return PictureRecord(np.unique(np.fromiter(ids, np.int64)))

    def __or__(self, other: PictureRecord) -> PictureRecord:
        """Both together."""
        unrecorded = tuple(dict.fromkeys([*self.unrecorded, *other.unrecorded]))
        return PictureRecord(np.union1d(self.ids, other.ids), unrecorded)

    def packed(self) -> dict[str, Any]:
        """As a manifest holds it: differences of the ids, their lowest bytes first, deflated, in base64."""
        steps = np.diff(self.ids, prepend=0).astype("<u8").view(np.uint8).reshape(-1, 8)
        deflated = zlib.compress(steps.T.tobytes(), 9)
        return {
            "count": len(self.ids),
            "ids": base64.b64encode(deflated).decode(),
            "unrecorded": list(self.unrecorded),
        }

    @staticmethod
    def unpacked(tree: Mapping[str, Any]) -> PictureRecord:
        """Read what `packed` wrote.

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
    """What a bundle learned from; one that was imported, or exported before there were records, is itself unrecorded.

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
    """Ids int64 (N,) of pictures in the order of their N entries in a COCO file, which lie in the folder ``images``."""
    return np.array([picture_id(coco.picture_path(images, info["file_name"])) for info in infos], np.int64)


def picture_id(picture: Path) -> int:
    """COCO's id where a file is named by it; else `OTHERS` and more, made of its size, its begin and its end."""
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
        content = picture.name.encode()  # not there: whoever reads it will say so
    return OTHERS + int.from_bytes(hashlib.sha256(content).digest()[:6])
