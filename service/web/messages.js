/** Messages over the picture: one at a time, each with a button. */

export class Messages {
  #root;
  #topic = "";

  /** @param {HTMLElement} root A live region, which screen readers read aloud. */
  constructor(root) {
    this.#root = root;
  }

  /**
   * Show a message in place of the previous one.
   *
   * @param {string} topic Name for `clear`.
   * @param {string} text
   * @param {{ action?: [string, () => void] }} [options] `action`: text of the button and what it does; default: close.
   */
  show(topic, text, { action } = {}) {
    const shown = this.#root.querySelector("p");
    this.#topic = topic;
    // A message that is shown again would be read aloud again.
    if (shown?.textContent === text) return;
    const message = document.createElement("div");
    message.className = "message";
    message.append(Object.assign(document.createElement("p"), { textContent: text }));
    const [label, act] = action ?? ["Close", () => this.clear(topic)];
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", act);
    message.append(button);
    this.#root.replaceChildren(message);
  }

  /** @param {string[]} topics Remove the message if it has one of these topics. */
  clear(...topics) {
    if (!topics.includes(this.#topic)) return;
    this.#topic = "";
    this.#root.replaceChildren();
  }
}
