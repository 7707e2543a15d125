/**
 * Client for a posewright server: finds people and their keypoints in pictures and live video.
 *
 *     import { Posewright, draw } from "http://localhost:8000/posewright.js";
 *
 *     const server = new Posewright("http://localhost:8000");
 *     const { poses } = await server.predict(document.querySelector("img"));
 *     draw(canvas.getContext("2d"), poses);
 *
 *     for await (const { poses, image, ageMs } of server.stream(video)) {
 *       overlay.clearRect(0, 0, overlay.canvas.width, overlay.canvas.height);
 *       draw(overlay, poses, { image });
 *     }
 *
 * Coordinates are pixels of the picture that you passed, upright, with the origin at the top left and pixel centres at
 * integers. Every pose has all keypoints, in the order of `KEYPOINTS` or of the model's own skeleton; filter them by
 * score. Poses have the shape of `Pose` in @tensorflow-models/pose-detection.
 *
 * @license Apache-2.0
 * @module
 */

export { Posewright } from "./client.js";
export { COLORS, draw, sideOf } from "./draw.js";
export { PosewrightError } from "./errors.js";
export { SourceViewer } from "./source_viewer.js";
export { Sources } from "./sources.js";
export { PoseStream } from "./stream.js";
export { EDGES, frameHeader, KEYPOINTS } from "./wire.js";

/** @typedef {import("./client.js").PredictOptions} PredictOptions */
/** @typedef {import("./client.js").Model} Model */
/** @typedef {import("./client.js").Prediction} Prediction */
/** @typedef {import("./client.js").Match} Match */
/** @typedef {import("./client.js").Side} Side */
/** @typedef {import("./client.js").Comparison} Comparison */
/** @typedef {import("./client.js").ModelEntry} ModelEntry */
/** @typedef {import("./connection.js").StateDetails} StateDetails */
/** @typedef {import("./connection.js").StreamState} StreamState */
/** @typedef {import("./draw.js").Colors} Colors */
/** @typedef {import("./draw.js").DrawOptions} DrawOptions */
/** @typedef {import("./frames.js").MovingSource} MovingSource */
/** @typedef {import("./picture.js").Drawable} Drawable */
/** @typedef {import("./picture.js").Source} Source */
/** @typedef {import("./retries.js").Retries} Retries */
/** @typedef {import("./source_viewer.js").SourceResult} SourceResult */
/** @typedef {import("./source_viewer.js").ViewOptions} ViewOptions */
/** @typedef {import("./sources.js").Gap} Gap */
/** @typedef {import("./sources.js").ServerSource} ServerSource */
/** @typedef {import("./sources.js").SourceOptions} SourceOptions */
/** @typedef {import("./sources.js").SourceState} SourceState */
/** @typedef {import("./stream.js").StreamOptions} StreamOptions */
/** @typedef {import("./stream.js").StreamResult} StreamResult */
/** @typedef {import("./stream.js").StreamStats} StreamStats */
/** @typedef {import("./wire.js").Box} Box */
/** @typedef {import("./wire.js").Edges} Edges */
/** @typedef {import("./wire.js").Keypoint} Keypoint */
/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */
/** @typedef {import("./wire.js").Skeleton} Skeleton */
