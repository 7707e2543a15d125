"""Crop people out of an image, with the exact transforms back to it.

The pixel convention of the whole project: pixel centres lie at integer coordinates, so a crop of width W covers
[-1/2, W - 1/2] and its centre is (W - 1) / 2. Cell i of a heatmap with stride s covers crop pixels [i·s, (i + 1)·s);
its centre is (i + 1/2)·s - 1/2. Without the half-pixel terms every keypoint would be shifted by (s - 1) / 2.
"""

from __future__ import annotations

import cv2
import numpy as np

from service.pose.types import Boxes, Crops, Floats, Image

BORDER_RGB = (114, 114, 114)
"""Colour of a crop beyond the image's edge."""


def crop_to_image(boxes: Boxes, crop_size: tuple[int, int], padding: float) -> Floats:
    """Affines from crop pixels to image pixels, float32 (N, 2, 3).

    A box is enlarged about its centre to the crop's aspect ratio, then by the factor ``padding``.

    Args:
        boxes: float32 (N, 4) xyxy, image px.
        crop_size: (width, height) of a crop in px.
        padding: Factor on the enlarged box; 1.25 adds a quarter.
    """
    width, height = crop_size
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    scale = padding * np.maximum(extent[:, 0] / width, extent[:, 1] / height)  # image px per crop px
    to_image = np.zeros((len(boxes), 2, 3), np.float32)
    to_image[:, 0, 0] = to_image[:, 1, 1] = scale
    to_image[:, 0, 2] = center[:, 0] - scale * (width - 1) / 2
    to_image[:, 1, 2] = center[:, 1] - scale * (height - 1) / 2
    return to_image


def cut(image: Image, boxes: Boxes, crop_size: tuple[int, int], padding: float) -> Crops:
    """Crop every box out of an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        boxes: float32 (N, 4) xyxy, image px; may reach beyond the image.
        crop_size: (width, height) of a crop in px.
        padding: See `crop_to_image`.
    """
    to_image = crop_to_image(boxes, crop_size, padding)
    pixels = np.empty((len(boxes), crop_size[1], crop_size[0], 3), np.uint8)
    for i, affine in enumerate(to_image):
        pixels[i] = warp(image, affine, crop_size)
    return Crops(pixels, to_image)


def warp(image: Image, to_image: Floats, crop_size: tuple[int, int]) -> Image:
    """Resample one crop, uint8 (height, width, 3), through its affine ``to_image`` (2, 3).

    Bilinear sampling reads four pixels at any scale, so that it skips pixels when it shrinks by more than two. The
    region is therefore first halved by area averaging until less than a factor of two is left.
    """
    step = 2 ** int(np.log2(max(1.0, np.sqrt(abs(np.linalg.det(to_image[:, :2]))))))
    if step >= 2:
        image, to_image = _shrink(image, to_image, crop_size, step)
    return np.asarray(
        cv2.warpAffine(
            image,
            to_image,
            crop_size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=BORDER_RGB,
        ),
        np.uint8,
    )


def _shrink(image: Image, to_image: Floats, crop_size: tuple[int, int], step: int) -> tuple[Image, Floats]:
    """Shrink the part of ``image`` that a crop reads by ``step``, a power of two; returns it and the affine onto it.

    It is halved repeatedly, because OpenCV has vector instructions for a factor of two only.
    """
    width, height = crop_size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float32) @ to_image.T
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - step, 0, None)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + step, low + step, None)
    region = image[low[1] : high[1], low[0] : high[0]]
    cells_h, cells_w = region.shape[0] // step, region.shape[1] // step
    if not cells_h or not cells_w:
        return image, to_image
    small = region[: cells_h * step, : cells_w * step]
    while small.shape[0] > cells_h:
        half = (small.shape[1] // 2, small.shape[0] // 2)
        small = np.asarray(cv2.resize(small, half, interpolation=cv2.INTER_AREA), np.uint8)
    # Image x -> small x: (x - low + 1/2) / step - 1/2.
    onto = np.asarray(to_image / step, np.float32)
    onto[:, 2] = (to_image[:, 2] - low + 0.5) / step - 0.5
    return small, onto


def transform(points: Floats, affines: Floats) -> Floats:
    """Map points (N, K, 2) by affines (N, 2, 3), e.g. crop px by ``Crops.to_image``."""
    return np.asarray(points @ affines[:, :, :2].transpose(0, 2, 1) + affines[:, None, :, 2], np.float32)


def pixel_sizes(affines: Floats) -> Floats:
    """Size of a crop pixel in image px by the affines ``Crops.to_image`` (N, 2, 3), float32 (N,)."""
    return np.asarray(np.sqrt(np.abs(np.linalg.det(affines[:, :, :2]))), np.float32)


def transform_covariances(covariances: Floats, affines: Floats) -> Floats:
    """Map covariances (N, K, 2, 2) of points by affines (N, 2, 3), e.g. crop px² by ``Crops.to_image``."""
    linear = affines[:, None, :, :2]
    return np.asarray(linear @ covariances @ linear.swapaxes(2, 3), np.float32)


def invert(affines: Floats) -> Floats:
    """Invert affines (N, 2, 3)."""
    linear = np.linalg.inv(affines[:, :, :2])
    return np.concatenate([linear, -linear @ affines[:, :, 2:]], axis=2).astype(np.float32)
