/** The panel with code to copy. */

import { write } from "./snippets.js";

/** @typedef {import("./snippets.js").Language} Language */
/** @typedef {import("./shown.js").Shown} Shown */

export class SnippetPanel {
  #root;
  #code;
  #subject;
  #languages;
  #say;
  /** @type {Shown | null} */
  #shown = null;

  /**
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {(text: string) => void} say Tells screen readers that the code was copied.
   */
  constructor(element, say) {
    this.#root = /** @type {HTMLDetailsElement} */ (element("code"));
    this.#code = element("snippet");
    this.#subject = element("snippet-subject");
    this.#languages = element("languages");
    this.#say = say;
    this.#languages.addEventListener("change", () => this.#render());
    element("copy").addEventListener("click", () => this.#copy());
  }

  /** @param {Shown} shown */
  show(shown) {
    this.#shown = shown;
    const key = shown.keyed ? " Replace YOUR_API_KEY by your key." : "";
    this.#subject.textContent = `Does what this page does with ${shown.title}.${key}`;
    this.#render();
  }

  /** Open the panel and move there. */
  reveal() {
    this.#root.open = true;
    this.#root.querySelector("summary")?.focus();
    this.#root.scrollIntoView({ block: "nearest" });
  }

  get #language() {
    const chosen = /** @type {HTMLInputElement} */ (this.#languages.querySelector(":checked"));
    return /** @type {Language} */ (chosen.value);
  }

  #render() {
    if (this.#shown) this.#code.textContent = write(this.#language, this.#shown);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#code.textContent ?? "");
      this.#say("Copied.");
    } catch {
      // Pages over plain http have no clipboard; the text is selected instead.
      getSelection()?.selectAllChildren(this.#code);
      this.#say("The code is selected: copy it with the keyboard.");
    }
  }
}
