/** Boxes of people that a visitor draws on a photo, in place of those that the detector finds. */

import { make } from "./elements.js";

/** @typedef {import("./browser/index.js").Size} Size */
/** @typedef {{ x: number, y: number, width: number, height: number }} Box Pixels of the picture. */
/** @typedef {"move" | "resize"} Change */

const MIN_SIDE = 8;
/** Steps of the arrow keys, as a share of the picture's longest side. */
const STEP = 0.01;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class BoxEditor {
  #layer;
  #onChange;
  /** @type {Size | null} */
  #picture = null;
  /** @type {Map<HTMLElement, Box>} */
  #boxes = new Map();
  /** @type {{ element: HTMLElement, change: Change, box: Box, x: number, y: number } | null} What is dragged, from where. */
  #drag = null;

  /**
   * @param {HTMLElement} layer Covers the picture.
   * @param {() => void} onChange Called when the boxes changed.
   */
  constructor(layer, onChange) {
    this.#layer = layer;
    this.#onChange = onChange;
    layer.addEventListener("pointerdown", (event) => this.#begin(event));
    layer.addEventListener("pointermove", (event) => this.#dragTo(event));
    for (const end of ["pointerup", "pointercancel"]) layer.addEventListener(end, () => this.#end());
    layer.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** @param {Size | null} picture Begin without boxes on a picture; null if boxes make no sense. */
  start(picture) {
    this.#picture = picture && { width: picture.width, height: picture.height };
    this.#boxes.clear();
    this.#layer.replaceChildren();
    this.#layer.hidden = picture === null;
  }

  /** @returns {[number, number, number, number][]} x, y, width and height of each box. */
  get boxes() {
    return [...this.#boxes.values()].map(({ x, y, width, height }) => [x, y, width, height]);
  }

  /** Add a box in the middle of the picture, to move with the keyboard or the pointer. */
  add() {
    if (!this.#picture) return;
    const { width, height } = this.#picture;
    this.#make({ x: width * 0.3, y: height * 0.1, width: width * 0.4, height: height * 0.8 }).focus();
    this.#onChange();
  }

  /** @param {Box} box */
  #make(box) {
    const attributes = { type: "button", class: "given-box", "aria-describedby": "given-box-help" };
    const element = make("button", attributes, make("span", { class: "handle" }));
    this.#layer.append(element);
    this.#place(element, box);
    return element;
  }

  /**
   * @param {HTMLElement} element
   * @param {Box} box
   */
  #place(element, box) {
    if (!this.#picture) return;
    const { width, height } = this.#picture;
    const [w, h] = [clamp(box.width, MIN_SIDE, width), clamp(box.height, MIN_SIDE, height)].map(Math.round);
    const [x, y] = [clamp(box.x, 0, width - w), clamp(box.y, 0, height - h)].map(Math.round);
    this.#boxes.set(element, { x, y, width: w, height: h });
    const shares = { left: x / width, top: y / height, width: w / width, height: h / height };
    for (const [name, share] of Object.entries(shares)) element.style.setProperty(name, `${100 * share}%`);
    element.setAttribute("aria-label", `Box at ${x}, ${y}, ${w} wide, ${h} high`);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const element = /** @type {HTMLElement} */ (event.target);
    const box = this.#boxes.get(element);
    if (!this.#picture || !box) return;
    const arrow = ARROWS[/** @type {keyof typeof ARROWS} */ (event.key)];
    if (arrow) {
      const step = STEP * Math.max(this.#picture.width, this.#picture.height);
      this.#place(element, changed(box, event.shiftKey ? "resize" : "move", step * arrow[0], step * arrow[1]));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      const next = /** @type {HTMLElement | null} */ (element.nextElementSibling ?? element.previousElementSibling);
      this.#boxes.delete(element);
      element.remove();
      (next ?? document.getElementById("add-box"))?.focus();
    } else return;
    event.preventDefault();
    this.#onChange();
  }

  /** @param {PointerEvent} event */
  #begin(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const known = /** @type {HTMLElement | null} */ (target.closest(".given-box"));
    // A finger that moves over the picture scrolls the page.
    if (event.button !== 0 || (!known && event.pointerType === "touch")) return;
    const { x, y } = this.#toPicture(event);
    const box = (known && this.#boxes.get(known)) ?? { x, y, width: 0, height: 0 };
    const element = known ?? this.#make(box);
    this.#drag = { element, change: known && !target.matches(".handle") ? "move" : "resize", box, x, y };
    this.#layer.setPointerCapture(event.pointerId);
    element.focus();
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  #dragTo(event) {
    if (!this.#drag) return;
    const { element, change, box, ...start } = this.#drag;
    const { x, y } = this.#toPicture(event);
    this.#place(element, changed(box, change, x - start.x, y - start.y));
  }

  #end() {
    if (!this.#drag) return;
    const { element } = this.#drag;
    this.#drag = null;
    const box = this.#boxes.get(element);
    // A click without a drag draws nothing.
    if (box && box.width <= MIN_SIDE && box.height <= MIN_SIDE) {
      this.#boxes.delete(element);
      element.remove();
    }
    this.#onChange();
  }

  /** @param {PointerEvent} event */
  #toPicture({ clientX, clientY }) {
    const { left, top, width, height } = this.#layer.getBoundingClientRect();
    const picture = /** @type {Size} */ (this.#picture);
    return { x: ((clientX - left) / width) * picture.width, y: ((clientY - top) / height) * picture.height };
  }
}

/**
 * @param {Box} box
 * @param {Change} change
 * @param {number} dx Pixels of the picture.
 * @param {number} dy
 * @returns {Box}
 */
function changed({ x, y, width, height }, change, dx, dy) {
  if (change === "move") return { x: x + dx, y: y + dy, width, height };
  const [right, bottom] = [x + width + dx, y + height + dy];
  return { x: Math.min(x, right), y: Math.min(y, bottom), width: Math.abs(right - x), height: Math.abs(bottom - y) };
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
