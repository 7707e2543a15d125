"""The part of posewright-train import that is about one-stage networks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Any, get_args

from service.pose import bundle
from service.pose.fitting import Fitting
from service.pose.skeleton import COCO17
from training.cli import import_options, inputs
from training.data import coco
from training.onnx import (
    checks,
    import_one_stage,
    import_pose,
    one_stage_checks,
    one_stage_graph,
    one_stage_layout,
    probe,
)
from training.onnx.import_one_stage import OneStageModel
from training.onnx.one_stage_graph import OneStageConventions
from training.onnx.wrap import NORMALISATIONS

OPTIONS = {
    "colour": "--colour",
    "normalise": "--normalise",
    "fitting": "--fitting",
    "keypoint_order": "--keypoint-order",
    "person_class": "--person-class",
    "joints": "--joints",
    "shift": "--shift",
}
"""Options that labelled pictures can settle, by their names in the parsed command line."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of networks that see the whole picture, some of which detectors have, too."""
    both = parser.add_argument_group(
        "one-stage networks and detectors",
        "what is not given is taken from the usual exports, the graph's own numbers, and the labelled pictures",
    )
    both.add_argument("--fitting", choices=get_args(Fitting), help="how a picture is fitted into the input")
    both.add_argument(
        "--units",
        choices=("px", "unit", "cells"),
        help="of coordinates: px, shares of the input, or, of detectors, not decoded",
    )
    both.add_argument("--boxes", choices=("cxcywh", "xyxy"), help="numbers of a box: centre and size, or corners")
    both.add_argument("--person-class", type=int, metavar="N", help="which of its classes is the person's, from 0")
    group = parser.add_argument_group("one-stage networks")
    group.add_argument("--keypoint-order", choices=("interleaved", "split"), help="x, y, score of each, or apart")
    group.add_argument("--keypoint-activation", choices=("none", "sigmoid"), help="maps keypoints' scores to 0..1")
    group.add_argument("--iou", type=float, help="of non-maximum suppression, where it is not built in (default: 0.7)")


def recognise(options: Namespace) -> OneStageModel | None:
    """Recognise a one-stage network; None if the graph is none, and no decoder says so.

    Raises:
        ImportRefusedError: The graph cannot be run, or is not of the layout that ``--decoder`` names.
    """
    model = import_pose.read(options.onnx)
    shape = probe.inputs_of(model, inputs.input_size(options), tuple(options.outputs))
    skeleton = inputs.skeleton(options) or COCO17
    joints = options.joints or skeleton.keypoints
    layout = one_stage_layout.recognise(shape, probe.run(model, shape), len(joints), options.decoder)
    if layout is None:
        return None
    return OneStageModel(
        path=options.onnx,
        model=model,
        shape=shape,
        layout=layout,
        name=import_pose.bundle_name(options.out),
        version=options.version,
        role=options.role or "student",
        licence=options.licence,
        origin=options.origin,
        skeleton=skeleton,
    )


def write_bundle(options: Namespace, imported: OneStageModel) -> int:
    """Write a bundle of a one-stage network.

    Raises:
        ImportRefusedError: An option does not fit the network, or pictures contradict it.
    """
    if options.units == "cells":
        raise probe.ImportRefusedError("expected --units px or unit of a one-stage network, got cells")
    model, shape, layout, skeleton = imported.model, imported.shape, imported.layout, imported.skeleton
    unread = {
        "--boxes": not layout.boxes,
        "--keypoint-activation": layout.values < 3,
        "--keypoint-order": layout.values != 3,
    }
    import_options.require_effect(options, layout.name, unread)
    joints = options.joints or skeleton.keypoints
    usual = import_one_stage.usual_conventions(model, shape, layout, joints)
    conventions = replace(usual, **_stated(options))
    pictures = one_stage_graph.batch_axis(model, shape, layout, conventions, skeleton)
    return _write(options, replace(imported, pictures=pictures), conventions)


def _stated(options: Namespace) -> dict[str, Any]:
    """Return the fields of the conventions that the command line states."""
    normalise = options.normalise
    given = {
        "colour": options.colour,
        "mean": options.mean or (NORMALISATIONS[normalise][0] if normalise else None),
        "deviation": options.deviation or (NORMALISATIONS[normalise][1] if normalise else None),
        "shift": options.shift,
        "fitting": options.fitting,
        "units": options.units,
        "box_format": options.boxes,
        "keypoint_order": options.keypoint_order,
        "activation": options.activation,
        "keypoint_activation": options.keypoint_activation,
        "person_class": options.person_class,
        "iou": options.iou,
    }
    return {name: tuple(it) if isinstance(it, list) else it for name, it in given.items() if it is not None}


def _write(options: Namespace, imported: OneStageModel, conventions: OneStageConventions) -> int:
    """Write the bundle, with the conventions that labelled pictures show to be right if there are any."""
    truth = coco.optional_source(options.annotations, options.images)
    result, metrics = checks.NOT_CHECKED, {}
    if truth is not None:
        first, best, findings = one_stage_checks.check(
            imported, conventions, truth, options.pictures or checks.PICTURES
        )
        stated = {option for name, option in OPTIONS.items() if getattr(options, name) is not None}
        if options.mean or options.deviation:
            stated.add("--normalise")
        against = one_stage_checks.contradictions(findings, stated)
        if against and not options.anyway:
            raise probe.ImportRefusedError(checks.refusal(options.out, against))
        taken = first if against else best
        conventions, metrics = taken.conventions, {"ap_import_check": round(taken.ap, 4)}
        score = f"AP {taken.ap:.3f} on {len(taken.found.picture_ids)} pictures, people in their labelled boxes"
        adopted = [f"taken from the pictures: {it.option} ({it.message})" for it in findings if not against]
        result = "\n".join([score, *adopted, *(it.message for it in against)])
    made = import_one_stage.make(imported, conventions, metrics)
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    width, height = made.manifest.input_size
    what = f"{made.manifest.name}, {len(imported.skeleton)} keypoints, {len(written.onnx) / 1e6:.1f} MB"
    how = f"layout {imported.layout.name}, input {width} x {height}, fitting {conventions.fitting}"
    print(f"{result}\n{written.path}: {what}, one-stage, {how}")
    return 0
