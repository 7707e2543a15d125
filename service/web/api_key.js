/** The form for the API key, which the page shows when the server asks for one. */

/** @typedef {import("./browser/index.js").Posewright} Posewright */

const STORED = "posewright-api-key";

export class ApiKeyForm {
  #form;
  #field;
  #hint;

  /**
   * @param {Posewright} server Gets the key.
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {() => void} onKey Called when there is a new key.
   */
  constructor(server, element, onKey) {
    this.#form = element("key-form");
    this.#field = /** @type {HTMLInputElement} */ (element("key"));
    this.#hint = element("key-hint");
    // Until the tab is closed; other tabs and later visits do not have it.
    server.key = sessionStorage.getItem(STORED) ?? undefined;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(STORED, this.#field.value);
      server.key = this.#field.value;
      this.#field.value = "";
      this.#form.hidden = true;
      onKey();
    });
  }

  /** Whether the server asks for a key, and got one. */
  get used() {
    return sessionStorage.getItem(STORED) !== null;
  }

  /** Ask the user for a key. */
  ask() {
    if (!this.#form.hidden) return;
    const refused = sessionStorage.getItem(STORED) !== null;
    this.#hint.textContent = refused ? "The server does not accept this API key." : "This server asks for an API key.";
    this.#form.hidden = false;
    this.#field.focus();
  }
}
