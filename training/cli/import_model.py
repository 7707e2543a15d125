"""posewright-train import."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from service.pose import bundle
from service.pose.skeleton import COCO17
from training.cli import import_detector, import_one_stage, import_options, inputs
from training.cli.arguments import add_skeleton, add_source, positive
from training.data import coco
from training.onnx import checks, import_pose, import_rtmdet, probe
from training.onnx.import_one_stage import OneStageModel
from training.onnx.import_pose import ThirdPartyModel
from training.onnx.one_stage_layout import LAYOUTS
from training.onnx.wrap import NORMALISATIONS, Conventions

DECODERS = ("heatmap", "simcc", "rtmdet", *LAYOUTS)
DETECTOR_SIZE = (416, 320)
"""(width, height) in px whose area an imported detector's input has."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("onnx", type=Path, help="the file to import")
    parser.add_argument(
        "--decoder",
        choices=DECODERS,
        metavar="NAME",
        help=f"how its outputs are decoded: {', '.join(DECODERS)} (default: recognised)",
    )
    parser.add_argument("--role", choices=("teacher", "student", "detector"), help="(default: student or detector)")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; its name is the bundle's")
    parser.add_argument("--version", default="1", help="version of the bundle (default: 1)")
    _add_preprocessing(parser)
    _add_outputs(parser)
    import_one_stage.add_arguments(parser)
    import_detector.add_arguments(parser)
    parser.add_argument("--licence", default="", help="licence of its weights, for the card")
    parser.add_argument("--origin", default="", help="who made it and where it is from, for the card")
    add_source(parser, required=False)
    parser.add_argument("--pictures", type=positive, help="labelled pictures to check it on (default: 40)")
    parser.add_argument("--anyway", action="store_true", help="write the bundle whatever the check finds")


def _add_preprocessing(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--colour",
        choices=("rgb", "bgr"),
        help="order of its input's channels (default: rgb for crops, else that of the usual export)",
    )
    parser.add_argument(
        "--normalise",
        choices=tuple(NORMALISATIONS),
        help="mean and deviation of its input (default: bytes for whole numbers, imagenet for crops, else those of the "
        "usual export)",
    )
    parser.add_argument(
        "--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of 0..255, instead of those of --normalise"
    )
    parser.add_argument(
        "--deviation", type=float, nargs=3, metavar=("R", "G", "B"), help="of 0..255, instead of those of --normalise"
    )
    parser.add_argument("--padding", type=float, help="factor on a box before it is cut (default: 1.25)")
    parser.add_argument(
        "--input-size", type=int, nargs=2, metavar=("W", "H"), help="in px, if the graph does not fix it"
    )


def _add_outputs(parser: ArgumentParser) -> None:
    parser.add_argument("--shift", type=float, nargs=2, metavar=("X", "Y"), help="added to keypoints, in input px")
    add_skeleton(parser, "the keypoints of the bundle's replies")
    parser.add_argument(
        "--joints", type=_names, help="names of its outputs, in order, comma-separated (default: the skeleton's)"
    )
    parser.add_argument(
        "--activation",
        choices=("none", "sigmoid", "softmax"),
        help="maps its outputs to 0..1 (default: none for crops, else judged by the numbers)",
    )
    parser.add_argument("--scale", type=float, help="factor on the heatmaps: a certain joint has about 1 (default: 1)")
    parser.add_argument(
        "--outputs", nargs="+", default=[], metavar="NAME", help="outputs of the graph to use, if it has more"
    )


def run(options: Namespace) -> int:
    """Write a bundle of a third party's graph, checked on labelled pictures if there are any.

    See `import_pose.make`, `cli.import_detector.write_bundle`, `import_rtmdet.make` and `checks.check`.

    Raises:
        ImportRefusedError: The role does not fit the decoder, an option has no effect on such a graph, or the check
            finds that the network is fed wrongly.
    """
    _require_role_of_decoder(options)
    if options.decoder == "rtmdet":
        return _rtmdet(options)
    if options.role == "detector":
        return import_detector.write_bundle(options)
    one_stage = _one_stage(options)
    if one_stage is not None:
        return import_one_stage.write_bundle(options, one_stage)
    options.decoder = options.decoder or _recognise_top_down(options)
    if options.decoder is None:
        return import_detector.write_bundle(options)
    import_options.require_effect(options, options.decoder)
    options.role = options.role or "student"
    truth = coco.optional_source(options.annotations, options.images)
    known = _third_party(options)
    conventions = _conventions(options, known)
    made, result = import_pose.make(known, conventions, {}), checks.NOT_CHECKED
    if truth is not None:
        trial, findings = checks.check(
            _as_labelled(known, truth), conventions, truth, options.pictures or checks.PICTURES
        )
        if findings and not options.anyway:
            raise probe.ImportRefusedError(checks.refusal(options.out, findings))
        made = import_pose.make(known, conventions, {"ap_import_check": round(trial.ap, 4)})
        score = f"AP {trial.ap:.3f} on {len(trial.found.picture_ids)} pictures, people in their labelled boxes"
        result = "\n".join([score, *(finding.message for finding in findings)])
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    width, height = made.manifest.input_size
    what = f"{made.manifest.name}, {len(known.skeleton)} keypoints, {len(written.onnx) / 1e6:.1f} MB"
    print(f"{result}\n{written.path}: {what}, input {width} x {height}")
    return 0


