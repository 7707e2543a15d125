/** Statistics next to the picture: frame rate, age of the results, and time per stage on the server. */

import { throttle } from "./throttle.js";

const WINDOW_MS = 3000;
const MAX_AGES = 300;
const RENDER_EVERY_MS = 250;
/** Weight of the previous mean in a stage's moving average. */
const DECAY = 0.85;

/** @typedef {import("./inference.js").Counts} Counts */

export class Statistics {
  #element;
  /** @type {number[]} Arrival times of the results, ms. */
  #arrivals = [];
  /** @type {number[]} */
  #agesMs = [];
  /** @type {Map<string, number>} Moving average per stage, ms; in the server's order. */
  #stagesMs = new Map();
  /** @type {Counts} */
  #counts = { answered: 0, dropped: 0, skipped: 0 };
  #live = false;
  #renderSoon = throttle(RENDER_EVERY_MS, () => this.#render());

  /** @param {(id: string) => HTMLElement} element Returns the element with an id. */
  constructor(element) {
    this.#element = element;
  }

  /** @param {boolean} live Whether the source is a video. */
  reset(live) {
    this.#arrivals = [];
    this.#agesMs = [];
    this.#stagesMs.clear();
    this.#counts = { answered: 0, dropped: 0, skipped: 0 };
    this.#live = live;
    this.#render();
  }

  /**
   * @param {{ ageMs: number, timingsMs: Record<string, number>, counts: Counts }} result
   */
  add({ ageMs, timingsMs, counts }) {
    const now = performance.now();
    this.#arrivals = [...this.#arrivals.filter((it) => it > now - WINDOW_MS), now];
    this.#agesMs.push(ageMs);
    if (this.#agesMs.length > MAX_AGES) this.#agesMs.shift();
    for (const [stage, ms] of Object.entries(timingsMs)) {
      if (stage === "total") continue;
      const before = this.#stagesMs.get(stage);
      this.#stagesMs.set(stage, before === undefined ? ms : DECAY * before + (1 - DECAY) * ms);
    }
    this.#counts = { answered: counts.answered, dropped: counts.dropped, skipped: counts.skipped };
    this.#renderSoon();
  }

  #render() {
    const ages = this.#agesMs.toSorted((a, b) => a - b);
    this.#write("fps", this.#live ? this.#perSecond() : null, "", 1);
    this.#write("p50", quantile(ages, 0.5), "ms");
    this.#write("p95", quantile(ages, 0.95), "ms");
    for (const [name, count] of Object.entries(this.#counts)) this.#write(name, ages.length ? count : null);
    this.#renderStages();
  }

  #perSecond() {
    const [first, last, spans] = [this.#arrivals[0], this.#arrivals.at(-1) ?? 0, this.#arrivals.length - 1];
    return spans > 0 ? (1000 * spans) / (last - first) : null;
  }

  /**
   * @param {string} id
   * @param {number | null} value
   * @param {string} [unit]
   * @param {number} [decimals]
   */
  #write(id, value, unit = "", decimals = 0) {
    const element = this.#element(id);
    element.replaceChildren(value === null ? "–" : value.toFixed(decimals));
    if (value === null || !unit) return;
    element.append(" ", Object.assign(document.createElement("small"), { textContent: unit }));
  }

  #renderStages() {
    const root = this.#element("stages");
    root.hidden = this.#stagesMs.size === 0;
    const bar = /** @type {HTMLElement} */ (root.querySelector(".bar"));
    const list = /** @type {HTMLElement} */ (root.querySelector("ul"));
    const stages = [...this.#stagesMs.keys()];
    // Elements are kept while the stages stay the same, so that the bar is animated.
    if (bar.dataset.stages !== stages.join()) {
      bar.dataset.stages = stages.join();
      bar.replaceChildren(...stages.map(() => document.createElement("i")));
      list.replaceChildren(...stages.map(() => document.createElement("li")));
    }
    stages.forEach((stage, i) => {
      const ms = this.#stagesMs.get(stage) ?? 0;
      const share = `${100 - (i * 82) / Math.max(stages.length - 1, 1)}%`;
      const [part, line] = /** @type {HTMLElement[]} */ ([bar.children[i], list.children[i]]);
      part.style.flexGrow = String(ms);
      part.style.setProperty("--share", share);
      line.style.setProperty("--share", share);
      line.textContent = `${stage} ${ms.toFixed(ms < 9.95 ? 1 : 0)} ms`;
    });
  }
}

/**
 * @param {number[]} sorted
 * @param {number} share 0..1.
 */
function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
}
