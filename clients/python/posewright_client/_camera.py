"""A camera: its frames for as long as it lives, over as many connections as that takes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import ConnectError, PosewrightError
from posewright_client._pictures import require_cv2
from posewright_client._retries import Retries

PATIENCE_S = 60.0
"""How long a camera that hung up is called again."""
WHOLE = 0.9
"""Share of the announced frames that a whole recording has at least: containers estimate the number."""


class Camera:
    """The frames of a device, an address or a file.

    A file ends, and so does a recording at an address, whose length OpenCV knows. Everything else is live: when it
    hangs up it is opened again, with back-off and jitter.

    Attributes:
        device: Number of the camera, or whatever else OpenCV opens: a path, an address.
        patience_s: How long to call a camera again that hung up.
        reconnects: How often it hung up and came back so far.
    """

    def __init__(self, device: int | str, patience_s: float = PATIENCE_S) -> None:
        self.device, self.patience_s, self.reconnects = device, patience_s, 0

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Read it, uint8 (H, W, 3) RGB.

        Raises:
            PosewrightError: It cannot be opened, hung up and did not come back, or is a recording that broke off.
        """
        cv2 = require_cv2("reading a camera")
        capture = cv2.VideoCapture(self.device)
        patience = Retries(attempts=1_000_000, budget_s=self.patience_s)
        read, failures, gone_s = 0, 0, 0.0
        try:
            if not capture.isOpened():
                raise PosewrightError(f"camera {self.device!r} cannot be opened; is it connected, and free?")
            announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            while True:
                while (bgr := capture.read()[1]) is not None:
                    if failures:
                        self.reconnects += 1
                        _tell(f"camera {self.device!r} is back")
                    read, failures = read + 1, 0
                    yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                if self._ends(read, announced):
                    return
                if not failures:
                    gone_s = time.monotonic()
                    _tell(f"camera {self.device!r} hung up after {read} frames; calling it again")
                failures += 1
                gone = ConnectError(
                    f"camera {self.device!r} hung up after {read} frames and did not come back within "
                    f"{self.patience_s:g} s (it had come back {self.reconnects} times before); is it still connected?"
                )
                delay_s = patience.delay_s(failures, gone, time.monotonic() - gone_s)
                if delay_s is None:
                    raise gone
                time.sleep(delay_s)
                capture.open(self.device)
        finally:
            capture.release()

    def _ends(self, read: int, announced: int) -> bool:
        """Tell whether no more frames than these can be expected.

        Raises:
            PosewrightError: More were announced.
        """
        if isinstance(self.device, str) and os.path.isfile(self.device):  # noqa: PTH113 - addresses may be no paths
            return True
        if announced > 0 and read < WHOLE * announced:
            raise PosewrightError(
                f"{self.device!r} broke off after {read} of {announced} frames; call it again, or download it first"
            )
        return announced > 0


def _tell(what: str) -> None:
    print(f"posewright-client: {what}", file=sys.stderr, flush=True)
