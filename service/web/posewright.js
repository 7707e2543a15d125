/**
 * People and their keypoints, COCO's 17 or a model's own, in pictures and live video, from a posewright server.
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
 * Coordinates are px of the picture that you gave, upright, origin top left, pixel centres at integers. A person has
 * all keypoints, in the order of `KEYPOINTS` or of the model's own; a low score is yours to judge. Poses have the shape of `Pose` in
 * @tensorflow-models/pose-detection, so that code written for it goes on working.
 *
 * @license Apache-2.0
 * @module
 */

/** @typedef {HTMLVideoElement | HTMLCanvasElement | OffscreenCanvas | HTMLImageElement | ImageBitmap} Drawable */
/** @typedef {Drawable | Blob} Source A picture; a `File` is a `Blob`. */
/** @typedef {HTMLVideoElement | HTMLCanvasElement | OffscreenCanvas} MovingSource Shows one picture after another. */
/** @typedef {{ width: number, height: number }} Size px. */
/** @typedef {{ x: number, y: number, score: number, name: string }} Keypoint px; score: the OKS to expect, 0..1. */
/** @typedef {{ xMin: number, yMin: number, xMax: number, yMax: number, width: number, height: number }} Box px. */
/** @typedef {readonly (readonly [number, number])[]} Edges Pairs of keypoints, counted from 0. */
/**
 * @typedef {{ keypoints: Keypoint[], score: number, box: Box, id?: number, edges?: Edges }} Pose A person; `id` in
 *   streams only, `edges` where the model has another skeleton than COCO's.
 */

/**
 * @typedef {object} PredictOptions
 * @property {string} [model] `auto` (default), `student`, `teacher`, or a name of `models()`.
 * @property {[number, number, number, number][]} [boxes] [x, y, width, height], px: whom to look at, instead of a
 *   search.
 * @property {number} [maxPeople] Most people to find.
 * @property {number} [minScore] Poses with a lower score are left out.
 * @property {number} [maxSide] Longest side to send, px; larger frames are shrunk first. Blobs are sent as they are.
 * @property {number} [quality] Of the JPEG, 0..1; default 0.92, in streams 0.8.
 * @property {AbortSignal} [signal] Ends the call, e.g. `AbortSignal.timeout(5000)`.
 */

/**
 * @typedef {object} Model Who answered.
 * @property {string} name
 * @property {string} version
 * @property {string} sha256
 * @property {"student" | "teacher" | "detector"} role
 * @property {string} backend
 * @property {string | null} fallback Why the teacher answered.
 */

/** @typedef {{ poses: Pose[], image: Size, model: Model, timingsMs: Record<string, number>, id: string }} Prediction */

/**
 * @typedef {object} Match One person in both answers.
 * @property {number} student Index into the student's poses.
 * @property {number} teacher Index into the teacher's.
 * @property {number} oks Object keypoint similarity, 0..1.
 * @property {number[]} distancesPx Between the keypoints, px of the picture given.
 * @property {number[]} distancesRelative The same, divided by the square root of the box's area.
 */

/** @typedef {{ model: Model, poses: Pose[], poseMs: number }} Side */

/**
 * @typedef {object} Comparison
 * @property {Side} student
 * @property {Side} teacher
 * @property {Match[]} matches
 * @property {Size} image
 * @property {Record<string, number>} timingsMs
 * @property {string} id
 */

/**
 * @typedef {object} ModelEntry A model on the server's shelf.
 * @property {string} name
 * @property {string} version
 * @property {string} sha256
 * @property {"student" | "teacher" | "detector"} role
 * @property {string} backend
 * @property {"ready" | "warming_up" | "unavailable"} state
 * @property {string | null} failure
 * @property {boolean} default
 * @property {Record<string, number>} metrics
 * @property {Record<string, unknown>} manifest
 */

/**
 * @typedef {object} StreamOptions
 * @property {string} [model] As in `PredictOptions`.
 * @property {number} [maxPeople] As in `PredictOptions`.
 * @property {number} [minScore] As in `PredictOptions`.
 * @property {boolean} [track] People keep their ids; default true.
 * @property {boolean} [smooth] Keypoints of people with ids are smoothed; default true.
 * @property {number} [maxFps] Most frames to send per second; default 30.
 * @property {number} [maxSide] Longest side to send, px; default 640, which is more than the models look at.
 * @property {number} [quality] Of the JPEG, 0..1; default 0.8.
 * @property {number} [maxUnanswered] Frames under way at the same time; default 2, so that one travels while one is
 *   worked on. 1 gives the youngest answers, at fewer frames per second.
 * @property {number} [maxRetries] Attempts in a row to open the stream (again) before it gives up; default Infinity.
 * @property {AbortSignal} [signal] Closes the stream.
 * @property {(result: StreamResult) => void} [onResult] Told of every answer.
 * @property {(error: PosewrightError) => void} [onError] Told of frames that could not be answered; the stream goes on.
 * @property {(state: StreamState, details: StateDetails) => void} [onState] Told of the connection.
 */

