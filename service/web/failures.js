/** Tells the visitor what went wrong with a call or a stream. */

import { PosewrightError } from "./browser/index.js";

/** @typedef {import("./browser/index.js").StateDetails} StateDetails */
/** @typedef {import("./browser/index.js").StreamState} StreamState */
/** @typedef {import("./messages.js").Messages} Messages */
/** @typedef {import("./server_status.js").ServerStatus} ServerStatus */

export class Failures {
  #status;
  #messages;
  #reconnect;
  #restart;

  /**
   * @param {ServerStatus} status
   * @param {Messages} messages
   * @param {{ reconnect: () => void, restart: () => void }} actions Of the buttons beside the messages.
   */
  constructor(status, messages, { reconnect, restart }) {
    this.#status = status;
    this.#messages = messages;
    this.#reconnect = reconnect;
    this.#restart = restart;
  }

  /** @param {unknown} error Of a call, or of one frame. */
  onError(error) {
    if (error instanceof PosewrightError && error.status === 401) this.#status.reportUnauthorized();
    else if (error instanceof PosewrightError && error.slug === "unreachable") this.#status.reportFailure();
    else if (error instanceof PosewrightError && error.status === 503) this.#status.reportFailure(error.detail);
    else this.#messages.show("frame", error instanceof Error ? error.message : String(error));
  }

  /** A call or a frame was answered. */
  onSuccess() {
    this.#messages.clear("server", "frame");
    this.#status.reportSuccess();
  }

  /**
   * @param {StreamState} state
   * @param {StateDetails} details
   */
  onState(state, { error, retryMs = 0 }) {
    if (state === "open") this.onSuccess();
    if (state === "waiting") {
      const when = `Retrying in ${Math.max(1, Math.round(retryMs / 1000))} s.`;
      const action = /** @type {[string, () => void]} */ (["Retry now", this.#reconnect]);
      this.#messages.show("server", `The stream ended: ${error?.detail}. ${when}`, { action });
      this.#status.reportFailure(null);
    }
    if (state === "closed" && error?.status === 401) this.#status.reportUnauthorized();
    else if (state === "closed" && error) {
      this.#messages.show("frame", error.detail, { action: ["Retry", this.#restart] });
    }
  }
}
