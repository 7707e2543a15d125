/** Tells screen readers what changed, once it is settled. */

/** Time for which a number of people must stay the same before it is announced, so that not every frame is. */
const SETTLED_MS = 1500;

export class Announcer {
  #root;
  #count = -1;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {HTMLElement} root A live region with `role="status"`. */
  constructor(root) {
    this.#root = root;
  }

  /** @param {string} text Announced now. */
  say(text) {
    this.#root.textContent = text;
  }

  /** Forget the number of people, because the source or the settings changed. */
  reset() {
    clearTimeout(this.#timer);
    this.#count = -1;
    this.say(""); // the same text again would not be announced
  }

  /**
   * Announce the number of people if it changed.
   *
   * @param {number} count
   * @param {boolean} live Whether more pictures follow; then a number is announced once it stays the same.
   */
  people(count, live) {
    if (count === this.#count && live) return;
    clearTimeout(this.#timer);
    this.#count = count;
    const text = `Found ${count === 1 ? "1 person" : `${count} people`}.`;
    if (live) this.#timer = setTimeout(() => this.say(text), SETTLED_MS);
    else this.say(text);
  }
}
