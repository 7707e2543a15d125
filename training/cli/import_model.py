"""What posewright-train import does with its options."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from service.pose import bundle
from service.pose.skeleton import COCO17, Skeleton
from training.data import coco, known_skeletons
from training.onnx import checks, import_detector, import_pose, probe
from training.onnx.import_pose import ThirdPartyModel
from training.onnx.wrap import NORMALISATIONS, Conventions

DETECTOR_SIZE = (416, 320)
"""(width, height) in px whose area an imported detector's input has."""


def run(options: Namespace) -> int:
    """See `imported.make` and `suspicion.check`; `imported_detector.make` for a detector."""
    if (options.decoder == "rtmdet") != (options.role == "detector"):
        raise probe.ImportRefusedError(
            f"expected --role detector for --decoder rtmdet and for no other, got {options.role} for {options.decoder}"
        )
    if options.decoder == "rtmdet":
        return _detector(options)
    truth = coco.optional_source(options.annotations, options.images)
    known = _foreign(options)
    feeding = _feeding(options, known.skeleton)
    made, told = import_pose.make(known, feeding, {}), checks.NOT_CHECKED
    if truth is not None:
        trial, findings = checks.check(_as_labelled(known, truth), feeding, truth, options.pictures)
        if findings and not options.anyway:
            raise probe.ImportRefusedError(checks.refusal(options.out, findings))
        made = import_pose.make(known, feeding, {"ap_import_check": round(trial.ap, 4)})
        score = f"AP {trial.ap:.3f} on {len(trial.found.picture_ids)} pictures, people in their labelled boxes"
        told = "\n".join([score, *(finding.message for finding in findings)])
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    width, height = made.manifest.input_size
    what = f"{made.manifest.name}, {len(known.skeleton)} keypoints, {len(written.onnx) / 1e6:.1f} MB"
    print(f"{told}\n{written.path}: {what}, input {width} x {height}")
    return 0


def _detector(options: Namespace) -> int:
    size = (options.input_size[0], options.input_size[1]) if options.input_size else DETECTOR_SIZE
    name = import_pose.bundle_name(options.out)
    made = import_detector.make(
        options.onnx, name, options.version, size, options.colour == "bgr", options.origin, options.licence
    )
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    print(f"{checks.NOT_CHECKED}\n{written.path}: {name}, a detector, {len(written.onnx) / 1e6:.1f} MB")
    return 0


def _foreign(options: Namespace) -> ThirdPartyModel:
    model = import_pose.read(options.onnx)
    skeleton = known_skeletons.find(options.skeleton) if options.skeleton else COCO17
    size = (options.input_size[0], options.input_size[1]) if options.input_size else None
    return ThirdPartyModel(
        path=options.onnx,
        model=model,
        shape=probe.inspect(model, options.decoder, size, tuple(options.outputs)),
        decoder=options.decoder,
        name=import_pose.bundle_name(options.out),
        version=options.version,
        role=options.role,
        padding=options.padding,
        licence=options.licence,
        origin=options.origin,
        skeleton=skeleton,
    )


def _as_labelled(known: ThirdPartyModel, truth: coco.Source) -> ThirdPartyModel:
    """The network, answering what is labelled: COCO's labels tell of a larger skeleton, too, how it is fed."""
    labels = coco.load(truth.annotations)
    try:
        coco.require_skeleton(labels, truth.annotations, known.skeleton)
    except coco.DatasetError:
        coco.require_skeleton(labels, truth.annotations, COCO17)
        return replace(known, skeleton=COCO17)
    return known


def _feeding(options: Namespace, skeleton: Skeleton) -> Conventions:
    mean, deviation = NORMALISATIONS[options.normalise]
    return Conventions(
        colour=options.colour,
        mean=tuple(options.mean or mean),
        deviation=tuple(options.deviation or deviation),
        shift=tuple(options.shift),
        joints=options.joints or skeleton.keypoints,
        activation=options.activation,
        scale=options.scale,
    )
