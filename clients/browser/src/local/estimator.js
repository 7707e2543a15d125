/** Boxes to poses: crop, run the network, decode, calibrate, as service/pose/estimator.py does. */

import { EDGES, KEYPOINTS } from "../wire.js";
import { boxFromKeypoints, clip, iou, SURE_SCORE } from "./boxes.js";
import { bundleError } from "./bundle.js";
import { calibrate, expectedOks, minBoxScore, personProbability } from "./calibration.js";
import { cropToImage, warp } from "./crop.js";
import { decodeHeatmaps, decodeSimcc } from "./decoders.js";
import { oksNms, personScore } from "./oks.js";

/** @typedef {import("./bundle.js").Network} Network */
/** @typedef {import("./bundle.js").Skeleton} Skeleton */
/** @typedef {import("./decoders.js").Decoded} Decoded */
/** @typedef {import("./detector.js").Detection} Detection */
/** @typedef {import("./oks.js").Person} Person */
/** @typedef {import("./pixels.js").Pixels} Pixels */

/** Certain keypoints, of COCO's 17, from which a pose may correct its box. */
const MIN_SURE_KEYPOINTS = 8;
/** IoU of a box and the box around its pose from which the box is left as it is. */
const SAME_BOX_IOU = 0.3;
/** Factor by which refining a box is expected to raise a person's score at most. */
const MAX_REFINEMENT_GAIN = 1.5;
/** Boxes in a row whose poses cannot reach the minimum score, after which the others are skipped. */
const MAX_UNLIKELY_IN_A_ROW = 3;
/** People in one call of the network. */
const BATCH = 2;

/** @type {Skeleton} */
const COCO17 = {
  name: "coco17",
  keypoints: KEYPOINTS,
  edges: EDGES,
  sigmas: [
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
  ],
};

export class PoseEstimator {
  #network;
  #padding;
  #heatmapSize;

  /** @param {Network} network */
  constructor(network) {
    const { name, decoder, heatmap_size: size, box_padding: padding, skeleton } = network.manifest;
    if ((decoder !== "heatmap" && decoder !== "simcc") || !size || padding === null) {
      throw bundleError(`bundle ${name}: expected a pose network, got decoder ${decoder}`);
    }
    const known = skeleton === "coco17" ? COCO17 : skeleton;
    if (known === null || typeof known === "string") {
      throw bundleError(`bundle ${name}: expected skeleton coco17 or one in full, got ${skeleton}`);
    }
    this.#network = network;
    this.#padding = padding;
    this.#heatmapSize = size;
    this.skeleton = known;
  }

  get manifest() {
    return this.#network.manifest;
  }

  /** @param {number} minScore */
  minBoxScore(minScore) {
    return minBoxScore(this.manifest.calibration ?? null, minScore);
  }

  /**
   * Estimate the poses in a detector's boxes, refine boxes that their poses show to be wrong, and keep one pose for each
   * person.
   *
   * @param {Pixels} image
   * @param {Detection[]} detections Best first.
   * @param {number} minScore
   * @returns {Promise<Person[]>} Best first.
   */
  async estimateDetections(image, detections, minScore) {
    const enough = minScore / MAX_REFINEMENT_GAIN;
    /** @type {Person[]} */
    const people = [];
    let unlikelyInARow = 0;
    for (let start = 0; start < detections.length && unlikelyInARow < MAX_UNLIKELY_IN_A_ROW; start += BATCH) {
      const batch = await this.#estimateBatch(image, detections.slice(start, start + BATCH));
      for (const person of batch) unlikelyInARow = personScore(person) < enough ? unlikelyInARow + 1 : 0;
      people.push(...batch);
    }
    const refined = await this.#refine(image, people, enough);
    return oksNms(refined.filter((it) => personScore(it) >= enough), this.skeleton.sigmas);
  }

  /**
   * @param {Pixels} image
   * @param {Detection[]} detections
   * @returns {Promise<Person[]>} In their order.
   */
  async estimate(image, detections) {
    /** @type {Person[]} */
    const people = [];
    for (let start = 0; start < detections.length; start += BATCH) {
      people.push(...(await this.#estimateBatch(image, detections.slice(start, start + BATCH))));
    }
    return people;
  }

  /**
   * @param {Pixels} image
   * @param {Person[]} people
   * @param {number} enough
   */
  async #refine(image, people, enough) {
    if (this.skeleton.name !== "coco17") return people;
    const boxes = people.map((it) => clip(boxFromKeypoints(it.keypoints, it.scores), image));
    const isWrong = people.map((person, i) => {
      const sure = person.scores.filter((it) => it >= SURE_SCORE).length;
      return sure >= MIN_SURE_KEYPOINTS && personScore(person) >= enough && iou(person.box, boxes[i]) < SAME_BOX_IOU;
    });
    const wrong = people.map((it, i) => ({ box: boxes[i], score: it.boxScore })).filter((_, i) => isWrong[i]);
    const again = await this.estimate(image, wrong);
    return people.map((it, i) => (isWrong[i] ? /** @type {Person} */ (again.shift()) : it));
  }

  /**
   * @param {Pixels} image
   * @param {Detection[]} detections At least one.
   * @returns {Promise<Person[]>}
   */
  async #estimateBatch(image, detections) {
    const { input_size: size, calibration = null } = this.manifest;
    const bytes = size[0] * size[1] * 3;
    const pixels = new Uint8Array(detections.length * bytes);
    const toImage = detections.map(({ box }, n) => {
      const affine = cropToImage(box, size, this.#padding);
      warp(image, affine, size, pixels.subarray(n * bytes, (n + 1) * bytes));
      return affine;
    });
    const outputs = await this.#network.run(pixels, [detections.length, size[1], size[0], 3]);
    return detections.map(({ box, score: boxScore }, n) => {
      const decoded = this.#decode(outputs.map((it) => part(it, n, detections.length)));
      const scores = decoded.scores.map((raw, k) => calibrate(calibration, raw, k));
      const { scale, left, top } = toImage[n];
      return {
        keypoints: decoded.points.map(([x, y]) => [scale * x + left, scale * y + top]),
        scores,
        box,
        boxScore,
        probability: personProbability(calibration, boxScore, expectedOks(scores)),
      };
    });
  }

  /**
   * @param {Float32Array[]} outputs Of one person.
   * @returns {Decoded}
   */
  #decode(outputs) {
    const { decoder, input_size: size } = this.manifest;
    const count = this.skeleton.keypoints.length;
    if (decoder === "simcc") return decodeSimcc(outputs[0], outputs[1], count, size);
    return decodeHeatmaps(outputs[0], this.#heatmapSize, size[0] / this.#heatmapSize[0]);
  }
}

/**
 * @param {Float32Array} output
 * @param {number} n
 * @param {number} count
 */
function part(output, n, count) {
  const length = output.length / count;
  return output.subarray(n * length, (n + 1) * length);
}
