"""Augmentation: functions of pictures, points and a random generator. The same seed gives the same sample.

Strengths follow RTMPose's two phases (arXiv 2303.07399, sec. 3.4): `STRONG` for most of a training, `LIGHT` to end it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from service.pose import crop
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Image


@dataclass(frozen=True, slots=True)
class Strength:
    """How far augmentation goes. Angles in degrees, shares of the crop's size, probabilities 0..1."""

    rotation: float
    rotation_chance: float
    zoom: tuple[float, float]
    shift: float
    half_body_chance: float
    color_chance: float
    soften_chance: float
    cutout_chance: float


STRONG = Strength(30, 0.6, (0.75, 1.35), 0.08, 0.2, 0.7, 0.25, 0.4)
LIGHT = Strength(20, 0.4, (0.85, 1.2), 0.04, 0.05, 0.4, 0.1, 0.1)
STRENGTHS = {"strong": STRONG, "light": LIGHT}

UPPER_BODY = 11  # COCO-17: nose to wrists come before hips, knees, ankles.


def augment_person(
    canvas: Image,
    keypoints: Floats,
    weights: Floats,
    view: Floats,
    crop_size: tuple[int, int],
    skeleton: Skeleton,
    strength: Strength,
    rng: np.random.Generator,
) -> tuple[Image, Floats, Floats]:
    """Cut a randomly placed, turned, mirrored and disturbed crop out of a canvas.

    Args:
        canvas: uint8 (H, W, 3) RGB.
        keypoints: float32 (K, 2), canvas px.
        weights: float32 (K,), 0 where a target is unknown.
        view: float32 (2, 3), the undisturbed affine from crop px to canvas px.
        crop_size: (width, height) of the crop in px.
        skeleton: Gives the mirror partners.
        strength: How far to go.
        rng: The only source of chance.

    Returns:
        Crop uint8 (height, width, 3), keypoints float32 (K, 2) in crop px, weights (K,), 0 also outside the crop.
    """
    if rng.random() < strength.half_body_chance:
        view = _half_body(view, keypoints, weights, crop_size, rng)
    to_canvas = view @ _disturbance(crop_size, strength, rng)
    pixels = crop.warp(canvas, to_canvas, crop_size)
    keypoints_crop = crop.transform(keypoints[None], crop.invert(to_canvas[None]))[0]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        keypoints_crop = keypoints_crop[list(skeleton.flip)]
        keypoints_crop[:, 0] = crop_size[0] - 1 - keypoints_crop[:, 0]
        weights = weights[list(skeleton.flip)]
    pixels = disturb_pixels(pixels, strength, rng)
    if rng.random() < strength.cutout_chance:
        pixels = _cut_out(pixels, keypoints_crop, rng)
    inside = ((keypoints_crop >= -0.5) & (keypoints_crop <= np.array(crop_size) - 0.5)).all(axis=1)
    return np.ascontiguousarray(pixels), keypoints_crop, weights * inside


def _disturbance(crop_size: tuple[int, int], strength: Strength, rng: np.random.Generator) -> Floats:
    """Random similarity about the crop's centre, float32 (3, 3), crop px to crop px."""
    width, height = crop_size
    angle = 0.0
    if rng.random() < strength.rotation_chance:
        angle = math.radians(
            float(np.clip(rng.normal(0, strength.rotation), -2 * strength.rotation, 2 * strength.rotation))
        )
    zoom = math.exp(rng.uniform(math.log(strength.zoom[0]), math.log(strength.zoom[1])))
    shift = rng.uniform(-strength.shift, strength.shift, 2) * [width, height]
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3, dtype=np.float32)
    matrix[:2, :2] = linear
    matrix[:2, 2] = center + shift - linear @ center
    return matrix


def _half_body(
    view: Floats, keypoints: Floats, weights: Floats, crop_size: tuple[int, int], rng: np.random.Generator
) -> Floats:
    """Look at the upper or lower half of the joints alone, where enough of them are known (arXiv 1812.00324)."""
    upper = np.arange(len(keypoints)) < UPPER_BODY
    half = upper if rng.random() < 0.6 else ~upper
    known = keypoints[half & (weights > 0)]
    if len(known) < 4:
        return view
    box = np.concatenate([known.min(axis=0), known.max(axis=0)])
    margin = np.tile(0.15 * (box[2:] - box[:2]).max(), 2)
    box = np.concatenate([box[:2] - margin, box[2:] + margin]).astype(np.float32)
    return np.asarray(crop.crop_to_image(box[None], crop_size, 1.25)[0], np.float32)


def disturb_pixels(pixels: Image, strength: Strength, rng: np.random.Generator) -> Image:
    """Change colours and sharpness of uint8 (H, W, 3) RGB."""
    if rng.random() < strength.color_chance:
        pixels = _recolor(pixels, rng)
    if rng.random() < strength.soften_chance:
        pixels = _soften(pixels, rng)
    return pixels


def _soften(pixels: Image, rng: np.random.Generator) -> Image:
    """Lose detail as a distant camera does: shrink, half of the time compress, enlarge."""
    height, width = pixels.shape[:2]
    factor = rng.uniform(0.3, 0.8)
    size = (max(8, int(width * factor)), max(8, int(height * factor)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(20, 70))
        encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        small = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _recolor(pixels: Image, rng: np.random.Generator) -> Image:
    """Per-channel gain and offset, gamma, and partial greying, as one table and one blend."""
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    offset = rng.uniform(-25, 25)
    gamma = math.exp(rng.uniform(-0.3, 0.3))
    ramp = (np.arange(256)[:, None] / 255) ** gamma * 255
    table = np.clip(ramp * gain + offset, 0, 255).astype(np.uint8)
    pixels = np.asarray(cv2.LUT(np.ascontiguousarray(pixels), table[None]), np.uint8)
    if rng.random() < 0.3:
        grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = rng.uniform(0.3, 1.0)
        pixels = np.asarray(cv2.addWeighted(grey, share, pixels, 1 - share, 0), np.uint8)
    return pixels


def _cut_out(pixels: Image, keypoints_crop: Floats, rng: np.random.Generator) -> Image:
    """Cover a rectangle near a joint with one colour or with noise (arXiv 1708.04552)."""
    pixels = np.array(pixels)
    height, width = pixels.shape[:2]
    x, y = keypoints_crop[rng.integers(len(keypoints_crop))] + rng.normal(0, 0.05 * height, 2)
    half_w, half_h = rng.uniform(0.05, 0.18) * height, rng.uniform(0.05, 0.18) * height
    left, right = (int(np.clip(v, 0, width)) for v in (x - half_w, x + half_w))
    top, bottom = (int(np.clip(v, 0, height)) for v in (y - half_h, y + half_h))
    shape = pixels[top:bottom, left:right].shape
    pixels[top:bottom, left:right] = rng.integers(0, 256, shape if rng.random() < 0.3 else (1, 1, 3))
    return pixels
