"""Settles on labelled pictures what a third-party detector expects, and how its outputs are read.

What the user did not state is tried in each usual way, and the best is taken. Where another way than the stated one is
better, the import is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from pycocotools.coco import COCO

from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.fitting import Fitting
from service.pose.types import Image
from training.data import coco, images
from training.evaluation import coco_ap
from training.onnx import checks, import_detector
from training.onnx.detector_layout import BoxFormat, BoxUnit
from training.onnx.import_detector import ThirdPartyDetector
from training.onnx.wrap import NORMALISATIONS, Colour

WORTH_TAKING, WORTH_REPORTING = 0.005, 0.02
"""Gain in AP from which another way is taken, and from which it is held against what the user stated."""
LEAST_AP = 0.1
"""AP below which no way of reading the outputs is believed."""
MOST_ROUNDS = 3
"""One choice can change which other is best, so all are tried again until none changes."""
MOST_BOXES = 100
FEW_CLASSES = 2
"""Classes that are tried as people. All usual lists begin with them, or with one class that stays empty."""

NOT_CHECKED = (
    "Nothing was checked: the input and the reading of the outputs are what detectors with such outputs usually have. "
    "To have them settled, pass --annotations and --images of any pictures whose people all have boxes."
)

Options = Mapping[str, str]
"""Values by option of the command line."""
Change = tuple[ThirdPartyDetector, Options]
"""A changed detector, and the options that state the change."""


@dataclass(frozen=True, slots=True)
class DetectorTrial:
    """A detector that was tried.

    Attributes:
        imported: The detector, with its layout and conventions.
        ap: COCO's AP of people's boxes, 0..1.
    """

    imported: ThirdPartyDetector
    ap: float


@dataclass(frozen=True, slots=True)
class DetectorCheck:
    """What trials on pictures found.

    Attributes:
        best: The best detector that agrees with all that the user stated.
        chosen: Options that state what was chosen for it.
        wrong: Options that would improve what the user stated; empty if none would.
        better_ap: AP with those.
        pictures: Number of pictures.
    """

    best: DetectorTrial
    chosen: Options
    wrong: Options
    better_ap: float
    pictures: int

    def summary(self) -> str:
        """Write the result in a line or two."""
        line = f"AP {self.best.ap:.3f} of people's boxes on {self.pictures} pictures"
        return f"{line}\nsettled by the pictures: {_written(self.chosen)}" if self.chosen else line

    def objection(self) -> str | None:
        """Write what is wrong with what the user stated; None if nothing is."""
        if self.wrong:
            return (
                f"AP is {self.best.ap:.3f} as given; with {_written(self.wrong)} it would be {self.better_ap:.3f}: "
                "pass that, or --anyway"
            )
        if self.best.ap < LEAST_AP:
            return (
                f"expected AP of at least {LEAST_AP} with some reading of its outputs, got {self.best.ap:.3f}; pass "
                "--person-class, or what its makers say about its input and outputs, or --anyway"
            )
        return None


@dataclass(frozen=True, slots=True)
class _LabelledPictures:
    """Pictures whose people are all labelled, by id: uint8 (H, W, 3) RGB."""

    truth: COCO
    pixels: dict[int, Image]


def settle(imported: ThirdPartyDetector, stated: frozenset[str], source: coco.Source, pictures: int) -> DetectorCheck:
    """Try each usual way, and keep the best one.

    Args:
        imported: The detector, with the usual conventions of its layout, or the stated ones.
        stated: Options that the user gave.
        source: Pictures whose people are all labelled with boxes.
        pictures: Most pictures to use.

    Raises:
        DatasetError: No picture has labelled people.
    """
    data, ids = checks.choose(source, pictures, with_keypoints=False)
    some = _LabelledPictures(data, {i: images.read_labelled(source.images, data.imgs[i]) for i in ids})
    best, chosen = _try(imported, some), dict[str, str]()
    for _ in range(MOST_ROUNDS):
        before = best
        for alternatives in (*ALTERNATIVES, *([_people_and_inputs] if best.ap < LEAST_AP else [])):
            allowed = [it for it in alternatives(best.imported) if not stated & it[1].keys()]
            found, options = _best(allowed, best, some)
            if found.ap >= best.ap + WORTH_TAKING:
                best, chosen = found, chosen | dict(options)
        if best is before:
            break
    against = [it for alternatives in ALTERNATIVES for it in alternatives(best.imported) if stated & it[1].keys()]
    better, wrong = _best(against, best, some)
    is_better = better.ap >= best.ap + WORTH_REPORTING
    return DetectorCheck(best, chosen, wrong if is_better else {}, better.ap, len(some.pixels))


def _best(changes: list[Change], before: DetectorTrial, some: _LabelledPictures) -> tuple[DetectorTrial, Options]:
    """Try changes; return the best, or the trial before without options where there are none."""
    tried = [(_try(changed, some), options) for changed, options in changes]
    return max(tried, key=lambda it: it[0].ap, default=(before, {}))


def _try(imported: ThirdPartyDetector, some: _LabelledPictures) -> DetectorTrial:
    made = import_detector.make(imported, {})
    detector = PersonDetector(made, OnnxRunner(made.onnx, threads=1))
    results = []
    for image_id, pixels in some.pixels.items():
        results += coco_ap.box_results(image_id, *detector.detect(pixels, MOST_BOXES, min_score=0.0))
    found = coco_ap.coco_eval(some.truth, results, list(some.pixels), "bbox")
    return DetectorTrial(imported, max(0.0, float(found.stats[0])))


def _people(imported: ThirdPartyDetector) -> Iterator[Change]:
    layout = imported.layout
    for person in range(min(layout.class_count or FEW_CLASSES, FEW_CLASSES)):
        if person != layout.person:
            yield replace(imported, layout=replace(layout, person=person)), {"--person-class": str(person)}


def _boxes(imported: ThirdPartyDetector) -> Iterator[Change]:
    layout = imported.layout
    formats: tuple[BoxFormat, ...] = ("xyxy",) if layout.maps else ("xyxy", "cxcywh")
    units: tuple[BoxUnit, ...] = ("px", "cells") if layout.maps else ("px", "unit")
    ways: list[tuple[BoxFormat, BoxUnit]] = [*product(formats, units)]
    if layout.strides:
        ways.append(("cxcywh", "cells"))
    for box_format, unit in ways:
        options: dict[str, str] = {"--boxes": box_format} if box_format != layout.box_format else {}
        options |= {"--units": unit} if unit != layout.unit else {}
        if options:
            yield replace(imported, layout=replace(layout, box_format=box_format, unit=unit)), options


def _cells(imported: ThirdPartyDetector) -> Iterator[Change]:
    layout = imported.layout
    if layout.maps:
        offset = 0.5 - layout.cell_offset
        yield replace(imported, layout=replace(layout, cell_offset=offset)), {"--cell-offset": f"{offset:g}"}


def _inputs(imported: ThirdPartyDetector) -> Iterator[Change]:
    given = imported.conventions
    names = ["bytes"] if imported.takes_bytes else list(NORMALISATIONS)
    for colour, name in product(get_args(Colour), names):
        options: dict[str, str] = {"--colour": colour} if colour != given.colour else {}
        options |= {"--normalise": name} if name != given.normalisation else {}
        if options:
            mean, deviation = NORMALISATIONS[name]
            changed = replace(given, colour=colour, mean=mean, deviation=deviation)
            yield replace(imported, conventions=changed), options


def _people_and_inputs(imported: ThirdPartyDetector) -> Iterator[Change]:
    """Yield changes of both, for detectors that find nobody unless both are right."""
    for changed, options in _people(imported):
        for both, more in _inputs(changed):
            yield both, {**options, **more}


def _fittings(imported: ThirdPartyDetector) -> Iterator[Change]:
    given = imported.conventions
    for fitting in get_args(Fitting):
        if fitting != given.fitting:
            yield replace(imported, conventions=replace(given, fitting=fitting)), {"--fitting": fitting}


ALTERNATIVES = (_people, _boxes, _inputs, _fittings, _cells)
"""What is tried, in this order."""


def _written(options: Options) -> str:
    return " ".join(f"{option} {value}" for option, value in options.items())
