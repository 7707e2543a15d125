/** What the page does, in Python with posewright-client. */

import { fileOf, KEY, quoted } from "./shown.js";

/** @typedef {import("./shown.js").Shown} Shown */

const FRAMES = `def frames(camera):
    video = cv2.VideoCapture(camera)
    while True:
        read, bgr = video.read()
        if not read:
            return
        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
`;
const PRINT_POSE = `print(pose.score, pose.box)
print([(it.name, it.x, it.y) for it in pose.keypoints if it.visible])`;
const PRINT_MATCHES = `for match in comparison.matches:
    print(match.oks, match.distances_px)`;

/** @param {Shown} shown */
export function writePython(shown) {
  if (shown.kind === "source") return source(shown);
  const start = "from posewright_client import Client\n";
  if (shown.kind === "photo") return `${start}\n${photo(shown)}`;
  return `import cv2\n\n${start}\n\n${FRAMES}\n\n${shown.model === "compare" ? comparedVideo(shown) : video(shown)}`;
}

/** @param {Shown} shown */
function photo(shown) {
  const name = quoted(fileOf(shown).name);
  if (shown.model === "compare") {
    return `with ${client(shown)} as client:
    comparison = ${call("client.compare", [name, ...options(shown)], "    ")}
${indented(PRINT_MATCHES, "    ")}`;
  }
  return `with ${client(shown)} as client:
    prediction = ${call("client.predict", [name, ...options(shown)], "    ")}
    for pose in prediction.poses:
${indented(PRINT_POSE, "        ")}`;
}

/** @param {Shown} shown */
function video(shown) {
  // The page shows a video at its speed and leaves frames out; a program wants them all.
  const policy = shown.kind === "video" ? ['policy="all"'] : [];
  const stream = call("client.stream", [`frames(${cameraOf(shown)})`, ...policy, ...options(shown)], "");
  return `with ${client(shown)} as client, ${stream} as stream:
    for result in stream:
        for pose in result.poses:
            print(result.seq, pose.id)
${indented(PRINT_POSE, "            ")}`;
}

/** @param {Shown} shown */
function comparedVideo(shown) {
  return `with ${client(shown)} as client:
    for picture in frames(${cameraOf(shown)}):
        comparison = ${call("client.compare", ["picture", ...options(shown)], "        ")}
${indented(PRINT_MATCHES, "        ")}`;
}

/** @param {Shown} shown */
function source({ url, name, keyed }) {
  const address = `${url.replace(/^http/, "ws")}sources/${encodeURIComponent(name)}/stream`;
  const key = keyed ? [`additional_headers={"X-API-Key": ${quoted(KEY)}}`] : [];
  const connection = call("connect", [quoted(address), 'subprotocols=["pose.v1.json"]', ...key], "");
  return `import json

from websockets.sync.client import connect

with ${connection} as source:
    source.send(json.dumps({"type": "hello"}))
    for message in source:
        result = json.loads(message)
        if result["type"] == "result":
            print(result["seq"], [(pose["id"], pose["score"]) for pose in result["poses"]])`;
}

/** @param {Shown} shown */
function client({ url, keyed }) {
  return `Client(${quoted(url)}${keyed ? `, api_key=${quoted(KEY)}` : ""})`;
}

/** @param {Shown} shown The camera for OpenCV. */
function cameraOf({ kind, name }) {
  return kind === "camera" ? "0" : quoted(name);
}

/** @param {Shown} shown */
function options({ model, minScore, maxPeople, threshold, boxes }) {
  return [
    ...(model === "compare" ? [] : [`model=${quoted(model)}`]),
    `min_score=${minScore}`,
    `max_people=${maxPeople}`,
    `keypoint_threshold=${threshold}`,
    ...(boxes.length ? [`boxes=${JSON.stringify(boxes)}`] : []),
  ];
}

/**
 * Write a call with an argument on each line.
 *
 * @param {string} name
 * @param {string[]} parts
 * @param {string} indent Of the line on which the call begins.
 */
function call(name, parts, indent) {
  return `${name}(\n${parts.map((it) => `${indent}    ${it},\n`).join("")}${indent})`;
}

/**
 * @param {string} text
 * @param {string} indent
 */
function indented(text, indent) {
  return text.replaceAll(/^/gm, indent);
}
