"""Is a foreign network fed and read as it was trained? Labelled pictures tell: each common mistake is tried."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args, get_type_hints

import numpy as np

from service.pose import crop
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from training.data import coco
from training.evaluation import predictions
from training.evaluation.predictions import Predictions
from training.onnx import import_pose
from training.onnx.import_pose import Foreign
from training.onnx.wrap import NORMALISATIONS, Feeding

PICTURES = 40
"""Looked at, unless told otherwise."""
WORTH = {"joints": 0.02, "colour": 0.02, "shift": 0.01, "padding": 0.02}
"""Merit that a change must bring to be named: what 40 pictures tell from chance, as all see the same ones."""
SHIFT_CELLS = 0.1
"""A systematic offset below this share of a cell is none."""
PADDINGS = (1.0, 1.1, 1.25, 1.4, 1.5)
SWAPPED = 0.5
"""A joint answers another name's place when it is so much nearer to it, as a share of the distance to its own."""


NOT_CHECKED = (
    "Nothing was checked: channels, normalisation, half-pixel terms and the order of joints are as you said. Give "
    "--annotations and --images of any pictures with COCO's labels, and they are."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, and what to pass against it.

    Attributes:
        kind: Key of `WORTH`.
        message: What is wrong, with AP as given and as it would be.
        option: The command line's.
    """

    kind: str
    message: str
    option: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A way to feed a network and what came of it.

    Attributes:
        foreign: The network, with the boxes' padding.
        feeding: How it was fed and read.
        found: Its answers.
        ap: COCO's AP on the pictures tried.
    """

    foreign: Foreign
    feeding: Feeding
    found: Predictions
    ap: float

    @property
    def merit(self) -> float:
        """Mean of AP and of people's OKS: of large people AP does not show a small offset, their OKS does."""
        return (self.ap + float(self.found.oks.mean())) / 2


def check(
    foreign: Foreign, feeding: Feeding, source: coco.Source, pictures: int = PICTURES
) -> tuple[Trial, list[Finding]]:
    """Try the network as given, and each common mistake the other way.

    Findings build on each other: the second is measured with the first one mended.

    Returns:
        What came of it as given, and what to change.
    """
    with TemporaryDirectory() as folder:
        some = _some(source, pictures, Path(folder))
        first = best = _try(foreign, feeding, some)
        findings: list[Finding] = []
        for kind, alternatives in (
            ("joints", _other_joints),
            ("colour", _other_colours),
            ("shift", _other_shifts),
            ("padding", _other_paddings),
        ):
            tried = [(_try(*changed, some), words, option) for changed, words, option in alternatives(best)]
            if not tried:
                continue
            found, words, option = max(tried, key=lambda it: it[0].merit)
            if found.merit >= best.merit + WORTH[kind]:
                was = "as given" if not findings else "then"
                likeness = f"mean OKS {best.found.oks.mean():.3f} and {found.found.oks.mean():.3f}"
                message = f"AP is {best.ap:.3f} {was}; {words} it would be {found.ap:.3f} ({likeness}): pass {option}"
                findings.append(Finding(kind, message, option))
                best = found
        findings += _heights(best)
    return first, findings


def refusal(out: Path, findings: list[Finding]) -> str:
    """What to say where a network is fed wrongly, and how to mend all of it at once."""
    options = " ".join(finding.option for finding in findings)
    lines = [f"{out}: the bundle was not written", *(finding.message for finding in findings)]
    return "; ".join([*lines, f"all together: {options}; or --anyway"])


Change = tuple[tuple[Foreign, Feeding], str, str]
"""A changed network and feeding, in words, and the option for it."""


def _some(source: coco.Source, count: int, folder: Path) -> coco.Source:
    """Pictures with labelled people, evenly spread, as a data set of their own."""
    data = coco.load(source.annotations)
    useful = [i for i in sorted(data.imgs) if any(_labelled(a) for a in data.imgToAnns[i])]
    if not useful:
        raise coco.DatasetError(f"{source.annotations}: expected people with labelled keypoints, got none")
    chosen = [useful[i] for i in np.unique(np.linspace(0, len(useful) - 1, min(count, len(useful))).astype(int))]
    content = {
        "images": [data.imgs[i] for i in chosen],
        "annotations": [a for i in chosen for a in data.imgToAnns[i]],
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "some.json").write_text(json.dumps(content))
    return coco.Source(source.name, folder / "some.json", source.images)


def _labelled(person: dict) -> bool:
    return not person.get("iscrowd") and bool(person.get("num_keypoints"))


def _try(foreign: Foreign, feeding: Feeding, source: coco.Source) -> Trial:
    made = import_pose.make(foreign, feeding, {})
    found = predictions.collect(source, PoseEstimator(made, OnnxRunner(made.onnx, threads=1)))
    ap = predictions.coco_figures(coco.load(source.annotations), found)["AP"]
    return Trial(foreign, feeding, found, max(0.0, ap))


def _other_joints(trial: Trial) -> Iterator[Change]:
    """The order of names in which every output lies nearest to its joint, where it is another than given."""
    found, names = trial.found, trial.found.skeleton.keypoints
    sizes = np.sqrt(np.maximum(found.areas, 1))[:, None]
    near = np.full((len(names), len(names)), np.inf)  # of output i to the label of joint j
    for i, j in itertools.product(range(len(names)), repeat=2):
        apart = np.linalg.norm(found.poses.keypoints[:, i] - found.truth[:, j], axis=1)[:, None] / sizes
        if found.labelled[:, j].any():
            near[i, j] = np.median(apart[found.labelled[:, j]])
    nearest = near.argmin(axis=1)
    moved = [i for i in range(len(names)) if near[i, nearest[i]] < SWAPPED * near[i, i]]
    target = list(range(len(names)))
    for i in moved:
        target[i] = int(nearest[i])
    if not moved or len(set(target)) < len(names):
        return
    renamed = dict(zip(names, (names[j] for j in target), strict=True))
    order = tuple(renamed.get(name, name) for name in trial.feeding.joints)
    mirrored = all(found.skeleton.flip[i] == target[i] for i in moved)
    words = "with left and right exchanged" if mirrored else f"with {len(moved)} joints renamed"
    yield (trial.foreign, replace(trial.feeding, joints=order)), words, f"--joints {','.join(order)}"


def _other_colours(trial: Trial) -> Iterator[Change]:
    """Each order of channels with each common normalisation, but the given ones."""
    given = trial.feeding
    for colour in get_args(get_type_hints(Feeding)["colour"]):
        for name, (mean, deviation) in NORMALISATIONS.items():
            same = (mean, deviation) == (given.mean, given.deviation)
            if same and colour == given.colour:
                continue
            options, words = [], []
            if colour != given.colour:
                options.append(f"--colour {colour}")
                words.append(f"{colour.upper()} channels")
            if not same:
                options.append(f"--normalise {name}")
                words.append(f"the normalisation {name!r}")
            changed = replace(given, colour=colour, mean=mean, deviation=deviation)
            yield (trial.foreign, changed), f"with {' and '.join(words)}", " ".join(options)


def _other_shifts(trial: Trial) -> Iterator[Change]:
    """The median offset of good keypoints, in crop px, undone."""
    found, manifest = trial.found, import_pose.describe(trial.foreign, trial.feeding, {})
    assert manifest.heatmap_size is not None
    assert manifest.box_padding is not None
    to_image = crop.crop_to_image(found.poses.boxes, manifest.input_size, manifest.box_padding)
    offsets = (found.poses.keypoints - found.truth) / to_image[:, 0, 0][:, None, None]
    good = found.labelled & (found.similarities > 0.5) & (found.poses.scores > 0.3)
    if not good.any():
        return
    cell = manifest.input_size[0] / manifest.heatmap_size[0]
    off = np.median(offsets[good], axis=0)
    off = np.where(np.abs(off) < SHIFT_CELLS * cell, 0, np.round(off * 4) / 4)
    if not off.any():
        return
    x, y = (float(given - it) for given, it in zip(trial.feeding.shift, off, strict=True))
    cells = f"{off[0] / cell:+.2f}, {off[1] / cell:+.2f} cells"
    words = f"keypoints lie {off[0]:+.2f}, {off[1]:+.2f} crop px ({cells}) off; undone"
    yield (trial.foreign, replace(trial.feeding, shift=(x, y))), words, f"--shift {x:g} {y:g}"


def _other_paddings(trial: Trial) -> Iterator[Change]:
    for padding in PADDINGS:
        if padding != trial.foreign.padding:
            changed = replace(trial.foreign, padding=padding)
            yield (changed, trial.feeding), f"with boxes padded by {padding:g}", f"--padding {padding:g}"


def _heights(trial: Trial) -> list[Finding]:
    """Heights that say nothing: nearly all clipped to 1, or hardly above 0, on keypoints that are right."""
    right = trial.found.labelled & (trial.found.similarities > 0.85)
    heights = trial.found.poses.scores[right]
    if not len(heights):
        return []
    middle = float(np.median(heights))
    if middle >= 1:
        message = "more than half of the right keypoints score 1 or more; a score must tell: pass --scale below 1, or"
        return [Finding("heights", f"{message} --activation sigmoid or softmax for logits", "--scale")]
    if middle < 0.2:
        scale = trial.feeding.scale * 0.8 / max(middle, 1e-4)
        message = f"right keypoints score {middle:.3f} in the median, expected about .8: pass --scale {scale:.3g}"
        return [Finding("heights", message, f"--scale {scale:.3g}")]
    return []
