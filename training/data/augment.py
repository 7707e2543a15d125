"""Augmentation of whole batches on any device. The same generator gives the same samples.

The places where crops are cut from their canvases are drawn in numpy, since labels have to follow; pixels are changed
in torch, for all crops of a batch at once. The strengths follow RTMPose's two phases (arXiv 2303.07399, sec. 3.4):
`STRONG` for most of a long training and `LIGHT` for its end. `FAINT` (ours) is for the end of the training of a small
network, whose capacity light augmentation would use up for pictures that are not met in serving; `DETECTED` (ours) is
as faint, with boxes as inexact as a detector's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.pose import crop
from service.pose.skeleton import COCO17
from service.pose.types import Floats
from training.data.batch_rng import BatchRng


@dataclass(frozen=True, slots=True)
class Strength:
    """Strength of augmentation.

    Attributes:
        rotation: Standard deviation of the rotation, degrees.
        rotation_chance: Probability of a rotation.
        zoom: Smallest and largest factor on the field of view.
        shift: Maximum shift as a share of the crop's size.
        half_body_chance: Probability of showing half a body alone.
        color_chance: Probability of changed colours.
        soften_chance: Probability of reduced sharpness.
        noise_chance: Probability of noise.
        block_chance: Probability of compression artefacts.
        cutout_chance: Probability of a covered rectangle.
    """

    rotation: float
    rotation_chance: float
    zoom: tuple[float, float]
    shift: float
    half_body_chance: float
    color_chance: float
    soften_chance: float
    noise_chance: float
    block_chance: float
    cutout_chance: float


STRONG = Strength(30, 0.6, (0.75, 1.35), 0.08, 0.2, 0.7, 0.25, 0.15, 0.15, 0.4)
LIGHT = Strength(20, 0.4, (0.85, 1.2), 0.04, 0.05, 0.4, 0.1, 0.05, 0.05, 0.1)
FAINT = Strength(15, 0.15, (0.92, 1.1), 0.02, 0.02, 0.3, 0.03, 0.02, 0.02, 0.02)
DETECTED = replace(FAINT, zoom=(0.85, 1.2), shift=0.05)
STRENGTHS = {"strong": STRONG, "light": LIGHT, "faint": FAINT, "detected": DETECTED}

SOFTENINGS = (0.35, 0.5, 0.7)
"""Shares of the resolution that softened pictures keep."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601)."""


def place(
    keypoints: Floats,
    weights: Floats,
    view: Floats,
    padding: float,
    crop_size: tuple[int, int],
    strength: Strength,
    rng: np.random.Generator,
    upper: tuple[int, ...] = COCO17.upper,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw the place of each crop on its canvas: rotated, zoomed, shifted, and half of them mirrored.

    Args:
        keypoints: float32 (N, K, 2), canvas px.
        weights: float32 (N, K), 0 where a joint is unknown.
        view: float32 (N, 2, 3) or (2, 3), affines from crop px to canvas px without augmentation.
        padding: Factor on the box of half a body, as in ``view`` on the whole.
        crop_size: (width, height) of a crop in px.
        strength: Strength of the augmentation.
        rng: Generator.
        upper: Keypoints of the upper half; empty: no half bodies.

    Returns:
        Affines from crop px to canvas px, float32 (N, 2, 3), and whether each mirrors, bool (N,).
    """
    count = len(keypoints)
    boxes, enough = _half_bodies(keypoints, weights, rng.random(count) < 0.6, upper)
    halved = enough & (rng.random(count) < strength.half_body_chance)
    views = np.where(halved[:, None, None], crop.crop_to_image(boxes, crop_size, padding), view)
    mirrored = rng.random(count) < 0.5
    mirror = np.broadcast_to(np.eye(3), (count, 3, 3)).copy()
    mirror[mirrored, 0] = [-1, 0, crop_size[0] - 1]
    return (views @ _disturbances(count, crop_size, strength, rng) @ mirror).astype(np.float32), mirrored


def _disturbances(count: int, crop_size: tuple[int, int], strength: Strength, rng: np.random.Generator) -> Floats:
    """Draw similarity transforms about the crop's centre, (N, 3, 3), crop px to crop px."""
    size = np.array(crop_size)
    angle = np.radians(np.clip(rng.normal(0, strength.rotation, count), -2 * strength.rotation, 2 * strength.rotation))
    angle *= rng.random(count) < strength.rotation_chance
    zoom = np.exp(rng.uniform(np.log(strength.zoom[0]), np.log(strength.zoom[1]), count))
    shift = rng.uniform(-strength.shift, strength.shift, (count, 2)) * size
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    matrices = np.zeros((count, 3, 3), np.float32)
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1] = cos, -sin, sin, cos
    center = (size - 1) / 2
    matrices[:, :2, 2] = center + shift - matrices[:, :2, :2] @ center
    matrices[:, 2, 2] = 1
    return matrices


