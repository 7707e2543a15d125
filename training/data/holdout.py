"""Refuses to measure a network on pictures that it learned from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.pose.bundle import Bundle
from training.data import coco, image_record
from training.data.image_record import PictureRecord

SHOWN = 3
"""File names that a message gives."""


class OverlapError(ValueError):
    """Pictures to measure on are among those that were learned from."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far the pictures that are measured on are among those that were learned from.

    Attributes:
        pictures: Count of those that are.
        unchecked: Networks and data sets, by name, whose pictures nobody recorded: more may be.
    """

    pictures: int
    unchecked: tuple[str, ...]

    def marked(self, text: str) -> str:
        """Words on the measured pictures, with how many of them were learned from, where any were."""
        return f"{text}, of which {self.pictures:,} were learned from" if self.pictures else text


NOTHING_MEASURED = Overlap(0, ())


def of_bundles(
    bundles: list[Bundle], source: coco.Source, every: int = 1, *, complete: bool = False, allow: bool = False
) -> Overlap:
    """See `check`; the bundles' manifests say what they learned from.

    Raises:
        OverlapError: One of them learned from one of the pictures.
        BundleError: A record is damaged.
    """
    return check(records_of(bundles), source, every, complete=complete, allow=allow)


def records_of(bundles: list[Bundle]) -> dict[str, PictureRecord]:
    """What bundles learned from, by name and version.

    Raises:
        BundleError: A record is damaged.
    """
    return {f"{it.manifest.name} {it.manifest.version}": image_record.of_bundle(it.manifest) for it in bundles}


def check(
    records: Mapping[str, PictureRecord],
    source: coco.Source,
    every: int = 1,
    *,
    complete: bool = False,
    allow: bool = False,
) -> Overlap:
    """Refuse to measure networks on pictures that they learned from; say on stderr where that cannot be checked.

    Args:
        records: What each network learned from, by its name.
        source: What they are to be measured on.
        every: Only on pictures whose id in the COCO file this number divides.
        complete: Only on those marked ``official_complete``.
        allow: Say how many there are instead of refusing.

    Returns:
        The overlap of all networks together.

    Raises:
        OverlapError: One of them learned from one of the pictures, and ``allow`` is not set.
    """
    images = coco.load(source.annotations).imgs
    measured = [images[i] for i in sorted(images) if i % every == 0]
    if complete:
        measured = [it for it in measured if it.get("official_complete", True)]
    ids = image_record.picture_ids(source.images, measured)
    learned = np.zeros(len(ids), bool)
    for name, record in records.items():
        known = np.isin(ids, record.ids)
        learned |= known
        count = int(known.sum())
        told = f"{count:,} of {len(ids):,} pictures that it learned from"
        if count and not allow:
            some = [str(measured[i]["file_name"]) for i in np.flatnonzero(known)[:SHOWN]]
            raise OverlapError(
                f"{source.annotations}: expected pictures that {name} did not learn from, got {told} "
                f"({', '.join(some + ['...'] * (count > SHOWN))}): its figures would be too good; measure on "
                "others (crops --skip holds some back), or give --allow-seen"
            )
        if count:
            print(f"{name}: measured on {told}: its figures are too good for new pictures", file=sys.stderr)
        if record.unrecorded:
            print(
                f"{name}: overlap cannot be checked: nobody recorded the training pictures of "
                f"{', '.join(record.unrecorded)}; some of these {len(ids):,} may be among them",
                file=sys.stderr,
            )
    return Overlap(int(learned.sum()), tuple(dict.fromkeys(what for it in records.values() for what in it.unrecorded)))
