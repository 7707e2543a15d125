/** Reads the pixels of a picture, and resizes them. */

import { clientType, PosewrightError } from "../errors.js";
import { sizeOf, unreadable } from "../picture.js";

/** @typedef {import("../picture.js").Source} Source */
/**
 * @typedef {object} Pixels
 * @property {Uint8Array | Uint8ClampedArray} data Row by row.
 * @property {number} width
 * @property {number} height
 * @property {3 | 4} channels RGB or RGBA; alpha is ignored.
 */

/**
 * Read a picture upright, transparent parts over white.
 *
 * @param {Source} source
 * @returns {Promise<Pixels>}
 */
export async function readPixels(source) {
  if (!(source instanceof Blob)) return readDrawable(source);
  // Colour profiles are ignored, as the server does.
  const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" }).catch((cause) => {
    const detail = `expected a picture that this browser can decode, got ${source.type || "a file of unknown type"}`;
    throw new PosewrightError(detail, { status: 415, type: clientType("source"), cause });
  });
  try {
    return readDrawable(bitmap);
  } finally {
    bitmap.close();
  }
}

/**
 * @param {Exclude<Source, Blob>} source
 * @returns {Pixels}
 */
function readDrawable(source) {
  const { width, height } = sizeOf(source);
  if (!width || !height) {
    const detail = "expected a loaded picture, got one without a size; wait until it has loaded";
    throw new PosewrightError(detail, { type: clientType("source") });
  }
  const canvas =
    typeof OffscreenCanvas === "undefined"
      ? Object.assign(document.createElement("canvas"), { width, height })
      : new OffscreenCanvas(width, height);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  try {
    context.drawImage(source, 0, 0, width, height);
    return { data: context.getImageData(0, 0, width, height).data, width, height, channels: 4 };
  } catch (cause) {
    throw unreadable(cause);
  }
}

/**
 * Resize as OpenCV's `resize` does: by area averaging where the width shrinks, otherwise bilinearly.
 *
 * @param {Pixels} image
 * @param {number} width
 * @param {number} height
 * @returns {Uint8Array} RGB, row by row.
 */
export function resize(image, width, height) {
  return width < image.width && height <= image.height
    ? resizeByArea(image, width, height)
    : resizeLinearly(image, width, height);
}

/**
 * @param {Pixels} image
 * @param {number} width
 * @param {number} height
 */
function resizeByArea({ data, width: fromWidth, height: fromHeight, channels }, width, height) {
  const [across, down] = [areaTaps(fromWidth, width), areaTaps(fromHeight, height)];
  const rows = new Float32Array(fromHeight * width * 3);
  for (let y = 0, to = 0; y < fromHeight; y += 1) {
    const row = y * fromWidth * channels;
    for (const { first, weights } of across) {
      let [r, g, b] = [0, 0, 0];
      for (let i = 0, at = row + first * channels; i < weights.length; i += 1, at += channels) {
        r += weights[i] * data[at];
        g += weights[i] * data[at + 1];
        b += weights[i] * data[at + 2];
      }
      rows[to++] = r;
      rows[to++] = g;
      rows[to++] = b;
    }
  }
  const resized = new Uint8ClampedArray(width * height * 3); // rounds halves to even, as OpenCV does
  const sums = new Float32Array(width * 3);
  down.forEach(({ first, weights }, y) => {
    sums.fill(0);
    weights.forEach((weight, i) => {
      const row = (first + i) * width * 3;
      for (let x = 0; x < sums.length; x += 1) sums[x] += weight * rows[row + x];
    });
    resized.set(sums, y * sums.length);
  });
  return new Uint8Array(resized.buffer);
}

/** @typedef {{ first: number, weights: number[] }} Taps The source pixels of one resized pixel, along one axis. */

/**
 * @param {number} from
 * @param {number} to
 * @returns {Taps[]}
 */
function areaTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const [low, high] = [i * scale, Math.min((i + 1) * scale, from)];
    const first = Math.floor(low);
    const count = Math.max(1, Math.ceil(high - 1e-6) - first);
    const shares = Array.from({ length: count }, (_, k) => Math.min(high, first + k + 1) - Math.max(low, first + k));
    const sum = shares.reduce((a, b) => a + b);
    return { first, weights: shares.map((share) => share / sum) };
  });
}

/**
 * In OpenCV's fixed-point arithmetic, which does not round to the nearest value.
 *
 * @param {Pixels} image
 * @param {number} width
 * @param {number} height
 */
function resizeLinearly({ data, width: fromWidth, height: fromHeight, channels }, width, height) {
  const [across, down] = [linearTaps(fromWidth, width), linearTaps(fromHeight, height)];
  const resized = new Uint8Array(width * height * 3);
  let to = 0;
  for (const { low: y0, high: y1, near: b0, far: b1 } of down) {
    for (const { low: x0, high: x1, near: a0, far: a1 } of across) {
      for (let channel = 0; channel < 3; channel += 1) {
        const at = (/** @type {number} */ x, /** @type {number} */ y) => data[(y * fromWidth + x) * channels + channel];
        const above = (at(x0, y0) * a0 + at(x1, y0) * a1) >> 4;
        const below = (at(x0, y1) * a0 + at(x1, y1) * a1) >> 4;
        resized[to++] = (((b0 * above) >> 16) + ((b1 * below) >> 16) + 2) >> 2;
      }
    }
  }
  return resized;
}

/**
 * @param {number} from
 * @param {number} to
 * @returns {{ low: number, high: number, near: number, far: number }[]} Two source pixels and their weights of 2048.
 */
function linearTaps(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(at);
    const far = Math.round((at - low) * 2048);
    return { low, high: Math.min(low + 1, from - 1), near: 2048 - far, far };
  });
}
