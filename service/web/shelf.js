/** The server as the page knows it: whether it answers, whether its models are warm, and what they are. */

/** @typedef {import("./posewright.js").Posewright} Posewright */
/** @typedef {import("./posewright.js").ModelEntry} ModelEntry */
/** @typedef {import("./messages.js").Messages} Messages */

const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 10_000;

export class Shelf {
  #server;
  #messages;
  #at;
  #onReturn;
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
   * @param {(id: string) => HTMLElement} at Finds an element.
   * @param {() => void} onReturn Told when the server answers again.
   */
  constructor(server, messages, at, onReturn) {
    this.#server = server;
    this.#messages = messages;
    this.#at = at;
    this.#onReturn = onReturn;
  }

  /** Ask the server, until it is ready. */
  async check() {
    if (this.#checking) return;
    this.#checking = true;
    clearTimeout(this.#timer);
    try {
      this.#models = await this.#server.models({ signal: AbortSignal.timeout(5000) });
      const warming = this.#models.some((it) => it.state === "warming_up");
      this.#show(warming ? "looking" : "ready", warming ? "The models are warming up…" : this.#summary());
      if (warming) this.#later(500);
      else this.#return();
    } catch {
      this.#gone = true;
      this.#show("down", "No answer");
      const text = `The server at ${location.host} does not answer. Trying again…`;
      this.#messages.say("server", text, { action: ["Try now", () => this.check()] });
      this.#later(this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
    } finally {
      this.#checking = false;
    }
    this.describe(this.#model);
  }

  /**
   * A call was not answered.
   *
   * @param {string | null} [reason] Why, where the server said so; null where somebody else tells.
   */
  isGone(reason) {
    if (reason) this.#messages.say("server", reason, { action: ["Try now", () => this.check()] });
    this.#show("down", reason ? "Not ready" : "No answer");
    if (this.#gone || reason === null) return;
    this.#gone = true;
    this.#retryMs = FIRST_RETRY_MS;
    // A server that answers, but not this call, is not to be called again at once.
    if (reason) this.#later(this.#retryMs);
    else this.check();
  }

  /** A call was answered. */
  isThere() {
    if (this.#at("server").dataset.state === "down") this.#show("ready", this.#summary());
    this.#gone = false;
  }

  /**
   * Tell about a model below its button.
   *
   * @param {string} model `student`, `teacher` or `compare`.
   */
  describe(model) {
    this.#model = model;
    const [student, teacher] = [this.#find("student"), this.#find("teacher")];
    const words = { student: lineOf(student), teacher: lineOf(teacher), compare: "The same people, seen by both." };
    this.#at("model-hint").textContent = words[/** @type {keyof typeof words} */ (model)] || "\u00a0";
  }

  #return() {
    this.#messages.hush("server");
    this.#retryMs = FIRST_RETRY_MS;
    if (this.#gone) this.#onReturn();
    this.#gone = false;
  }

  /** @param {number} delayMs */
  #later(delayMs) {
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
   * @param {"looking" | "ready" | "down"} state
   * @param {string} text
   */
  #show(state, text) {
    this.#at("server").dataset.state = state;
    this.#at("server-text").textContent = text;
  }
}

/** @param {ModelEntry | undefined} entry */
function lineOf(entry) {
  if (!entry) return "";
  if (entry.state === "unavailable") return `${entry.name} is not available.`;
  const millions = Number(entry.manifest.parameters) / 1e6;
  const size = millions >= 0.1 ? `, ${millions.toFixed(millions < 10 ? 1 : 0)} M parameters` : "";
  return `${entry.name} ${entry.version}${size}`;
}
