/** When a moving source has a new frame, and how often frames are sent. */

import { sizeOf } from "./picture.js";

/** @typedef {HTMLVideoElement | HTMLCanvasElement | OffscreenCanvas} MovingSource Shows one frame after another. */

/**
 * Call back for each new frame of a video, or for each repaint of a canvas.
 *
 * @param {MovingSource} source
 * @param {(capturedMs: number) => void} onFrame Gets the capture time on the clock of `performance.now()`.
 * @returns {() => void} Stops the callbacks.
 */
export function onEveryFrame(source, onFrame) {
  if (typeof HTMLVideoElement !== "undefined" && source instanceof HTMLVideoElement) {
    if ("requestVideoFrameCallback" in source) return onEveryVideoFrame(source, onFrame);
  }
  let handle = requestAnimationFrame(function step(now) {
    handle = requestAnimationFrame(step);
    if (sizeOf(source).width > 0) onFrame(now);
  });
  return () => cancelAnimationFrame(handle);
}

/**
 * @param {HTMLVideoElement} video
 * @param {(capturedMs: number) => void} onFrame
 */
function onEveryVideoFrame(video, onFrame) {
  let handle = video.requestVideoFrameCallback(function step(now, { captureTime }) {
    handle = video.requestVideoFrameCallback(step);
    // Some cameras report the capture time on another clock; such a time is ignored.
    const plausible = captureTime !== undefined && captureTime <= now && now - captureTime < 1000;
    onFrame(plausible ? captureTime : now);
  });
  return () => video.cancelVideoFrameCallback(handle);
}

/** Limits a frame rate. A frame may be up to half a period early, so that the mean rate reaches the limit exactly. */
export class FrameRateLimit {
  #periodMs;
  #dueMs = -Infinity;

  /** @param {number} perSecond */
  constructor(perSecond) {
    this.#periodMs = 1000 / perSecond;
  }

  /** @param {number} perSecond Upper bound from the server. */
  lowerTo(perSecond) {
    this.#periodMs = Math.max(this.#periodMs, 1000 / perSecond);
  }

  /** @param {number} nowMs */
  allows(nowMs) {
    return nowMs >= this.#dueMs - this.#periodMs / 2;
  }

  /** @param {number} nowMs Time at which a frame is sent. */
  count(nowMs) {
    this.#dueMs = Math.max(this.#dueMs, nowMs) + this.#periodMs;
  }
}
