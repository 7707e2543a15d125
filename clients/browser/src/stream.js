/** A live stream: frames of a video to the server, poses back. */

import { StreamConnection } from "./connection.js";
import { clientType, PosewrightError } from "./errors.js";
import { FrameRateLimit, onEveryFrame } from "./frames.js";
import { LiveResults } from "./live_results.js";
import { Newest } from "./newest.js";
import { JpegEncoder, sizeOf, unreadable } from "./picture.js";
import { frameHeader, HEADER_BYTES, readPose } from "./wire.js";

/** @typedef {import("./connection.js").StateDetails} StateDetails */
/** @typedef {import("./connection.js").StreamState} StreamState */
/** @typedef {import("./frames.js").MovingSource} MovingSource */
/** @typedef {import("./picture.js").Scale} Scale */
/** @typedef {import("./wire.js").Pose} Pose */
/** @typedef {import("./wire.js").Size} Size */

/**
 * @typedef {object} StreamOptions
 * @property {string} [model] As in `PredictOptions`.
 * @property {number} [maxPeople] As in `PredictOptions`.
 * @property {number} [minScore] As in `PredictOptions`.
 * @property {number} [keypointThreshold] As in `PredictOptions`.
 * @property {boolean} [covariance] As in `PredictOptions`; that of the unsmoothed keypoints where they are smoothed.
 * @property {boolean} [track] Give people ids that stay the same from frame to frame; default true.
 * @property {boolean} [smooth] Smooth the keypoints of tracked people over time; default true.
 * @property {number} [maxFps] Maximum number of frames to send per second; default 30.
 * @property {number} [maxSide] Longest side to send, pixels; default 640, which exceeds the models' input.
 * @property {number} [quality] JPEG quality, 0..1; default 0.8.
 * @property {number} [maxUnanswered] Maximum number of unanswered frames; default 2, so that one frame travels while
 *   the server processes another. 1 gives the lowest latency at a lower frame rate.
 * @property {number} [maxRetries] Consecutive attempts to open the stream before giving up; default Infinity.
 * @property {AbortSignal} [signal] Closes the stream.
 * @property {(result: StreamResult) => void} [onResult] Called for every result.
 * @property {(error: PosewrightError) => void} [onError] Called for every frame that failed; the stream continues.
 * @property {(state: StreamState, details: StateDetails) => void} [onState] Called when the connection changes.
 */

/**
 * @typedef {object} StreamResult
 * @property {number} seq
 * @property {Pose[]} poses
 * @property {Size} image Size of the source when the frame was captured; the poses are in its pixels.
 * @property {number} capturedMs Capture time of the frame on the clock of `performance.now()`.
 * @property {number} ageMs Time from capture to this result: the latency that a viewer sees.
 * @property {number} roundTripMs Time from sending the frame to this result.
 * @property {number} serverMs The part of it on the server.
 * @property {number} dropped Frames since the previous result that the server dropped for newer ones.
 * @property {string} model
 * @property {string | null} fallback
 * @property {Record<string, number>} timingsMs
 * @property {string} session The session on the server; ids of people are stable within one session.
 */

/**
 * @typedef {object} StreamStats Every sent frame ends up answered, failed, dropped or lost.
 * @property {number} sent
 * @property {number} answered
 * @property {number} failed Answered with an error.
 * @property {number} dropped Dropped by the server for newer frames.
 * @property {number} lost Unanswered when the connection broke.
 * @property {number} skipped Not sent, because a newer frame came while too many were unanswered.
 * @property {number} reconnects
 */

/** @typedef {{ capturedMs: number, sentMs: number, scale: Scale, image: Size }} SentFrame */

/**
 * A stream of frames to the server and of poses back. Made by `Posewright.stream`.
 *
 * @extends {LiveResults<StreamResult>}
 */
export class PoseStream extends LiveResults {
  /** @type {StreamStats} */
  stats = { sent: 0, answered: 0, failed: 0, dropped: 0, lost: 0, skipped: 0, reconnects: 0 };

  #connection;
  #source;
  #options;
  #rate;
  #encoder = new JpegEncoder();
  #stopFrames;
  /** @type {Map<number, SentFrame>} In the order of sending. */
  #unanswered = new Map();
  /** @type {number | null} Capture time of the frame to send next. */
  #next = null;
  #encoding = false;
  #seq = 0;
  /** @type {any} The `ready` message, which names the session and describes the skeleton. */
  #ready = {};
  #maxBytes = Infinity;
  #results;

  /**
   * @param {URL} url
   * @param {string | undefined} key
   * @param {MovingSource} source
   * @param {StreamOptions} options
   */
  constructor(url, key, source, options) {
    const { model, maxPeople, minScore, keypointThreshold, covariance, track = true, smooth = true } = options;
    const { maxFps = 30, maxRetries = Infinity } = options;
    const hello = {
      type: "hello", policy: "latest", track, smooth, max_fps: maxFps,
      format: keypointThreshold === undefined ? "compact" : "pose", // only `pose` has the field `visible`
      model, max_people: maxPeople, min_score: minScore, keypoint_threshold: keypointThreshold, covariance,
    };
    const stopFrames = onEveryFrame(source, (capturedMs) => this.#offer(capturedMs));
    /** @type {Newest<StreamResult>} */
    const results = new Newest();
    const connection = new StreamConnection(url, key, hello, maxRetries, {
      onMessage: (message) => this.#receive(message),
      onDisconnect: () => this.#loseUnanswered(),
      onState: (state, details) => this.#onState(state, details),
    });
    super(connection, results, options.signal);
    this.#connection = connection;
    this.#results = results;
    this.#source = source;
    this.#options = options;
    this.#rate = new FrameRateLimit(maxFps);
    this.#stopFrames = stopFrames;
  }

  /**
   * @param {StreamState} state
   * @param {StateDetails} details
   */
  #onState(state, details) {
    if (state === "waiting") this.stats.reconnects += 1;
    if (state === "closed") {
      this.#stopFrames();
      this.#results.end(details.error);
    }
    this.#options.onState?.(state, details);
  }