def _half_bodies(
    keypoints: Floats, weights: Floats, wants_upper: NDArray[np.bool_], upper: tuple[int, ...]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return boxes (N, 4) of the upper or lower joints, and where enough of them are known (arXiv 1812.00324)."""
    is_upper = np.isin(np.arange(keypoints.shape[1]), upper)
    known = (weights > 0) & (is_upper == wants_upper[:, None])
    low = np.where(known[..., None], keypoints, np.inf).min(axis=1)
    high = np.where(known[..., None], keypoints, -np.inf).max(axis=1)
    enough = (known.sum(axis=1) >= 4) & bool(upper)
    low, high = np.where(enough[:, None], low, 0), np.where(enough[:, None], high, 1)
    margin = 0.15 * (high - low).max(axis=1, keepdims=True)
    return np.concatenate([low - margin, high + margin], axis=1).astype(np.float32), enough


def sample(canvases: Tensor, to_canvas: Tensor, crop_size: tuple[int, int]) -> Tensor:
    """Cut crops out of their canvases as in serving: bilinear, with the same grey beyond the edge.

    Args:
        canvases: uint8 (N, H, W, 3) RGB.
        to_canvas: float32 (N, 2, 3), crop px to canvas px.
        crop_size: (width, height) in px.

    Returns:
        float32 (N, 3, height, width), 0..255.
    """
    if canvases.device.type != "cpu":
        return sample_together(canvases, to_canvas, crop_size)
    # On a CPU the serving crop, one after the other, is much faster.
    pairs = zip(canvases.numpy(), to_canvas.numpy(), strict=True)
    pixels = np.stack([crop.warp(canvas, affine, crop_size) for canvas, affine in pairs])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def sample_together(canvases: Tensor, to_canvas: Tensor, crop_size: tuple[int, int]) -> Tensor:
    """`sample` for an accelerator: one call for all crops that are halved equally often, as the serving crop halves."""
    # Contiguous planes: grid_sample is faster on them than on interleaved channels.
    pixels = canvases.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    pixels.sub_(crop.BORDER_RGB[0])
    halvings = to_canvas[:, :, :2].det().abs().sqrt().clamp_min(1).log2().int()
    sampled = pixels.new_empty(len(pixels), 3, crop_size[1], crop_size[0])
    for count in sorted(set(halvings.tolist())):
        rows, step = torch.nonzero(halvings == count)[:, 0], 2**count
        shrunk, to_shrunk = pixels[rows], to_canvas[rows] / step
        to_shrunk[:, :, 2] += 0.5 / step - 0.5
        if step > 1:  # bilinear sampling would skip pixels
            shrunk = F.avg_pool2d(shrunk, step)
        sampled[rows] = warp(shrunk, to_shrunk, crop_size)
    return sampled.add_(crop.BORDER_RGB[0])


def warp(maps: Tensor, to_maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample maps (N, C, H, W), bilinear, 0 beyond the edge, to (N, C, height, width).

    Args:
        maps: float.
        to_maps: float32 (N, 2, 3), from the result's pixels to the maps' pixels.
        size: (width, height) of the result.
    """
    width, height = size
    x = torch.arange(width, device=maps.device, dtype=torch.float32)
    y = torch.arange(height, device=maps.device, dtype=torch.float32)
    points = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width, device=maps.device)], dim=-1)
    grid = torch.einsum("hwj,nij->nhwi", points, to_maps)
    span = torch.tensor([maps.shape[3], maps.shape[2]], device=maps.device)
    return F.grid_sample(maps, (2 * grid + 1) / span - 1, align_corners=False)


def disturb(pixels: Tensor, strength: Strength, rng: BatchRng) -> Tensor:
    """Change colours, sharpness, noise and compression of some pictures, float (N, 3, h, w), 0..255.

    h and w must be multiples of 8.
    """
    for probability, change in (
        (strength.color_chance, recolor),
        (strength.soften_chance, soften),
        (strength.noise_chance, add_noise),
        (strength.block_chance, compress),
    ):
        chosen, rng_of_chosen = rng.some(probability)
        if rng_of_chosen.total:
            rows = torch.from_numpy(chosen).to(pixels.device)
            pixels = pixels.index_copy(0, rows, change(pixels[rows], rng_of_chosen).clamp(0, 255))
    return pixels


