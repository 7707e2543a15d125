"""``posewright-client``: photos, videos, a webcam, and load, from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from posewright_client import _bench, _camera, _video, _webcam
from posewright_client._client import DEFAULT_URL, Client
from posewright_client._drawing import draw
from posewright_client._errors import PosewrightError
from posewright_client._frames import StreamOptions
from posewright_client._pictures import require_cv2
from posewright_client._results import Prediction

Command = Callable[[argparse.Namespace], int]
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status: 0, 1 where something went wrong, 2 for a command that is none."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments)
    except (PosewrightError, OSError, ValueError) as error:
        print(f"posewright-client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.draw is not None and len(arguments.photos) > 1:
        raise ValueError(f"--draw: expected one photo, got {len(arguments.photos)}; call it once for each")
    with _client(arguments) as client:
        for photo in arguments.photos:
            prediction = client.predict(photo, model=arguments.model)
            if arguments.json:
                print(json.dumps(prediction.raw, ensure_ascii=False))
            else:
                print(_described(photo, prediction))
            if arguments.draw is not None:
                _draw(photo, prediction, arguments.draw)
    return 0


def _described(photo: Path, prediction: Prediction) -> str:
    width, height = prediction.image_size
    head = f"{photo}: {width} x {height}, {len(prediction)} people, {prediction.model.name}"
    lines = [head + f", {prediction.timings_ms.get('total', 0):.0f} ms"]
    for pose in prediction.poses:
        first = pose.keypoints[0]
        x, y, w, h = (round(number) for number in pose.box)
        seen = sum(bool(it.visible) for it in pose.keypoints)
        lines.append(
            f"  score {pose.score:.2f}, box {x},{y} {w}x{h}, {first.name} {first.x:.0f},{first.y:.0f}, "
            f"{seen}/{len(pose.keypoints)} visible"
        )
    return "\n".join(lines)


def _draw(photo: Path, prediction: Prediction, out: Path) -> None:
    cv2 = require_cv2("--draw")
    bgr = cv2.imread(str(photo))  # upright: EXIF is applied, as on the server
    if bgr is None:
        raise PosewrightError(f"{photo}: OpenCV cannot read it")
    drawn = draw(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), prediction.poses)
    try:
        written = cv2.imwrite(str(out), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    except cv2.error:  # an ending that it does not know
        written = False
    if not written:
        raise PosewrightError(f"{out}: OpenCV cannot write it; expected an ending such as .png or .jpg, and a folder")


def _run_video(arguments: argparse.Namespace) -> int:
    video, out = arguments.video, arguments.out
    journal = arguments.json or (video if out is None else out).with_suffix(".jsonl")
    job = _video.VideoJob(
        video,
        journal,
        out,
        arguments.model,
        not arguments.no_track,
        arguments.overwrite,
        arguments.quiet,
        arguments.patience,
    )
    began_s = time.monotonic()
    with _client(arguments) as client:
        done = _video.run(client, job)
    print(_video.summary(job, done, began_s))
    if done.missing:
        raise PosewrightError(
            f"{video}: the file is cut off: expected {done.frames + done.missing} frames, got {done.frames}, which are "
            "answered; copy it again, and give --overwrite"
        )
    return 0


def _run_webcam(arguments: argparse.Namespace) -> int:
    device = int(arguments.device) if arguments.device.isdigit() else arguments.device
    with _client(arguments) as client:
        watch = _webcam.Watch(device, arguments.window, arguments.model, arguments.frames, arguments.patience)
        reconnects = _webcam.run(client, watch)
    if reconnects:
        print(f"posewright-client: the camera hung up and came back {reconnects} times", file=sys.stderr)
    return 0


def _run_bench(arguments: argparse.Namespace) -> int:
    stream = StreamOptions(policy=arguments.policy, model=arguments.model, max_in_flight=arguments.max_in_flight)
    plan = _bench.Plan(
        [photo.read_bytes() for photo in arguments.photos],
        arguments.duration,
        arguments.warm_up,
        arguments.concurrency,
        arguments.rate,
        arguments.stream,
        arguments.fps,
        stream,
    )
    report = _bench.run(arguments.url, arguments.api_key, arguments.timeout, plan)
    print(json.dumps(report) if arguments.json else _bench.show(report))
    return 0


def _client(arguments: argparse.Namespace) -> Client:
    return Client(arguments.url, api_key=arguments.api_key, timeout_s=arguments.timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posewright-client", description="Ask a posewright server.")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_predict(commands)
    _add_video(commands)
    _add_webcam(commands)
    _add_bench(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Command, what: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=what)
    command.set_defaults(command=run)
    command.add_argument("--model", default="auto", help="auto, student, teacher, or a name (default: auto)")
    command.add_argument(
        "--timeout", type=_positive, default=30.0, metavar="SECONDS", help="for an answer (default: 30)"
    )
    key = os.environ.get("POSEWRIGHT_API_KEY")
    command.add_argument("--api-key", default=key, help="default: the variable POSEWRIGHT_API_KEY")
    if run is not _run_bench:
        url = os.environ.get("POSEWRIGHT_URL", DEFAULT_URL)
        command.add_argument("--url", default=url, help=f"of the server (default: POSEWRIGHT_URL, or {DEFAULT_URL})")
    return command


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "predict", _predict, "Find the people in photos.")
    command.add_argument("photos", nargs="+", type=Path, metavar="photo")
    command.add_argument("--draw", type=Path, metavar="OUT", help="write the photo with the skeletons drawn")
    command.add_argument("--json", action="store_true", help="print the replies as they came, one a line")


def _add_video(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "Find the people in every frame of a video. Run it again after a kill: it goes on where it was."
    command = _add(commands, "video", _run_video, what)
    command.add_argument("video", type=Path)
    command.add_argument("--out", type=Path, metavar="MP4", help="write the video with the skeletons drawn")
    command.add_argument(
        "--json", type=Path, metavar="JSONL", help="a line for every frame (default: beside --out, or the video)"
    )
    command.add_argument("--no-track", action="store_true", help="no ids, no smoothing: every frame on its own")
    command.add_argument("--overwrite", action="store_true", help="begin anew, whatever is there")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    command.add_argument(
        "--patience",
        type=float,
        default=_video.PATIENCE_S,
        metavar="SECONDS",
        help="wait so long for a server that is gone (default: 300)",
    )


def _add_webcam(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _add(commands, "webcam", _run_webcam, "Find the people before a camera, live.")
    command.add_argument("--device", default="0", help="number of the camera, or a path or address (default: 0)")
    command.add_argument("--window", action="store_true", help="show it; otherwise a line of JSON for every answer")
    command.add_argument("--frames", type=_count, metavar="N", help="end after so many answers; fewer are an error")
    command.add_argument(
        "--patience",
        type=float,
        default=_camera.PATIENCE_S,
        metavar="SECONDS",
        help=f"call a camera again for so long that hung up (default: {_camera.PATIENCE_S:g})",
    )


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "Put load on a server: a closed loop, an open loop (--rate), or streams (--stream)."
    command = _add(commands, "bench", _run_bench, what)
    command.add_argument("url")
    command.add_argument("photos", nargs="+", type=Path, metavar="photo", help="sent in turns")
    command.add_argument("--duration", type=_positive, default=10.0, metavar="SECONDS", help="measured (default: 10)")
    command.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS", help="before that (default: 1)")
    command.add_argument(
        "--concurrency", type=_count, default=1, metavar="N", help="callers of the closed loop (default: 1)"
    )
    command.add_argument("--rate", type=_positive, metavar="PER_SECOND", help="open loop: calls come at random times")
    command.add_argument("--stream", type=_count, default=0, metavar="N", help="so many streams in place of calls")
    command.add_argument("--fps", type=_positive, default=30.0, help="of each stream (default: 30)")
    command.add_argument(
        "--policy", choices=["latest", "all"], default="latest", help="of the streams (default: latest)"
    )
    command.add_argument("--max-in-flight", type=_count, metavar="N", help="frames unanswered at a time in a stream")
    command.add_argument("--json", action="store_true", help="report as JSON")


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number