  #loseUnanswered() {
    this.#next = null;
    this.stats.lost += this.#unanswered.size;
    this.#unanswered.clear();
  }

  /** @param {any} message */
  #receive(message) {
    if (message.type === "ready") this.#onReady(message);
    else if (message.type === "result") this.#onResult(message);
    else if (message.type === "error") this.#onError(message);
  }

  /** @param {any} ready */
  #onReady(ready) {
    this.#ready = ready;
    this.#maxBytes = ready.limits?.max_frame_bytes ?? Infinity;
    this.#rate.lowerTo(ready.limits?.max_fps ?? Infinity);
    this.#connection.markOpen(ready.model);
    // A paused video has no new frame, but the frame that it shows is sent once.
    if (sizeOf(this.#source).width > 0) this.#offer(performance.now());
  }

  /** @param {any} result */
  #onResult(result) {
    const sent = this.#settle(result.seq, result.dropped);
    this.#connection.resetRetries();
    if (!sent) return;
    const now = performance.now();
    this.stats.answered += 1;
    const read = {
      seq: result.seq,
      poses: result.poses.map((/** @type {any} */ it) => sent.scale.poseToSource(readPose(it, this.#ready))),
      image: sent.image,
      capturedMs: sent.capturedMs,
      ageMs: now - sent.capturedMs,
      roundTripMs: now - sent.sentMs,
      serverMs: result.age_ms,
      dropped: result.dropped,
      model: result.model,
      fallback: result.fallback,
      timingsMs: result.timings_ms,
      session: this.#ready.session,
    };
    this.#options.onResult?.(read);
    this.#results.put(read);
    this.#send();
  }

  /** @param {any} message */
  #onError(message) {
    if (message.seq !== null) {
      this.#settle(message.seq, message.dropped);
      this.stats.failed += 1;
    }
    this.#options.onError?.(PosewrightError.from(message.problem));
    this.#send();
  }

  /**
   * Remove a frame from the unanswered ones, and all frames before it, which the server will not answer any more.
   *
   * @param {number} seq
   * @param {number} dropped
   * @returns {SentFrame | undefined} The frame; undefined if it does not belong to this connection.
   */
  #settle(seq, dropped) {
    const frame = this.#unanswered.get(seq);
    this.stats.dropped += dropped ?? 0;
    if (!frame) return undefined;
    for (const sent of this.#unanswered.keys()) {
      this.#unanswered.delete(sent);
      if (sent === seq) break;
    }
    return frame;
  }

  /**
   * Make a new frame the next to send; it replaces one that still waits.
   *
   * @param {number} capturedMs
   */
  #offer(capturedMs) {
    if (this.state !== "open" || !this.#rate.allows(performance.now())) return;
    if (this.#next !== null) this.stats.skipped += 1;
    this.#next = capturedMs;
    this.#send();
  }

  /** Encode and send the next frame, unless too many are unanswered. */
  async #send() {
    const full = this.#unanswered.size >= (this.#options.maxUnanswered ?? 2);
    const { maxSide = 640, quality = 0.8 } = this.#options;
    if (this.#next === null || this.#encoding || full) return;
    const [capturedMs, socket] = [this.#next, this.#connection.socket];
    this.#next = null;
    this.#encoding = true;
    this.#rate.count(performance.now());
    try {
      const image = sizeOf(this.#source);
      if (image.width && image.height) {
        const { blob, scale } = await this.#encoder.encode(this.#source, maxSide, quality);
        const sent = { capturedMs, sentMs: performance.now(), scale, image };
        if (socket && socket === this.#connection.socket) this.#transmit(socket, blob, sent);
      } else {
        this.stats.skipped += 1; // a video that has just got another camera shows nothing yet
      }
    } catch (cause) {
      this.#connection.end(unreadable(cause));
    } finally {
      this.#encoding = false;
    }
    this.#send();
  }

  /**
   * @param {WebSocket} socket
   * @param {Blob} blob
   * @param {SentFrame} sent
   */
  #transmit(socket, blob, sent) {
    if (HEADER_BYTES + blob.size > this.#maxBytes) {
      const detail = `expected a frame of at most ${this.#maxBytes} bytes, got ${blob.size}; lower maxSide or quality`;
      this.#options.onError?.(new PosewrightError(detail, { status: 413, type: clientType("frame-too-large") }));
      return;
    }
    socket.send(new Blob([frameHeader(this.#seq, (performance.timeOrigin + sent.capturedMs) * 1000), blob]));
    this.#unanswered.set(this.#seq, sent);
    this.#seq = (this.#seq + 1) >>> 0;
    this.stats.sent += 1;
  }
}
