"""Camera sensor model: lens blur, motion blur, vignetting, exposure, tone mapping, noise and JPEG compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from service.pose.types import Image


@dataclass(frozen=True, slots=True)
class Sensor:
    """Settings of the simulated camera for one image.

    Attributes:
        gain: float64 (3,), factors on linear red, green and blue: exposure and white balance.
        blur: Standard deviation of the Gaussian lens blur, px.
        shake: Motion blur as a vector (x, y), px; (0, 0) for none.
        noise: Standard deviation of the noise at middle grey, in pixel values 0..255.
        falloff: Vignetting: share of the light lost in the corners, 0..1.
        quality: JPEG quality, 0..100.
    """

    gain: np.ndarray
    blur: float
    shake: tuple[float, float]
    noise: float
    falloff: float
    quality: int


def sample(rng: np.random.Generator) -> Sensor:
    """Sample sensor settings: most give sharp, clean images; some add strong noise or motion blur."""
    shaken = rng.random() < 0.12
    length, way = rng.uniform(1, 7), rng.uniform(0, np.pi)
    return Sensor(
        gain=np.exp(rng.normal(0.25, 0.25)) * np.exp(rng.normal(0, 0.06, 3)),
        blur=float(max(0.0, rng.normal(0.2, 0.45))),
        shake=(float(length * np.cos(way)), float(length * np.sin(way))) if shaken else (0.0, 0.0),
        noise=float(rng.gamma(1.3, 2.2)),
        falloff=float(rng.uniform(0, 0.3)),
        quality=int(rng.integers(45, 97)),
    )


def expose(linear: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> Image:
    """Simulate the exposure of an image.

    Args:
        linear: float32 (H, W, 3), linear RGB.
        sensor: Settings of the camera.
        rng: Random number generator for the noise.

    Returns:
        uint8 (H, W, 3) RGB, gamma-encoded.
    """
    height, width = linear.shape[:2]
    if sensor.blur > 0.25:
        linear = cv2.GaussianBlur(linear, (0, 0), sensor.blur)
    if sensor.shake != (0.0, 0.0):
        linear = cv2.filter2D(linear, -1, _streak(sensor.shake))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lens = (1 - sensor.falloff * (x**2 + y**2) / 2).astype(np.float32)
    light = np.maximum(linear * lens[..., None] * sensor.gain.astype(np.float32), 0)
    # Compress highlights instead of clipping them: a variant of the tone mapping of Reinhard et al. 2002.
    light = light * (1 + light / 9) / (1 + light * 0.55)
    pixels = 255 * np.minimum(light * 1.35, 1) ** (1 / 2.2)
    grain = rng.standard_normal((height, width, 3), np.float32) * (sensor.noise * (0.4 + 0.6 * np.sqrt(pixels / 128)))
    return np.asarray(np.clip(pixels + grain + 0.5, 0, 255), np.uint8)


def encode(pixels: Image, quality: int) -> bytes:
    """Encode uint8 (H, W, 3) RGB as JPEG with ``quality`` 0..100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return bytes(data)


def _streak(shake: tuple[float, float]) -> np.ndarray:
    """Return a motion-blur kernel, float32 (n, n) with sum 1: a line along ``shake`` (x, y), px."""
    size = 2 * int(np.ceil(max(abs(shake[0]), abs(shake[1])) / 2)) + 3
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    start = (round((middle - shake[0] / 2) * 16), round((middle - shake[1] / 2) * 16))
    end = (round((middle + shake[0] / 2) * 16), round((middle + shake[1] / 2) * 16))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(kernel / kernel.sum())
