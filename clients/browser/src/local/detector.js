/** Detects people in a whole picture, as service/pose/detector.py does. */

import { clip, nms } from "./boxes.js";
import { bundleError } from "./bundle.js";
import { calibrate } from "./calibration.js";
import { warp } from "./crop.js";
import { resize } from "./pixels.js";

/** @typedef {import("./bundle.js").Network} Network */
/** @typedef {import("./crop.js").Xyxy} Xyxy */
/** @typedef {import("./pixels.js").Pixels} Pixels */
/** @typedef {{ box: Xyxy, score: number }} Detection */

/** Width and height of the network's input are multiples of this, px. */
const BLOCK = 32;
/** Input px per cell of the maps. */
const STRIDE = 8;
const IOU_THRESHOLD = 0.6;
/** Candidates with a lower raw score are dropped before calibration. */
const MIN_RAW_SCORE = 1e-3;

export class PersonDetector {
  #network;

  /** @param {Network} network */
  constructor(network) {
    const { name, decoder } = network.manifest;
    if (decoder !== "boxes" && decoder !== "detector") {
      throw bundleError(`bundle ${name}: expected a detector, got decoder ${decoder}`);
    }
    this.#network = network;
  }

  /**
   * @param {Pixels} image
   * @param {number} maxPeople
   * @param {number} minScore
   * @returns {Promise<Detection[]>} Image px, best first.
   */
  async detect(image, maxPeople, minScore) {
    const { input_size: inputSize, calibration = null, decoder, fitting, iou_threshold: threshold } = this.#network.manifest;
    const [width, height] = fitting ? inputSize : inputGrid(image, inputSize);
    const { pixels, scale, offset } = fillInput(image, [width, height], fitting ?? "stretch");
    const outputs = await this.#network.run(pixels, [1, height, width, 3]);
    const candidates =
      decoder === "boxes" ? listed(outputs[0], outputs[1]) : mapped(outputs[0], outputs[1], width / STRIDE);
    const likely = candidates
      .filter(({ score }) => !calibration || score >= MIN_RAW_SCORE)
      .map(({ box, score }) => ({ box, score: calibrate(calibration, score, 0) }))
      .filter(({ score }) => score >= Math.max(minScore, 1e-6));
    return nms(likely, threshold ?? IOU_THRESHOLD, maxPeople).map(({ box, score }) => ({
      box: clip(/** @type {Xyxy} */ (box.map((it, i) => it * scale[i % 2] + offset[i % 2])), image),
      score,
    }));
  }
}

/**
 * @param {Pixels} image
 * @param {[number, number]} size Of the network's input.
 * @param {"stretch" | "center" | "top_left"} fitting
 * @returns {{ pixels: Uint8Array, scale: number[], offset: number[] }} The input, and along x and y: image px = scale *
 *   input px + offset, for edges of boxes.
 */
function fillInput(image, [width, height], fitting) {
  const ratios = [image.width / width, image.height / height];
  if (fitting === "stretch") return { pixels: resize(image, width, height), scale: ratios, offset: [0, 0] };
  const scale = Math.max(...ratios);
  const bars = [scale * width - image.width, scale * height - image.height];
  const offset = fitting === "center" ? bars.map((it) => -it / 2) : [0, 0];
  // The edges of boxes lie between pixels, whose centres are whole numbers to `warp`.
  const [left, top] = offset.map((it) => it + (scale - 1) / 2);
  const pixels = new Uint8Array(width * height * 3);
  warp(image, { scale, left, top }, [width, height], pixels);
  return { pixels, scale: [scale, scale], offset };
}

/**
 * Choose the network's input: whole blocks, with the aspect ratio nearest to the picture's.
 *
 * @param {{ width: number, height: number }} image
 * @param {[number, number]} inputSize Its area is not exceeded.
 * @returns {[number, number]}
 */
export function inputGrid({ width, height }, inputSize) {
  const budget = Math.floor(inputSize[0] / BLOCK) * Math.floor(inputSize[1] / BLOCK);
  const misfit = (/** @type {number} */ columns) => {
    const rows = Math.floor(budget / columns);
    return Math.abs(Math.log(columns / rows / (width / height))) - 0.3 * Math.log((columns * rows) / budget);
  };
  let best = 1;
  for (let columns = 2; columns <= budget; columns += 1) if (misfit(columns) < misfit(best)) best = columns;
  return [best * BLOCK, Math.floor(budget / best) * BLOCK];
}

/**
 * @param {Float32Array} scores M.
 * @param {Float32Array} boxes M x 4.
 * @returns {Detection[]}
 */
function listed(scores, boxes) {
  return Array.from(scores, (score, i) => {
    return { score, box: /** @type {Xyxy} */ ([...boxes.subarray(4 * i, 4 * i + 4)]) };
  });
}

/**
 * @param {Float32Array} centers h x w, 0 except at local maxima.
 * @param {Float32Array} distances 4 x h x w, left, top, right, bottom in input px.
 * @param {number} w
 * @returns {Detection[]}
 */
function mapped(centers, distances, w) {
  /** @type {Detection[]} */
  const found = [];
  centers.forEach((score, i) => {
    if (!score) return;
    const [x, y] = [((i % w) + 0.5) * STRIDE, (Math.floor(i / w) + 0.5) * STRIDE];
    const [left, top, right, bottom] = [0, 1, 2, 3].map((side) => distances[side * centers.length + i]);
    found.push({ score, box: [x - left, y - top, x + right, y + bottom] });
  });
  return found;
}
