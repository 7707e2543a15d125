"""``posewright-client video``: find the people in every frame of a video."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from posewright_client._errors import PosewrightError
from posewright_client.cli import video_job
from posewright_client.cli.arguments import add_formats, add_url, export_options, make_client
from posewright_client.cli.video_job import VideoJob
from posewright_client.formats.export import FORMATS, default_path
from posewright_client.formats.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``video``."""
    add_url(parser)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, metavar="MP4", help="write the video with the skeletons drawn")
    parser.add_argument(
        "--json", type=Path, metavar="JSONL", help="results, one line per frame (default: next to --out, or the video)"
    )
    parser.add_argument(
        "--to", choices=FORMATS, action="append", default=[], help="write the results in this format, too; see convert"
    )
    add_formats(parser)
    parser.add_argument("--no-track", action="store_true", help="no ids and no smoothing")
    parser.add_argument("--overwrite", action="store_true", help="start from the beginning, and replace existing files")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--patience",
        type=float,
        default=video_job.PATIENCE_S,
        metavar="SECONDS",
        help=f"wait this long for an unreachable server (default: {video_job.PATIENCE_S:g})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Process the video.

    Raises:
        PosewrightError: The job cannot continue, or the video is truncated; the finished frames are kept.
        OSError: A file cannot be read or written.
    """
    video, out = arguments.video, arguments.out
    journal = arguments.json or (video if out is None else out).with_suffix(".jsonl")
    job = VideoJob(
        video,
        journal,
        out,
        arguments.model,
        not arguments.no_track,
        arguments.overwrite,
        arguments.quiet,
        arguments.patience,
    )
    converted = {name: default_path(journal, name) for name in arguments.to}
    outputs = [it for name, path in converted.items() for it in FORMATS[name].outputs(path)]
    if not arguments.overwrite and (existing := [it for it in outputs if it.exists()]):
        raise PosewrightError(f"{existing[0]} exists already; move it, or use --overwrite")
    started_s = time.monotonic()
    with make_client(arguments) as client:
        report = video_job.run(client, job)
    for name, path in converted.items():
        FORMATS[name].write(Recording(journal, video=video), path, export_options(arguments, video))
        print(f"{path}: {name}")
    print(video_job.summary(job, report, time.monotonic() - started_s))
    if report.missing:
        raise PosewrightError(
            f"{video}: the file is truncated: expected {report.frames + report.missing} frames, got {report.frames}; "
            "copy it again, and run the command with --overwrite"
        )
    return 0
