"""posewright-train: the verbs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

LADDER = [
    "plain", "teacher", "chain", "dense", "drop", "binarize", "classify", "dskd",
    "minus-assistants", "minus-drop", "minus-binarize", "minus-classify", "minus-self-distillation",
    "plain-cells", "kd-cells", "dskd-cells",
]  # fmt: skip
"""Keys of `ablate.ROWS`, known without torch."""
DEVICES = ("auto", "cuda", "cpu")
"""`device.CHOICES`, likewise."""
BACKENDS = ("onnxruntime", "openvino")
"""`service.pose.backends.runner.Backend`, likewise."""
SHARED = ("train", "distill")
"""Verbs that several processes share."""
NAMED_SKELETONS = "halpe26 or coco-wholebody133"
"""Keys of `known_skeletons.KNOWN`, likewise."""
CLIPS = ("two-crossing", "walk", "still")
"""Keys of `synthetic.clip.KINDS`, known without numba."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    # OpenMP threads that spin while they wait cost several times their gain beside any other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and options.verb not in SHARED:
        print(
            f"posewright-train: {options.verb}: expected one process, or train or distill, got torchrun's "
            f"{os.environ['WORLD_SIZE']}; run it without torchrun",
            file=sys.stderr,
        )
        return 1
    from training.cli import subcommands as verbs  # noqa: PLC0415 (torch takes seconds: --help must not wait for it)

    try:
        return int(verbs.VERBS[options.verb](options))
    except verbs.EXPECTED_ERRORS as error:
        print(f"posewright-train: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posewright-train", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    _add_data_verbs(verbs)

    train = verbs.add_parser("train", help="train a recipe, from its last checkpoint where there is one")
    _training(train)
    train.add_argument("--until", type=int, help="stop after so many steps of the recipe")
    train.add_argument("--dry-run", action="store_true", help="try a few steps, say what would be done and take")

    distill = verbs.add_parser("distill", help="train a chain of recipes: teacher, assistants, student")
    _training(distill)
    distill.add_argument("--dry-run", action="store_true", help="try the whole chain in small, say what it would do")

    _add_ablate(verbs)

    speed = verbs.add_parser("speed", help="pictures a second of a recipe's training, and where the time goes")
    _training(speed)
    speed.add_argument("--rounds", type=int, default=10)
    verbs.add_parser("keys", help="every key of a recipe, its default and its meaning")

    evaluate = verbs.add_parser("evaluate", help="COCO AP of a bundle, through the estimator that serves")
    evaluate.add_argument("bundle", type=Path)
    _source(evaluate)
    evaluate.add_argument(
        "--detector", type=Path, help="detector bundle: score whole pictures instead of labelled boxes"
    )
    evaluate.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")
    _allow_seen(evaluate)
    alone = evaluate.add_mutually_exclusive_group()  # a bundle's own figures are of what it answers by itself
    alone.add_argument("--flip-test", action="store_true", help="average with the mirrored crop, as the server can")
    alone.add_argument(
        "--record", metavar="PICTURES", help="write AP into manifest and card, with what pictures it is of"
    )

    export = verbs.add_parser("export", help="turn a checkpoint into a bundle; refuses where ONNX and torch differ")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--out", type=Path, required=True, help="bundle folder to write, e.g. service/models/student-s")
    export.add_argument("--version", default="1", help="of the bundle, as /models shows it")
    export.add_argument("--flip-test", action="store_true", help="average with the mirrored crop, in the graph")
    export.add_argument(
        "--blend",
        type=_share,
        default=1.0,
        help="share of the way from the bundle that it began with to what it learned",
    )
    export.add_argument(
        "--padding", type=_padding, help="factor on a person's box where it serves; else as in training"
    )
    export.add_argument("--input-size", type=_size, metavar="WxH", help="of a detector, in px; else as in the recipe")
    export.add_argument("--seen", default="", help="what you saw it get wrong on drawn pictures, for the card's limits")

    _add_calibrate(verbs)

    _add_bench(verbs)
    report = verbs.add_parser("report", help="one page of curves, AP, mistakes and people, for a run or a bundle")
    report.add_argument("folder", type=Path, help="run folder, or bundle folder")
    _source(report, required=False)
    report.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")
    _allow_seen(report)
    report.add_argument("--out", type=Path, help="folder for report.html and report.json; a run's own by default")

    _add_adapt(verbs)
    _add_import(verbs)

    _render(verbs.add_parser("render", help="people without any photo: pictures with exact keypoints, or a clip"))

    designs = verbs.add_parser("designs", help="latency of student designs before any is trained")
    designs.add_argument("--rounds", type=int, default=50)
    return parser


def _add_ablate(verbs: argparse._SubParsersAction) -> None:
    ablate = verbs.add_parser("ablate", help="train and score a student with and without each part of DSKD")
    _training(ablate)
    ablate.add_argument("--rows", nargs="+", choices=LADDER, default=LADDER, metavar="ROW", help=", ".join(LADDER))
    ablate.add_argument("--seeds", nargs="+", type=int, default=[0])
    ablate.add_argument("--students", nargs="+", default=[], metavar="NAME", help="of the recipe's students; all")
    _allow_seen(ablate)


def _add_bench(verbs: argparse._SubParsersAction) -> None:
    bench = verbs.add_parser("bench", help="AP and latency of bundles and rivals in one table, interleaved, one thread")
    bench.add_argument("bundles", type=Path, nargs="+")
    bench.add_argument(
        "--rivals", type=Path, nargs="+", default=[], help="imported bundles, measured as published (docs/import.md)"
    )
    bench.add_argument("--rounds", type=_positive, default=100)
    bench.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS[:1], help="what runs the bundles")
    _source(bench, required=False)
    bench.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")
    _allow_seen(bench)
    bench.add_argument("--plot", type=Path, help="SVG to write: AP over ms")

    quantize = verbs.add_parser("quantize", help="make an int8 bundle; refused unless it is faster and as good")
    quantize.add_argument("bundle", type=Path)
    _source(quantize)
    quantize.add_argument(
        "--every", type=_positive, default=7, help="measure on pictures whose id it divides, calibrate on the others; 7"
    )
    quantize.add_argument("--out", type=Path, required=True, help="bundle folder to write; its name is the bundle's")


