/** Loads a network from its bundle: `manifest.json` and `model.onnx` in a folder of its name. */

import { clientType, PosewrightError, refusal, unreachable } from "../errors.js";

/** @typedef {import("./calibration.js").Calibration} Calibration */

/**
 * @typedef {object} Skeleton
 * @property {string} name
 * @property {readonly string[]} keypoints
 * @property {readonly (readonly [number, number])[]} edges
 * @property {readonly number[]} sigmas
 */

/**
 * @typedef {object} Manifest
 * @property {string} name
 * @property {string} version
 * @property {"student" | "teacher" | "detector"} role
 * @property {Record<string, string>} files sha256 (hex) by name.
 * @property {string | Skeleton | null} skeleton
 * @property {[number, number]} input_size
 * @property {[number, number] | null} heatmap_size
 * @property {number | null} box_padding
 * @property {"heatmap" | "simcc" | "detector" | "boxes"} decoder
 * @property {"stretch" | "center" | "top_left"} [fitting] How a picture fills an input of fixed size.
 * @property {number} [iou_threshold] Of a detector's non-maximum suppression.
 * @property {Calibration | null} [calibration]
 */

/**
 * @typedef {object} Session Of onnxruntime.
 * @property {readonly string[]} inputNames
 * @property {readonly string[]} outputNames
 * @property {(feeds: Record<string, any>) => Promise<Record<string, any>>} run
 */

/**
 * @typedef {object} Ort The module `onnxruntime-web`, or what of it is used.
 * @property {{ create(model: Uint8Array, options?: any): Promise<Session> }} InferenceSession
 * @property {new (type: "uint8", data: Uint8Array, dims: readonly number[]) => any} Tensor
 */

/** @typedef {{ key?: string, signal?: AbortSignal, sessionOptions?: Record<string, unknown> }} LoadOptions */

/** A network, ready to run. */
export class Network {
  #ort;
  #session;

  /**
   * @param {Ort} ort
   * @param {Session} session
   * @param {Manifest} manifest
   */
  constructor(ort, session, manifest) {
    this.#ort = ort;
    this.#session = session;
    this.manifest = manifest;
  }

  /**
   * @param {Uint8Array} pixels RGB.
   * @param {[number, number, number, number]} dims N, height, width, 3.
   * @returns {Promise<Float32Array[]>} In the order of the graph.
   */
  async run(pixels, dims) {
    const [input] = this.#session.inputNames;
    const outputs = await this.#session.run({ [input]: new this.#ort.Tensor("uint8", pixels, dims) });
    return this.#session.outputNames.map((name) => outputs[name].data);
  }
}

/**
 * @param {Ort} ort
 * @param {URL} models Folder of bundles.
 * @param {string} name
 * @param {LoadOptions} options
 * @returns {Promise<Network>}
 */
export async function loadNetwork(ort, models, name, { key, signal, sessionOptions }) {
  const folder = new URL(`${encodeURIComponent(name)}/`, models);
  const headers = new Headers(key === undefined ? {} : { Authorization: `Bearer ${key}` });
  /** @type {Manifest} */
  const manifest = await (await load(new URL("manifest.json", folder), { headers, signal })).json();
  const expected = manifest.files?.["model.onnx"];
  if (!expected) throw bundleError(`${folder}: expected a bundle whose manifest lists model.onnx`);
  const url = new URL("model.onnx", folder);
  url.searchParams.set("sha256", expected); // so that browsers may keep the file for good
  const graph = new Uint8Array(await (await load(url, { headers, signal })).arrayBuffer());
  const got = await sha256(graph);
  if (got !== null && got !== expected) throw bundleError(`${url}: expected sha256 ${expected}, got ${got}`);
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], ...sessionOptions });
  return new Network(ort, session, manifest);
}

/** @param {string} detail */
export function bundleError(detail) {
  return new PosewrightError(detail, { type: clientType("bundle"), title: "Not a usable bundle" });
}

/**
 * @param {URL} url
 * @param {RequestInit} init
 */
async function load(url, init) {
  const response = await fetch(url, init).catch((cause) => {
    throw init.signal?.aborted ? cause : unreachable(url, cause);
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

/**
 * @param {Uint8Array<ArrayBuffer>} content
 * @returns {Promise<string | null>} Hex; null on insecure pages, where browsers do not hash.
 */
async function sha256(content) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (it) => it.toString(16).padStart(2, "0")).join("");
}
