/** Sources that a server opens itself, such as network cameras and video files. */

import { SourceViewer } from "./source_viewer.js";

/** @typedef {import("./calls.js").Calls} Calls */
/** @typedef {import("./source_viewer.js").ViewOptions} ViewOptions */
/** @typedef {"connecting" | "running" | "paused" | "reconnecting" | "ended" | "failed"} SourceState */
/** @typedef {{ from: string, to: string | null, reason: string }} Gap A time without frames; `to` is null if it lasts. */

/**
 * @typedef {object} ServerSource A source, as the server describes it.
 * @property {string} id
 * @property {string} name
 * @property {string} url Without credentials.
 * @property {SourceState} state
 * @property {number} fps Frames that came from it per second, in the last seconds.
 * @property {number | null} ageMs Time since the arrival of the newest frame that was answered; null before the first.
 * @property {number} frames Frames that came.
 * @property {number} answered
 * @property {number} dropped Frames that newer ones replaced.
 * @property {number} errors Frames that could not be answered.
 * @property {number} reconnects
 * @property {number} viewers
 * @property {number} gapCount Number of gaps that have ended; `gaps` has the last ones.
 * @property {Gap[]} gaps
 * @property {string | null} lastError
 * @property {string | null} lastErrorAt When it came (RFC 3339); it stays once frames come again.
 */

/** @typedef {{ url: string, secret?: string }} Webhook Where the server posts results. */

/**
 * @typedef {object} SourceOptions What the server does with each frame; as in `StreamOptions`.
 * @property {string} [model]
 * @property {number} [maxPeople]
 * @property {number} [minScore]
 * @property {number} [keypointThreshold]
 * @property {boolean} [covariance]
 * @property {boolean} [track]
 * @property {boolean} [smooth]
 * @property {number} [maxFps]
 * @property {"latest" | "all"} [policy] `all`: every frame of a file, as fast as possible; default `latest`.
 */

/** The sources of one server. From `Posewright.sources`. */
export class Sources {
  #calls;

  /** @param {Calls} calls */
  constructor(calls) {
    this.#calls = calls;
  }

  /**
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<ServerSource[]>}
   * @throws {PosewrightError} For instance with status 403: the server's operator has not allowed sources.
   */
  async list({ signal } = {}) {
    return (await this.#calls.json("sources", { signal })).sources.map(readSource);
  }

  /**
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<ServerSource>}
   * @throws {PosewrightError}
   */
  async get(id, { signal } = {}) {
    return readSource(await this.#calls.json(pathOf(id), { signal }));
  }

  /**
   * Let the server open a source.
   *
   * @param {string} url Such as `rtsp://camera.example/stream`; its host must be one of those that the operator allows.
   * @param {{ name?: string, options?: SourceOptions, webhook?: Webhook, record?: boolean, signal?: AbortSignal }} [how]
   *   `record`: let the server append the results to a file.
   * @returns {Promise<ServerSource>}
   * @throws {PosewrightError}
   */
  async add(url, { name, options = {}, webhook, record, signal } = {}) {
    const { maxPeople, minScore, keypointThreshold, maxFps, ...same } = options;
    const hello = {
      ...same, max_people: maxPeople, min_score: minScore, keypoint_threshold: keypointThreshold, max_fps: maxFps,
    };
    const content = JSON.stringify({ url, name, options: hello, webhook, record });
    const body = new Blob([content], { type: "application/json" });
    // Not repeated: if only the answer was lost, the source exists already.
    return readSource(await this.#calls.json("sources", { body, signal, retries: { attempts: 1 } }));
  }

  /** @param {string} id Of a source that shall not be read for a while. */
  async pause(id) {
    await this.#calls.json(`${pathOf(id)}/pause`, { method: "POST" });
  }

  /** @param {string} id */
  async resume(id) {
    await this.#calls.json(`${pathOf(id)}/resume`, { method: "POST" });
  }

  /** @param {string} id Of a source that the server shall close and forget. */
  async remove(id) {
    await this.#calls.json(pathOf(id), { method: "DELETE" });
  }

  /**
   * Watch a source: its pictures and the people in them. Read the results with `for await`, where a slow reader gets
   * the newest one, or pass `onResult`; `close()` ends the view, and the source goes on.
   *
   * @param {string} id
   * @param {ViewOptions} [options]
   * @returns {SourceViewer}
   */
  view(id, options = {}) {
    return new SourceViewer(this.#calls.socketUrl(`${pathOf(id)}/stream`), this.#calls.key, options);
  }
}

/** @param {string} id */
function pathOf(id) {
  return `sources/${encodeURIComponent(id)}`;
}

/**
 * @param {any} source
 * @returns {ServerSource}
 */
function readSource({ age_ms: ageMs, gap_count: gapCount, last_error: lastError, last_error_at: at, ...same }) {
  return { ...same, ageMs, gapCount, lastError, lastErrorAt: at };
}
