"""Which tracks are near one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.streaming.tracking.track import Track

CROP_MARGIN = 0.15
"""Share of a box's longer side by which a crop extends beyond it, because of padding and the network's aspect ratio."""
OVERLAP_IOU = 0.1
"""IoU above which two boxes overlap: the appearance seen in them may be partly the other person's."""


@dataclass(frozen=True, slots=True)
class Crowding:
    """What is near each of T tracks.

    Attributes:
        in_crop: bool (T,), whether others can be seen in the crop around the predicted box.
        overlapped: bool (T,), whether another predicted box overlaps.
    """

    in_crop: NDArray[np.bool_]
    overlapped: NDArray[np.bool_]

    @classmethod
    def of(cls, tracks: Sequence[Track], time_s: float) -> Crowding:
        """Compare the boxes that are predicted for ``time_s``."""
        boxes = np.asarray([track.predicted_box(time_s) for track in tracks], np.float32).reshape(-1, 4)
        overlapped = (boxes_.iou(boxes, boxes) > OVERLAP_IOU).sum(axis=1) > 1
        margin = CROP_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0)
        crops = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
        return cls(np.asarray((boxes_.overlap(crops, crops) > 0).sum(axis=1) > 1), np.asarray(overlapped))
