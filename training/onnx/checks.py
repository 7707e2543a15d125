"""Checks on labelled pictures whether the conventions given for a third-party model are right.

It tries each common mistake. If the model is more accurate with other conventions, it reports the option to pass.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar, get_args

import numpy as np
from pycocotools.coco import COCO

from service.pose import crop
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from training.data import coco
from training.evaluation import predictions
from training.onnx import import_pose
from training.onnx.import_pose import ThirdPartyModel
from training.onnx.wrap import NORMALISATIONS, Colour, Conventions, KeypointConventions

PICTURES = 40
"""Default number of pictures."""
WORTH = {"joints": 0.02, "colour": 0.02, "shift": 0.01, "padding": 0.02, "layout": 0.02, "fitting": 0.02}
"""Gain in `Attempt.merit` from which a change is reported; smaller ones may be chance."""
SHIFT_CELLS = 0.1
"""Systematic offsets below this share of a cell are ignored."""
PADDINGS = (1.0, 1.1, 1.25, 1.4, 1.5)
"""Box paddings to try."""
SWAPPED = 0.5
"""A keypoint counts as swapped if its distance to another label is below this share of the distance to its own."""


NOT_CHECKED = (
    "Nothing was checked: channels, normalisation, half-pixel terms and the order of joints are used as given. To have "
    "them checked, pass --annotations and --images of any pictures with COCO's labels."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, and the option that corrects it.

    Attributes:
        kind: Key of `WORTH`.
        message: What is wrong, with AP as given and as corrected.
        option: Option of the command line.
    """

    kind: str
    message: str
    option: str


