"""``posewright-client webcam``: a camera's newest frames, answered live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewright_client._client import Client
from posewright_client._drawing import draw, write
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._frames import StreamResult
from posewright_client._pictures import require_cv2

TITLE = "posewright"
QUIT_KEYS = {ord("q"), 27}


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera, and what is to be done with its frames.

    Attributes:
        device: Number of the camera, or whatever else OpenCV opens: a path, an address.
        window: Show the frames with skeletons; otherwise every answer is a line of JSON on the standard output.
        model: As in `Options`.
        frames: Answers after which it ends; None: never.
    """

    device: int | str
    window: bool
    model: str = "auto"
    frames: int | None = None


def run(client: Client, camera: Camera) -> None:
    """Answer frames until the camera ends, or somebody presses q or Esc in the window.

    Raises:
        PosewrightError: The camera cannot be opened, or the stream cannot go on.
    """
    show = _Window() if camera.window else _print
    with client.stream(_frames(camera.device), model=camera.model) as stream:
        for answered, result in enumerate(stream, start=1):
            if not show(result) or answered == camera.frames:
                return


def _frames(device: int | str) -> Iterator[NDArray[np.uint8]]:
    """Read a camera, uint8 (H, W, 3) RGB."""
    cv2 = require_cv2("reading a camera")
    capture = cv2.VideoCapture(device)
    try:
        if not capture.isOpened():
            raise PosewrightError(f"camera {device!r} cannot be opened; is it connected, and free?")
        while True:
            ok, bgr = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _print(result: StreamResult) -> bool:
    line: dict[str, Any] = {"seq": result.seq, "latency_ms": round(result.latency_ms, 1), "replaced": result.replaced}
    if result.problem is not None:
        line["problem"] = result.problem.detail
    poses = [
        {"id": it.id, "score": it.score, "keypoints": [[p.x, p.y, p.score] for p in it.keypoints]}
        for it in result.poses
    ]
    print(json.dumps(line | {"poses": poses}), flush=True)
    return True


class _Window:
    """Shows answers on their own frames."""

    def __init__(self) -> None:
        self._cv2 = require_cv2("--window")
        try:
            self._cv2.namedWindow(TITLE, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise MissingExtra(
                "--window needs an OpenCV with windows: pip uninstall opencv-python-headless, "
                "then pip install opencv-python"
            ) from error

    def __call__(self, result: StreamResult) -> bool:
        frame = result.frame
        assert isinstance(frame, np.ndarray)
        canvas = draw(frame, result.poses)
        write(canvas, f"{result.latency_ms:.0f} ms old", (8, 24))
        self._cv2.imshow(TITLE, self._cv2.cvtColor(canvas, self._cv2.COLOR_RGB2BGR))
        return self._cv2.waitKey(1) & 0xFF not in QUIT_KEYS
