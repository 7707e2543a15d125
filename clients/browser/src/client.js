/** Calls to a posewright server. */

import { Calls } from "./calls.js";
import { clientType, PosewrightError } from "./errors.js";
import { encode, Scale } from "./picture.js";
import { Sources } from "./sources.js";
import { PoseStream } from "./stream.js";
import { readPose } from "./wire.js";

/** @typedef {import("./calls.js").Call} Call */
/** @typedef {import("./frames.js").MovingSource} MovingSource */
/** @typedef {import("./picture.js").Source} Source */
/** @typedef {import("./retries.js").Retries} Retries */
/** @typedef {import("./stream.js").StreamOptions} StreamOptions */
/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */
/** @typedef {import("./wire.js").Skeleton} Skeleton */

/**
 * @typedef {object} PredictOptions
 * @property {string} [model] `auto` (default), `student`, `teacher`, or a name from `models()`.
 * @property {[number, number, number, number][]} [boxes] People's boxes [x, y, width, height] in pixels, instead of
 *   those that the detector finds.
 * @property {number} [maxPeople] Maximum number of people.
 * @property {number} [minScore] Poses with a lower score are left out.
 * @property {number} [keypointThreshold] Minimum score of a `visible` keypoint; all keypoints are returned.
 * @property {boolean} [covariance] Give keypoints their `covariance`, which not every model has; not in local mode.
 * @property {number} [maxSide] Longest side to send, pixels; larger pictures are shrunk first. Does not apply to blobs.
 * @property {number} [quality] JPEG quality, 0..1; default 0.92.
 * @property {AbortSignal} [signal] Aborts the call, e.g. `AbortSignal.timeout(5000)`.
 */

/**
 * @typedef {object} Model The model that produced the poses.
 * @property {string} name
 * @property {string} version
 * @property {string} sha256
 * @property {"student" | "teacher" | "detector"} role
 * @property {string} backend
 * @property {string | null} fallback Why the teacher was used instead of the student.
 */

/** @typedef {{ poses: Pose[], image: Size, model: Model, timingsMs: Record<string, number>, id: string }} Prediction */

/**
 * @typedef {object} Match One person whom both models found.
 * @property {number} student Index into the student's poses.
 * @property {number} teacher Index into the teacher's poses.
 * @property {number} oks Object keypoint similarity, 0..1.
 * @property {number[]} distancesPx Distance of each keypoint, pixels of the source.
 * @property {number[]} distancesRelative The same, divided by the square root of the box area.
 */

/** @typedef {{ model: Model, poses: Pose[], poseMs: number }} Side */

/**
 * @typedef {object} Comparison
 * @property {Side} student
 * @property {Side} teacher
 * @property {Match[]} matches
 * @property {Size} image
 * @property {Record<string, number>} timingsMs
 * @property {string} id
 */

/**
 * @typedef {object} ModelEntry A model that the server has.
 * @property {string} name
 * @property {string} version
 * @property {string} sha256
 * @property {"student" | "teacher" | "detector"} role
 * @property {string} backend
 * @property {"ready" | "warming_up" | "unavailable"} state
 * @property {string | null} failure
 * @property {boolean} default
 * @property {Record<string, number>} metrics
 * @property {Skeleton | null} skeleton The keypoints that it estimates; null for a detector.
 * @property {Record<string, unknown>} manifest
 */

/** A posewright server. */
export class Posewright {
  #calls;

