/** The form that adds a source to the server. */

export class SourceForm {
  #form;
  #error;
  #url;
  #name;

  /**
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {(url: string, name: string | undefined) => Promise<void>} add Adds a source.
   */
  constructor(element, add) {
    this.#form = /** @type {HTMLFormElement} */ (element("source-form"));
    this.#error = element("source-error");
    this.#url = /** @type {HTMLInputElement} */ (element("source-url"));
    this.#name = /** @type {HTMLInputElement} */ (element("source-name"));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(add);
    });
  }

  /** @param {boolean} hidden */
  set hidden(hidden) {
    this.#form.hidden = hidden;
  }

  /** @param {(url: string, name: string | undefined) => Promise<void>} add */
  async #submit(add) {
    const button = /** @type {HTMLButtonElement} */ (this.#form.querySelector("[type=submit]"));
    button.disabled = true;
    try {
      await add(this.#url.value.trim(), this.#name.value.trim() || undefined);
      this.#form.reset();
      this.#fail("");
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    } finally {
      button.disabled = false;
    }
  }

  /** @param {string} text What is wrong with the source; empty for nothing. */
  #fail(text) {
    this.#error.textContent = text;
    this.#url.setAttribute("aria-invalid", String(text !== ""));
    this.#url.focus();
  }
}
