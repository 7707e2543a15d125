/** Records results for download: as JSON, or as a COCO data set for annotation tools. */

import { EDGES, KEYPOINTS } from "./browser/index.js";

/** @typedef {import("./browser/index.js").Pose} Pose */
/** @typedef {import("./browser/index.js").Size} Size */

/** A minute and a half at 60 frames per second; older frames are removed. */
const MAX_FRAMES = 5400;

/**
 * @typedef {object} Frame
 * @property {number} time_s Seconds since the first frame.
 * @property {Size} image
 * @property {string} model The model that produced the poses.
 * @property {Pose[]} poses
 * @property {Record<string, unknown>} [student] In comparisons, where `poses` are the teacher's.
 * @property {{ student: number, teacher: number, oks: number }[]} [matches]
 */

export class Recording {
  /** @type {Frame[]} */
  #frames = [];
  #source = "";
  #startedMs = 0;

  get size() {
    return this.#frames.length;
  }

  /** @param {string} source Name of the source. */
  start(source) {
    this.#frames = [];
    this.#source = source;
  }

  /**
   * @param {number} capturedMs
   * @param {Omit<Frame, "time_s">} frame
   */
  add(capturedMs, frame) {
    if (!this.#frames.length) this.#startedMs = capturedMs;
    this.#frames.push({ time_s: round((capturedMs - this.#startedMs) / 1000, 3), ...frame });
    if (this.#frames.length > MAX_FRAMES) this.#frames.shift();
  }

  /** Export all frames. */
  json() {
    return { schema: "pose.v1", created: new Date().toISOString(), source: this.#source, frames: this.#frames };
  }

  /**
   * Export a COCO keypoint data set (cocodataset.org/#format-data).
   *
   * @param {number} threshold Keypoints with a lower score are not labelled; `keypoint_scores` has all scores.
   */
  coco(threshold) {
    const stem = this.#source.replace(/\.[^.]*$/, "") || "posewright";
    /** @type {object[]} */
    const annotations = [];
    const images = this.#frames.map(({ image, poses, time_s }, i) => {
      for (const pose of poses) annotations.push(annotation(pose, annotations.length + 1, i + 1, threshold));
      const still = this.#frames.length === 1 && this.#source.includes(".");
      const name = still ? this.#source : `${stem}-${String(i + 1).padStart(6, "0")}.jpg`;
      return { id: i + 1, file_name: name, width: image.width, height: image.height, time_s };
    });
    const first = this.#frames.flatMap(({ poses }) => poses).at(0);
    const keypoints = first?.keypoints.map((it) => it.name) ?? KEYPOINTS;
    const skeleton = (first?.edges ?? EDGES).map(([a, b]) => [a + 1, b + 1]); // COCO counts from 1
    const person = { id: 1, name: "person", supercategory: "person", keypoints, skeleton };
    return {
      info: { description: `Poses found by posewright in ${this.#source}`, date_created: new Date().toISOString() },
      licenses: [], images, annotations, categories: [person],
    };
  }
}

/**
 * @param {Pose} pose
 * @param {number} id
 * @param {number} imageId
 * @param {number} threshold
 */
function annotation(pose, id, imageId, threshold) {
  const labelled = pose.keypoints.map((it) => it.score >= threshold);
  const { xMin, yMin, width, height } = pose.box;
  return {
    id,
    image_id: imageId,
    category_id: 1,
    iscrowd: 0,
    keypoints: pose.keypoints.flatMap((it, k) => (labelled[k] ? [round(it.x), round(it.y), 2] : [0, 0, 0])),
    num_keypoints: labelled.filter(Boolean).length,
    keypoint_scores: pose.keypoints.map((it) => it.score),
    bbox: [xMin, yMin, width, height].map((it) => round(it)),
    area: round(width * height),
    score: pose.score,
    ...(pose.id === undefined ? {} : { track_id: pose.id }),
  };
}

/**
 * Download a file, which is named after the time.
 *
 * @param {Blob} blob
 * @param {string} suffix
 */
export function download(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `posewright-${new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, "-")}${suffix}`;
  link.click();
  // Browsers start reading the file a moment later.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * @param {object} document
 * @param {string} suffix
 */
export function downloadJson(document, suffix) {
  download(new Blob([JSON.stringify(document)], { type: "application/json" }), suffix);
}

/**
 * @param {number} value
 * @param {number} [decimals]
 */
function round(value, decimals = 2) {
  return Number(value.toFixed(decimals));
}
