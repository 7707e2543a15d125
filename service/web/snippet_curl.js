/** What the page does, as a command line of curl. */

import { fileOf, KEY } from "./shown.js";

/** @typedef {import("./shown.js").Shown} Shown */

/** @param {Shown} shown */
export function writeCurl(shown) {
  if (shown.kind === "source") {
    const status = curl(shown, `sources/${encodeURIComponent(shown.name)}`, []);
    return `# Its state. Its results come over a WebSocket: see Python and JavaScript.\n${status}`;
  }
  const { name, type } = shown.kind === "photo" ? fileOf(shown) : { name: "frame.jpg", type: "image/jpeg" };
  const path = shown.model === "compare" ? "compare" : "predict";
  const options = [`--data-binary ${quoted(`@${name}`)}`, `-H 'Content-Type: ${type}'`];
  const call = curl(shown, `${path}?${queryOf(shown)}`, options);
  if (shown.kind !== "photo") {
    return `# One frame, so people have no ids. Video goes over a WebSocket: see Python and JavaScript.\n${call}`;
  }
  if (shown.model === "compare") return call;
  return `${call}\n\n# The same as a picture with the skeletons\n${call} \\\n  -H 'Accept: image/jpeg' -o drawn.jpg`;
}

/**
 * @param {Shown} shown
 * @param {string} path With its query.
 * @param {string[]} options
 */
function curl({ url, keyed }, path, options) {
  const key = keyed ? [`-H 'X-API-Key: ${KEY}'`] : [];
  return `curl ${[...options, ...key, quoted(url + path)].join(" \\\n  ")}`;
}

/** @param {Shown} shown */
function queryOf({ model, minScore, maxPeople, threshold, boxes }) {
  const query = new URLSearchParams(model === "compare" ? {} : { model });
  query.set("min_score", String(minScore));
  query.set("max_people", String(maxPeople));
  query.set("keypoint_threshold", String(threshold));
  if (boxes.length) query.set("boxes", JSON.stringify(boxes));
  return query;
}

/** @param {string} text An argument of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
