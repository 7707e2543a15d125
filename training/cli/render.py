"""The subcommand `posewright-train render`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.cli.arguments import size, span
from training.synthetic.scene import clip, dataset


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to its parser."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write: images/ and annotations.json")
    parser.add_argument(
        "--count", "--frames", type=int, default=100, help="number of pictures, or frames of a clip (default: 100)"
    )
    parser.add_argument("--clip", choices=tuple(clip.KINDS), default="", help="one clip instead of single pictures")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second of a clip (default: 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=size, default="640x480", metavar="WxH", help="in px (default: 640x480)")
    parser.add_argument("--people", type=span, default="1-4", metavar="A-B", help="people in a picture (default: 1-4)")
    parser.add_argument(
        "--framing", choices=("scene", "crop"), default="scene", help="crop: one person fills the picture"
    )
    parser.add_argument(
        "--identities",
        type=span,
        default="0-9999",
        metavar="A-B",
        help="range of identities; use a separate range for testing",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=2,
        help="samples per pixel along each axis (default: 2); 1 is faster, less smooth",
    )
    parser.add_argument("--masks", action="store_true", help="write segmentations too")
    parser.add_argument("--backgrounds", type=Path, help="folder of photos to use as backgrounds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="draw a few pictures and estimate the time for all")


def run(options: Namespace) -> int:
    """Render a data set, or estimate its time and disk space; see `dataset.build` and `dataset.forecast`."""
    request = dataset.RenderRequest(
        out=options.out,
        count=options.count,
        seed=options.seed,
        size=options.size,
        people=options.people,
        framing=options.framing,
        identities=options.identities,
        samples=options.samples,
        masks=options.masks,
        backgrounds=options.backgrounds,
        processes=options.processes,
        clip=options.clip,
        fps=options.fps,
    )
    print(dataset.forecast(request) if options.dry_run else dataset.build(request))
    return 0
