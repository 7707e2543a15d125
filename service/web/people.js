/** The table of the people in sight. */

import { atMostEvery } from "./unhurried.js";

/** @typedef {import("./looking.js").Sight} Sight */

const RENDER_EVERY_MS = 250;

/**
 * How a person is called: the id of the track, or the place in the answer.
 *
 * @param {import("./posewright.js").Pose} pose
 * @param {number} index
 */
export function nameOf(pose, index) {
  return String(pose.id ?? index + 1);
}

export class People {
  #table;
  #nobody;
  /** @type {Sight | null} */
  #sight = null;
  #threshold = 0;
  #renderSoon = atMostEvery(RENDER_EVERY_MS, () => this.#render());

  /**
   * @param {HTMLElement} table
   * @param {HTMLElement} nobody What stands there while nobody is in sight.
   */
  constructor(table, nobody) {
    this.#table = table;
    this.#nobody = nobody;
  }

  clear() {
    this.#sight = null;
    this.#table.hidden = true;
    this.#nobody.hidden = false;
    this.#nobody.textContent = "Nobody yet.";
  }

  /**
   * @param {Sight} sight
   * @param {number} threshold Of keypoints.
   */
  show(sight, threshold) {
    this.#sight = sight;
    this.#threshold = threshold;
    this.#renderSoon();
  }

  #render() {
    if (!this.#sight) return;
    const comparing = this.#sight.looks.length > 1;
    const rows = comparing ? comparedRows(this.#sight) : rowsOf(this.#sight, this.#threshold);
    const heads = comparing ? ["No.", "Student", "Teacher", "OKS"] : ["No.", "Score", "Points seen"];
    this.#table.hidden = rows.length === 0;
    this.#nobody.hidden = rows.length > 0;
    this.#nobody.textContent = "Nobody in sight.";
    this.#table.querySelector("thead tr")?.replaceChildren(...heads.map((it) => cell("th", it)));
    this.#table.querySelector("tbody")?.replaceChildren(...rows.map(rowOf));
  }
}

/**
 * @param {Sight} sight
 * @param {number} threshold
 */
function rowsOf({ looks: [{ poses }] }, threshold) {
  return poses.map((pose, i) => {
    const seen = pose.keypoints.filter((it) => it.score >= threshold).length;
    return [nameOf(pose, i), pose.score.toFixed(2), `${seen} of ${pose.keypoints.length}`];
  });
}

/** @param {Sight} sight */
function comparedRows({ looks: [student, teacher], matches }) {
  return matches.map((match, i) => {
    const scores = [student.poses[match.student].score, teacher.poses[match.teacher].score, match.oks];
    return [String(i + 1), ...scores.map((it) => it.toFixed(2))];
  });
}

/** @param {string[]} texts */
function rowOf(texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((it) => cell("td", it)));
  return row;
}

/**
 * @param {"th" | "td"} kind
 * @param {string} text
 */
function cell(kind, text) {
  const made = Object.assign(document.createElement(kind), { textContent: text });
  if (kind === "th") made.scope = "col";
  return made;
}
