/** What all live results have in common: they come over a connection, and are read with `for await`. */

/** @typedef {import("./connection.js").StreamConnection} StreamConnection */
/** @typedef {import("./connection.js").StreamState} StreamState */

/**
 * Results that come as long as the connection is open.
 *
 * @template T
 */
export class LiveResults {
  #connection;
  #results;

  /**
   * @param {StreamConnection} connection Not yet made.
   * @param {import("./newest.js").Newest<T>} results For iterators.
   * @param {AbortSignal} [signal] Closes the connection.
   */
  constructor(connection, results, signal) {
    this.#connection = connection;
    this.#results = results;
    const self = new WeakRef(this); // the signal of a page may outlive thousands of streams
    signal?.addEventListener("abort", () => self.deref()?.close(), { once: true });
    // Deferred, so that the caller has this object before `onState` is called.
    queueMicrotask(() => (signal?.aborted ? this.close() : connection.connect()));
  }

  /** @returns {StreamState} */
  get state() {
    return this.#connection.state;
  }

  /** If the connection waits for its next attempt, connect now. */
  reconnect() {
    if (this.state === "waiting") this.#connection.connect();
  }

  /** End the connection; a source that was viewed goes on. */
  close() {
    this.#connection.end();
  }

  /** @returns {AsyncGenerator<T, void, void>} */
  async *[Symbol.asyncIterator]() {
    try {
      yield* this.#results.read();
    } finally {
      this.close();
    }
  }
}
