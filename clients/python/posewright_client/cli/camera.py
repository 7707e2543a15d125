"""Reads a camera, and reopens it when it disconnects."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import ConnectError, PosewrightError
from posewright_client._pictures import require_cv2
from posewright_client._retries import Retries

PATIENCE_S = 60.0
"""Default time for which a disconnected camera is reopened."""
COMPLETE = 0.9
"""Fraction of the announced frames that a complete recording has at least; containers only estimate the number."""


class CameraReader:
    """Reads the frames of a device, an address or a file.

    A file ends, and so does a recording at an address, whose number of frames OpenCV knows. Every other source is live:
    when it disconnects, it is opened again, with back-off and jitter.

    Attributes:
        device: Number of the camera, or a path or address that OpenCV can open.
        patience_s: How long to try to reopen a camera, seconds.
        reconnects: How often the camera has disconnected and come back so far.
    """

    def __init__(self, device: int | str, patience_s: float = PATIENCE_S) -> None:
        self.device, self.patience_s, self.reconnects = device, patience_s, 0

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield frames, uint8 (H, W, 3) RGB.

        Raises:
            PosewrightError: The camera cannot be opened, disconnected and did not come back, or is a recording that
                ended early.
        """
        cv2 = require_cv2("reading a camera")
        capture = cv2.VideoCapture(self.device)
        try:
            if not capture.isOpened():
                raise PosewrightError(f"camera {self.device!r} cannot be opened; is it connected, and not in use?")
            announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            read = 0
            while True:
                while (bgr := capture.read()[1]) is not None:
                    read += 1
                    yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                if self._is_complete(read, announced):
                    return
                bgr = self._reopen(capture, read)
                read += 1
                yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def _reopen(self, capture: Any, read: int) -> NDArray[np.uint8]:
        """Open the camera again until it delivers a frame, BGR.

        Raises:
            ConnectError: The camera did not come back in time.
        """
        _print(f"camera {self.device!r} disconnected after {read} frames; reconnecting")
        retries = Retries(attempts=1_000_000, budget_s=self.patience_s)
        disconnected_s, failures = time.monotonic(), 0
        while True:
            failures += 1
            error = ConnectError(
                f"camera {self.device!r} disconnected after {read} frames and did not come back within "
                f"{self.patience_s:g} s (after {self.reconnects} earlier reconnects); is it still connected?"
            )
            delay_s = retries.delay_s(failures, error, time.monotonic() - disconnected_s)
            if delay_s is None:
                raise error
            time.sleep(delay_s)
            capture.open(self.device)
            bgr: NDArray[np.uint8] | None = capture.read()[1]
            if bgr is not None:
                self.reconnects += 1
                _print(f"camera {self.device!r} is back")
                return bgr

    def _is_complete(self, read: int, announced: int) -> bool:
        """Return whether the source is a recording that has been read to its end.

        Raises:
            PosewrightError: The recording ended early.
        """
        if isinstance(self.device, str) and os.path.isfile(self.device):  # noqa: PTH113 - addresses may be no paths
            return True
        if announced > 0 and read < COMPLETE * announced:
            raise PosewrightError(
                f"{self.device!r}: the recording ended after {read} of {announced} frames; run the command again, or "
                "download the recording first"
            )
        return announced > 0


def _print(text: str) -> None:
    print(f"posewright-client: {text}", file=sys.stderr, flush=True)
