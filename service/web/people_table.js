/** The table of the people in the current picture. */

import { throttle } from "./throttle.js";

/** @typedef {import("./inference.js").Result} Result */

const RENDER_EVERY_MS = 250;

/**
 * Label of a person: the track id, or the position in the result.
 *
 * @param {import("./browser/index.js").Pose} pose
 * @param {number} index
 */
export function labelOf(pose, index) {
  return String(pose.id ?? index + 1);
}

export class PeopleTable {
  #table;
  #empty;
  /** @type {Result | null} */
  #result = null;
  #threshold = 0;
  #renderSoon = throttle(RENDER_EVERY_MS, () => this.#render());

  /**
   * @param {HTMLElement} table
   * @param {HTMLElement} empty Shown instead of an empty table.
   */
  constructor(table, empty) {
    this.#table = table;
    this.#empty = empty;
  }

  clear() {
    this.#result = null;
    this.#table.hidden = true;
    this.#empty.hidden = false;
    this.#empty.textContent = "No people yet.";
  }

  /**
   * @param {Result} result
   * @param {number} threshold Minimum score of a visible keypoint.
   */
  show(result, threshold) {
    this.#result = result;
    this.#threshold = threshold;
    this.#renderSoon();
  }

  #render() {
    if (!this.#result) return;
    const comparing = this.#result.predictions.length > 1;
    const rows = comparing ? comparisonRows(this.#result) : personRows(this.#result, this.#threshold);
    const heads = comparing ? ["No.", "Student", "Teacher", "OKS"] : ["No.", "Score", "Visible"];
    this.#table.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#empty.textContent = "No people in the picture.";
    this.#table.querySelector("thead tr")?.replaceChildren(...heads.map((it) => makeCell("th", it)));
    this.#table.querySelector("tbody")?.replaceChildren(...rows.map(makeRow));
  }
}

/**
 * @param {Result} result
 * @param {number} threshold
 */
function personRows({ predictions: [{ poses }] }, threshold) {
  return poses.map((pose, i) => {
    const visible = pose.keypoints.filter((it) => it.score >= threshold).length;
    return [labelOf(pose, i), pose.score.toFixed(2), `${visible} of ${pose.keypoints.length}`];
  });
}

/** @param {Result} result */
function comparisonRows({ predictions: [student, teacher], matches }) {
  return matches.map((match, i) => {
    const scores = [student.poses[match.student].score, teacher.poses[match.teacher].score, match.oks];
    return [String(i + 1), ...scores.map((it) => it.toFixed(2))];
  });
}

/** @param {string[]} texts */
function makeRow(texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((it) => makeCell("td", it)));
  return row;
}

/**
 * @param {"th" | "td"} kind
 * @param {string} text
 */
function makeCell(kind, text) {
  const cell = Object.assign(document.createElement(kind), { textContent: text });
  if (kind === "th") cell.scope = "col";
  return cell;
}
