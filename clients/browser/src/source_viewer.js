/** Results and pictures of a source that the server opened. */

import { StreamConnection } from "./connection.js";
import { LiveResults } from "./live_results.js";
import { Newest } from "./newest.js";
import { readFrame, readPose } from "./wire.js";

/** @typedef {import("./connection.js").StateDetails} StateDetails */
/** @typedef {import("./connection.js").StreamState} StreamState */
/** @typedef {import("./sources.js").Gap} Gap */
/** @typedef {import("./sources.js").SourceState} SourceState */
/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */

/**
 * @typedef {object} ViewOptions
 * @property {boolean} [pictures] Also receive each picture; default true.
 * @property {number} [maxRetries] Consecutive attempts to open the view before giving up; default Infinity.
 * @property {AbortSignal} [signal] Closes the view.
 * @property {(result: SourceResult) => void} [onResult] Called for every result.
 * @property {(state: SourceState) => void} [onSourceState] Called when the source's state changed.
 * @property {(gap: Gap) => void} [onGap] Called when frames are missing, because the source was reconnected.
 * @property {(state: StreamState, details: StateDetails) => void} [onState] Called when the connection changes.
 */

/**
 * @typedef {object} SourceResult
 * @property {number} seq
 * @property {Pose[]} poses
 * @property {Size} image The poses are in its pixels.
 * @property {ImageBitmap | null} picture Close it when it is drawn; null without `pictures`.
 * @property {number} ageMs Time from the frame's arrival at the server to this result, without the way to this page.
 * @property {number} dropped Frames since the previous result that the server dropped for newer ones.
 * @property {string} model
 * @property {Record<string, number>} timingsMs
 */

/**
 * A view of a source. Made by `Sources.view`.
 *
 * @extends {LiveResults<SourceResult>}
 */
export class SourceViewer extends LiveResults {
  #connection;
  #options;
  /** @type {any} The `ready` message, which describes the skeleton. */
  #ready = {};
  /** @type {{ seq: number, picture: Blob } | null} The frame whose result comes next. */
  #frame = null;
  /** @type {{ message: any, picture: Blob | null } | null} The newest result, while the one before is decoded. */
  #next = null;
  #decoding = false;
  #results;

  /**
   * @param {URL} url
   * @param {string | undefined} key
   * @param {ViewOptions} options
   */
  constructor(url, key, options) {
    const { pictures = true, maxRetries = Infinity, signal } = options;
    /** @type {Newest<SourceResult>} */
    const results = new Newest(({ picture }) => picture?.close());
    const hello = { type: "hello", pictures, format: "compact" };
    const connection = new StreamConnection(url, key, hello, maxRetries, {
      onMessage: (message) => this.#receive(message),
      onFrame: (frame) => (this.#frame = readFrame(frame)),
      onDisconnect: () => (this.#frame = this.#next = null),
      onState: (state, details) => this.#onState(state, details),
    });
    super(connection, results, signal);
    this.#connection = connection;
    this.#results = results;
    this.#options = options;
  }

  /**
   * @param {StreamState} state
   * @param {StateDetails} details
   */
  #onState(state, details) {
    if (state === "closed") this.#results.end(details.error);
    this.#options.onState?.(state, details);
  }

  /** @param {any} message */
  #receive(message) {
    if (message.type === "ready") {
      this.#ready = message;
      this.#connection.markOpen(message.model);
    } else if (message.type === "gap") {
      this.#options.onGap?.({ from: message.from, to: message.to, reason: message.reason });
    } else if (message.type === "state") {
      this.#options.onSourceState?.(message.state);
    } else if (message.type === "result") {
      this.#connection.resetRetries();
      const { seq, picture = null } = this.#frame ?? {};
      this.#next = { message, picture: seq === message.seq ? picture : null };
      this.#frame = null;
      this.#decode();
    }
  }

  /** Decode the newest picture and hand its result on; results that come meanwhile replace one another. */
  async #decode() {
    if (this.#decoding || !this.#next) return;
    const { message, picture } = this.#next;
    this.#next = null;
    this.#decoding = true;
    // A picture that the browser cannot decode is left out; its poses are not.
    const bitmap = picture && (await createImageBitmap(picture).catch(() => null));
    this.#decoding = false;
    if (this.state === "closed") bitmap?.close();
    else this.#deliver(message, bitmap);
    this.#decode();
  }

  /**
   * @param {any} message
   * @param {ImageBitmap | null} picture
   */
  #deliver(message, picture) {
    const [width, height] = message.image;
    /** @type {SourceResult} */
    const result = {
      seq: message.seq,
      poses: message.poses.map((/** @type {any} */ it) => readPose(it, this.#ready)),
      image: { width, height },
      picture,
      ageMs: message.age_ms,
      dropped: message.dropped,
      model: message.model,
      timingsMs: message.timings_ms,
    };
    // A callback owns the picture from here on.
    if (this.#options.onResult) this.#options.onResult(result);
    else this.#results.put(result);
  }
}
