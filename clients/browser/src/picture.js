/** Turns pictures into files for the server, and maps coordinates between the two. */

import { clientType, PosewrightError } from "./errors.js";
import { makeBox } from "./wire.js";

/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */
/** @typedef {HTMLVideoElement | HTMLCanvasElement | OffscreenCanvas | HTMLImageElement | ImageBitmap} Drawable */
/** @typedef {Drawable | Blob} Source A picture; a `File` is a `Blob`. */

/** Types that the server reads, so that blobs of them are sent unchanged. */
const SERVER_TYPES = ["image/jpeg", "image/png", "image/webp"];

/** How a picture was resized before it was sent; maps coordinates there and back. */
export class Scale {
  /**
   * @param {number} x Pixels of the source per pixel of the sent picture.
   * @param {number} y
   */
  constructor(x = 1, y = 1) {
    this.x = x;
    this.y = y;
  }

  /**
   * Map a pose from the sent picture to the source, in place.
   *
   * @param {Pose} pose
   * @returns {Pose} The same object.
   */
  poseToSource(pose) {
    // Pixel centres are at integers, so the picture begins half a pixel before the first one.
    const { x, y } = this;
    for (const keypoint of pose.keypoints) {
      keypoint.x = (keypoint.x + 0.5) * x - 0.5;
      keypoint.y = (keypoint.y + 0.5) * y - 0.5;
      if (keypoint.covariance) {
        const [[xx, xy], [, yy]] = keypoint.covariance;
        keypoint.covariance = [[xx * x * x, xy * x * y], [xy * x * y, yy * y * y]];
      }
    }
    const { xMin, yMin, width, height } = pose.box;
    pose.box = makeBox((xMin + 0.5) * x - 0.5, (yMin + 0.5) * y - 0.5, width * x, height * y);
    return pose;
  }

  /**
   * @param {[number, number, number, number]} box [x, y, width, height] in pixels of the source.
   * @returns {number[]} The same in pixels of the sent picture.
   */
  boxToSent([left, top, width, height]) {
    return [(left + 0.5) / this.x - 0.5, (top + 0.5) / this.y - 0.5, width / this.x, height / this.y];
  }

  /**
   * @param {Size} sent
   * @returns {Size} Size of the source.
   */
  sizeOfSource({ width, height }) {
    return { width: Math.round(width * this.x), height: Math.round(height * this.y) };
  }
}

/** Encodes pictures as JPEG, on a canvas that it keeps for the next one. */
export class JpegEncoder {
  /** @type {OffscreenCanvas | HTMLCanvasElement | null} */
  #canvas = null;

  /**
   * @param {Drawable} source
   * @param {number} maxSide Longest side of the JPEG, pixels.
   * @param {number} quality 0..1.
   * @returns {Promise<{ blob: Blob, scale: Scale }>}
   */
  async encode(source, maxSide, quality) {
    const { width, height } = sizeOf(source);
    if (!width || !height) {
      const detail = "expected a loaded picture, got one without a size; wait until it has loaded";
      throw new PosewrightError(detail, { type: clientType("source") });
    }
    const factor = Math.min(1, maxSide / Math.max(width, height));
    const [sentWidth, sentHeight] = [width, height].map((side) => Math.max(1, Math.round(side * factor)));
    const canvas = this.#resize(sentWidth, sentHeight);
    // Every frame is read back, which is faster from a canvas in main memory.
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    const drawing = /** @type {CanvasRenderingContext2D} */ (context);
    drawing.fillStyle = "white"; // behind transparent pixels, as on the server
    drawing.fillRect(0, 0, sentWidth, sentHeight);
    drawing.drawImage(source, 0, 0, sentWidth, sentHeight);
    return { blob: await toJpeg(canvas, quality), scale: new Scale(width / sentWidth, height / sentHeight) };
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  #resize(width, height) {
    const canvas = this.#canvas ?? makeCanvas(width, height);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.#canvas = canvas;
    return canvas;
  }
}

/**
 * Encode a picture for the server. Blobs of types that the server reads are sent unchanged; others are decoded by the
 * browser, which may know more types.
 *
 * @param {Source} source
 * @param {number} maxSide Longest side, pixels; does not apply to blobs.
 * @param {number} quality JPEG quality, 0..1.
 * @returns {Promise<{ blob: Blob, scale: Scale }>}
 */
export async function encode(source, maxSide, quality) {
  if (!(source instanceof Blob)) return encodeReadable(source, maxSide, quality);
  if (SERVER_TYPES.includes(source.type)) return { blob: source, scale: new Scale() };
  const bitmap = await createImageBitmap(source).catch((cause) => {
    const got = source.type || "a file of unknown type";
    const detail = `expected a picture that this browser can decode, got ${got}; use a JPEG, PNG or WebP`;
    throw new PosewrightError(detail, { status: 415, type: clientType("source"), cause });
  });
  try {
    return await encodeReadable(bitmap, Infinity, quality);
  } finally {
    bitmap.close();
  }
}

/**
 * @param {Drawable} source
 * @param {number} maxSide
 * @param {number} quality
 */
async function encodeReadable(source, maxSide, quality) {
  try {
    return await new JpegEncoder().encode(source, maxSide, quality);
  } catch (cause) {
    throw unreadable(cause);
  }
}

/**
 * The error for a source whose pixels cannot be read.
 *
 * @param {unknown} cause Most likely a SecurityError: pictures of other origins stay unreadable. Our own errors are kept.
 * @returns {PosewrightError}
 */
export function unreadable(cause) {
  if (cause instanceof PosewrightError) return cause;
  return new PosewrightError(`expected a source whose pixels can be read: ${cause}`, { cause, type: clientType("source") });
}

/**
 * Size of what a source shows now; 0 x 0 if it shows nothing yet.
 *
 * @param {Drawable} source
 * @returns {Size}
 */
export function sizeOf(source) {
  if (typeof HTMLVideoElement !== "undefined" && source instanceof HTMLVideoElement) {
    // A video has a size before its first frame is decoded.
    const hasFrame = source.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    return { width: hasFrame ? source.videoWidth : 0, height: hasFrame ? source.videoHeight : 0 };
  }
  if (typeof HTMLImageElement !== "undefined" && source instanceof HTMLImageElement) {
    return { width: source.naturalWidth, height: source.naturalHeight };
  }
  return { width: source.width, height: source.height };
}

/**
 * @param {number} width
 * @param {number} height
 */
function makeCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

/**
 * @param {OffscreenCanvas | HTMLCanvasElement} canvas
 * @param {number} quality
 * @returns {Promise<Blob>}
 */
function toJpeg(canvas, quality) {
  const type = "image/jpeg";
  if ("convertToBlob" in canvas) return canvas.convertToBlob({ type, quality });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no JPEG"))), type, quality);
  });
}
