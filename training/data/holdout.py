"""Refusal to measure a network on pictures that it was trained on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.pose.bundle import Bundle
from training.data import coco, image_record
from training.data.image_record import PictureRecord

SHOWN = 3
"""File names in a message."""


class OverlapError(ValueError):
    """Pictures to measure on are among those that a network was trained on."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of the measured pictures with the training data.

    Attributes:
        pictures: Count of measured pictures that were trained on.
        unchecked: Names of networks and data sets whose training pictures are not recorded.
    """

    pictures: int
    unchecked: tuple[str, ...]

    def marked(self, text: str) -> str:
        """Append the count of pictures that were trained on, if any, to a description of the measured pictures."""
        return f"{text}, of which {self.pictures:,} were learned from" if self.pictures else text


NOTHING_MEASURED = Overlap(0, ())


def of_bundles(
    bundles: list[Bundle], source: coco.Source, every: int = 1, *, complete: bool = False, allow: bool = False
) -> Overlap:
    """Check bundles, by the records in their manifests; see `check`.

    Raises:
        OverlapError: A bundle was trained on one of the pictures.
        BundleError: A record is damaged.
    """
    return check(records_of(bundles), source, every, complete=complete, allow=allow)


def records_of(bundles: list[Bundle]) -> dict[str, PictureRecord]:
    """Return the records of bundles' training pictures by name and version.

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
    """Refuse to measure networks on their training pictures; warn on stderr where that cannot be checked.

    Args:
        records: The training pictures of each network, by its name.
        source: The pictures to measure on.
        every: Only pictures whose id is divisible by this.
        complete: Only pictures whose people are all labelled.
        allow: Warn about an overlap instead of refusing it.

    Returns:
        The overlap of all networks together.

    Raises:
        OverlapError: A network was trained on one of the pictures, and ``allow`` is False.
    """
    data = coco.load(source.annotations)
    measured = [data.imgs[i] for i in coco.picture_ids(data, every, complete=complete)]
    ids = image_record.picture_ids(source.images, measured)
    learned = np.zeros(len(ids), bool)
    for name, record in records.items():
        known = np.isin(ids, record.ids)
        learned |= known
        count = int(known.sum())
        overlap = f"{count:,} of {len(ids):,} pictures that it learned from"
        if count and not allow:
            some = [str(measured[i]["file_name"]) for i in np.flatnonzero(known)[:SHOWN]]
            raise OverlapError(
                f"{source.annotations}: expected pictures that {name} did not learn from, got {overlap} "
                f"({', '.join(some + ['...'] * (count > SHOWN))}): its figures would be too good; measure on "
                "others (crops --skip holds some back), or give --allow-seen"
            )
        if count:
            print(f"{name}: measured on {overlap}: its figures are too good for new pictures", file=sys.stderr)
        if record.unrecorded:
            print(
                f"{name}: overlap cannot be checked: nobody recorded the training pictures of "
                f"{', '.join(record.unrecorded)}; some of these {len(ids):,} may be among them",
                file=sys.stderr,
            )
    return Overlap(int(learned.sum()), tuple(dict.fromkeys(what for it in records.values() for what in it.unrecorded)))
