/** Object keypoint similarity: how alike two poses are, as in service/pose/oks.py. */

import { area, keypointExtent } from "./boxes.js";
import { expectedOks } from "./calibration.js";

/** @typedef {import("./boxes.js").Point} Point */
/** @typedef {import("./crop.js").Xyxy} Xyxy */
/**
 * @typedef {object} Person
 * @property {Point[]} keypoints Image px.
 * @property {number[]} scores
 * @property {Xyxy} box
 * @property {number} boxScore 1 where the caller gave the box.
 * @property {number} probability That the box contains a person.
 */

/** Factor on COCO's sigmas where two predictions are compared. */
const SIGMA_SCALE = 2;
const SAME_PERSON_OKS = 0.85;
const MIN_WEIGHT = 1e-6;

/** @param {Person} person */
export function personScore({ probability, scores }) {
  return probability * expectedOks(scores);
}

/**
 * @param {Person} a
 * @param {Person} b The reference, whose extent and scores count.
 * @param {readonly number[]} sigmas
 */
function oks(a, b, sigmas) {
  const size = Math.max(SIGMA_SCALE ** 2 * area(keypointExtent(b.keypoints, b.scores)), 1e-9);
  let [sum, total] = [0, 0];
  a.keypoints.forEach(([x, y], k) => {
    const squared = (x - b.keypoints[k][0]) ** 2 + (y - b.keypoints[k][1]) ** 2;
    const weight = b.scores[k] + MIN_WEIGHT;
    sum += weight * Math.exp(-squared / (2 * (2 * sigmas[k]) ** 2 * size));
    total += weight;
  });
  return sum / total;
}

/**
 * Keep one pose for each person (arXiv 1701.01779).
 *
 * @param {Person[]} people
 * @param {readonly number[]} sigmas
 * @returns {Person[]} Best first.
 */
export function oksNms(people, sigmas) {
  /** @type {Person[]} */
  const kept = [];
  for (const person of [...people].sort((a, b) => personScore(b) - personScore(a))) {
    if (!kept.some((better) => oks(person, better, sigmas) > SAME_PERSON_OKS)) kept.push(person);
  }
  return kept;
}
