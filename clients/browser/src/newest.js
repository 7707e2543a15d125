/** Hands the newest value of a stream to a reader that may be slower than the stream. */

/** @template T */
export class Newest {
  /** @type {T | null} */
  #unread = null;
  #ended = false;
  /** @type {unknown} */
  #failure;
  #wake = () => {};
  #discard;

  /** @param {(value: T) => void} [discard] Called for a value that a newer one replaces before it was read. */
  constructor(discard = () => {}) {
    this.#discard = discard;
  }

  /** @param {T} value Replaces the one that nobody has read. */
  put(value) {
    if (this.#unread !== null) this.#discard(this.#unread);
    this.#unread = value;
    this.#wake();
  }

  /** @param {unknown} [failure] Thrown to the reader after the last value. */
  end(failure) {
    this.#ended = true;
    this.#failure = failure;
    this.#wake();
  }

  /** @returns {AsyncGenerator<T, void, void>} */
  async *read() {
    while (true) {
      const value = this.#unread;
      this.#unread = null;
      if (value !== null) yield value;
      else if (this.#failure) throw this.#failure;
      else if (this.#ended) return;
      else await new Promise((/** @type {(_: void) => void} */ resolve) => (this.#wake = resolve));
    }
  }
}