/** @typedef {"connecting" | "open" | "waiting" | "closed"} StreamState `waiting` to be opened again. */
/** @typedef {{ error?: PosewrightError, retryMs?: number, model?: Model }} StateDetails */

/**
 * @typedef {object} StreamResult
 * @property {number} seq
 * @property {Pose[]} poses
 * @property {Size} image What the poses are px of: the source's size when the frame was taken.
 * @property {number} capturedMs When the frame was taken, on the clock of `performance.now()`.
 * @property {number} ageMs From then to now, when the answer is here: all that a viewer waits for.
 * @property {number} roundTripMs From the sending to the answer.
 * @property {number} serverMs Of that, on the server.
 * @property {number} dropped Frames that the server dropped for newer ones since the answer before.
 * @property {string} model
 * @property {string | null} fallback
 * @property {Record<string, number>} timingsMs
 * @property {string} session Ids are those of one session.
 */

/**
 * @typedef {object} StreamStats Every frame sent is answered, failed, dropped or lost in the end.
 * @property {number} sent
 * @property {number} answered
 * @property {number} failed Answered with an error.
 * @property {number} dropped By the server, for newer ones.
 * @property {number} lost With a broken connection.
 * @property {number} skipped Never sent, because a newer one came while too many were unanswered.
 * @property {number} reconnects
 */

/**
 * @typedef {object} DrawOptions
 * @property {Size} [image] What the poses are px of; it covers the whole canvas. The canvas' own size where left out.
 * @property {number} [threshold] Keypoints with a lower score are left out, with their edges; default 0.35.
 * @property {boolean} [mirror] Draw for a picture that is shown mirrored; text stays readable.
 * @property {boolean} [boxes] Draw boxes, too.
 * @property {(pose: Pose, index: number) => string} [label] Written above a person; the id where left out, "" for none.
 * @property {number} [lineWidth] px of the canvas; grows with the person where left out.
 * @property {number} [pixelRatio] px of the canvas per px of the page: 1 (default) or `devicePixelRatio`.
 * @property {{ left: string, right: string, middle: string }} [colors] Of the person's own sides.
 */

/** COCO's keypoints, in the order of every pose. */
export const KEYPOINTS = Object.freeze([
  "nose", "left_eye", "right_eye", "left_ear", "right_ear",
  "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
  "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
]);

/** Pairs of keypoints that a drawing joins. */
export const EDGES = Object.freeze([
  [0, 1], [0, 2], [1, 3], [2, 4], [5, 6], [5, 7], [7, 9], [6, 8], [8, 10],
  [5, 11], [6, 12], [11, 12], [11, 13], [13, 15], [12, 14], [14, 16],
]);

const SUBPROTOCOL = "pose.v1.json";
const HEADER_BYTES = 16;
const READ_BY_THE_SERVER = ["image/jpeg", "image/png", "image/webp"];
/** Closes after which a stream is opened again: drained, broken, failed, restarted, overloaded, idle, too fast. */
const REOPENED = [1000, 1001, 1006, 1011, 1012, 1013, 1014, 4408, 4429];
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15_000;
const PING_AFTER_MS = 5_000;
/** Longer than the server's deadline for a frame; then the connection is taken for dead. */
const PATIENCE_MS = 15_000;

/** What the server, or the way to it, had against a call. */
export class PosewrightError extends Error {
  /**
   * @param {string} detail What was expected, what came, what to do.
   * @param {{ status?: number, type?: string, title?: string, requestId?: string | null, retryAfterS?: number | null,
   *   problem?: Record<string, unknown>, cause?: unknown }} [facts]
   */
  constructor(detail, { status = 0, type, title, requestId, retryAfterS, problem, cause } = {}) {
    super(detail, { cause });
    this.name = "PosewrightError";
    this.detail = detail;
    /** Of HTTP; 0 where there was no answer at all. */
    this.status = status;
    /** `urn:posewright:problem:…` from the server, `urn:posewright:client:…` from here. */
    this.type = type ?? "about:blank";
    this.title = title ?? "";
    this.requestId = requestId ?? null;
    /** Seconds after which the server asks to be called again. */
    this.retryAfterS = retryAfterS ?? null;
    /** The whole document (RFC 9457), with its typed extras. */
    this.problem = problem ?? {};
  }

