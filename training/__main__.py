"""posewright-train: the verbs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

LADDER = "plain teacher chain dense drop binarize classify dskd plain-cells kd-cells dskd-cells".split()  # noqa: SIM905
"""Keys of `ablate.ROWS`, known without torch."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    # OpenMP threads that spin while they wait cost several times their gain beside any other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(arguments)
    from training import verbs  # noqa: PLC0415 (torch takes seconds: --help must not wait for it)

    try:
        return int(verbs.VERBS[options.verb](options))
    except verbs.EXPECTED_ERRORS as error:
        print(f"posewright-train: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posewright-train", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    label = verbs.add_parser("label", help="complete a data set's labels by guides")
    _source(label)
    label.add_argument("--pose-guide", type=Path, required=True, help="PP-TinyPose ONNX")
    label.add_argument("--box-guide", type=Path, help="RTMDet person ONNX; boxes stay as they are without it")
    label.add_argument("--out", type=Path, required=True, help="COCO json to write")

    crops = verbs.add_parser("crops", help="cut every labelled person once, for training")
    _source(crops)
    crops.add_argument("--out", type=Path, required=True, help="folder to write")
    crops.add_argument("--height", type=int, default=384, help="of a canvas in px: 1.5 times the input's")
    crops.add_argument(
        "--skip", type=int, default=0, help="hold back pictures whose id this number divides; 0 holds back none"
    )

    train = verbs.add_parser("train", help="train a recipe, from its last checkpoint where there is one")
    _training(train)
    train.add_argument("--until", type=int, help="stop after so many steps of the recipe")

    distill = verbs.add_parser("distill", help="train a chain of recipes: teacher, assistants, student")
    _training(distill)

    ablate = verbs.add_parser("ablate", help="train and score a student with and without each part of DSKD")
    _training(ablate)
    ablate.add_argument("--rows", nargs="+", choices=LADDER, default=LADDER, metavar="ROW", help=", ".join(LADDER))
    ablate.add_argument("--seeds", nargs="+", type=int, default=[0])
    ablate.add_argument("--students", nargs="+", default=[], metavar="NAME", help="of the recipe's students; all")

    speed = verbs.add_parser("speed", help="pictures a second of a recipe's training, and where the time goes")
    _training(speed)
    speed.add_argument("--rounds", type=int, default=10)
    verbs.add_parser("keys", help="every key of a recipe, its default and its meaning")

    evaluate = verbs.add_parser("evaluate", help="COCO AP of a bundle, through the estimator that serves")
    evaluate.add_argument("bundle", type=Path)
    _source(evaluate)
    evaluate.add_argument("--finder", type=Path, help="finder bundle: score whole pictures instead of labelled boxes")
    evaluate.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")

    export = verbs.add_parser("export", help="turn a checkpoint into a bundle; refuses where ONNX and torch differ")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--out", type=Path, required=True, help="bundle folder to write, e.g. service/models/student-s")
    export.add_argument("--version", default="1", help="of the bundle, as /models shows it")
    export.add_argument("--flip-test", action="store_true", help="average with the mirrored crop, in the graph")
    export.add_argument("--metrics", type=Path, help="json of figures for manifest and card, as evaluate prints it")
    export.add_argument("--measured-on", default="", help="what pictures these figures are of, for the card")

    bench = verbs.add_parser("bench", help="latency of bundles and rivals, interleaved, one thread")
    bench.add_argument("bundles", type=Path, nargs="+")
    bench.add_argument("--peers", type=Path, help="folder with the rivals' ONNX files")
    bench.add_argument("--rounds", type=int, default=100)
    report = verbs.add_parser("report", help="one page of curves, AP, mistakes and people, for a run or a bundle")
    report.add_argument("folder", type=Path, help="run folder, or bundle folder")
    _source(report, required=False)
    report.add_argument("--every", type=_positive, default=1, help="only pictures whose id this number divides")
    report.add_argument("--out", type=Path, help="folder for report.html and report.json; a run's own by default")

    designs = verbs.add_parser("designs", help="latency of student designs before any is trained")
    designs.add_argument("--rounds", type=int, default=50)
    return parser


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that the recipe's paths start from")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _source(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--annotations", type=Path, required=required, help="COCO json")
    parser.add_argument("--images", type=Path, required=required, help="folder of its pictures")


if __name__ == "__main__":
    sys.exit(main())
