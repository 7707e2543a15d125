/** Draws skeletons on a canvas. */

import { EDGES } from "./wire.js";

/** @typedef {import("./wire.js").Edges} Edges */
/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */
/** @typedef {{ left: string, right: string, middle: string }} Colors Of the person's own left and right. */

/**
 * @typedef {object} DrawOptions
 * @property {Size} [image] Size of the picture that the poses refer to; it covers the whole canvas. Default: the
 *   canvas size.
 * @property {number} [threshold] Keypoints with a lower score are not drawn, nor are their edges; default 0.35.
 * @property {boolean} [mirror] Draw for a picture that is shown mirrored; text stays readable.
 * @property {boolean} [boxes] Also draw boxes.
 * @property {string} [highlight] Name of a keypoint to draw large, whatever its score.
 * @property {(pose: Pose, index: number) => string} [label] Text above a person, "" for none; default: the id.
 * @property {number} [lineWidth] Pixels of the canvas; default: grows with the size of the person.
 * @property {number} [pixelRatio] Pixels of the canvas per CSS pixel: 1 (default) or `devicePixelRatio`.
 * @property {Colors} [colors]
 */

/** @typedef {{ x: number, y: number, name: string, visible: boolean }} Joint Pixels of the canvas. */
/** @typedef {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} Context */

/** Default colours. Safe for colour-blind viewers: Okabe and Ito. */
export const COLORS = Object.freeze({ left: "rgb(86 180 233)", right: "rgb(230 159 0)", middle: "rgb(0 200 140)" });
/** Above so many keypoints, short lines and their dots get thinner, so that faces and hands are legible. */
const MANY_KEYPOINTS = 40;
/** Length of such a line, in multiples of its width. */
const THIN_SHARE = 8;
const OUTLINE = "rgb(0 0 0 / 0.45)";

/**
 * Draw skeletons: the person's left side blue, the right side orange, the middle green.
 *
 * @param {Context} context
 * @param {readonly Pose[]} poses
 * @param {DrawOptions} [options]
 */
export function draw(context, poses, options = {}) {
  const { canvas } = context;
  const { image = canvas, mirror = false, threshold = 0.35, pixelRatio = 1 } = options;
  const [scaleX, scaleY] = [canvas.width / image.width, canvas.height / image.height];
  const toCanvas = (/** @type {number} */ x, /** @type {number} */ y) => {
    // The origin of poses is the centre of the first pixel, that of a canvas is its corner.
    const across = (x + 0.5) * scaleX;
    return { x: mirror ? canvas.width - across : across, y: (y + 0.5) * scaleY };
  };
  context.save();
  context.lineCap = context.lineJoin = "round";
  poses.forEach((pose, index) => {
    const side = Math.sqrt(pose.box.width * scaleX * pose.box.height * scaleY);
    const width = options.lineWidth ?? Math.min(Math.max(side / 70, 2 * pixelRatio), 9 * pixelRatio);
    const joints = pose.keypoints.map(({ x, y, name, score }) => {
      return { ...toCanvas(x, y), name, visible: score >= threshold };
    });
    const { xMin, yMin, xMax, yMax } = pose.box;
    if (options.boxes) drawBox(context, toCanvas(xMin, yMin), toCanvas(xMax, yMax), width);
    const colors = options.colors ?? COLORS;
    drawSkeleton(context, joints, pose.edges ?? EDGES, width, colors);
    const sought = joints.find((it) => it.name === options.highlight);
    if (sought) drawTarget(context, sought, width, colors[sideOf(sought.name)]);
    const text = options.label ? options.label(pose, index) : String(pose.id ?? "");
    const height = Math.min(Math.max(width * 3.6, 14 * pixelRatio), 32 * pixelRatio);
    if (text) drawLabel(context, text, toCanvas((xMin + xMax) / 2, yMin), height);
  });
  context.restore();
}