def _add_data_verbs(verbs: argparse._SubParsersAction) -> None:
    label = verbs.add_parser("label", help="complete a data set's labels by teachers")
    _source(label)
    label.add_argument("--pose-teacher", type=Path, required=True, help="bundle that marks joints: ours, or imported")
    label.add_argument("--box-teacher", type=Path, help="detector's bundle; boxes stay as they are without it")
    label.add_argument("--out", type=Path, required=True, help="COCO json to write")

    check = verbs.add_parser("check", help="explain a labelled data set, and refuse one that is broken")
    _labelled(check)
    check.add_argument("--against", type=Path, help="a set that it must share no picture with")
    check.add_argument("--against-images", type=Path, help="folder of that set's pictures")
    check.add_argument("--against-split", choices=("train", "val", "test"), help="of that set, where it is YOLO's")
    check.add_argument("--sheet", type=Path, help="JPEG to write: people with their labels drawn")

    convert = verbs.add_parser("convert", help="turn a labelled data set into the COCO json that the other verbs take")
    _labelled(convert)
    convert.add_argument("--out", type=Path, required=True, help="COCO json to write")
    convert.add_argument("--toml", type=Path, help="write the set's skeleton too, to be looked over and completed")

    restore = verbs.add_parser("restore", help="put copies of COCO pictures back into the shape that their labels tell")
    restore.add_argument("images", type=Path, help="folder of copies with COCO's twelve digits in their names")
    restore.add_argument("--labels", type=Path, required=True, help="folder of COCO's labels as YOLO pose, a .txt each")
    restore.add_argument("--out", type=Path, required=True, help="folder to write: images and annotations.json")
    restore.add_argument("--without", type=Path, nargs="*", default=[], help="COCO json whose pictures are left out")

    crops = verbs.add_parser("crops", help="cut every labelled person once, for training")
    _source(crops)
    crops.add_argument("--out", type=Path, required=True, help="folder to write")
    crops.add_argument(
        "--height", type=int, default=384, help="of a canvas in px: 1.5 times the input's, times 1.25 / box_padding"
    )
    crops.add_argument("--width", type=int, help="the same across; three quarters of the height where it is left out")
    crops.add_argument(
        "--skip", type=int, default=0, help="hold back pictures whose id this number divides; 0 holds back none"
    )

    _skeleton(crops)