ModelT = TypeVar("ModelT")
"""A third-party model of one kind."""
ConventionsT = TypeVar("ConventionsT", bound=KeypointConventions)
"""The conventions of that kind."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[ModelT, ConventionsT]):
    """Conventions that were tried, and the results with them.

    Attributes:
        imported: The model, with its box padding.
        conventions: The conventions that were tried.
        found: The predictions.
        ap: COCO's AP on the pictures, 0..1.
    """

    imported: ModelT
    conventions: ConventionsT
    found: predictions.Predictions
    ap: float

    @property
    def merit(self) -> float:
        """Mean of AP and OKS, because a small offset of large people shows in OKS and not in AP.

        The OKS of a person of whom a one-stage network is not certain counts less.
        """
        return (self.ap + float((self.found.oks * self.found.poses.probabilities).mean())) / 2


Change = tuple[tuple[ModelT, ConventionsT], str, str]
"""A changed model and conventions, a description of the change, and the option for it."""
Step = tuple[str, Callable[[Attempt[ModelT, ConventionsT]], Iterator[Change[ModelT, ConventionsT]]]]
"""A key of `WORTH`, and the changes of that kind to try."""


def check(
    imported: ThirdPartyModel, conventions: Conventions, source: coco.Source, pictures: int = PICTURES
) -> tuple[Attempt[ThirdPartyModel, Conventions], list[Finding]]:
    """Try the conventions as given, and changes that correct each common mistake.

    Findings build on each other: the second is measured with the first one corrected.

    Returns:
        The attempt with the conventions as given, and the changes to make.
    """
    with TemporaryDirectory() as folder:
        some = sample(source, pictures, Path(folder))
        first = _try(imported, conventions, some)
        steps: tuple[Step[ThirdPartyModel, Conventions], ...] = (
            ("joints", other_joints),
            ("colour", other_colours),
            ("shift", _other_shifts),
            ("padding", _other_paddings),
        )
        best, findings = improve(first, steps, lambda model, given: _try(model, given, some))
        findings += _score_range(best)
    return first, findings


def improve(
    first: Attempt[ModelT, ConventionsT],
    steps: Sequence[Step[ModelT, ConventionsT]],
    try_one: Callable[[ModelT, ConventionsT], Attempt[ModelT, ConventionsT]],
) -> tuple[Attempt[ModelT, ConventionsT], list[Finding]]:
    """Try the changes of each step, and keep the best of those that are worth it.

    Returns:
        The best attempt, and the changes that lead to it.
    """
    best = first
    findings: list[Finding] = []
    for kind, alternatives in steps:
        tried = [(try_one(*changed), words, option) for changed, words, option in alternatives(best)]
        if not tried:
            continue
        found, words, option = max(tried, key=lambda it: it[0].merit)
        if found.merit >= best.merit + WORTH[kind]:
            was = "as given" if not findings else "then"
            likeness = f"mean OKS {best.found.oks.mean():.3f} and {found.found.oks.mean():.3f}"
            certain = [float(it.found.poses.probabilities.mean()) for it in (best, found)]
            if min(certain) < 1:
                likeness += f", mean score of people {certain[0]:.3f} and {certain[1]:.3f}"
            message = f"AP is {best.ap:.3f} {was}; {words} it would be {found.ap:.3f} ({likeness}): pass {option}"
            findings.append(Finding(kind, message, option))
            best = found
    return best, findings


def refusal(out: Path, findings: list[Finding]) -> str:
    """Write the error message for wrong conventions, with all the options that correct them."""
    lines = [f"{out}: the bundle was not written", *(finding.message for finding in findings)]
    options = [finding.option for finding in findings if finding.option]
    if len(options) > 1:
        lines.append(f"all together: {' '.join(options)}")
    return "; ".join([*lines, "or pass --anyway"])


def choose(source: coco.Source, count: int, *, with_keypoints: bool) -> tuple[COCO, list[int]]:
    """Choose some pictures with labelled people, evenly spread over the source.

    Args:
        source: The pictures.
        count: Most pictures to choose.
        with_keypoints: Whether people must have keypoints; otherwise all of a picture's people must have boxes.

    Returns:
        The source's labels and the ids of the chosen pictures.

    Raises:
        DatasetError: There is no such picture.
    """
    data = coco.load(source.annotations)
    ids = coco.picture_ids(data, complete=not with_keypoints)
    useful = [i for i in ids if coco.people(data, i, with_keypoints=with_keypoints)]
    if not useful:
        wanted = "people with labelled keypoints" if with_keypoints else "pictures whose people all have boxes"
        raise coco.DatasetError(f"{source.annotations}: expected {wanted}, got none; give other pictures")
    return data, [useful[i] for i in np.unique(np.linspace(0, len(useful) - 1, min(count, len(useful))).astype(int))]


def sample(source: coco.Source, count: int, folder: Path) -> coco.Source:
    """Write a data set of some pictures with labelled keypoints."""
    data, chosen = choose(source, count, with_keypoints=True)
    content = {
        "images": [data.imgs[i] for i in chosen],
        "annotations": [a for i in chosen for a in data.imgToAnns[i]],
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "some.json").write_text(json.dumps(content))
    return coco.Source(source.name, folder / "some.json", source.images)


def _try(
    imported: ThirdPartyModel, conventions: Conventions, source: coco.Source
) -> Attempt[ThirdPartyModel, Conventions]:
    made = import_pose.make(imported, conventions, {})
    found = predictions.collect(source, PoseEstimator(made, OnnxRunner(made.onnx, threads=1)))
    ap = predictions.coco_figures(coco.load(source.annotations), found)["AP"]
    return Attempt(imported, conventions, found, max(0.0, ap))


def other_joints(attempt: Attempt[ModelT, ConventionsT]) -> Iterator[Change[ModelT, ConventionsT]]:
    """Yield the order of names in which every output is nearest to its label, if that differs from the given one."""
    found, names = attempt.found, attempt.found.skeleton.keypoints
    sizes = np.sqrt(np.maximum(found.areas, 1))[:, None]
    near = np.full((len(names), len(names)), np.inf)  # distance of output i to label j, as a share of the person's size
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
    order = tuple(renamed.get(name, name) for name in attempt.conventions.joints)
    mirrored = all(found.skeleton.flip[i] == target[i] for i in moved)
    words = "with left and right exchanged" if mirrored else f"with {len(moved)} joints renamed"
    yield (attempt.imported, replace(attempt.conventions, joints=order)), words, f"--joints {','.join(order)}"


def other_colours(attempt: Attempt[ModelT, ConventionsT]) -> Iterator[Change[ModelT, ConventionsT]]:
    """Yield each order of channels with each common normalisation, except the given combination."""
    given = attempt.conventions
    for colour in get_args(Colour):
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
            yield (attempt.imported, changed), f"with {' and '.join(words)}", " ".join(options)


def _other_shifts(
    attempt: Attempt[ThirdPartyModel, Conventions],
) -> Iterator[Change[ThirdPartyModel, Conventions]]:
    """Yield a shift that removes the median offset of good keypoints, in crop px."""
    found, manifest = attempt.found, import_pose.describe(attempt.imported, attempt.conventions, {})
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
    x, y = (float(given - it) for given, it in zip(attempt.conventions.shift, off, strict=True))
    cells = f"{off[0] / cell:+.2f}, {off[1] / cell:+.2f} cells"
    words = f"keypoints lie {off[0]:+.2f}, {off[1]:+.2f} crop px ({cells}) off; undone"
    yield (attempt.imported, replace(attempt.conventions, shift=(x, y))), words, f"--shift {x:g} {y:g}"


def _other_paddings(
    attempt: Attempt[ThirdPartyModel, Conventions],
) -> Iterator[Change[ThirdPartyModel, Conventions]]:
    for padding in PADDINGS:
        if padding != attempt.imported.padding:
            changed = replace(attempt.imported, padding=padding)
            yield (changed, attempt.conventions), f"with boxes padded by {padding:g}", f"--padding {padding:g}"


def _score_range(attempt: Attempt[ThirdPartyModel, Conventions]) -> list[Finding]:
    """Report scores of correct keypoints that are nearly all clipped to 1, or hardly above 0."""
    right = attempt.found.labelled & (attempt.found.similarities > 0.85)
    scores = attempt.found.poses.scores[right]
    if not len(scores):
        return []
    middle = float(np.median(scores))
    if middle >= 1:
        message = "more than half of the correct keypoints score 1 or more, expected below 1: pass --scale below 1, or"
        return [Finding("scores", f"{message} --activation sigmoid or softmax for logits", "--scale")]
    if middle < 0.2:
        scale = attempt.conventions.scale * 0.8 / max(middle, 1e-4)
        message = f"correct keypoints score {middle:.3f} in the median, expected about 0.8: pass --scale {scale:.3g}"
        return [Finding("scores", message, f"--scale {scale:.3g}")]
    return []
