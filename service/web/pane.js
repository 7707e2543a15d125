/** One picture with its skeletons: a video or a still below, a canvas with the drawing above. */

import { draw } from "./posewright.js";

/** @typedef {import("./posewright.js").Pose} Pose */
/** @typedef {import("./posewright.js").Size} Size */

export class Pane {
  #root;
  #video;
  #picture;
  #overlay;
  #caption;
  /** @type {{ poses: Pose[], image: Size, label: (pose: Pose, index: number) => string } | null} */
  #shown = null;
  #threshold = 0.35;
  #mirrored = false;

  /** @param {HTMLElement} root The figure. */
  constructor(root) {
    this.#root = root;
    this.#video = root.querySelector("video");
    this.#picture = /** @type {HTMLCanvasElement} */ (root.querySelector(".picture"));
    this.#overlay = /** @type {HTMLCanvasElement} */ (root.querySelector(".overlay"));
    this.#caption = /** @type {HTMLElement} */ (root.querySelector("figcaption"));
    new ResizeObserver(() => this.#redraw()).observe(this.#overlay);
  }

  /** @param {Size} size Of the picture; the pane takes its shape. */
  set size({ width, height }) {
    if (width && height) this.#root.style.setProperty("--aspect", String(width / height));
  }

  /** @param {[string, string] | null} words What it shows, and more of it. */
  set caption(words) {
    const name = Object.assign(document.createElement("b"), { textContent: words?.[0] });
    this.#caption.replaceChildren(...(words ? [name, words[1]] : []));
  }

  /** @param {number} threshold Of keypoints. */
  set threshold(threshold) {
    this.#threshold = threshold;
    this.#redraw();
  }

  /** @param {boolean} mirrored */
  set mirrored(mirrored) {
    this.#mirrored = mirrored;
    this.#root.toggleAttribute("data-mirrored", mirrored);
    this.#redraw();
  }

  showVideo() {
    this.#root.dataset.shows = "video";
  }

  /**
   * Show a still.
   *
   * @param {CanvasImageSource} picture
   * @param {Size} size
   */
  showPicture(picture, size) {
    this.#root.dataset.shows = "picture";
    this.size = size;
    Object.assign(this.#picture, { width: size.width, height: size.height });
    this.#picture.getContext("2d")?.drawImage(picture, 0, 0, size.width, size.height);
  }

  /**
   * Draw people.
   *
   * @param {Pose[]} poses
   * @param {Size} image
   * @param {(pose: Pose, index: number) => string} label
   */
  show(poses, image, label) {
    this.#shown = { poses, image, label };
    this.#redraw();
  }

  /** Take the drawing away. */
  clear() {
    this.#shown = null;
    this.#redraw();
  }

  /**
   * @param {number} mostSide Longest side, px.
   * @returns {HTMLCanvasElement | null} What is seen, in one canvas; null where nothing is.
   */
  photograph(mostSide = 1920) {
    if (!this.#shown) return null;
    const { poses, image, label } = this.#shown;
    const shrink = Math.min(1, mostSide / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(image.width * shrink);
    canvas.height = Math.round(image.height * shrink);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const below = this.#root.dataset.shows === "video" && this.#video ? this.#video : this.#picture;
    if (this.#mirrored) context.setTransform(-1, 0, 0, 1, canvas.width, 0);
    context.drawImage(below, 0, 0, canvas.width, canvas.height);
    context.resetTransform();
    draw(context, poses, { image, label, mirror: this.#mirrored, threshold: this.#threshold });
    return canvas;
  }

  #redraw() {
    const canvas = this.#overlay;
    const { width, height } = canvas.getBoundingClientRect();
    // Setting a size empties the canvas, too.
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const people = this.#shown?.poses.length ?? 0;
    canvas.setAttribute("aria-label", people === 1 ? "The skeleton of 1 person" : `The skeletons of ${people} people`);
    const context = canvas.getContext("2d");
    if (!context || !this.#shown || !canvas.width || !canvas.height) return;
    const { poses, image, label } = this.#shown;
    const [mirror, threshold] = [this.#mirrored, this.#threshold];
    draw(context, poses, { image, label, mirror, threshold, pixelRatio: devicePixelRatio });
  }
}
