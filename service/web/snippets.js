/** Code that does what the page does, for callers to copy. */

import { writeCurl } from "./snippet_curl.js";
import { writeJavaScript } from "./snippet_javascript.js";
import { writePython } from "./snippet_python.js";

/** @typedef {import("./shown.js").Shown} Shown */
/** @typedef {keyof typeof WRITERS} Language */

const WRITERS = { curl: writeCurl, python: writePython, javascript: writeJavaScript };

/**
 * @param {Language} language
 * @param {Shown} shown
 * @returns {string}
 */
export function write(language, shown) {
  return WRITERS[language](shown).trim();
}
