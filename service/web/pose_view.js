/** One picture with its skeletons: a video or a still picture, and a canvas with the drawing on top. */

import { draw } from "./browser/index.js";

/** @typedef {import("./browser/index.js").Pose} Pose */
/** @typedef {import("./browser/index.js").Size} Size */

export class PoseView {
  #root;
  #video;
  #picture;
  #overlay;
  #caption;
  /** @type {{ poses: Pose[], image: Size, label: (pose: Pose, index: number) => string } | null} */
  #shown = null;
  #threshold = 0.35;
  #mirrored = false;
  #boxes = false;
  /** @type {string | undefined} */
  #highlight;

  /** @param {HTMLElement} root A `figure` element. */
  constructor(root) {
    this.#root = root;
    this.#video = root.querySelector("video");
    this.#picture = /** @type {HTMLCanvasElement} */ (root.querySelector(".picture"));
    this.#overlay = /** @type {HTMLCanvasElement} */ (root.querySelector(".overlay"));
    this.#caption = /** @type {HTMLElement} */ (root.querySelector("figcaption"));
    new ResizeObserver(() => this.#redraw()).observe(this.#overlay);
  }

  /** @param {Size} size Size of the picture; sets the aspect ratio of the view. */
  set size({ width, height }) {
    if (width && height) this.#root.style.setProperty("--aspect", String(width / height));
  }

  /** @param {[string, string] | null} texts Title and details. */
  set caption(texts) {
    const title = Object.assign(document.createElement("b"), { textContent: texts?.[0] });
    this.#caption.replaceChildren(...(texts ? [title, texts[1]] : []));
  }

  /** @param {number} threshold Minimum score of a drawn keypoint. */
  set threshold(threshold) {
    this.#threshold = threshold;
    this.#redraw();
  }

  /** @param {boolean} boxes Whether people's boxes are drawn. */
  set boxes(boxes) {
    this.#boxes = boxes;
    this.#redraw();
  }

  /** @param {string | undefined} name Name of a keypoint to draw large. */
  set highlight(name) {
    this.#highlight = name;
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
   * Show a still picture.
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
   * Draw skeletons.
   *
   * @param {Pose[]} poses
   * @param {Size} image
   * @param {(pose: Pose, index: number) => string} label
   */
  show(poses, image, label) {
    this.#shown = { poses, image, label };
    this.#redraw();
  }

  /** Remove the drawing. */
  clear() {
    this.#shown = null;
    this.#redraw();
  }

  /**
   * @param {number} maxSide Longest side, pixels.
   * @returns {HTMLCanvasElement | null} Picture and skeletons in one canvas; null if there is no result.
   */
  toCanvas(maxSide = 1920) {
    if (!this.#shown) return null;
    const { poses, image, label } = this.#shown;
    const factor = Math.min(1, maxSide / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(image.width * factor);
    canvas.height = Math.round(image.height * factor);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const background = this.#root.dataset.shows === "video" && this.#video ? this.#video : this.#picture;
    if (this.#mirrored) context.setTransform(-1, 0, 0, 1, canvas.width, 0);
    context.drawImage(background, 0, 0, canvas.width, canvas.height);
    context.resetTransform();
    draw(context, poses, { ...this.#options, image, label });
    return canvas;
  }

  #redraw() {
    const canvas = this.#overlay;
    const { width, height } = canvas.getBoundingClientRect();
    // Setting a size also clears the canvas.
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const description = this.#describe();
    if (canvas.getAttribute("aria-label") !== description) canvas.setAttribute("aria-label", description);
    const context = canvas.getContext("2d");
    if (!context || !this.#shown || !canvas.width || !canvas.height) return;
    const { poses, image, label } = this.#shown;
    draw(context, poses, { ...this.#options, image, label, highlight: this.#highlight, pixelRatio: devicePixelRatio });
  }

  /** What a screen reader says of the picture. */
  #describe() {
    if (!this.#shown) return "No result yet";
    const people = this.#shown.poses.length;
    return people === 1 ? "Picture with the skeleton of 1 person" : `Picture with the skeletons of ${people} people`;
  }

  get #options() {
    return { mirror: this.#mirrored, threshold: this.#threshold, boxes: this.#boxes };
  }
}
