"""Fit a whole image into a network's input of a fixed size, with the exact transform back.

Pixel centres lie at integer coordinates, as in `service.pose.crop`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from service.pose.types import Floats

Fitting = Literal["center", "top_left", "stretch"]
"""Where the image lies in the input: in its middle or its top left corner, with bars beside it; or stretched onto all
of it, without bars."""


def input_to_image(image_size: tuple[int, int], input_size: tuple[int, int], fitting: Fitting) -> Floats:
    """Affine from input pixels to image pixels, float32 (2, 3).

    Args:
        image_size: (width, height) of the image, px.
        input_size: (width, height) of the network's input, px.
        fitting: Where the image lies.
    """
    sizes, inputs = np.array(image_size, np.float64), np.array(input_size, np.float64)
    scale = sizes / inputs  # image px per input px
    if fitting != "stretch":
        scale[:] = scale.max()
    # Pixel centres are half a pixel from the image's left and top edge: (x + 1/2) / scale - 1/2 is where x lies.
    offset = (scale - 1) / 2 if fitting == "top_left" else (sizes - 1 - scale * (inputs - 1)) / 2
    return np.concatenate([np.diag(scale), offset[:, None]], axis=1).astype(np.float32)