  /**
   * @param {Record<string, any>} problem RFC 9457.
   * @param {number | null} [retryAfterS]
   */
  static from(problem, retryAfterS) {
    const { detail, title, status, type, request_id: requestId } = problem;
    return new PosewrightError(detail ?? title ?? "the server failed", {
      status, type, title, requestId, retryAfterS, problem,
    });
  }
}

/** A posewright server. */
export class Posewright {
  #url;
  #key;

  /**
   * @param {string | URL} [url] Where it is; where this module came from if left out.
   * @param {{ key?: string }} [options] `key`: an API key, for servers that want one.
   */
  constructor(url = new URL(".", import.meta.url), { key } = {}) {
    const base = new URL(url, globalThis.location?.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.#url = base;
    this.#key = key;
  }

  /**
   * Find the people in one picture.
   *
   * @param {Source} source
   * @param {PredictOptions} [options]
   * @returns {Promise<Prediction>}
   * @throws {PosewrightError}
   */
  async predict(source, options = {}) {
    const { reply, view } = await this.#post("predict", source, options);
    return {
      poses: reply.poses.map((/** @type {any} */ it) => view.back(readPose(it, reply))),
      image: view.size(reply.image),
      model: reply.model,
      timingsMs: reply.timings_ms,
      id: reply.id,
    };
  }

  /**
   * Ask the student and the teacher about the same people.
   *
   * @param {Source} source
   * @param {PredictOptions} [options]
   * @returns {Promise<Comparison>}
   * @throws {PosewrightError}
   */
  async compare(source, options = {}) {
    const { reply, view } = await this.#post("compare", source, options);
    const side = (/** @type {any} */ { model, poses, pose_ms: poseMs }) => ({
      model, poseMs, poses: poses.map((/** @type {any} */ it) => view.back(readPose(it, reply))),
    });
    return {
      student: side(reply.student),
      teacher: side(reply.teacher),
      matches: reply.matches.map((/** @type {any} */ it) => ({
        student: it.student,
        teacher: it.teacher,
        oks: it.oks,
        distancesPx: it.distances_px.map((/** @type {number} */ px) => px * view.x),
        distancesRelative: it.distances_relative,
      })),
      image: view.size(reply.image),
      timingsMs: reply.timings_ms,
      id: reply.id,
    };
  }

  /**
   * List what is on the server's shelf.
   *
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<ModelEntry[]>}
   * @throws {PosewrightError}
   */
  async models({ signal } = {}) {
    return (await this.#call("models", { signal })).models;
  }

  /**
   * Follow the people in a video, or in whatever a canvas shows. Read the results with `for await`, where a slow reader
   * gets the newest one, or give `onResult`; `close()` ends it.
   *
   * @param {MovingSource} source
   * @param {StreamOptions} [options]
   * @returns {PoseStream}
   */
  stream(source, options = {}) {
    const url = new URL("stream", this.#url);
    url.protocol = url.protocol.replace("http", "ws");
    return new PoseStream(url, this.#key, source, options);
  }

  /**
   * @param {string} path
   * @param {Source} source
   * @param {PredictOptions} options
   */
  async #post(path, source, options) {
    const { maxSide = Infinity, quality = 0.92, signal } = options;
    const { blob, view } = await encode(source, maxSide, quality);
    const query = {
      model: options.model,
      boxes: options.boxes && JSON.stringify(options.boxes.map((box) => view.there(box))),
      max_people: options.maxPeople,
      min_score: options.minScore,
    };
    return { view, reply: await this.#call(path, { query, body: blob, signal }) };
  }

  /**
   * @param {string} path
   * @param {{ query?: Record<string, unknown>, body?: Blob, signal?: AbortSignal }} call
   * @returns {Promise<any>}
   */
  async #call(path, { query = {}, body, signal }) {
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers = new Headers({ Accept: "application/json" });
    if (this.#key !== undefined) headers.set("Authorization", `Bearer ${this.#key}`);
    if (body) headers.set("Content-Type", body.type);
    const response = await fetch(url, { method: body ? "POST" : "GET", headers, body, signal }).catch((cause) => {
      throw signal?.aborted ? cause : unreachable(url, cause);
    });
    if (!response.ok) throw await refusal(response);
    return response.json().catch((cause) => {
      throw signal?.aborted ? cause : unreachable(url, cause);
    });
  }
}

/** A video on its way to the server, and the poses on their way back. Made by `Posewright.stream`. */
export class PoseStream {
  /** @type {StreamStats} */
  stats = { sent: 0, answered: 0, failed: 0, dropped: 0, lost: 0, skipped: 0, reconnects: 0 };

  #url;
  #protocols;
  #source;
  #options;
  #pace;
  #canvas = new Canvas();
  #unwatch;
  #watchdog;
  /** @type {StreamState} */
  #state = "connecting";
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<number, Sent>} In the order of sending. */
  #unanswered = new Map();
  /** @type {number | null} When the frame was taken that is to be sent next. */
  #next = null;
  #encoding = false;
  #seq = 0;
  #attempts = 0;
  #session = "";
  /** @type {any} The `ready` of the connection: names the keypoints. */
  #skeleton = {};
  #maxBytes = Infinity;
  #heardMs = 0;
  #pingedMs = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {PosewrightError | undefined} The server's farewell. */
  #bye;
  /** @type {PosewrightError | undefined} */
  #failure;
  /** @type {StreamResult | null} Not yet read by an iterator. */
  #newest = null;
  #wake = () => {};

  /**
   * @param {URL} url
   * @param {string | undefined} key
   * @param {MovingSource} source
   * @param {StreamOptions} options
   */
  constructor(url, key, source, options) {
    this.#url = url;
    // Browsers set no headers on a WebSocket, so a key travels beside the subprotocol.
    this.#protocols = key === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${key}`];
    this.#source = source;
    this.#options = options;
    this.#pace = new Pace(options.maxFps ?? 30);
    this.#unwatch = everyFrame(source, (capturedMs) => this.#offer(capturedMs));
    this.#watchdog = setInterval(() => this.#watch(), 1000);
    options.signal?.addEventListener("abort", () => this.close(), { once: true });
    // After the caller has got its hands on the stream, whatever it does when it is told of the state.
    queueMicrotask(() => (options.signal?.aborted ? this.close() : this.#connect()));
  }

  /** @returns {StreamState} */
  get state() {
    return this.#state;
  }

  /** Open the connection now rather than when its next attempt is due. */
  reconnect() {
    if (this.#state === "waiting") this.#connect();
  }

  /** End it. */
  close() {
    this.#end();
  }

  /** @returns {AsyncGenerator<StreamResult, void, void>} */
  async *[Symbol.asyncIterator]() {
    try {
      while (true) {
        const result = this.#newest;
        this.#newest = null;
        if (result) yield result;
        else if (this.#failure) throw this.#failure;
        else if (this.#state === "closed") return;
        else await new Promise((/** @type {(_: void) => void} */ resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  /**
   * @param {StreamState} state
   * @param {StateDetails} [details]
   */
  #become(state, details = {}) {
    this.#state = state;
    this.#options.onState?.(state, details);
    this.#wake();
  }

  /** @param {PosewrightError} [error] */
  #end(error) {
    if (this.#state === "closed") return;
    this.#unwatch();
    clearInterval(this.#watchdog);
    clearTimeout(this.#retry);
    this.#failure = error;
    const socket = this.#leave();
    this.#become("closed", { error });
    socket?.close(1000);
  }

  /** Turn away from the connection; it may be dead. */
  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#next = null;
    this.stats.lost += this.#unanswered.size;
    this.#unanswered.clear();
    return socket;
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#bye = undefined;
    this.#heardMs = this.#pingedMs = performance.now();
    this.#become("connecting");
    const socket = new WebSocket(this.#url, this.#protocols);
    this.#socket = socket;
    socket.onopen = () => socket.send(JSON.stringify(this.#hello()));
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#hear(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#lose(code, reason);
    };
  }

  #hello() {
    const { model, maxPeople, minScore, track = true, smooth = true, maxFps = 30 } = this.#options;
    return {
      type: "hello", policy: "latest", format: "compact", track, smooth, max_fps: maxFps,
      model, max_people: maxPeople, min_score: minScore,
    };
  }

  /** @param {any} event */
  #hear(event) {
    this.#heardMs = performance.now();
    if (event.type === "ready") this.#begin(event);
    else if (event.type === "result") this.#take(event);
    else if (event.type === "error") this.#fail(event);
    else if (event.type === "bye") this.#bye = farewell(event.code, event.reason, event.problem);
    else if (event.type === "ping") this.#socket?.send('{"type":"pong"}');
  }

  /** @param {any} ready */
  #begin(ready) {
    this.#session = ready.session;
    this.#skeleton = ready;
    this.#maxBytes = ready.limits?.max_frame_bytes ?? Infinity;
    this.#pace.limit(ready.limits?.max_fps ?? Infinity);
    this.#become("open", { model: ready.model });
    // A paused video shows no new frame, yet its picture deserves an answer.
    if (sizeOf(this.#source).width > 0) this.#offer(performance.now());
  }

  /** @param {any} result */
  #take(result) {
    const sent = this.#settle(result.seq, result.dropped);
    this.#attempts = 0;
    if (!sent) return;
    const now = performance.now();
    this.stats.answered += 1;
    this.#newest = {
      seq: result.seq,
      poses: result.poses.map((/** @type {any} */ it) => sent.view.back(readPose(it, this.#skeleton))),
      image: sent.image,
      capturedMs: sent.capturedMs,
      ageMs: now - sent.capturedMs,
      roundTripMs: now - sent.sentMs,
      serverMs: result.age_ms,
      dropped: result.dropped,
      model: result.model,
      fallback: result.fallback,
      timingsMs: result.timings_ms,
      session: this.#session,
    };
    this.#options.onResult?.(this.#newest);
    this.#wake();
    this.#send();
  }

  /** @param {any} fault */
  #fail(fault) {
    if (fault.seq !== null) {
      this.#settle(fault.seq, fault.dropped);
      this.stats.failed += 1;
    }
    this.#options.onError?.(PosewrightError.from(fault.problem));
    this.#send();
  }

  /**
   * Cross a frame off, with those before it, which will get no answer any more.
   *
   * @param {number} seq
   * @param {number} dropped
   * @returns {Sent | undefined} The frame; undefined if it is not of this connection.
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
   * @param {number} code
   * @param {string} reason
   */
  #lose(code, reason) {
    this.#leave();
    const error = this.#bye ?? farewell(code, reason);
    if (!REOPENED.includes(code) || this.#attempts >= (this.#options.maxRetries ?? Infinity)) {
      this.#end(error);
      return;
    }
    // Half of it by chance: a restarted server is not to meet all its clients at once.
    const longest = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts);
    const retryMs = longest * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.stats.reconnects += 1;
    this.#retry = setTimeout(() => this.#connect(), retryMs);
    this.#become("waiting", { error, retryMs });
  }

  /** Notice a connection that died without a word, and keep an idle one open. */
  #watch() {
    if (this.#socket === null) return;
    const now = performance.now();
    // In an open connection silence counts from a ping on: timers of a page in the background come once a minute.
    const silent = this.#pingedMs > this.#heardMs && now - this.#pingedMs > PATIENCE_MS - PING_AFTER_MS;
    if (this.#state === "open" ? silent : now - this.#heardMs > PATIENCE_MS) {
      this.#socket.close();
      this.#lose(1006, `no word for ${PATIENCE_MS / 1000} s`);
    } else if (this.#state === "open" && now - Math.max(this.#heardMs, this.#pingedMs) > PING_AFTER_MS) {
      this.#pingedMs = now;
      this.#socket.send('{"type":"ping"}');
    }
  }

  /**
   * Take note of a new frame; it takes the place of one that still waits.
   *
   * @param {number} capturedMs
   */
  #offer(capturedMs) {
    if (this.#state !== "open" || !this.#pace.due(performance.now())) return;
    if (this.#next !== null) this.stats.skipped += 1;
    this.#next = capturedMs;
    this.#send();
  }

  /** Send the newest frame if there is one, and room for it. */
  async #send() {
    const full = this.#unanswered.size >= (this.#options.maxUnanswered ?? 2);
    const { maxSide = 640, quality = 0.8 } = this.#options;
    if (this.#next === null || this.#encoding || full) return;
    const [capturedMs, socket] = [this.#next, this.#socket];
    this.#next = null;
    this.#encoding = true;
    this.#pace.take(performance.now());
    try {
      const image = sizeOf(this.#source);
      const { blob, view } = await this.#canvas.encode(this.#source, maxSide, quality);
      const sent = { capturedMs, sentMs: performance.now(), view, image };
      if (socket && socket === this.#socket) this.#post(socket, blob, sent);
    } catch (cause) {
      // A canvas with pictures of other sites on it, most likely: it will not get better.
      const detail = `expected a source whose pixels may be read: ${cause}`;
      this.#end(new PosewrightError(detail, { cause, type: client("source") }));
    } finally {
      this.#encoding = false;
    }
    this.#send();
  }

  /**
   * @param {WebSocket} socket
   * @param {Blob} blob
   * @param {Sent} sent
   */
  #post(socket, blob, sent) {
    if (HEADER_BYTES + blob.size > this.#maxBytes) {
      const detail = `expected a frame of at most ${this.#maxBytes} bytes, got ${blob.size}; lower maxSide or quality`;
      this.#options.onError?.(new PosewrightError(detail, { status: 413, type: client("frame-too-large") }));
      return;
    }
    socket.send(new Blob([frameHeader(this.#seq, (performance.timeOrigin + sent.capturedMs) * 1000), blob]));
    this.#unanswered.set(this.#seq, sent);
    this.#seq = (this.#seq + 1) >>> 0;
    this.stats.sent += 1;
  }
}

/** @typedef {{ capturedMs: number, sentMs: number, view: View, image: Size }} Sent */

/**
 * Write what stands before the picture of a stream's frame: `u8 version | u8 flags | u16 reserved | u32 seq |
 * u64 capture_us`, big-endian.
 *
 * @param {number} seq Counts frames, modulo 2³².
 * @param {number} captureUs When the frame was taken, on any clock, µs.
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
 * Draw skeletons: the person's left blue, right orange, middle green (Okabe and Ito, safe for the colour-blind).
 *
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {readonly Pose[]} poses
 * @param {DrawOptions} [options]
 */
export function draw(context, poses, options = {}) {
  const { canvas } = context;
  const { image = canvas, mirror = false, threshold = 0.35, pixelRatio = 1 } = options;
  const [scaleX, scaleY] = [canvas.width / image.width, canvas.height / image.height];
  const place = (/** @type {number} */ x, /** @type {number} */ y) => {
    // Poses count from the centre of the first pixel, a canvas from its corner.
    const across = (x + 0.5) * scaleX;
    return { x: mirror ? canvas.width - across : across, y: (y + 0.5) * scaleY };
  };
  context.save();
  context.lineCap = context.lineJoin = "round";
  poses.forEach((pose, index) => {
    const side = Math.sqrt(pose.box.width * scaleX * pose.box.height * scaleY);
    const width = options.lineWidth ?? Math.min(Math.max(side / 70, 2 * pixelRatio), 9 * pixelRatio);
    const points = pose.keypoints.map((it) => ({ ...place(it.x, it.y), name: it.name, seen: it.score >= threshold }));
    const { xMin, yMin, xMax, yMax } = pose.box;
    if (options.boxes) drawBox(context, place(xMin, yMin), place(xMax, yMax), width);
    drawSkeleton(context, points, pose.edges ?? EDGES, width, options.colors ?? SIDES);
    const text = options.label ? options.label(pose, index) : String(pose.id ?? "");
    const middle = (xMin + xMax) / 2;
    const height = Math.min(Math.max(width * 3.6, 14 * pixelRatio), 32 * pixelRatio);
    if (text) drawLabel(context, text, place(middle, yMin), height);
  });
  context.restore();
}

const SIDES = { left: "rgb(86 180 233)", right: "rgb(230 159 0)", middle: "rgb(0 200 140)" };
const RIM = "rgb(0 0 0 / 0.45)";

/** @typedef {{ x: number, y: number, name: string, seen: boolean }} Joint px of the canvas. */
/** @typedef {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} Context */

/**
 * @param {Context} context
 * @param {Joint[]} joints
 * @param {Edges} pairs
 * @param {number} width
 * @param {{ left: string, right: string, middle: string }} colors
 */
function drawSkeleton(context, joints, pairs, width, colors) {
  const edges = pairs.map(([a, b]) => [joints[a], joints[b]]).filter(([a, b]) => a?.seen && b?.seen);
  // The rims first, all of them, so that no rim lies on a neighbour's colour.
  for (const [lineWidth, rim] of /** @type {[number, boolean][]} */ ([[width * 1.7, true], [width, false]])) {
    for (const [a, b] of edges) {
      context.lineWidth = lineWidth;
      context.strokeStyle = rim ? RIM : colors[sideOf(a.name, b.name)];
      context.beginPath();
      context.moveTo(a.x, a.y);
      context.lineTo(b.x, b.y);
      context.stroke();
    }
  }
  for (const joint of joints.filter((it) => it.seen)) {
    drawDot(context, joint, width * 1.35, "white");
    drawDot(context, joint, width * 0.9, colors[sideOf(joint.name)]);
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
 * @param {{ x: number, y: number }} a
 * @param {{ x: number, y: number }} b The opposite corner.
 * @param {number} width
 */
function drawBox(context, a, b, width) {
  for (const [lineWidth, color] of /** @type {[number, string][]} */ ([[width, RIM], [width / 2, "white"]])) {
    context.lineWidth = lineWidth;
    context.strokeStyle = color;
    context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

/**
 * Write white on dark above a point, within the canvas.
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
 * @param {string[]} names Of keypoints.
 * @returns {"left" | "right" | "middle"}
 */
function sideOf(...names) {
  if (names.every((name) => name.startsWith("left_"))) return "left";
  return names.every((name) => name.startsWith("right_")) ? "right" : "middle";
}

/** How a picture was shrunk on its way to the server, and back. */
class View {
  /**
   * @param {number} x px of the source per px of what was sent.
   * @param {number} y
   */
  constructor(x = 1, y = 1) {
    this.x = x;
    this.y = y;
  }

  /**
   * @param {Pose} pose In px of what was sent; becomes px of the source.
   * @returns {Pose} The same.
   */
  back(pose) {
    // Pixel centres lie at integers, so what is scaled begins half a pixel before the first one.
    const { x, y } = this;
    for (const keypoint of pose.keypoints) {
      keypoint.x = (keypoint.x + 0.5) * x - 0.5;
      keypoint.y = (keypoint.y + 0.5) * y - 0.5;
    }
    const { xMin, yMin, width, height } = pose.box;
    pose.box = boxOf((xMin + 0.5) * x - 0.5, (yMin + 0.5) * y - 0.5, width * x, height * y);
    return pose;
  }

  /**
   * @param {[number, number, number, number]} box [x, y, width, height] in px of the source.
   * @returns {number[]} The same in px of what is sent.
   */
  there([left, top, width, height]) {
    return [(left + 0.5) / this.x - 0.5, (top + 0.5) / this.y - 0.5, width / this.x, height / this.y];
  }

  /**
   * @param {Size} sent
   * @returns {Size} Of the source.
   */
  size({ width, height }) {
    return { width: Math.round(width * this.x), height: Math.round(height * this.y) };
  }
}

/** A canvas that becomes JPEGs, as large as it must be. */
class Canvas {
  /** @type {OffscreenCanvas | HTMLCanvasElement | null} */
  #canvas = null;

  /**
   * @param {Drawable} source
   * @param {number} maxSide
   * @param {number} quality
   * @returns {Promise<{ blob: Blob, view: View }>}
   */
  async encode(source, maxSide, quality) {
    const { width, height } = sizeOf(source);
    if (!width || !height) {
      const detail = "expected a picture, got one of no size; wait until it is loaded";
      throw new PosewrightError(detail, { type: client("source") });
    }
    const shrink = Math.min(1, maxSide / Math.max(width, height));
    const [sentWidth, sentHeight] = [width, height].map((side) => Math.max(1, Math.round(side * shrink)));
    const canvas = this.#fit(sentWidth, sentHeight);
    // Read back for every frame: better kept where the processor can reach it.
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    /** @type {CanvasRenderingContext2D} */ (context).drawImage(source, 0, 0, sentWidth, sentHeight);
    return { blob: await toJpeg(canvas, quality), view: new View(width / sentWidth, height / sentHeight) };
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  #fit(width, height) {
    const canvas = this.#canvas ?? makeCanvas(width, height);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.#canvas = canvas;
    return canvas;
  }
}

/**
 * @param {number} width
 * @param {number} height
 */
function makeCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

/**
 * @param {OffscreenCanvas | HTMLCanvasElement} canvas
 * @param {number} quality
 * @returns {Promise<Blob>}
 */
function toJpeg(canvas, quality) {
  const type = "image/jpeg";
  if ("convertToBlob" in canvas) return canvas.convertToBlob({ type, quality });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no JPEG"))), type, quality);
  });
}

/**
 * Make a file of a picture. Blobs that the server reads stay as they are; of others the browser may know more.
 *
 * @param {Source} source
 * @param {number} maxSide
 * @param {number} quality
 */
async function encode(source, maxSide, quality) {
  if (!(source instanceof Blob)) return new Canvas().encode(source, maxSide, quality);
  if (READ_BY_THE_SERVER.includes(source.type)) return { blob: source, view: new View() };
  const bitmap = await createImageBitmap(source).catch((cause) => {
    const got = source.type || "a file of no known type";
    const detail = `expected a picture that this browser can show, got ${got}; a JPEG, PNG or WebP always goes`;
    throw new PosewrightError(detail, { status: 415, type: client("source"), cause });
  });
  try {
    return await new Canvas().encode(bitmap, Infinity, quality);
  } finally {
    bitmap.close();
  }
}

/**
 * @param {Drawable} source
 * @returns {Size}
 */
function sizeOf(source) {
  if (typeof HTMLVideoElement !== "undefined" && source instanceof HTMLVideoElement) {
    // Before its first frame is decoded a video has a size already, but nothing to show.
    const shown = source.readyState >= 2;
    return { width: shown ? source.videoWidth : 0, height: shown ? source.videoHeight : 0 };
  }
  if (typeof HTMLImageElement !== "undefined" && source instanceof HTMLImageElement) {
    return { width: source.naturalWidth, height: source.naturalHeight };
  }
  return { width: source.width, height: source.height };
}

/**
 * Call back for each new frame of a video, or for each that a canvas could show.
 *
 * @param {MovingSource} source
 * @param {(capturedMs: number) => void} onFrame Told when the frame was taken, on the clock of `performance.now()`.
 * @returns {() => void} Ends it.
 */
function everyFrame(source, onFrame) {
  if (typeof HTMLVideoElement !== "undefined" && source instanceof HTMLVideoElement) {
    if ("requestVideoFrameCallback" in source) return everyVideoFrame(source, onFrame);
  }
  let handle = requestAnimationFrame(function step(now) {
    handle = requestAnimationFrame(step);
    if (sizeOf(source).width > 0) onFrame(now);
  });
  return () => cancelAnimationFrame(handle);
}

/**
 * @param {HTMLVideoElement} video
 * @param {(capturedMs: number) => void} onFrame
 */
function everyVideoFrame(video, onFrame) {
  let handle = video.requestVideoFrameCallback(function step(now, { captureTime }) {
    handle = video.requestVideoFrameCallback(step);
    // Cameras tell when the light fell in. Some on another clock, which no age may be taken from.
    const told = captureTime !== undefined && captureTime <= now && now - captureTime < 1000;
    onFrame(told ? captureTime : now);
  });
  return () => video.cancelVideoFrameCallback(handle);
}

/** Lets frames through at most so often, on the average exactly so often: half a period early is no offence. */
class Pace {
  #periodMs;
  #dueMs = -Infinity;

  /** @param {number} perSecond */
  constructor(perSecond) {
    this.#periodMs = 1000 / perSecond;
  }

  /** @param {number} perSecond The server's limit. */
  limit(perSecond) {
    this.#periodMs = Math.max(this.#periodMs, 1000 / perSecond);
  }

  /** @param {number} nowMs */
  due(nowMs) {
    return nowMs >= this.#dueMs - this.#periodMs / 2;
  }

  /** @param {number} nowMs */
  take(nowMs) {
    this.#dueMs = Math.max(this.#dueMs, nowMs) + this.#periodMs;
  }
}

/**
 * @param {any} person As on the wire, `pose` or `compact`.
 * @param {any} skeleton A reply, or a stream's `ready`: names `skeleton`, and `keypoints` and `edges` of others than COCO's.
 * @returns {Pose}
 */
function readPose({ id, score, box, keypoints }, skeleton) {
  const names = skeleton.keypoints ?? KEYPOINTS;
  /** @type {Pose} */
  const pose = {
    keypoints: keypoints.map((/** @type {any} */ it, /** @type {number} */ k) =>
      Array.isArray(it)
        ? { x: it[0], y: it[1], score: it[2], name: names[k] }
        : { x: it.x, y: it.y, score: it.score, name: it.name },
    ),
    score,
    box: boxOf(box[0], box[1], box[2], box[3]),
  };
  if (id !== null) pose.id = Number(id);
  if (skeleton.edges && skeleton.skeleton !== "coco17") pose.edges = skeleton.edges;
  return pose;
}

/**
 * @param {number} xMin
 * @param {number} yMin
 * @param {number} width
 * @param {number} height
 * @returns {Box}
 */
function boxOf(xMin, yMin, width, height) {
  return { xMin, yMin, xMax: xMin + width, yMax: yMin + height, width, height };
}

/** @param {string} slug */
function client(slug) {
  return `urn:posewright:client:${slug}`;
}

/**
 * @param {URL} url
 * @param {unknown} cause
 */
function unreachable(url, cause) {
  const detail = `no answer from ${url.origin}; is the server running, and may this page call it (its cors_origins)?`;
  return new PosewrightError(detail, { type: client("unreachable"), title: "The server cannot be reached", cause });
}

/** @param {Response} response */
async function refusal(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const problem = await response.json().catch(() => ({}));
  const { status, statusText } = response;
  const told = { status, detail: `the server answered ${status} ${statusText}`.trim() };
  return PosewrightError.from({ ...told, ...problem }, Number.isNaN(retryAfter) ? null : retryAfter);
}

/**
 * @param {number} code Of the WebSocket's close.
 * @param {string} reason
 * @param {Record<string, any> | null} [problem]
 */
function farewell(code, reason, problem) {
  if (problem) return PosewrightError.from(problem);
  const detail = reason || "the connection broke, or there is no posewright server at this address";
  return new PosewrightError(detail, { type: client(`stream-closed-${code}`), title: "The stream was closed" });
}
