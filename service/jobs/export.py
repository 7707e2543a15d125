"""Writes a job's results in another format: ``python -m service.jobs.export``, a process beside the server.

A process of its own takes neither the interpreter's lock nor memory from live calls, and may be ended at any time. This
is the one file of the service that uses ``posewright_client``: its converters are what users run on their own machines,
and they exist once. It is an optional package, imported when it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from service.jobs import files
from service.jobs.errors import JobsDiskFull

REFUSED, MISSING, FULL = 3, 4, 5
"""Exit statuses: the results do not fit the format; a package is missing; the disk is full. The last line of stderr
says why."""
NICENESS = 5
ZIPPED = {"openpose": "{name}_json", "label-studio": "tasks.json"}
"""Formats of several files, and how what they write is named in the archive."""


def main(arguments: list[str] | None = None) -> int:
    """Write one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("format")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--keypoint-threshold", type=float, required=True)
    parser.add_argument("--layout", required=True)
    given = parser.parse_args(arguments)
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(NICENESS)
    try:
        with files.full_disk_told():
            return _draw(given) if given.format == "mp4" else _convert(given)
    except JobsDiskFull as error:
        print(error, file=sys.stderr)
        return FULL


def _draw(given: argparse.Namespace) -> int:
    from service.jobs import annotated  # noqa: PLC0415 - the other formats need no OpenCV

    annotated.write(given.video, given.results, given.out, given.keypoint_threshold)
    return 0


def _convert(given: argparse.Namespace) -> int:
    try:
        from posewright_client import MissingExtra  # noqa: PLC0415 - optional
        from posewright_client.formats.export import FORMATS, ExportOptions  # noqa: PLC0415
        from posewright_client.formats.recording import Recording, ResultsError  # noqa: PLC0415
    except ImportError:
        print(
            "expected the package posewright-client, whose converters write this format, got none; the server's "
            "operator installs it: pip install ./clients/python",
            file=sys.stderr,
        )
        return MISSING
    video = Path(given.name)
    options = ExportOptions(video=video, threshold=given.keypoint_threshold, layout=given.layout)
    recording = Recording(given.results, video=video)
    try:
        with tempfile.TemporaryDirectory(dir=given.out.parent) as place:
            written = Path(place) / ZIPPED.get(given.format, "out").format(name=video.stem)
            FORMATS[given.format].write(recording, written, options)
            if given.format in ZIPPED:
                _zip(Path(place), given.out)
            else:
                written.replace(given.out)
    except MissingExtra as error:
        print(str(error).removeprefix(f"--to {given.format} needs "), file=sys.stderr)
        return MISSING
    except ResultsError as error:
        print(str(error).replace(str(given.results), given.results.name), file=sys.stderr)
        return REFUSED
    return 0


def _zip(folder: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        for path in sorted(it for it in folder.rglob("*") if it.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())


if __name__ == "__main__":
    sys.exit(main())
