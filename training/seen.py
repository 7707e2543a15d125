"""Which pictures a training learned from, so that nothing is measured on them by mistake.

A picture goes by a number that copies of it share: COCO's own, where the file is named by it, else one made of what the
file holds. Crop caches, checkpoints and bundles carry the numbers along.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.bundle import Bundle, Manifest
from training import coco

COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?0{5}(\d{7})")
"""Of a file, without its ending."""
OTHERS = 1 << 40
"""Numbers of pictures that are not COCO's begin here; as many follow."""
LOOKED_AT = 4096
"""Bytes at either end of a file."""
SHOWN = 3

Numbers = NDArray[np.int64]
"""int64 (N,): pictures, rising, each once."""


class SeenError(ValueError):
    """Pictures to measure on are among those that were learned from."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a training learned from.

    Attributes:
        numbers: Pictures that are known.
        unrecorded: What else was learned from, in words, where nobody wrote the pictures down.
    """

    numbers: Numbers
    unrecorded: tuple[str, ...] = ()

    def __or__(self, other: Seen) -> Seen:
        """Both together."""
        unrecorded = tuple(dict.fromkeys([*self.unrecorded, *other.unrecorded]))
        return Seen(np.union1d(self.numbers, other.numbers), unrecorded)

    def packed(self) -> dict[str, Any]:
        """As a manifest holds it: the steps between the numbers, 7 bits a byte, deflated, as text."""
        deflated = zlib.compress(_to_bytes(np.diff(self.numbers, prepend=0)), 9)
        return {
            "count": len(self.numbers),
            "numbers": base64.b64encode(deflated).decode(),
            "unrecorded": list(self.unrecorded),
        }

    @staticmethod
    def unpacked(tree: Mapping[str, Any]) -> Seen:
        """Read what `packed` wrote."""
        steps = _from_bytes(zlib.decompress(base64.b64decode(tree["numbers"])))
        return Seen(np.cumsum(steps), tuple(tree["unrecorded"]))


def nothing() -> Seen:
    """Of a network that has not learned yet."""
    return Seen(np.zeros(0, np.int64))


def unknown(*what: str) -> Seen:
    """Of something that left no record."""
    return Seen(np.zeros(0, np.int64), what)


def joined(parts: Iterable[Seen]) -> Seen:
    """All together."""
    whole = nothing()
    for part in parts:
        whole |= part
    return whole


def of_bundle(manifest: Manifest) -> Seen:
    """What a bundle's manifest says; one that was imported, or made by an older version, says nothing."""
    tree = manifest.trained_by.get("pictures")
    return unknown(f"{manifest.name} {manifest.version}") if tree is None else Seen.unpacked(tree)


def numbers_of(images: Path, infos: Iterable[Mapping[str, Any]]) -> Numbers:
    """Numbers of pictures, in the order of their entries in a COCO file, not sorted."""
    return np.array([number_of(coco.picture_path(images, info["file_name"])) for info in infos], np.int64)


def number_of(picture: Path) -> int:
    """COCO's number where a file is named by it; else `OTHERS` and more, made of its size, its begin and its end."""
    match = COCO_NAME.fullmatch(picture.stem)
    if match is not None:
        return int(match[1])
    try:
        with picture.open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - LOOKED_AT))
            end = stream.read()
            stream.seek(0)
            content = b"%d %b%b" % (size, stream.read(LOOKED_AT), end)
    except OSError:
        content = picture.name.encode()  # not there: whoever reads it will say so
    return OTHERS + int.from_bytes(hashlib.sha256(content).digest()[:5])


def require_unseen(
    opened: Bundle, source: coco.Source, every: int = 1, *, complete: bool = False, seen_too: bool = False
) -> int:
    """Refuse to measure a bundle on pictures that it learned from; tell on stderr where nobody knows.

    Args:
        opened: Who is measured.
        source: On what.
        every: Only on pictures whose id this number divides.
        complete: Only on those marked ``official_complete``.
        seen_too: Count them instead of refusing.

    Returns:
        How many of the pictures were learned from.

    Raises:
        SeenError: Some were, and nobody said to measure all the same.
    """
    manifest = opened.manifest
    return require_apart(f"{manifest.name} {manifest.version}", of_bundle(manifest), source, every, complete, seen_too)


def require_apart(
    name: str, seen: Seen, source: coco.Source, every: int = 1, complete: bool = False, seen_too: bool = False
) -> int:
    """See `require_unseen`; ``seen`` is what ``name`` learned from."""
    images = coco.load(source.annotations).imgs
    measured = [images[i] for i in sorted(images) if i % every == 0]
    if complete:
        measured = [it for it in measured if it.get("official_complete", True)]
    known = np.isin(numbers_of(source.images, measured), seen.numbers)
    count = int(known.sum())
    if count and not seen_too:
        some = [str(measured[i]["file_name"]) for i in np.flatnonzero(known)[:SHOWN]]
        raise SeenError(
            f"{source.annotations}: expected pictures that {name} has not learned from, got {count:,} of "
            f"{len(measured):,} that it has ({', '.join(some + ['...'] * (count > SHOWN))}): figures on these say "
            "nothing of new ones; measure on others (crops --skip holds some back), or give --seen-too"
        )
    if count:
        told = f"{count:,} of {len(measured):,} pictures were learned from: figures say nothing of new ones"
        print(f"{name}: {told}", file=sys.stderr)
    if seen.unrecorded:
        told = f"nobody wrote down which pictures {', '.join(seen.unrecorded)} learned from; some may be among these"
        print(f"{name}: {told}", file=sys.stderr)
    return count


def marked(text: str, count: int) -> str:
    """Words on pictures, with how many of them were learned from, where any were."""
    return f"{text}, of which {count:,} were learned from" if count else text


def _to_bytes(values: Numbers) -> bytes:
    """Each number in groups of 7 bits, lowest first, the top bit set where more follow (LEB128)."""
    content = bytearray()
    for value in values.tolist():
        while value >= 0x80:
            content.append(value & 0x7F | 0x80)
            value >>= 7  # noqa: PLW2901
        content.append(value)
    return bytes(content)


def _from_bytes(content: bytes) -> Numbers:
    values, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            values.append(value)
            value = shift = 0
    return np.array(values, np.int64)
