/** What the page shows, and how, as code that does the same must say it. */

/** @typedef {import("./browser/index.js").ServerSource} ServerSource */
/** @typedef {import("./source.js").Source} Source */

/**
 * @typedef {object} Subject
 * @property {"photo" | "video" | "camera" | "source"} kind
 * @property {string} name Of the file; of a source of the server its id.
 * @property {string} type Media type of a photo.
 * @property {string} title For the visitor.
 */

/**
 * @typedef {object} Setting
 * @property {string} url Address of the server, with its final slash.
 * @property {boolean} keyed Whether the server asks for an API key.
 * @property {string} model `student`, `teacher` or `compare`.
 * @property {number} minScore
 * @property {number} maxPeople
 * @property {number} threshold
 * @property {boolean} drawsBoxes
 * @property {number[][]} boxes Of people, given instead of those that the detector finds.
 */

/** @typedef {Subject & Setting} Shown */

/** Stands for the key, which is never written. */
export const KEY = "YOUR_API_KEY";
/** Types that the server reads; a browser may read more, and sends those as JPEG. */
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];

/**
 * @param {Source | null} source
 * @returns {Subject}
 */
export function subjectOf(source) {
  if (!source) return { kind: "photo", name: "photo.jpg", type: "image/jpeg", title: "a photo" };
  const [{ kind, name }, type] = [source, source.kind === "photo" ? source.blob.type : ""];
  return { kind, name, type, title: kind === "camera" ? "the camera" : name };
}

/**
 * @param {ServerSource} source
 * @returns {Subject}
 */
export function subjectOfServer({ id, name }) {
  return { kind: "source", name: id, type: "", title: `the source ${name}` };
}

/**
 * Name and media type of a photo, as the server reads it.
 *
 * @param {Shown} shown
 */
export function fileOf({ name, type }) {
  if (SENT_AS_THEY_ARE.includes(type)) return { name, type };
  return { name: name.replace(/\.[^.]*$|$/, ".jpg"), type: "image/jpeg" };
}

/**
 * Write a literal of a string, which JavaScript and Python read alike.
 *
 * @param {string} text
 */
export function quoted(text) {
  return JSON.stringify(text).replaceAll("\u2028", String.raw`\u2028`).replaceAll("\u2029", String.raw`\u2029`);
}