def _add_calibrate(verbs: argparse._SubParsersAction) -> None:
    calibrate = verbs.add_parser("calibrate", help="give a bundle's scores a meaning: the OKS to expect")
    calibrate.add_argument("bundle", type=Path)
    _source(calibrate)
    calibrate.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")
    _allow_seen(calibrate)
    calibrate.add_argument("--out", type=Path, required=True, help="bundle folder to write; may be the same")
    calibrate.add_argument("--detector", type=Path, help="calibrated detector bundle: weigh its word against the pose")
    calibrate.add_argument("--measured-on", default="", help="what pictures these are, for manifest and card")


def _add_adapt(verbs: argparse._SubParsersAction) -> None:
    adapt = verbs.add_parser("adapt", help="adapt a student to a camera's footage, without labels")
    adapt.add_argument("--from", type=Path, required=True, dest="source", help="folder of pictures, or a video")
    adapt.add_argument("--student", required=True, help="shipped bundle's name, or a bundle's folder")
    adapt.add_argument("--out", type=Path, required=True, help="folder of its own for the new bundle and the report")
    adapt.add_argument("--teacher", default="teacher", help="who labels: likewise")
    adapt.add_argument("--detector", default="detector", help="who finds the people: likewise")
    adapt.add_argument("--pictures", type=_positive, default=600, help="at most so many of the footage")
    adapt.add_argument("--hold-out", type=_share, default=0.25, help="share of the time, at the end, to measure on")
    adapt.add_argument("--minutes", type=float, default=10, help="for everything; the steps follow from it")
    adapt.add_argument("--steps", type=_positive, help="of training, whatever they take")
    adapt.add_argument("--rehearse", type=Path, nargs="+", default=[], metavar="CROPS", help="labelled crop caches")
    adapt.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    adapt.add_argument("--blend", type=_share, default=0.5, help="share of the way from the old weights to the new")
    adapt.add_argument("--threads", type=_positive, help="CPU threads; all cores by default")
    adapt.add_argument("--dry-run", action="store_true", help="try a few pictures, say what would be done and take")
    _source(adapt, required=False)
    adapt.add_argument("--every", type=_positive, default=1, help="only labelled pictures whose id this number divides")


