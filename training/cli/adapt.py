"""posewright-train adapt."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import cv2
import torch

from service.pose.backends.cpu_quota import available_cores
from training.adapt import adaptation, comparison, request
from training.cli.arguments import add_every, add_source, positive, share
from training.data import coco


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--from", type=Path, required=True, dest="source", help="folder of pictures, or a video")
    parser.add_argument("--student", required=True, help="name of a shipped bundle, or a bundle's folder")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the bundle and the report")
    parser.add_argument("--teacher", default="teacher", help="bundle that labels the footage (default: teacher)")
    parser.add_argument("--detector", default="detector", help="bundle that detects the people (default: detector)")
    parser.add_argument(
        "--pictures", type=positive, default=600, help="largest number of pictures of the footage (default: 600)"
    )
    parser.add_argument(
        "--hold-out", type=share, default=0.25, help="share of the footage, at its end, to measure on (default: 0.25)"
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="time for everything, which sets the number of steps (default: 10)"
    )
    parser.add_argument("--steps", type=positive, help="number of training steps, instead of --minutes")
    parser.add_argument(
        "--rehearse", type=Path, nargs="+", default=[], metavar="CROPS", help="crop caches of labelled people"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    parser.add_argument(
        "--blend", type=share, default=0.5, help="weight of the new weights against the old ones (default: 0.5)"
    )
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")
    parser.add_argument(
        "--dry-run", action="store_true", help="try a few pictures, and print what the adaptation would take"
    )
    add_source(parser, required=False)
    add_every(parser)


def run(options: Namespace) -> int:
    """Adapt a student and compare it with its start; see `adaptation.train` and `comparison.finish`."""
    threads = options.threads or available_cores()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    truth = coco.optional_source(options.annotations, options.images)
    asked = request.AdaptRequest(
        options.source,
        options.out,
        request.open_bundle(options.student),
        request.open_bundle(options.teacher),
        request.open_bundle(options.detector),
        frames=options.pictures,
        hold_out=options.hold_out,
        steps=options.steps,
        minutes=options.minutes,
        rehearse=tuple(options.rehearse),
        settings=tuple(options.set),
        blend=options.blend,
        threads=threads,
    )
    if options.dry_run:
        print(adaptation.dry_run(asked))
        return 0
    state, labels = adaptation.train(asked)
    print(comparison.finish(asked, state, labels, truth, options.every))
    return 0
