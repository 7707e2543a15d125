"""``posewright-client predict``: find the people in photos."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from posewright_client._drawing import draw
from posewright_client._errors import PosewrightError
from posewright_client._pictures import require_cv2
from posewright_client._results import Prediction
from posewright_client.cli.arguments import add_url, make_client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``predict``."""
    add_url(parser)
    parser.add_argument("photos", nargs="+", type=Path, metavar="photo")
    parser.add_argument("--draw", type=Path, metavar="OUT", help="write the photo with the skeletons drawn")
    parser.add_argument(
        "--json", action="store_true", help="print the server's replies with the photos' names, one per line"
    )


def run(arguments: argparse.Namespace) -> int:
    """Predict, and print the results.

    Raises:
        ValueError: ``--draw`` with several photos.
        PosewrightError: A request failed, or the drawing cannot be written.
        OSError: A photo cannot be read.
    """
    if arguments.draw is not None and len(arguments.photos) > 1:
        raise ValueError(f"--draw: expected one photo, got {len(arguments.photos)}; run the command once per photo")
    with make_client(arguments) as client:
        for photo in arguments.photos:
            prediction = client.predict(photo, model=arguments.model)
            if arguments.json:
                print(json.dumps({"file": str(photo), **prediction.raw}, ensure_ascii=False))
            else:
                print(_describe(photo, prediction))
            if arguments.draw is not None:
                _write_drawing(photo, prediction, arguments.draw)
    return 0


def _describe(photo: Path, prediction: Prediction) -> str:
    width, height = prediction.image_size
    head = f"{photo}: {width} x {height}, {len(prediction)} people, {prediction.model.name}"
    lines = [head + f", {prediction.timings_ms.get('total', 0):.0f} ms"]
    for pose in prediction.poses:
        first = pose.keypoints[0]
        x, y, w, h = (round(number) for number in pose.box)
        visible = sum(bool(it.visible) for it in pose.keypoints)
        lines.append(
            f"  score {pose.score:.2f}, box {x},{y} {w}x{h}, {first.name} {first.x:.0f},{first.y:.0f}, "
            f"{visible}/{len(pose.keypoints)} visible"
        )
    return "\n".join(lines)


def _write_drawing(photo: Path, prediction: Prediction, out: Path) -> None:
    cv2 = require_cv2("--draw")
    drawn = draw(photo, prediction)
    try:
        written = cv2.imwrite(str(out), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    except cv2.error:  # an unknown suffix
        written = False
    if not written:
        raise PosewrightError(
            f"{out}: OpenCV cannot write this picture; expected a suffix such as .png or .jpg, and a folder that exists"
        )
