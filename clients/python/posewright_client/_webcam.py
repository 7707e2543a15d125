"""``posewright-client webcam``: a camera's newest frames, answered live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from posewright_client._camera import PATIENCE_S, Camera
from posewright_client._client import Client
from posewright_client._drawing import draw, write
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._frames import StreamResult
from posewright_client._pictures import require_cv2

TITLE = "posewright"
QUIT_KEYS = {ord("q"), 27}


@dataclass(frozen=True, slots=True)
class Watch:
    """A camera, and what is to be done with its frames.

    Attributes:
        device: As of `Camera`.
        window: Show the frames with skeletons; otherwise every answer is a line of JSON on the standard output.
        model: As in `Options`.
        frames: Answers after which it ends; None: as many as there are.
        patience_s: As of `Camera`.
    """

    device: int | str
    window: bool
    model: str = "auto"
    frames: int | None = None
    patience_s: float = PATIENCE_S


def run(client: Client, watch: Watch) -> int:
    """Answer frames until the camera ends, or somebody presses q or Esc in the window; tells how often it came back.

    Raises:
        PosewrightError: As `Camera.frames`; the stream cannot go on; or there were fewer answers than asked for.
    """
    show = _Window() if watch.window else _print
    camera, answered = Camera(watch.device, watch.patience_s), 0
    with client.stream(camera.frames(), model=watch.model) as stream:
        for answered, result in enumerate(stream, start=1):
            if not show(result, camera.reconnects) or answered == watch.frames:
                return camera.reconnects
    if watch.frames is not None:
        raise PosewrightError(f"{watch.device!r} ended after {answered} answers; --frames asked for {watch.frames}")
    return camera.reconnects


def _print(result: StreamResult, reconnects: int) -> bool:
    line: dict[str, Any] = {
        "seq": result.seq,
        "latency_ms": round(result.latency_ms, 1),
        "replaced": result.replaced,
        "camera_reconnects": reconnects,
    }
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

    def __call__(self, result: StreamResult, _: int) -> bool:
        frame = result.frame
        assert isinstance(frame, np.ndarray)
        canvas = draw(frame, result.poses)
        write(canvas, f"{result.latency_ms:.0f} ms old", (8, 24))
        self._cv2.imshow(TITLE, self._cv2.cvtColor(canvas, self._cv2.COLOR_RGB2BGR))
        return self._cv2.waitKey(1) & 0xFF not in QUIT_KEYS
