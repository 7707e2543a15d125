/** The WebSocket of a stream: reconnects with back-off, and detects dead connections with pings. */

import { badKey, streamClosed } from "./errors.js";
import { SUBPROTOCOL } from "./wire.js";

/** @typedef {import("./client.js").Model} Model */
/** @typedef {import("./errors.js").PosewrightError} PosewrightError */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} StreamState `waiting`: until the next attempt to connect. */
/** @typedef {{ error?: PosewrightError, retryMs?: number, model?: Model }} StateDetails */

/**
 * @typedef {object} ConnectionHandlers
 * @property {(message: any) => void} onMessage Called for all messages but `bye` and `ping`.
 * @property {(frame: ArrayBuffer) => void} [onFrame] Called for binary messages.
 * @property {() => void} onDisconnect Called when a connection ends; what it has not delivered is lost.
 * @property {(state: StreamState, details: StateDetails) => void} onState
 */

/** Close codes after which the stream reconnects: closed, restarting, broken, failed, overloaded, idle, too fast.
 * After others, such as 4401 for a wrong API key, another attempt would end in the same way. */
const RECONNECT_CODES = [1000, 1001, 1006, 1011, 1012, 1013, 1014, 4408, 4429];
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;
/** Silence after which the client sends a ping. */
const PING_AFTER_MS = 5_000;
/** Silence after which the connection counts as dead; longer than the server's deadline for a frame. */
const SILENCE_LIMIT_MS = 15_000;

export class StreamConnection {
  /** @type {StreamState} */
  state = "connecting";
  /** @type {WebSocket | null} The current socket; another one after each reconnect. */
  socket = null;

  #url;
  #protocols;
  #hello;
  #maxRetries;
  #handlers;
  #watchdog;
  #attempts = 0;
  #receivedMs = 0;
  #pingedMs = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;
  /** @type {PosewrightError | undefined} The reason that the server gave before closing. */
  #closeReason;

  /**
   * @param {URL} url
   * @param {string | undefined} key
   * @param {object} hello First message of every connection.
   * @param {number} maxRetries Consecutive attempts to connect before giving up.
   * @param {ConnectionHandlers} handlers
   */
  constructor(url, key, hello, maxRetries, handlers) {
    this.#url = url;
    // Browsers cannot set headers on a WebSocket, so the key is sent as a second subprotocol.
    this.#protocols = key === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `bearer.${key}`];
    this.#hello = hello;
    this.#maxRetries = maxRetries;
    this.#handlers = handlers;
    this.#watchdog = setInterval(() => this.#checkLiveness(), 1000);
  }

  connect() {
    clearTimeout(this.#retryTimer);
    this.#closeReason = undefined;
    this.#receivedMs = this.#pingedMs = performance.now();
    this.#setState("connecting");
    let socket;
    try {
      socket = new WebSocket(this.#url, this.#protocols);
    } catch (cause) {
      this.end(badKey(cause));
      return;
    }
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify(this.#hello));
    socket.onmessage = ({ data }) => {
      if (socket === this.socket) this.#receive(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) this.#onClose(code, reason);
    };
  }

  /** @param {Model} model The model that the server's `ready` message names. */
  markOpen(model) {
    this.#setState("open", { model });
  }

  /** Count attempts anew, because the connection works. */
  resetRetries() {
    this.#attempts = 0;
  }

  /** @param {PosewrightError} [error] Why the stream cannot continue; undefined if the caller ends it. */
  end(error) {
    if (this.state === "closed") return;
    clearInterval(this.#watchdog);
    clearTimeout(this.#retryTimer);
    const socket = this.socket;
    this.#disconnect();
    this.#setState("closed", { error });
    socket?.close(1000);
  }

  #disconnect() {
    this.socket = null;
    this.#handlers.onDisconnect();
  }

  /**
   * @param {StreamState} state
   * @param {StateDetails} [details]
   */
  #setState(state, details = {}) {
    this.state = state;
    this.#handlers.onState(state, details);
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#receivedMs = performance.now();
    if (typeof data !== "string") {
      this.#handlers.onFrame?.(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "bye") this.#closeReason = streamClosed(message.code, message.reason, message.problem);
    else if (message.type === "ping") this.socket?.send('{"type":"pong"}');
    else this.#handlers.onMessage(message);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #onClose(code, reason) {
    this.#disconnect();
    const error = this.#closeReason ?? streamClosed(code, reason);
    if (!RECONNECT_CODES.includes(code) || this.#attempts >= this.#maxRetries) {
      this.end(error);
      return;
    }
    // Jitter, so that the clients of a restarted server do not all reconnect at the same moment.
    const longestMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts);
    const retryMs = longestMs * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.#retryTimer = setTimeout(() => this.connect(), retryMs);
    this.#setState("waiting", { error, retryMs });
  }

  #checkLiveness() {
    if (this.socket === null) return;
    const now = performance.now();
    // In an open connection silence counts from the last ping, because timers of a background tab run once a minute.
    const pingUnanswered = this.#pingedMs > this.#receivedMs && now - this.#pingedMs > SILENCE_LIMIT_MS - PING_AFTER_MS;
    if (this.state === "open" ? pingUnanswered : now - this.#receivedMs > SILENCE_LIMIT_MS) {
      this.socket.close();
      this.#onClose(1006, `the server sent nothing for ${SILENCE_LIMIT_MS / 1000} s`);
    } else if (this.state === "open" && now - Math.max(this.#receivedMs, this.#pingedMs) > PING_AFTER_MS) {
      this.#pingedMs = now;
      this.socket.send('{"type":"ping"}');
    }
  }
}
