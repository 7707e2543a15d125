/** The panel of the sources that the server opens itself: a tile for each, and a form to add one. */

import { PosewrightError } from "./browser/index.js";
import { SourceForm } from "./source_form.js";
import { SourceTile } from "./source_tile.js";
import { watchVisibility } from "./visibility.js";

/** @typedef {import("./browser/index.js").Posewright} Posewright */
/** @typedef {import("./browser/index.js").ServerSource} ServerSource */
/** @typedef {import("./source_tile.js").Display} Display */

/** How often the state of the sources is asked for while the panel can be seen. */
const REFRESH_MS = 2000;
/** In the address of the page, so that a bookmark opens the panel. */
const ANCHOR = "#sources";

/**
 * @typedef {object} PanelHandlers
 * @property {() => import("./browser/index.js").SourceOptions} options What a new source does with each frame.
 * @property {() => void} onUnauthorized Called when the server asks for another API key; then call `refresh`.
 * @property {(source: ServerSource) => void} onCode Called when the code for a source shall be shown.
 * @property {(text: string) => void} say Tells screen readers what changed.
 */

export class ServerSources {
  #server;
  #root;
  #hint;
  #list;
  #form;
  #handlers;
  /** @type {Map<string, SourceTile>} By id of the source. */
  #tiles = new Map();
  #visible = false;
  /** @type {Display} */
  #display = { threshold: 0.35, boxes: false, highlight: undefined };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Posewright} server
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {PanelHandlers} handlers
   */
  constructor(server, element, handlers) {
    this.#server = server;
    this.#root = /** @type {HTMLDetailsElement} */ (element("sources"));
    this.#hint = element("sources-hint");
    this.#list = element("tiles");
    this.#handlers = handlers;
    this.#form = new SourceForm(element, async (url, name) => {
      const added = await server.sources.add(url, { name, options: handlers.options() });
      handlers.say(`Added ${added.name}.`);
      await this.refresh();
    });
    const followAddress = () => (this.#root.open ||= location.hash === ANCHOR);
    followAddress();
    addEventListener("hashchange", followAddress);
    this.#root.addEventListener("toggle", () => {
      // The whole address, because an anchor alone belongs to the address of the base element.
      history.replaceState(null, "", location.pathname + location.search + (this.#root.open ? ANCHOR : ""));
    });
    watchVisibility(element("sources-body"), (visible) => {
      this.#visible = visible;
      if (visible) this.refresh();
      else clearTimeout(this.#timer);
    });
  }

  /**
   * Change how skeletons are drawn.
   *
   * @param {Partial<Display>} change
   */
  draw(change) {
    const display = (this.#display = { ...this.#display, ...change });
    for (const tile of this.#tiles.values()) tile.display = display;
  }

  /** Ask the server for its sources, now and then again while the panel can be seen. */
  async refresh() {
    clearTimeout(this.#timer);
    if (!this.#visible) return;
    try {
      this.#show(await this.#server.sources.list({ signal: AbortSignal.timeout(5000) }));
    } catch (error) {
      this.#explain(error);
      return;
    }
    this.#timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  /** @param {ServerSource[]} sources */
  #show(sources) {
    this.#hint.textContent = sources.length ? "" : "No sources yet.";
    this.#hint.hidden = sources.length > 0;
    this.#form.hidden = false;
    const ids = new Set(sources.map((it) => it.id));
    for (const [id, tile] of this.#tiles) {
      if (ids.has(id)) continue;
      tile.close();
      this.#tiles.delete(id);
    }
    for (const source of sources) this.#tileOf(source).update(source);
  }

  /** @param {ServerSource} source */
  #tileOf(source) {
    const known = this.#tiles.get(source.id);
    if (known) return known;
    const { say, onCode } = this.#handlers;
    const tile = new SourceTile(this.#server.sources, source, { say, onCode, onChange: () => this.refresh() });
    tile.display = this.#display;
    this.#tiles.set(source.id, tile);
    this.#list.append(tile.root);
    return tile;
  }

  /** @param {unknown} error Why there is no list. */
  #explain(error) {
    const refused = error instanceof PosewrightError ? error : null;
    if (refused?.status === 401) {
      this.#handlers.onUnauthorized();
      return;
    }
    const off = refused?.status === 403 || refused?.status === 404;
    if (off) this.#show([]);
    this.#form.hidden = off;
    this.#hint.hidden = false;
    if (refused?.status === 404) this.#hint.textContent = "This server cannot open sources itself.";
    else this.#hint.textContent = error instanceof Error ? error.message : String(error);
    if (!off) this.#timer = setTimeout(() => this.refresh(), 2 * REFRESH_MS);
  }
}
