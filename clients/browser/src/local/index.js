/**
 * Local mode: detector and student run in the page, by an onnxruntime-web that the page brings. No picture leaves the
 * machine.
 *
 *     import * as ort from "onnxruntime-web";
 *     import { local } from "posewright-client/local";
 *
 *     const posewright = await local({ ort, models: "https://example.org/models/" });
 *     const { poses } = await posewright.predict(document.querySelector("img"));
 *
 * @license Apache-2.0
 * @module
 */

import { clientType, PosewrightError } from "../errors.js";
import { makeBox } from "../wire.js";
import { clip } from "./boxes.js";
import { loadNetwork } from "./bundle.js";
import { PersonDetector } from "./detector.js";
import { PoseEstimator } from "./estimator.js";
import { personScore } from "./oks.js";
import { readPixels } from "./pixels.js";

/** @typedef {import("../client.js").Model} Model */
/** @typedef {import("../client.js").PredictOptions} PredictOptions */
/** @typedef {import("../client.js").Prediction} Prediction */
/** @typedef {import("../picture.js").Source} Source */
/** @typedef {import("../wire.js").Pose} Pose */
/** @typedef {import("./bundle.js").Ort} Ort */
/** @typedef {import("./crop.js").Xyxy} Xyxy */
/** @typedef {import("./oks.js").Person} Person */
/** @typedef {import("./pixels.js").Pixels} Pixels */

/**
 * @typedef {object} LocalOptions
 * @property {Ort} ort The module `onnxruntime-web`.
 * @property {string | URL} models Folder of bundles, each with `manifest.json` and `model.onnx`; or `/models/` of a
 *   server with `--serve-bundles true`.
 * @property {string} [detector] Name of the detector's bundle; default `detector`.
 * @property {string} [student] Name of the pose network's bundle; default `student-s`.
 * @property {Record<string, unknown>} [sessionOptions] For onnxruntime's sessions, e.g. other execution providers.
 * @property {string} [key] API key of the server that the bundles come from.
 * @property {AbortSignal} [signal] Aborts the loading.
 */

/** @typedef {Omit<PredictOptions, "model" | "maxSide" | "quality" | "covariance">} LocalPredictOptions As for a server. */

/**
 * Load the networks.
 *
 * @param {LocalOptions} options
 * @returns {Promise<LocalPosewright>}
 * @throws {PosewrightError}
 */
export async function local({ ort, models, detector = "detector", student = "student-s", ...options }) {
  const folder = new URL(models, globalThis.location?.href);
  if (!folder.pathname.endsWith("/")) folder.pathname += "/";
  const loading = [detector, student].map((name) => loadNetwork(ort, folder, name, options));
  const [detecting, posing] = await Promise.all(loading);
  return new LocalPosewright(new PersonDetector(detecting), new PoseEstimator(posing));
}

/** Answers like a `Posewright`, in the page. Made by `local`. */
export class LocalPosewright {
  #detector;
  #estimator;
  #count = 0;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * @param {PersonDetector} detector
   * @param {PoseEstimator} estimator
   */
  constructor(detector, estimator) {
    this.#detector = detector;
    this.#estimator = estimator;
  }

  /**
   * Find the people in one picture.
   *
   * @param {Source} source
   * @param {LocalPredictOptions} [options]
   * @returns {Promise<Prediction>}
   * @throws {PosewrightError}
   */
  predict(source, options = {}) {
    // One picture after the other: they would share one thread anyway.
    const prediction = this.#last.then(() => this.#predict(source, options));
    this.#last = prediction.catch(() => undefined);
    return prediction;
  }

  /**
   * Find the people in several pictures, in order. A bad picture becomes an error in the list.
   *
   * @param {Iterable<Source>} sources
   * @param {LocalPredictOptions} [options]
   * @returns {Promise<(Prediction | PosewrightError)[]>}
   */
  async predictBatch(sources, options = {}) {
    return Promise.all(
      Array.from(sources, (source) =>
        this.predict(source, options).catch((error) => {
          if (error instanceof PosewrightError) return error;
          throw error;
        }),
      ),
    );
  }

  /** @returns {Promise<boolean>} True, as the networks are loaded. */
  async ready() {
    return true;
  }

  /** @returns {Model} The model that answers. */
  get model() {
    const { name, version, role, files } = this.#estimator.manifest;
    return { name, version, sha256: files["model.onnx"], role, backend: "onnxruntime-web", fallback: null };
  }

  /**
   * @param {Source} source
   * @param {LocalPredictOptions} options
   * @returns {Promise<Prediction>}
   */
  async #predict(source, { boxes, maxPeople = 20, minScore = boxes ? 0 : 0.15, keypointThreshold = 0.35, signal }) {
    const times = [performance.now()];
    const lap = () => times.push(performance.now()) && signal?.throwIfAborted();
    signal?.throwIfAborted();
    const image = await readPixels(source);
    lap();
    const estimator = this.#estimator;
    const detections = boxes
      ? boxes.map((box, i) => ({ box: given(box, i, image), score: 1 }))
      : await this.#detector.detect(image, maxPeople, estimator.minBoxScore(minScore));
    lap();
    const people = boxes
      ? await estimator.estimate(image, detections)
      : await estimator.estimateDetections(image, detections, minScore);
    lap();
    const [decode, detect, pose] = times.slice(1).map((time, i) => time - times[i]);
    const { width, height } = image;
    return {
      poses: people.filter((it) => personScore(it) >= minScore).map((it) => this.#pose(it, keypointThreshold)),
      image: { width, height },
      model: this.model,
      timingsMs: { decode, detect, pose, total: decode + detect + pose },
      id: `local-${(this.#count += 1)}`,
    };
  }

  /**
   * @param {Person} person
   * @param {number} threshold
   * @returns {Pose}
   */
  #pose(person, threshold) {
    const { name: skeleton, keypoints: names, edges } = this.#estimator.skeleton;
    const [left, top, right, bottom] = person.box;
    /** @type {Pose} */
    const pose = {
      keypoints: person.keypoints.map(([x, y], k) => {
        const score = person.scores[k];
        return { x, y, score, name: names[k], visible: score >= threshold };
      }),
      score: personScore(person),
      box: makeBox(left, top, right - left, bottom - top),
    };
    if (skeleton !== "coco17") pose.edges = edges;
    return pose;
  }
}

/**
 * @param {[number, number, number, number]} box [x, y, width, height].
 * @param {number} index
 * @param {Pixels} image
 * @returns {Xyxy}
 */
function given([x, y, width, height], index, image) {
  /** @type {Xyxy} */
  const box = [x, y, x + width, y + height];
  const [left, top, right, bottom] = clip(box, image);
  if (right > left && bottom > top) return box;
  const detail =
    `boxes[${index}]: expected a box that overlaps the picture of ${image.width} x ${image.height} px, ` +
    `got ${[x, y, width, height]}; boxes are [x, y, width, height] in pixels`;
  throw new PosewrightError(detail, { status: 422, type: clientType("bad-parameter"), title: "Bad parameter" });
}
