/** The wire format `pose.v1`: the skeleton, the header of a frame, and how poses are read. */

/** @typedef {{ width: number, height: number }} Size Pixels. */
/**
 * @typedef {readonly [readonly [number, number], readonly [number, number]]} Covariance [[xx, xy], [xy, yy]], pixels².
 */
/**
 * @typedef {{ x: number, y: number, score: number, name: string, visible?: boolean, covariance?: Covariance | null }}
 *   Keypoint Pixels; score: expected OKS, 0..1; visible: whether the score reaches `keypointThreshold`, missing in streams
 *   without that option; covariance: of the keypoint's error, only with the option `covariance`, null where the model
 *   that answered has none.
 */
/** @typedef {{ xMin: number, yMin: number, xMax: number, yMax: number, width: number, height: number }} Box Pixels. */
/** @typedef {readonly (readonly [number, number])[]} Edges Pairs of keypoint indices, from 0. */
/** @typedef {{ name: string, keypoints: string[], edges: Edges }} Skeleton The keypoints of one kind of body. */
/**
 * @typedef {{ keypoints: Keypoint[], score: number, box: Box, id?: number, edges?: Edges }} Pose One person. `id` is
 *   set only in streams; `edges` only if the model's skeleton is not COCO's.
 */

/** COCO's keypoints, in the order of every pose. */
export const KEYPOINTS = Object.freeze([
  "nose", "left_eye", "right_eye", "left_ear", "right_ear",
  "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
  "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
]);

/**
 * Pairs of COCO keypoints that a drawing connects.
 *
 * @type {Edges}
 */
export const EDGES = Object.freeze([
  [0, 1], [0, 2], [1, 3], [2, 4], [5, 6], [5, 7], [7, 9], [6, 8], [8, 10],
  [5, 11], [6, 12], [11, 12], [11, 13], [13, 15], [12, 14], [14, 16],
]);

/** WebSocket subprotocol of `/stream`. */
export const SUBPROTOCOL = "pose.v1.json";
/** Size of a frame's header. */
export const HEADER_BYTES = 16;

/**
 * Write the header that precedes the picture of each stream frame: `u8 version | u8 flags | u16 reserved | u32 seq |
 * u64 capture_us`, big-endian.
 *
 * @param {number} seq Number of the frame, modulo 2³².
 * @param {number} captureUs Capture time of the frame on any monotonic clock, µs.
 * @returns {ArrayBuffer}
 */
export function frameHeader(seq, captureUs) {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  header.setUint8(0, 1);
  header.setUint32(4, seq);
  header.setBigUint64(8, BigInt(Math.round(captureUs)));
  return header.buffer;
}

/**
 * Take a binary message apart.
 *
 * @param {ArrayBuffer} message A frame with its header.
 * @returns {{ seq: number, captureUs: number, picture: Blob }}
 */
export function readFrame(message) {
  const header = new DataView(message, 0, HEADER_BYTES);
  const picture = new Blob([new Uint8Array(message, HEADER_BYTES)], { type: "image/jpeg" });
  return { seq: header.getUint32(4), captureUs: Number(header.getBigUint64(8)), picture };
}

/**
 * Read one person of a reply.
 *
 * @param {any} person In format `pose` or `compact`.
 * @param {any} skeleton A reply, or a stream's `ready` message: has `skeleton`, and `keypoints` and `edges` if the
 *   skeleton is not COCO's.
 * @returns {Pose}
 */
export function readPose({ id, score, box, keypoints, covariances }, skeleton) {
  const names = skeleton.keypoints ?? KEYPOINTS;
  /** @type {Pose} */
  const pose = {
    keypoints: keypoints.map((/** @type {any} */ it, /** @type {number} */ k) =>
      Array.isArray(it)
        ? { x: it[0], y: it[1], score: it[2], name: names[k] }
        : { x: it.x, y: it.y, score: it.score, name: it.name, visible: it.visible },
    ),
    score,
    box: makeBox(box[0], box[1], box[2], box[3]),
  };
  pose.keypoints.forEach((keypoint, k) => {
    const matrix = covariances ? matrixOf(covariances[k]) : keypoints[k].covariance;
    if (matrix !== undefined) keypoint.covariance = matrix;
  });
  if (id !== null) pose.id = Number(id);
  if (skeleton.edges && skeleton.skeleton !== "coco17") pose.edges = skeleton.edges;
  return pose;
}

/**
 * @param {[number, number, number] | null} entries
 * @returns {Covariance | null}
 */
function matrixOf(entries) {
  return entries && [[entries[0], entries[1]], [entries[1], entries[2]]];
}

/**
 * @param {number} xMin
 * @param {number} yMin
 * @param {number} width
 * @param {number} height
 * @returns {Box}
 */
export function makeBox(xMin, yMin, width, height) {
  return { xMin, yMin, xMax: xMin + width, yMax: yMin + height, width, height };
}
