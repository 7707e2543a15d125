"""Shows pictures in notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from posewright_client._drawing import THRESHOLD, draw
from posewright_client._errors import MissingExtra
from posewright_client._pictures import Picture, encode_jpeg, require_cv2, to_pixels
from posewright_client._results import Pose

LONGEST_SIDE = 1024


def show(
    picture: Picture, people: Iterable[Pose], threshold: float = THRESHOLD, longest_side: int = LONGEST_SIDE
) -> None:
    """Show a picture with its skeletons below the cell of a notebook, e.g. of Jupyter.

    Args:
        picture: As in `draw`.
        people: As in `draw`.
        threshold: As in `draw`.
        longest_side: Larger pictures are scaled down to it, so that the notebook's file stays small, px.

    Raises:
        MissingExtra: IPython or OpenCV is not installed.
        PosewrightError, ValueError, OSError, TypeError: As `draw`.
    """
    try:
        from IPython.display import Image, display  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtra("show() needs a notebook: pip install ipython") from error
    cv2 = require_cv2("drawing")
    drawn = draw(to_pixels(picture), people, threshold)
    height, width, _ = drawn.shape
    scale = min(1.0, longest_side / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        drawn = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    display(Image(data=encode_jpeg(drawn), format="jpeg"))
