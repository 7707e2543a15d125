"""posewright-train bench."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.pose import bundle
from service.pose.backends import provider_choice
from training import files
from training.cli.arguments import add_measured_pictures, positive
from training.data import coco, holdout
from training.data.image_record import PictureRecord
from training.evaluation import bench, ranking, rivals

PROVIDERS = ("cpu", "openvino")
"""Execution providers that can be measured by the process's CPU time."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument(
        "--rivals", type=Path, nargs="+", default=[], help="imported bundles, measured as their makers publish them"
    )
    parser.add_argument("--rounds", type=positive, default=100, help="measurements of the latency (default: 100)")
    parser.add_argument(
        "--execution-provider",
        nargs="+",
        choices=PROVIDERS,
        default=PROVIDERS[:1],
        help="what runs the bundles; latency is CPU time, so that accelerators cannot be measured here",
    )
    add_measured_pictures(parser, required=False)
    parser.add_argument("--plot", type=Path, help="SVG to write: AP over latency")


def run(options: Namespace) -> int:
    """Measure AP and latency and print the table; see `ranking.score` and `bench.measure`.

    Raises:
        DatasetError: ``--plot`` was given without labelled pictures.
        BackendError: An execution provider is not installed.
    """
    source = coco.optional_source(options.annotations, options.images)
    if options.plot and source is None:
        raise coco.DatasetError("expected --annotations and --images with --plot, got none; give both")
    providers = tuple(provider_choice.choose(it).provider for it in options.execution_provider)
    field = rivals.gather(options.bundles, options.rivals, providers)
    overlap, precisions = holdout.NOTHING_MEASURED, {}
    if source is not None:
        records = holdout.records_of([bundle.read(path) for path in options.bundles])
        foreign = [it.name for it in field.poses if not it.ours] + [it.name for it in field.detectors if not it.ours]
        records |= {name: PictureRecord(unrecorded=(name,)) for name in foreign}
        overlap = holdout.check(records, source, options.every, allow=options.allow_seen)
        precisions = ranking.score(source, field, options.every)
    rows = bench.measure(field, options.rounds, precisions)
    if options.plot:
        from training.evaluation.report import plots  # noqa: PLC0415 (matplotlib takes a second)

        files.write(options.plot, plots.accuracy_over_latency(rows))
    print(bench.table(rows))
    if overlap.pictures:
        print(f"\nAP is {overlap.marked('of pictures')} by one of the bundles: on new pictures it is lower.")
    return 0
