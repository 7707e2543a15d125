/** HTTP calls to a server: its address, the API key, and repetition where that is safe. */

import { badKey, refusal, unreachable } from "./errors.js";
import { retrying } from "./retries.js";

/** @typedef {import("./retries.js").Retries} Retries */

/**
 * @typedef {object} Call
 * @property {string} [method] Default: `POST` if there is a body, otherwise `GET`.
 * @property {Record<string, unknown>} [query]
 * @property {Blob | FormData} [body]
 * @property {AbortSignal} [signal]
 * @property {Retries} [retries]
 */

export class Calls {
  /** @type {string | undefined} API key of all later calls and streams. */
  key;
  #url;
  #retries;

  /**
   * @param {URL} url Address of the server; ends with a slash.
   * @param {string | undefined} key
   * @param {Retries} retries
   */
  constructor(url, key, retries) {
    this.#url = url;
    this.key = key;
    this.#retries = retries;
  }

  /**
   * Address of a stream.
   *
   * @param {string} path Relative to the server's address.
   */
  socketUrl(path) {
    const url = new URL(path, this.#url);
    url.protocol = url.protocol.replace("http", "ws");
    return url;
  }

  /**
   * @param {string} path Relative to the server's address.
   * @param {Call} [call]
   * @returns {Promise<any>} The parsed body; undefined if the answer has none.
   * @throws {PosewrightError}
   */
  async json(path, call = {}) {
    const { signal, retries = this.#retries } = call;
    const url = new URL(path, this.#url);
    const response = await retrying(() => this.#fetch(url, call), retries, signal);
    if (response.status === 204) return undefined;
    // From here on the answer has begun, and the call is not repeated.
    return response.json().catch((cause) => {
      throw signal?.aborted ? cause : unreachable(url, cause);
    });
  }

  /**
   * @param {URL} address
   * @param {Call} call
   * @returns {Promise<Response>} A successful one.
   */
  async #fetch(address, { query = {}, body, signal, method = body ? "POST" : "GET" }) {
    const url = new URL(address);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers = new Headers({ Accept: "application/json" });
    try {
      if (this.key !== undefined) headers.set("Authorization", `Bearer ${this.key}`);
    } catch (cause) {
      throw badKey(cause);
    }
    if (body instanceof Blob) headers.set("Content-Type", body.type);
    const response = await fetch(url, { method, headers, body, signal }).catch((cause) => {
      throw signal?.aborted ? cause : unreachable(url, cause);
    });
    if (!response.ok) throw await refusal(response);
    return response;
  }
}
