/** The legend of the skeleton: which colour is which side, and the keypoints, each of which it finds in the picture. */

import { COLORS, sideOf } from "./browser/index.js";
import { make } from "./elements.js";

/** @typedef {import("./browser/index.js").Pose} Pose */
/** @typedef {keyof typeof COLORS} Side */

const TITLES = /** @type {Record<Side, string>} */ ({ left: "Left", middle: "Middle", right: "Right" });
const MAX_TOLD = 3;
const HINT = "Left and right are the person’s own. Point at a name to find it in the picture.";

export class SkeletonLegend {
  #root;
  #list;
  #detail;
  #onHighlight;
  #say;
  /** @type {HTMLElement | null} The keypoint that was chosen by a click or with the keyboard. */
  #active = null;
  #names = "";
  /** @type {Pose[]} */
  #poses = [];

  /**
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {(name: string | undefined) => void} onHighlight Called with the keypoint to find in the picture.
   * @param {(text: string) => void} say Tells screen readers where the chosen keypoint is.
   */
  constructor(element, onHighlight, say) {
    this.#root = element("legend");
    this.#list = element("keypoints");
    this.#detail = element("keypoint-detail");
    this.#onHighlight = onHighlight;
    this.#say = say;
    this.#list.addEventListener("pointerover", ({ target }) => this.#highlight(optionOf(target) ?? this.#active));
    this.#list.addEventListener("pointerleave", () => this.#highlight(this.#active));
    this.#list.addEventListener("click", ({ target }) => this.#activate(optionOf(target)));
    this.#list.addEventListener("focus", () => this.#active ?? this.#activate(this.#options[0]));
    this.#list.addEventListener("blur", () => this.#activate(null));
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** @param {readonly string[]} names Names of the keypoints, in the skeleton's order. */
  showSkeleton(names) {
    if (names.join() === this.#names) return;
    this.#names = names.join();
    this.#activate(null);
    this.#root.hidden = names.length === 0;
    const groups = /** @type {Side[]} */ (Object.keys(TITLES)).map((side) => {
      const members = names.flatMap((name, k) => (sideOf(name) === side ? [makeOption(name, side, k)] : []));
      return members.length ? [makeGroup(side, members)] : [];
    });
    this.#list.replaceChildren(...groups.flat());
  }

  /** @param {Pose[]} poses In the current picture. */
  showPoses(poses) {
    this.#poses = poses;
    const [first] = poses;
    if (first) this.showSkeleton(first.keypoints.map((it) => it.name));
    this.#describe();
  }

  get #options() {
    return /** @type {HTMLElement[]} */ ([...this.#list.querySelectorAll("[role=option]")]);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const options = this.#options;
    const at = this.#active ? options.indexOf(this.#active) : -1;
    const places = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0 };
    const last = options.length - 1;
    /** @type {number | undefined} */
    let place = event.key === "End" ? last : places[/** @type {keyof typeof places} */ (event.key)];
    if (place === undefined && event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
      // The next keypoint whose visible name begins with the letter.
      const order = [...options.slice(at + 1), ...options.slice(0, at + 1)];
      const found = order.find((it) => it.textContent?.startsWith(event.key.toLowerCase()));
      place = found && options.indexOf(found);
    }
    if (place === undefined) return;
    event.preventDefault();
    this.#activate(options[Math.min(Math.max(place, 0), last)]);
  }

  /** @param {HTMLElement | null | undefined} option */
  #activate(option) {
    for (const it of this.#options) it.setAttribute("aria-selected", String(it === option));
    this.#active = option ?? null;
    if (option) this.#list.setAttribute("aria-activedescendant", option.id);
    else this.#list.removeAttribute("aria-activedescendant");
    option?.scrollIntoView({ block: "nearest" });
    this.#highlight(this.#active);
    if (option) this.#say(this.#detail.textContent ?? "");
  }

  /** @param {HTMLElement | null} option */
  #highlight(option) {
    for (const it of this.#options) it.toggleAttribute("data-sought", it === option);
    this.#onHighlight(option?.dataset.name);
    this.#describe();
  }

  /** Say where the keypoint is. */
  #describe() {
    const name = /** @type {HTMLElement | null} */ (this.#list.querySelector("[data-sought]"))?.dataset.name;
    const places = this.#poses.slice(0, MAX_TOLD).flatMap((pose, i) => {
      const found = pose.keypoints.find((it) => it.name === name);
      const person = this.#poses.length > 1 ? `person ${pose.id ?? i + 1}: ` : "";
      return found ? [`${person}${Math.round(found.x)}, ${Math.round(found.y)} (score ${found.score.toFixed(2)})`] : [];
    });
    const more = this.#poses.length > MAX_TOLD ? "; …" : "";
    const text = name ? `${words(name)}: ${places.join("; ") || "no person yet"}${more}` : HINT;
    if (this.#detail.textContent !== text) this.#detail.textContent = text;
  }
}

/**
 * @param {Side} side
 * @param {HTMLElement[]} options
 */
function makeGroup(side, options) {
  const swatch = make("i");
  swatch.style.background = COLORS[side];
  const title = make("p", { "aria-hidden": "true" }, swatch, TITLES[side]);
  return make("div", { role: "group", "aria-label": TITLES[side] }, title, ...options);
}

/**
 * @param {string} name
 * @param {Side} side
 * @param {number} k
 */
function makeOption(name, side, k) {
  const text = side === "middle" ? words(name) : words(name.slice(side.length + 1));
  const attributes = { id: `keypoint-${k}`, role: "option", "aria-selected": "false", "aria-label": words(name) };
  return make("div", { ...attributes, "data-name": name }, text);
}

/** @param {EventTarget | null} target */
function optionOf(target) {
  return target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest("[role=option]")) : null;
}

/** @param {string} name */
function words(name) {
  return name.replaceAll("_", " ");
}