  /**
   * @param {string | URL} [url] Address of the server; default: the server that this module was loaded from, at
   *   `web/browser/client.js`.
   * @param {{ key?: string, retries?: Retries }} [options] `key`: API key, where the server or its proxy requires one;
   *   `retries`: when calls are repeated.
   */
  constructor(url = new URL("../..", import.meta.url), { key, retries = {} } = {}) {
    const base = new URL(url, globalThis.location?.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.#calls = new Calls(base, key, retries);
  }

  /** @param {string | undefined} key API key of all later calls and streams. */
  set key(key) {
    this.#calls.key = key;
  }

  /** Sources that the server opens itself: cameras and videos. */
  get sources() {
    return new Sources(this.#calls);
  }

  /**
   * Find the people in one picture.
   *
   * @param {Source} source
   * @param {PredictOptions} [options]
   * @returns {Promise<Prediction>}
   * @throws {PosewrightError}
   */
  async predict(source, options = {}) {
    const { reply, scale } = await this.#post("predict", source, options);
    return readPrediction(reply, scale);
  }

  /**
   * Find the people in several pictures with one call, in order. A bad picture becomes an error in the list.
   *
   * @param {Iterable<Source>} sources
   * @param {PredictOptions} [options] `boxes` are those of every picture, which then have one size.
   * @returns {Promise<(Prediction | PosewrightError)[]>}
   * @throws {PosewrightError} For the call as a whole.
   */
  async predictBatch(sources, options = {}) {
    const { maxSide = Infinity, quality = 0.92 } = options;
    const form = new FormData();
    /** @type {Scale[]} */
    const scales = [];
    /** @type {(PosewrightError | null)[]} For each picture; null for those that are sent. */
    const failures = [];
    for (const source of sources) {
      try {
        const { blob, scale } = await encode(source, maxSide, quality);
        form.append("image", blob, String(failures.length));
        scales.push(scale);
        failures.push(null);
      } catch (error) {
        if (!(error instanceof PosewrightError)) throw error;
        failures.push(error);
      }
    }
    const [first] = scales;
    if (!first && failures.length) return /** @type {PosewrightError[]} */ (failures);
    if (!first) throw new PosewrightError("expected at least one picture, got none", { type: clientType("source") });
    if (options.boxes && scales.some(({ x, y }) => x !== first.x || y !== first.y)) {
      const detail = "boxes: expected pictures that are sent at one scale; send one call for each, or drop maxSide";
      throw new PosewrightError(detail, { type: clientType("boxes") });
    }
    const reply = await this.#calls.json("predict/batch", { ...callOf(options, first), body: form });
    const answers = reply.map((/** @type {any} */ it, /** @type {number} */ i) =>
      it.problem ? PosewrightError.from(it.problem) : readPrediction(it, scales[i]),
    );
    return failures.map((failure) => failure ?? answers.shift());
  }

  /**
   * Run the student and the teacher on the same picture.
   *
   * @param {Source} source
   * @param {PredictOptions} [options]
   * @returns {Promise<Comparison>}
   * @throws {PosewrightError}
   */
  async compare(source, options = {}) {
    const { reply, scale } = await this.#post("compare", source, options);
    const side = (/** @type {any} */ { model, poses, pose_ms: poseMs }) => ({
      model, poseMs, poses: poses.map((/** @type {any} */ it) => scale.poseToSource(readPose(it, reply))),
    });
    return {
      student: side(reply.student),
      teacher: side(reply.teacher),
      matches: reply.matches.map((/** @type {any} */ it) => ({
        student: it.student,
        teacher: it.teacher,
        oks: it.oks,
        distancesPx: it.distances_px.map((/** @type {number} */ px) => px * scale.x),
        distancesRelative: it.distances_relative,
      })),
      image: scale.sizeOfSource(reply.image),
      timingsMs: reply.timings_ms,
      id: reply.id,
    };
  }

  /**
   * List the server's models.
   *
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<ModelEntry[]>}
   * @throws {PosewrightError}
   */
  async models({ signal } = {}) {
    return (await this.#calls.json("models", { signal })).models;
  }

  /**
   * Ask once whether the server is ready; false while it loads its models.
   *
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<boolean>}
   * @throws {PosewrightError} The server cannot be reached.
   */
  async ready({ signal } = {}) {
    try {
      await this.#calls.json("readyz", { signal, retries: { attempts: 1 } });
      return true;
    } catch (error) {
      if (error instanceof PosewrightError && error.status === 503) return false;
      throw error;
    }
  }

  /**
   * Track the people in a video or on a canvas. Read the results with `for await`, where a slow reader gets the newest
   * result, or pass `onResult`; `close()` ends the stream.
   *
   * @param {MovingSource} source
   * @param {StreamOptions} [options]
   * @returns {PoseStream}
   */
  stream(source, options = {}) {
    return new PoseStream(this.#calls.socketUrl("stream"), this.#calls.key, source, options);
  }

  /**
   * @param {string} path
   * @param {Source} source
   * @param {PredictOptions} options
   */
  async #post(path, source, options) {
    const { maxSide = Infinity, quality = 0.92 } = options;
    const { blob, scale } = await encode(source, maxSide, quality);
    return { scale, reply: await this.#calls.json(path, { ...callOf(options, scale), body: blob }) };
  }
}

/**
 * @param {PredictOptions} options
 * @param {Scale} scale
 * @returns {Call}
 */
function callOf(options, scale) {
  const query = {
    model: options.model,
    boxes: options.boxes && JSON.stringify(options.boxes.map((box) => scale.boxToSent(box))),
    max_people: options.maxPeople,
    min_score: options.minScore,
    keypoint_threshold: options.keypointThreshold,
    covariance: options.covariance,
  };
  return { query, signal: options.signal };
}

/**
 * @param {any} reply
 * @param {Scale} scale
 * @returns {Prediction}
 */
function readPrediction(reply, scale) {
  return {
    poses: reply.poses.map((/** @type {any} */ it) => scale.poseToSource(readPose(it, reply))),
    image: scale.sizeOfSource(reply.image),
    model: reply.model,
    timingsMs: reply.timings_ms,
    id: reply.id,
  };
}
