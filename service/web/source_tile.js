/** A tile with the live picture of one source of the server, its state, and buttons. */

import { make, makeButton } from "./elements.js";
import { labelOf } from "./people_table.js";
import { PoseView } from "./pose_view.js";
import { watchVisibility } from "./visibility.js";

/** @typedef {import("./browser/index.js").ServerSource} ServerSource */
/** @typedef {import("./browser/index.js").SourceResult} SourceResult */
/** @typedef {import("./browser/index.js").Sources} Sources */
/** @typedef {import("./browser/index.js").SourceViewer} SourceViewer */
/** @typedef {{ threshold: number, boxes: boolean, highlight: string | undefined }} Display How skeletons are drawn. */

/**
 * @typedef {object} TileHandlers
 * @property {() => void} onChange Called when the source was changed.
 * @property {(source: ServerSource) => void} onCode Called when the code for the source shall be shown.
 * @property {(text: string) => void} say Tells screen readers what changed.
 */

const STATES = {
  connecting: "Connecting", running: "Running", paused: "Paused", reconnecting: "Reconnecting", ended: "Ended",
  failed: "Failed",
};
const FIGURES = /** @type {const} */ (["Frames/s", "Age", "Reconnects"]);
const ACTIVE = ["connecting", "running", "reconnecting"];

export class SourceTile {
  /** A list item. */
  root;
  #sources;
  #source;
  #handlers;
  #view;
  #state = make("span", { class: "state" });
  #figures = FIGURES.map(() => make("dd", {}, "–"));
  #error = make("p", { class: "fault" });
  #pause;
  #remove;
  /** @type {SourceViewer | null} */
  #viewer = null;
  #stopWatching;
  #seen = false;

  /**
   * @param {Sources} sources
   * @param {ServerSource} source
   * @param {TileHandlers} handlers
   */
  constructor(sources, source, handlers) {
    this.#sources = sources;
    this.#source = source;
    this.#handlers = handlers;
    this.#pause = makeButton("Pause", () => this.#act(ACTIVE.includes(this.#source.state) ? "pause" : "resume"));
    this.#remove = makeButton("Delete", () => this.#confirmRemoval());
    this.root = this.#build(source);
    this.#view = new PoseView(/** @type {HTMLElement} */ (this.root.querySelector("figure")));
    this.#stopWatching = watchVisibility(this.root, (visible) => {
      this.#seen = visible;
      this.#connect();
    });
  }

  /** @param {Display} display */
  set display(display) {
    Object.assign(this.#view, display);
  }

  /** @param {ServerSource} source Its present state. */
  update(source) {
    const before = this.#source.state;
    this.#source = source;
    const state = STATES[source.state] ?? source.state;
    this.#state.textContent = state;
    this.root.dataset.state = source.state;
    if (before !== source.state) this.#handlers.say(`${source.name}: ${state}.`);
    const values = [source.fps.toFixed(1), ageOf(source.ageMs), String(source.reconnects)];
    values.forEach((value, i) => (this.#figures[i].textContent = value));
    const past = !["reconnecting", "failed"].includes(source.state);
    this.#error.classList.toggle("past", past);
    const { lastError, lastErrorAt } = source;
    const when = new Date(lastErrorAt ?? 0).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
    this.#error.textContent = lastError && past ? `Last error, ${when}: ${lastError}` : lastError;
    const active = ACTIVE.includes(source.state);
    this.#pause.textContent = active ? "Pause" : "Resume";
    this.#pause.hidden = source.state === "ended" || source.state === "failed";
    this.#name(this.#pause);
    this.#connect();
  }

  /** Remove the tile. */
  close() {
    this.#stopWatching();
    this.#viewer?.close();
    this.#viewer = null;
    const focused = this.root.contains(document.activeElement);
    const neighbour = (this.root.nextElementSibling ?? this.root.previousElementSibling)?.querySelector("button");
    this.root.remove();
    // The focus would be lost with the button that had it.
    if (focused) (neighbour ?? document.getElementById("source-url"))?.focus();
  }

  /** @param {ServerSource} source */
  #build({ id, name, url }) {
    const title = make("h3", { id: `source-${id}`, title: url }, name);
    const overlay = make("canvas", { class: "overlay", role: "img", "aria-label": "No picture yet" });
    const frame = make("div", { class: "frame" }, make("canvas", { class: "picture" }), overlay);
    const figure = make("figure", { class: "view", "data-shows": "picture" }, frame, make("figcaption"));
    const figures = FIGURES.map((it, i) => make("div", {}, make("dt", {}, it), this.#figures[i]));
    const code = makeButton("Code", () => this.#handlers.onCode(this.#source));
    const buttons = make("div", { class: "buttons" }, this.#pause, code, this.#remove);
    for (const button of [code, this.#remove]) this.#name(button);
    const head = make("div", { class: "head" }, title, this.#state);
    const item = make("li", { class: "tile", "aria-labelledby": title.id });
    item.append(figure, head, make("p", { class: "hint" }, url), make("dl", {}, ...figures), this.#error, buttons);
    return item;
  }

  /** @param {HTMLButtonElement} button All tiles have the same buttons, so their names say whose they are. */
  #name(button) {
    button.setAttribute("aria-label", `${button.textContent} ${this.#source.name}`);
  }

  /** Watch the source while the tile can be seen and there is something to see. */
  #connect() {
    const wanted = this.#seen && ACTIVE.includes(this.#source.state);
    if (wanted === (this.#viewer !== null)) return;
    this.#viewer?.close();
    this.#viewer = wanted ? this.#watch() : null;
  }

  #watch() {
    return this.#sources.view(this.#source.id, {
      onResult: (result) => this.#show(result),
      onSourceState: this.#handlers.onChange,
      onState: (state) => {
        if (state === "closed") this.#viewer = null; // the next update opens another one, if there is one to open
      },
    });
  }

  /** @param {SourceResult} result */
  #show({ picture, poses, image }) {
    if (picture) this.#view.showPicture(picture, image);
    picture?.close();
    this.#view.show(poses, image, labelOf);
  }

  /** @param {"pause" | "resume" | "remove"} action */
  async #act(action) {
    try {
      await this.#sources[action](this.#source.id);
      this.#handlers.onChange();
    } catch (error) {
      this.#error.textContent = error instanceof Error ? error.message : String(error);
      this.#handlers.say(this.#error.textContent);
    }
  }

  #confirmRemoval() {
    const dialog = make("dialog", { "aria-labelledby": `remove-${this.#source.id}` });
    const question = make("p", { id: `remove-${this.#source.id}` }, `Delete the source ${this.#source.name}?`);
    const cancel = makeButton("Cancel", () => dialog.close());
    const confirm = makeButton("Delete", () => {
      dialog.close();
      this.#act("remove");
    });
    confirm.className = "main";
    dialog.append(question, make("div", { class: "buttons" }, cancel, confirm));
    dialog.addEventListener("close", () => dialog.remove());
    this.root.append(dialog);
    dialog.showModal();
  }
}

/** @param {number | null} ms */
function ageOf(ms) {
  if (ms === null) return "–";
  return ms < 9950 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`;
}