def _require_role_of_decoder(options: Namespace) -> None:
    """Refuse a detector's decoder for a pose network, and a pose network's decoder for a detector."""
    if options.decoder == "rtmdet" and options.role in {"teacher", "student"}:
        raise probe.ImportRefusedError(
            f"--decoder rtmdet reads a detector: expected --role detector, or none, got --role {options.role}"
        )
    if options.role == "detector" and options.decoder not in {None, "rtmdet"}:
        raise probe.ImportRefusedError(
            f"--decoder {options.decoder} reads a pose network: expected --role teacher or student, or none, got "
            "--role detector; of a detector leave --decoder out"
        )


def _one_stage(options: Namespace) -> OneStageModel | None:
    """Recognise a one-stage network; None for others, also for a graph that only a detector's probe can read."""
    if options.decoder not in {None, *LAYOUTS}:
        return None
    try:
        return import_one_stage.recognise(options)
    except probe.ImportRefusedError:
        if _is_pose(options):
            raise
        return None


def _is_pose(options: Namespace) -> bool:
    """Whether an option says that it is a pose network: a detector has no such role, decoder or keypoints."""
    return any(it is not None for it in (options.role, options.decoder, options.skeleton, options.joints))


def _recognise_top_down(options: Namespace) -> str | None:
    """Tell the decoder of a network that sees one person's crop; None for another one that may be a detector.

    Raises:
        ImportRefusedError: The outputs are others, and an option says that it is a pose network.
    """
    model = import_pose.read(options.onnx)
    try:
        shape = probe.inputs_of(model, inputs.input_size(options), tuple(options.outputs))
        found = probe.run(model, shape)
    except probe.ImportRefusedError:
        if _is_pose(options):
            raise
        return None
    decoder = probe.top_down_decoder(shape, found)
    if decoder is not None or not _is_pose(options):
        return decoder
    told = ", ".join(f"{name} {it.shape}" for name, it in zip(shape.outputs, found, strict=True))
    raise probe.ImportRefusedError(
        f"{options.onnx}: expected heatmaps (1, K, h, w), two distributions (1, K, bins), or those of a one-stage "
        f"network, got {told}; choose by --outputs, name the keypoints by --skeleton or --joints, or say --decoder; "
        "of a detector leave --role, --skeleton and --joints out"
    )


def _rtmdet(options: Namespace) -> int:
    import_options.require_effect(options, import_options.RTMDET)
    size = inputs.input_size(options) or DETECTOR_SIZE
    name = import_pose.bundle_name(options.out)
    made = import_rtmdet.make(
        options.onnx, name, options.version, size, options.colour == "bgr", options.origin, options.licence
    )
    written = bundle.write(options.out, made.manifest, made.onnx, made.card)
    print(f"{checks.NOT_CHECKED}\n{written.path}: {name}, a detector, {len(written.onnx) / 1e6:.1f} MB")
    return 0


def _third_party(options: Namespace) -> ThirdPartyModel:
    model = import_pose.read(options.onnx)
    skeleton = inputs.skeleton(options) or COCO17
    return ThirdPartyModel(
        path=options.onnx,
        model=model,
        shape=probe.inspect(model, options.decoder, inputs.input_size(options), tuple(options.outputs)),
        decoder=options.decoder,
        name=import_pose.bundle_name(options.out),
        version=options.version,
        role=options.role,
        padding=1.25 if options.padding is None else options.padding,
        licence=options.licence,
        origin=options.origin,
        skeleton=skeleton,
    )


def _as_labelled(known: ThirdPartyModel, truth: coco.Source) -> ThirdPartyModel:
    """Return the network with the labelled keypoints: COCO's labels can check a network of more keypoints, too."""
    labels = coco.load(truth.annotations)
    try:
        coco.require_skeleton(labels, truth.annotations, known.skeleton)
    except coco.DatasetError:
        coco.require_skeleton(labels, truth.annotations, COCO17)
        return replace(known, skeleton=COCO17)
    return known


def _conventions(options: Namespace, known: ThirdPartyModel) -> Conventions:
    mean, deviation = NORMALISATIONS[options.normalise or ("bytes" if known.shape.takes_bytes else "imagenet")]
    return Conventions(
        colour=options.colour or "rgb",
        mean=tuple(options.mean or mean),
        deviation=tuple(options.deviation or deviation),
        shift=tuple(options.shift or (0, 0)),
        joints=options.joints or known.skeleton.keypoints,
        activation=options.activation or "none",
        scale=1.0 if options.scale is None else options.scale,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
