/** State of the server: whether it responds, whether its models are ready, and which models it has. */

import { PosewrightError } from "./browser/index.js";

/** @typedef {import("./browser/index.js").Posewright} Posewright */
/** @typedef {import("./browser/index.js").ModelEntry} ModelEntry */
/** @typedef {import("./messages.js").Messages} Messages */

const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 10_000;

export class ServerStatus {
  #server;
  #messages;
  #element;
  #onReturn;
  #onUnauthorized;
  /** @type {ModelEntry[]} */
  #models = [];
  #retryMs = FIRST_RETRY_MS;
  #gone = false;
  #checking = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #model = "student";

  /**
   * @param {Posewright} server
   * @param {Messages} messages
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {() => void} onReturn Called when the server responds again.
   * @param {() => void} onUnauthorized Called when the server asks for another API key; then call `check`.
   */
  constructor(server, messages, element, onReturn, onUnauthorized) {
    this.#server = server;
    this.#messages = messages;
    this.#element = element;
    this.#onReturn = onReturn;
    this.#onUnauthorized = onUnauthorized;
  }

  /** Ask the server for its models, repeatedly until it is ready. */
  async check() {
    if (this.#checking) return;
    this.#checking = true;
    clearTimeout(this.#timer);
    try {
      this.#models = await this.#server.models({ signal: AbortSignal.timeout(5000) });
      const warming = this.#models.some((it) => it.state === "warming_up");
      this.#show(warming ? "checking" : "ready", warming ? "Loading models…" : this.#summary());
      if (warming) this.#checkLater(500);
      else this.#onReady();
    } catch (error) {
      if (error instanceof PosewrightError && error.status === 401) {
        this.reportUnauthorized();
        return;
      }
      this.#gone = true;
      this.#show("down", "No response");
      const text = `The server at ${location.host} does not respond. Retrying…`;
      this.#messages.show("server", text, { action: ["Retry now", () => this.check()] });
      this.#checkLater(this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, MAX_RETRY_MS);
    } finally {
      this.#checking = false;
    }
    this.describe(this.#model);
  }

  /**
   * Report that a call failed.
   *
   * @param {string | null} [reason] The server's reason, if it gave one; null if the caller shows the message itself.
   */
  reportFailure(reason) {
    if (reason) this.#messages.show("server", reason, { action: ["Retry now", () => this.check()] });
    this.#show("down", reason ? "Not ready" : "No response");
    if (this.#gone || reason === null) return;
    this.#gone = true;
    this.#retryMs = FIRST_RETRY_MS;
    // A server that refuses calls is not asked again at once.
    if (reason) this.#checkLater(this.#retryMs);
    else this.check();
  }

  /** Report that the server refused the API key, or asked for one. */
  reportUnauthorized() {
    this.#gone = true;
    this.#messages.clear("server", "frame");
    this.#show("down", "Asks for an API key");
    this.#onUnauthorized();
  }

  /** Report that a call succeeded. */
  reportSuccess() {
    if (this.#element("server").dataset.state === "down") this.#show("ready", this.#summary());
    this.#gone = false;
  }

  /**
   * Show the details of the chosen model.
   *
   * @param {string} model `student`, `teacher` or `compare`.
   */
  describe(model) {
    this.#model = model;
    const [student, teacher] = [this.#find("student"), this.#find("teacher")];
    const texts = { student: summaryOf(student), teacher: summaryOf(teacher), compare: "Both models, side by side." };
    this.#element("model-hint").textContent = texts[/** @type {keyof typeof texts} */ (model)] || "\u00a0";
  }

  /**
   * The keypoints of the chosen model.
   *
   * @param {string} model `student`, `teacher` or `compare`.
   */
  skeletonOf(model) {
    return this.#find(model === "student" ? "student" : "teacher")?.skeleton;
  }

  #onReady() {
    this.#messages.clear("server");
    this.#retryMs = FIRST_RETRY_MS;
    if (this.#gone) this.#onReturn();
    this.#gone = false;
  }

  /** @param {number} delayMs */
  #checkLater(delayMs) {
    this.#timer = setTimeout(() => this.check(), delayMs);
  }

  /** @param {string} role */
  #find(role) {
    const ofRole = this.#models.filter((it) => it.role === role);
    return ofRole.find((it) => it.default) ?? ofRole[0];
  }

  #summary() {
    const failed = this.#models.filter((it) => it.state === "unavailable").map((it) => it.name);
    return failed.length ? `Ready without ${failed.join(", ")}` : "Ready";
  }

  /**
   * @param {"checking" | "ready" | "down"} state
   * @param {string} text
   */
  #show(state, text) {
    this.#element("server").dataset.state = state;
    this.#element("server-text").textContent = text;
  }
}

/** @param {ModelEntry | undefined} entry */
function summaryOf(entry) {
  if (!entry) return "";
  if (entry.state === "unavailable") return `${entry.name} is not available.`;
  const millions = Number(entry.manifest.parameters) / 1e6;
  const size = millions >= 0.1 ? `, ${millions.toFixed(millions < 10 ? 1 : 0)} M parameters` : "";
  return `${entry.name} ${entry.version}${size}`;
}
