/** The figures beside the picture: how many frames, how old, and where the time went. */

import { atMostEvery } from "./unhurried.js";

const WINDOW_MS = 3000;
const MOST_AGES = 300;
const RENDER_EVERY_MS = 250;
const INERTIA = 0.85;
const STAGES = ["queue", "decode", "detect", "pose", "student", "teacher", "track", "encode"];

/** @typedef {{ ageMs: number, timingsMs: Record<string, number> }} Answer */
/** @typedef {{ answered: number, dropped: number, skipped: number }} Counts */

export class Figures {
  #place;
  /** @type {number[]} When answers came, ms. */
  #arrivals = [];
  /** @type {number[]} */
  #agesMs = [];
  /** @type {Map<string, number>} Mean ms by stage, recent answers weighing most. */
  #stagesMs = new Map();
  /** @type {Counts} */
  #counts = { answered: 0, dropped: 0, skipped: 0 };
  #live = false;
  #renderSoon = atMostEvery(RENDER_EVERY_MS, () => this.#render());

  /** @param {(id: string) => HTMLElement} place Finds an element. */
  constructor(place) {
    this.#place = place;
  }

  /** @param {boolean} live Whether there are frames to count. */
  begin(live) {
    this.#arrivals = [];
    this.#agesMs = [];
    this.#stagesMs.clear();
    this.#counts = { answered: 0, dropped: 0, skipped: 0 };
    this.#live = live;
    this.#render();
  }

  /**
   * @param {Answer} answer
   * @param {Counts} counts
   */
  add({ ageMs, timingsMs }, counts) {
    const now = performance.now();
    this.#arrivals = [...this.#arrivals.filter((it) => it > now - WINDOW_MS), now];
    this.#agesMs.push(ageMs);
    if (this.#agesMs.length > MOST_AGES) this.#agesMs.shift();
    for (const stage of STAGES) {
      const ms = timingsMs[stage];
      if (ms === undefined) continue;
      const before = this.#stagesMs.get(stage);
      this.#stagesMs.set(stage, before === undefined ? ms : INERTIA * before + (1 - INERTIA) * ms);
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
    const place = this.#place(id);
    place.replaceChildren(value === null ? "–" : value.toFixed(decimals));
    if (value === null || !unit) return;
    place.append(" ", Object.assign(document.createElement("small"), { textContent: unit }));
  }

  #renderStages() {
    const root = this.#place("stages");
    root.hidden = this.#stagesMs.size === 0;
    const bar = /** @type {HTMLElement} */ (root.querySelector(".bar"));
    const list = /** @type {HTMLElement} */ (root.querySelector("ul"));
    const stages = STAGES.filter((stage) => this.#stagesMs.has(stage));
    // Kept where the stages are the same, so that the bar can glide.
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