def _add_import(verbs: argparse._SubParsersAction) -> None:
    take = verbs.add_parser("import", help="make a bundle of a third party's ONNX; refuses one that is fed wrongly")
    take.add_argument("onnx", type=Path)
    take.add_argument(
        "--decoder", choices=("heatmap", "simcc", "rtmdet"), required=True, help="how its outputs are read"
    )
    take.add_argument("--role", choices=("teacher", "student", "detector"), required=True)
    take.add_argument("--out", type=Path, required=True, help="bundle folder to write; its name is the bundle's")
    take.add_argument("--version", default="1", help="of the bundle")
    take.add_argument("--colour", choices=("rgb", "bgr"), default="rgb", help="order of the channels that it takes")
    take.add_argument("--normalise", choices=("imagenet", "unit", "signed", "bytes"), default="imagenet")
    take.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of 0..255, for --normalise")
    take.add_argument("--deviation", type=float, nargs=3, metavar=("R", "G", "B"), help="likewise")
    take.add_argument("--shift", type=float, nargs=2, default=(0, 0), metavar=("X", "Y"), help="added to keypoints, px")
    take.add_argument("--padding", type=float, default=1.25, help="factor on a box before it is cut")
    _skeleton(take, "the keypoints that the bundle answers")
    take.add_argument(
        "--joints", type=_names, help="names of its outputs, in its order, comma-separated; the skeleton's by default"
    )
    take.add_argument("--activation", choices=("none", "sigmoid", "softmax"), default="none", help="heights to 0..1")
    take.add_argument("--scale", type=float, default=1.0, help="factor on the heights: a sure joint's is about 1")
    take.add_argument("--outputs", nargs="+", default=[], metavar="NAME", help="of the graph, where it has more")
    take.add_argument("--input-size", type=int, nargs=2, metavar=("W", "H"), help="where the graph leaves it open")
    take.add_argument("--licence", default="", help="of its weights, for the card")
    take.add_argument("--origin", default="", help="who made it and where it is from, for the card")
    _source(take, required=False)
    take.add_argument("--pictures", type=_positive, default=40, help="labelled pictures to check it on")
    take.add_argument("--anyway", action="store_true", help="write the bundle whatever the check finds")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, got {value}")
    return value


def _padding(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1.5:
        raise argparse.ArgumentTypeError(f"expected a factor from 1 to 1.5, got {value}")
    return value


def _render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to write: images/ and annotations.json")
    parser.add_argument("--count", "--frames", type=int, default=100, help="pictures, or frames of a clip; 100")
    parser.add_argument("--clip", choices=CLIPS, default="", help="one film instead of single pictures")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second of a clip; 25")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=_size, default="640x480", metavar="WxH", help="in px; 640x480")
    parser.add_argument("--people", type=_span, default="1-4", metavar="A-B", help="people a picture; 1-4")
    parser.add_argument("--framing", choices=("scene", "crop"), default="scene", help="crop: one person fills it")
    parser.add_argument(
        "--identities", type=_span, default="0-9999", metavar="A-B", help="who may appear; keep test people apart"
    )
    parser.add_argument("--samples", type=int, default=2, help="a pixel along each axis; 1 is fast, 2 smooth")
    parser.add_argument("--masks", action="store_true", help="write segmentations too")
    parser.add_argument("--backgrounds", type=Path, help="folder of photos to put people before")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="draw a few pictures, say what all will take")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(width), int(height)


def _span(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (last.isdigit() or not dash)):
        raise argparse.ArgumentTypeError(f"expected A-B such as 1-4, or one number, got {text!r}")
    return int(first), int(last or first)


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the paths of the recipe's data and teachers start from"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: an accelerator where there is one")


def _labelled(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="COCO json, data.yaml, joints.mat, or a folder that holds one of them")
    parser.add_argument("--images", type=Path, help="folder of the pictures; the usual places by default")
    parser.add_argument("--split", choices=("train", "val", "test"), help="of a set with splits; all by default")
    parser.add_argument(
        "--class", action="append", default=[], dest="classes", metavar="NAME",
        help="read this class as people; may be given again (default: person, or all where none is called so)",
    )  # fmt: skip
    parser.add_argument(
        "--lsp-one", choices=("hidden", "visible"), help="meaning of 1 in the third row of a joints.mat"
    )
    _skeleton(parser)


def _skeleton(parser: argparse.ArgumentParser, what: str = "the keypoints that are labelled") -> None:
    parser.add_argument("--skeleton", type=Path, help=f"{what}: a TOML, {NAMED_SKELETONS}; COCO's 17 by default")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _allow_seen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-seen", action="store_true", help="measure on pictures that were learned from, too")


def _source(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--annotations", type=Path, required=required, help="COCO json")
    parser.add_argument("--images", type=Path, required=required, help="folder of its pictures")


if __name__ == "__main__":
    sys.exit(main())
