"""``posewright-client webcam``: find the people in front of a camera, live."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from posewright_client._client import Client
from posewright_client._drawing import draw, write
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._frames import StreamResult
from posewright_client._pictures import require_cv2
from posewright_client.cli.arguments import add_url, count, make_client
from posewright_client.cli.camera import PATIENCE_S, CameraReader
from posewright_client.cli.result_line import image_of, poses_of

TITLE = "posewright"
QUIT_KEYS = {ord("q"), 27}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``webcam``."""
    add_url(parser)
    parser.add_argument("--device", default="0", help="number of the camera, or a path or address (default: 0)")
    parser.add_argument(
        "--window", action="store_true", help="show a window; default: print one line of JSON per result"
    )
    parser.add_argument("--frames", type=count, metavar="N", help="stop after N results; fewer are an error")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help=f"try this long to reopen a camera that disconnected (default: {PATIENCE_S:g})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Stream the camera.

    Raises:
        PosewrightError: The camera or the stream cannot continue, or there were fewer results than ``--frames``.
    """
    device = int(arguments.device) if arguments.device.isdigit() else arguments.device
    camera = CameraReader(device, arguments.patience)
    with make_client(arguments) as client:
        _stream(client, camera, arguments)
    if camera.reconnects:
        print(f"posewright-client: the camera disconnected and came back {camera.reconnects} times", file=sys.stderr)
    return 0


def _stream(client: Client, camera: CameraReader, arguments: argparse.Namespace) -> None:
    """Stream until the camera ends, enough frames have results, or the user presses q or Esc in the window."""
    show = _Window() if arguments.window else _print
    results = 0
    with client.stream(camera.frames(), model=arguments.model) as stream:
        for results, result in enumerate(stream, start=1):
            if not show(result, camera.reconnects) or results == arguments.frames:
                return
    if arguments.frames is not None:
        raise PosewrightError(
            f"{camera.device!r}: the camera ended after {results} results; expected --frames {arguments.frames}"
        )


def _print(result: StreamResult, reconnects: int) -> bool:
    line: dict[str, Any] = {
        "seq": result.seq,
        "latency_ms": round(result.latency_ms, 1),
        "replaced": result.replaced,
        "camera_reconnects": reconnects,
    }
    if result.problem is not None:
        line["problem"] = result.problem.detail
    assert isinstance(result.frame, np.ndarray)
    line |= {"capture_us": result.capture_us, "session": result.session, "image": image_of(result.frame)}
    print(json.dumps(line | poses_of(result)), flush=True)
    return True


class _Window:
    """Shows results on their own frames; the call returns False once the user quits."""

    def __init__(self) -> None:
        self._cv2 = require_cv2("--window")
        try:
            self._cv2.namedWindow(TITLE, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise MissingExtra(
                "--window needs OpenCV with window support: pip uninstall opencv-python-headless, "
                "then pip install opencv-python"
            ) from error

    def __call__(self, result: StreamResult, _: int) -> bool:
        frame = result.frame
        assert isinstance(frame, np.ndarray)
        canvas = draw(frame, result.poses)
        write(canvas, f"latency {result.latency_ms:.0f} ms", (8, 24))
        self._cv2.imshow(TITLE, self._cv2.cvtColor(canvas, self._cv2.COLOR_RGB2BGR))
        return self._cv2.waitKey(1) & 0xFF not in QUIT_KEYS
