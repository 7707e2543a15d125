/** Boxes of people, xyxy in image px, as in service/pose/boxes.py. */

/** @typedef {import("./crop.js").Xyxy} Xyxy */
/** @typedef {readonly [number, number]} Point */

/** Score from which a keypoint counts as certain. */
export const SURE_SCORE = 0.35;
/** Keypoints from which a person's extent is taken at least, certain or not. */
const MIN_EXTENT_KEYPOINTS = 4;
/** Share of the keypoints' extent by which a COCO box reaches beyond them on each side. */
const BODY_MARGIN = 0.12;

/** @param {Xyxy} box */
export function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

/**
 * @param {Xyxy} box
 * @param {{ width: number, height: number }} size Of the picture.
 * @returns {Xyxy}
 */
export function clip([left, top, right, bottom], { width, height }) {
  const inside = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(Math.max(value, 0), most);
  return [inside(left, width), inside(top, height), inside(right, width), inside(bottom, height)];
}

/**
 * Intersection over union, 0..1.
 *
 * @param {Xyxy} a
 * @param {Xyxy} b
 */
export function iou(a, b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  return (width * height) / Math.max(area(a) + area(b) - width * height, 1e-9);
}

/**
 * Greedy non-maximum suppression.
 *
 * @template {{ box: Xyxy, score: number }} T
 * @param {T[]} candidates
 * @param {number} threshold IoU with a kept box above which a box is dropped.
 * @param {number} most
 * @returns {T[]} Best score first.
 */
export function nms(candidates, threshold, most) {
  let left = [...candidates].sort((a, b) => b.score - a.score);
  /** @type {T[]} */
  const kept = [];
  while (left.length && kept.length < most) {
    const [best, ...others] = left;
    kept.push(best);
    left = others.filter((it) => iou(best.box, it.box) <= threshold);
  }
  return kept;
}

/**
 * Tight box around the certain keypoints, or around the best few if fewer are certain.
 *
 * @param {readonly Point[]} keypoints
 * @param {readonly number[]} scores
 * @returns {Xyxy} At least one pixel wide and high.
 */
export function keypointExtent(keypoints, scores) {
  const fewest = [...scores].sort((a, b) => b - a)[Math.min(MIN_EXTENT_KEYPOINTS, scores.length) - 1];
  const sure = keypoints.filter((_, k) => scores[k] >= Math.min(fewest, SURE_SCORE));
  const [xs, ys] = [sure.map(([x]) => x), sure.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  return [left, top, Math.max(...xs, left + 1), Math.max(...ys, top + 1)];
}

/**
 * Box as COCO labels it.
 *
 * @param {readonly Point[]} keypoints
 * @param {readonly number[]} scores
 * @returns {Xyxy}
 */
export function boxFromKeypoints(keypoints, scores) {
  const [left, top, right, bottom] = keypointExtent(keypoints, scores);
  const [x, y] = [BODY_MARGIN * (right - left), BODY_MARGIN * (bottom - top)];
  return [left - x, top - y, right + x, bottom + y];
}
