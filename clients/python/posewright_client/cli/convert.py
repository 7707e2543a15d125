"""``posewright-client convert``: write results in the format of another tool."""

from __future__ import annotations

import argparse
import glob
from pathlib import Path

from posewright_client._pictures import require_cv2
from posewright_client.cli.arguments import add_formats, export_options
from posewright_client.cli.movie import Movie
from posewright_client.formats.export import FORMATS, default_path
from posewright_client.formats.output import new_folder
from posewright_client.formats.recording import RecordedFrame, Recording, ResultsError, Size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    parser.add_argument(
        "results", type=Path, metavar="RESULTS.jsonl", help="what video, webcam or predict --json wrote"
    )
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="file or folder to write (default: beside the results)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    parser.add_argument("--video", type=Path, help="the video that the results are of: for names, sizes and --pictures")
    parser.add_argument("--size", type=_size, metavar="WxH", help="size of the pictures, px, if the results lack it")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="write the frames of --video as JPEG, for coco and label-studio"
    )
    add_formats(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the results.

    Raises:
        PosewrightError: The results cannot be read, or not be written in this format.
        ValueError: The arguments do not fit together.
        OSError: A file cannot be read or written.
    """
    results, video = arguments.results, arguments.video
    out = arguments.out or default_path(results, arguments.to)
    for path in [*FORMATS[arguments.to].outputs(out), *filter(None, [arguments.pictures])]:
        if path.exists() and (not arguments.overwrite or path.samefile(results)):
            raise ValueError(f"{path} exists already; choose another name, or use --overwrite")
    if arguments.pictures is not None and video is None:
        raise ValueError("--pictures: expected --video with it, got none; give the video that the results are of")
    recording = Recording(results, video=video, size=arguments.size or _video_size(video))
    if arguments.pictures is not None:
        _write_pictures(recording, Movie(video), arguments.pictures)
    FORMATS[arguments.to].write(recording, out, export_options(arguments, video))
    print(f"{out}: {arguments.to}")
    return 0


def _size(text: str) -> Size:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected e.g. 1280x720, got {text}")
    return int(width), int(height)


def _video_size(video: Path | None) -> Size | None:
    if video is None:
        return None
    frame = next(iter(Movie(video).read()), None)
    return None if frame is None else (frame.bgr.shape[1], frame.bgr.shape[0])


def _write_pictures(recording: Recording, movie: Movie, folder: Path) -> None:
    """Write the frames that have results as JPEG files."""
    cv2 = require_cv2("--pictures")
    pictures = iter(movie.read())
    with new_folder(folder, f"{glob.escape(recording.name)}_{'[0-9]' * 12}.jpg") as part:
        for frame in recording.frames():
            _require(recording, frame, frame.file is None, "it is a photo, not a frame of a video")
            picture = next((it for it in pictures if it.index == frame.index), None)
            _require(recording, frame, picture is not None, f"{movie.path} ends before it")
            assert picture is not None
            size = (picture.bgr.shape[1], picture.bgr.shape[0])
            _require(recording, frame, frame.size in {None, size}, f"{movie.path} has {size} px, not {frame.size}")
            name = recording.picture_name(frame)
            if not cv2.imwrite(str(part / name), picture.bgr):
                raise OSError(f"{folder / name}: the picture cannot be written")


def _require(recording: Recording, frame: RecordedFrame, fits: bool, fault: str) -> None:
    if not fits:
        raise ResultsError(f"{recording.path}: frame {frame.index}: {fault}; give the video that the results are of")