/**
 * @param {Context} context
 * @param {Joint[]} joints
 * @param {Edges} pairs
 * @param {number} width
 * @param {Colors} colors
 */
function drawSkeleton(context, joints, pairs, width, colors) {
  const edges = pairs.map(([a, b]) => [joints[a], joints[b]]).filter(([a, b]) => a?.visible && b?.visible);
  const widthOf = (/** @type {Joint} */ a, /** @type {Joint} */ b) =>
    joints.length > MANY_KEYPOINTS ? Math.min(Math.hypot(b.x - a.x, b.y - a.y) / THIN_SHARE, width) : width;
  /** @type {Map<Joint, number>} */
  const dots = new Map();
  for (const [a, b] of edges) {
    for (const joint of [a, b]) dots.set(joint, Math.max(dots.get(joint) ?? 0, widthOf(a, b)));
  }
  // All outlines first, so that none covers the colour of a neighbouring edge.
  for (const [factor, outline] of /** @type {[number, boolean][]} */ ([[1.7, true], [1, false]])) {
    for (const [a, b] of edges) {
      context.lineWidth = Math.max(widthOf(a, b), 1) * factor;
      context.strokeStyle = outline ? OUTLINE : colors[sideOf(a.name, b.name)];
      context.beginPath();
      context.moveTo(a.x, a.y);
      context.lineTo(b.x, b.y);
      context.stroke();
    }
  }
  for (const joint of joints.filter((it) => it.visible)) {
    const dot = joints.length > MANY_KEYPOINTS ? (dots.get(joint) ?? 0) : width;
    if (dot > 1) drawDot(context, joint, dot * 1.35, "white");
    drawDot(context, joint, Math.max(dot, 1) * 0.9, colors[sideOf(joint.name)]);
  }
}

/**
 * @param {Context} context
 * @param {{ x: number, y: number }} center
 * @param {number} radius
 * @param {string} color
 */
function drawDot(context, { x, y }, radius, color) {
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/**
 * @param {Context} context
 * @param {{ x: number, y: number }} center
 * @param {number} width
 * @param {string} color
 */
function drawTarget(context, center, width, color) {
  drawDot(context, center, width * 3, OUTLINE);
  drawDot(context, center, width * 2.6, "white");
  drawDot(context, center, width * 2, color);
}

/**
 * @param {Context} context
 * @param {{ x: number, y: number }} a
 * @param {{ x: number, y: number }} b The opposite corner.
 * @param {number} width
 */
function drawBox(context, a, b, width) {
  for (const [lineWidth, color] of /** @type {[number, string][]} */ ([[width, OUTLINE], [width / 2, "white"]])) {
    context.lineWidth = lineWidth;
    context.strokeStyle = color;
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

/**
 * Write white on dark above a point, without leaving the canvas.
 *
 * @param {Context} context
 * @param {string} text
 * @param {{ x: number, y: number }} point
 * @param {number} height
 */
function drawLabel(context, text, { x, y }, height) {
  context.font = `600 ${height * 0.68}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const half = Math.max(context.measureText(text).width / 2 + height * 0.35, height / 2);
  const center = Math.min(Math.max(x, half + 2), context.canvas.width - half - 2);
  const middle = Math.max(y - height * 0.75, height / 2 + 2);
  context.fillStyle = "rgb(0 0 0 / 0.72)";
  context.beginPath();
  context.roundRect(center - half, middle - height / 2, 2 * half, height, height / 2);
  context.fill();
  context.fillStyle = "white";
  context.fillText(text, center, middle + height * 0.04);
}

/**
 * The side of the body on which a keypoint lies, or an edge between two, as their names say. It decides the colour.
 *
 * @param {string[]} names Names of keypoints.
 * @returns {"left" | "right" | "middle"}
 */
export function sideOf(...names) {
  if (names.every((name) => name.startsWith("left_"))) return "left";
  return names.every((name) => name.startsWith("right_")) ? "right" : "middle";
}
