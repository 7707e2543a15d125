/** One message at a time, over the picture, with something to do about it. */

export class Messages {
  #root;
  #subject = "";

  /** @param {HTMLElement} root A live region: screen readers read what comes into it. */
  constructor(root) {
    this.#root = root;
  }

  /**
   * @param {string} subject What it is about; `hush` takes it.
   * @param {string} text
   * @param {{ bad?: boolean, action?: [string, () => void] }} [options] `action`: a button's words and what it does.
   */
  say(subject, text, { bad = true, action } = {}) {
    const shown = this.#root.querySelector("p");
    this.#subject = subject;
    // Said again, it would be read out again.
    if (shown?.textContent === text) return;
    const message = document.createElement("div");
    message.className = bad ? "message bad" : "message";
    message.append(Object.assign(document.createElement("p"), { textContent: text }));
    const [words, act] = action ?? ["Close", () => this.hush(subject)];
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: words });
    button.addEventListener("click", act);
    message.append(button);
    this.#root.replaceChildren(message);
  }

  /** @param {string[]} subjects Over and done with. */
  hush(...subjects) {
    if (!subjects.includes(this.#subject)) return;
    this.#subject = "";
    this.#root.replaceChildren();
  }
}
