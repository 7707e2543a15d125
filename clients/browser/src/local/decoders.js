/** Reads keypoints off a network's outputs, as service/pose/decoders does. */

/** @typedef {import("./boxes.js").Point} Point */
/** @typedef {{ points: Point[], scores: number[] }} Decoded Crop px, and raw scores 0..1. */

const MIN_HEIGHT = 1e-8;

/**
 * @param {ArrayLike<number>} values
 * @param {number} start
 * @param {number} end
 */
function argmax(values, start, end) {
  let best = start;
  for (let i = start + 1; i < end; i += 1) if (values[i] > values[best]) best = i;
  return best - start;
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * Read the keypoints of one person off heatmaps with sub-cell precision: DARK's Taylor step (arXiv 1910.06278, eq. 9).
 *
 * @param {Float32Array} heatmaps K maps of h x w cells.
 * @param {[number, number]} size w and h.
 * @param {number} stride Crop pixels per cell.
 * @returns {Decoded}
 */
export function decodeHeatmaps(heatmaps, [w, h], stride) {
  /** @type {Decoded} */
  const decoded = { points: [], scores: [] };
  for (let start = 0; start < heatmaps.length; start += w * h) {
    const peak = argmax(heatmaps, start, start + w * h);
    const [peakX, peakY] = [peak % w, Math.floor(peak / w)];
    const [x, y] = refine(heatmaps, start, w, h, peakX, peakY);
    // A top more than one cell away from the highest cell belongs to another peak.
    const cells = [clamp(x, peakX - 1, peakX + 1), clamp(y, peakY - 1, peakY + 1)];
    decoded.points.push([(cells[0] + 0.5) * stride - 0.5, (cells[1] + 0.5) * stride - 0.5]);
    decoded.scores.push(clamp(heatmaps[start + peak], 0, 1));
  }
  return decoded;
}

/**
 * Find the top of the parabola through the smoothed logarithms around a peak.
 *
 * @param {Float32Array} heatmaps
 * @param {number} start
 * @param {number} w
 * @param {number} h
 * @param {number} peakX
 * @param {number} peakY
 * @returns {[number, number]} Cells.
 */
function refine(heatmaps, start, w, h, peakX, peakY) {
  const [centerX, centerY] = [clamp(peakX, 2, w - 3), clamp(peakY, 2, h - 3)];
  const log = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    Math.log(Math.max(heatmaps[start + (centerY + dy) * w + centerX + dx], MIN_HEIGHT));
  const row = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    (log(dx - 1, dy) + 2 * log(dx, dy) + log(dx + 1, dy)) / 4;
  const at = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    (row(dx, dy - 1) + 2 * row(dx, dy) + row(dx, dy + 1)) / 4;
  const middle = at(0, 0);
  const [left, right, above, below] = [at(-1, 0), at(1, 0), at(0, -1), at(0, 1)];
  const [dx, dy] = [(right - left) / 2, (below - above) / 2];
  const [dxx, dyy] = [right - 2 * middle + left, below - 2 * middle + above];
  const dxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4;
  const det = dxx * dyy - dxy ** 2;
  if (!(det > 1e-9 && dxx < 0)) return [peakX, peakY];
  return [centerX - (dyy * dx - dxy * dy) / det, centerY - (dxx * dy - dxy * dx) / det];
}

/**
 * Read the keypoints of one person off SimCC outputs: a distribution along each axis (arXiv 2107.03332).
 *
 * @param {Float32Array} alongX K distributions.
 * @param {Float32Array} alongY
 * @param {number} count K.
 * @param {[number, number]} size Width and height of the crop, px.
 * @returns {Decoded}
 */
export function decodeSimcc(alongX, alongY, count, [width, height]) {
  const [xs, ys] = [topsOf(alongX, count, width), topsOf(alongY, count, height)];
  return {
    points: xs.map(({ position }, k) => [position, ys[k].position]),
    scores: xs.map((x, k) => Math.min(x.height, ys[k].height)),
  };
}

/**
 * @param {Float32Array} axis
 * @param {number} count
 * @param {number} side Crop px.
 */
function topsOf(axis, count, side) {
  const bins = axis.length / count;
  return Array.from({ length: count }, (_, k) => {
    const start = k * bins;
    const peak = argmax(axis, start, start + bins);
    const center = clamp(peak, 1, bins - 2);
    const [left, middle, right] = [-1, 0, 1].map((d) => Math.log(Math.max(axis[start + center + d], MIN_HEIGHT)));
    const bend = left - 2 * middle + right;
    const top = bend < -1e-9 ? center + (left - right) / (2 * bend) : peak;
    const position = ((clamp(top, peak - 1, peak + 1) + 0.5) * side) / bins - 0.5;
    return { position, height: clamp(axis[start + peak], 0, 1) };
  });
}
