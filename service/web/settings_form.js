/** The settings of the page: the model, the filters, and what is drawn. */

import { debounce } from "./throttle.js";

/** @typedef {import("./inference.js").Settings} Settings */

/**
 * @typedef {object} SettingsHandlers
 * @property {() => void} onModel Called when another model was chosen.
 * @property {() => void} onOptions Called when the server must be asked with other options.
 * @property {() => void} onDisplay Called when the same result is drawn in another way.
 */

const QUIET_MS = 200;

export class SettingsForm {
  #field;

  /**
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {SettingsHandlers} handlers
   */
  constructor(element, { onModel, onOptions, onDisplay }) {
    this.#field = /** @type {(id: string) => HTMLInputElement} */ (element);
    element("models").addEventListener("change", onModel);
    element("show-boxes").addEventListener("change", onDisplay);
    const onOptionsSoon = debounce(QUIET_MS, onOptions);
    for (const id of ["min-score", "threshold", "max-people"]) {
      element(id).addEventListener("input", () => {
        const output = /** @type {HTMLOutputElement} */ (document.querySelector(`output[for=${id}]`));
        output.value = id === "max-people" ? this.#field(id).value : this.#field(id).valueAsNumber.toFixed(2);
        if (id === "threshold") onDisplay();
        else onOptionsSoon();
      });
    }
  }

  /** @returns {string} `student`, `teacher` or `compare`. */
  get model() {
    return /** @type {HTMLInputElement} */ (document.querySelector("input[name=model]:checked")).value;
  }

  get comparing() {
    return this.model === "compare";
  }

  /** The model of a stream, which has only one. */
  get streamModel() {
    return this.comparing ? "auto" : this.model;
  }

  /** @returns {Settings} */
  get options() {
    const [minScore, maxPeople] = ["min-score", "max-people"].map((it) => this.#field(it).valueAsNumber);
    return { model: this.model, minScore, maxPeople };
  }

  /** Minimum score of a drawn keypoint. */
  get threshold() {
    return this.#field("threshold").valueAsNumber;
  }

  /** Whether people's boxes are drawn. */
  get boxes() {
    return this.#field("show-boxes").checked;
  }
}