def recolor(pixels: Tensor, rng: BatchRng) -> Tensor:
    """Change gamma, the gain of each channel and the offset; move some pictures towards grey."""
    count = len(pixels)
    gamma = np.exp(rng.uniform(-0.3, 0.3, (count, 1, 1, 1)))
    gain = rng.uniform(0.7, 1.3, (count, 1, 1, 1)) * rng.uniform(0.9, 1.1, (count, 3, 1, 1))
    offset = rng.uniform(-25, 25, (count, 1, 1, 1))
    grey = rng.uniform(0.3, 1.0, (count, 1, 1, 1)) * (rng.random((count, 1, 1, 1)) < 0.3)
    gamma_, gain_, offset_, grey_ = (_like(pixels, v) for v in (gamma, gain, offset, grey))
    pixels = (pixels / 255).clamp_min(1e-4) ** gamma_ * 255 * gain_ + offset_
    luma = (pixels * _like(pixels, np.array(LUMA)).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return pixels + grey_ * (luma - pixels)


def soften(pixels: Tensor, rng: BatchRng) -> Tensor:
    """Remove detail as a distant camera does: shrink and enlarge."""
    height, width = pixels.shape[2:]
    softened = torch.empty_like(pixels)
    level = rng.integers(0, len(SOFTENINGS), len(pixels))
    for i, share in enumerate(SOFTENINGS):
        rows = torch.from_numpy(np.flatnonzero(level == i)).to(pixels.device)
        small = F.interpolate(
            pixels[rows], size=(round(height * share), round(width * share)), mode="bilinear", antialias=True
        )
        softened[rows] = F.interpolate(small, size=(height, width), mode="bilinear")
    return softened


def add_noise(pixels: Tensor, rng: BatchRng) -> Tensor:
    """Add Gaussian noise of a standard deviation of 2 to 12 of 255."""
    generator = torch.Generator(pixels.device).manual_seed(rng.seed())
    deviation = _like(pixels, rng.uniform(2, 12, (len(pixels), 1, 1, 1)))
    noise = torch.randn((rng.total, *pixels.shape[1:]), generator=generator, device=pixels.device)
    return pixels + deviation * noise[torch.from_numpy(rng.kept).to(pixels.device)]


def compress(pixels: Tensor, rng: BatchRng) -> Tensor:
    """Add JPEG artefacts: an 8 x 8 cosine transform, quantised by the standard's luma table (ITU T.81, table K.1).

    All channels are treated equally and none is subsampled: this imitates the blocks, not the exact codec.
    """
    count, channels, height, width = pixels.shape
    quality = rng.uniform(15, 60, (count, 1, 1, 1, 1, 1))
    scale = np.where(quality < 50, 50 / quality, 2 - quality / 50)  # libjpeg's jpeg_quality_scaling
    table = _like(pixels, np.maximum(np.round(JPEG_LUMA.reshape(1, 1, 1, 1, 8, 8) * scale), 1))
    cosines = _like(pixels, _cosines())
    blocks = pixels.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    spectrum = cosines @ (blocks - 128) @ cosines.T
    blocks = cosines.T @ ((spectrum / table).round() * table) @ cosines + 128
    return blocks.transpose(3, 4).reshape(pixels.shape)


def cut_out(
    pixels: Tensor, keypoints_crop: Floats, known: NDArray[np.bool_], strength: Strength, rng: BatchRng
) -> Tensor:
    """Cover a rectangle near a known joint of some people with a random colour (arXiv 1708.04552).

    Args:
        pixels: float (N, 3, h, w), 0..255.
        keypoints_crop: float32 (N, K, 2), crop px.
        known: bool (N, K), the joints to choose from; people without any are not covered.
        strength: Gives the probability.
        rng: Generator.
    """
    count, _, height, width = pixels.shape
    chosen = (rng.random(count) < strength.cutout_chance) & known.any(axis=1)
    rank = np.floor(rng.random(count) * known.sum(axis=1)) + 1  # of the joint among the known ones
    joint = keypoints_crop[np.arange(count), (known.cumsum(axis=1) >= rank[:, None]).argmax(axis=1)]
    middle = _like(pixels, joint + rng.normal(0, 0.05 * height, (count, 2)))
    half = _like(pixels, rng.uniform(0.05, 0.18, (count, 2)) * height * chosen[:, None])
    color = _like(pixels, rng.uniform(0, 255, (count, 3, 1, 1)))
    x, y = (torch.arange(side, device=pixels.device) for side in (width, height))
    in_x = (x - middle[:, :1]).abs() < half[:, :1]
    in_y = (y - middle[:, 1:]).abs() < half[:, 1:]
    return torch.where((in_y[:, :, None] & in_x[:, None, :])[:, None], color, pixels)


def to_bytes(pixels: Tensor) -> Tensor:
    """Turn pictures float (N, 3, h, w), 0..255, into the networks' input uint8 (N, h, w, 3)."""
    return pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)


JPEG_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # fmt: skip


def _cosines() -> Floats:
    """Return the matrix of the orthonormal cosine transform, (8, 8), with a frequency in each row."""
    row, column = np.arange(8)[:, None], np.arange(8)[None]
    matrix = np.cos((2 * column + 1) * row * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _like(pixels: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(pixels.device, non_blocking=True)
