/** What the page does, in JavaScript with the browser client. */

import { fileOf, KEY, quoted } from "./shown.js";

/** @typedef {import("./shown.js").Shown} Shown */

const MAKE_CANVAS = 'const canvas = document.body.appendChild(document.createElement("canvas"));';

/** @param {Shown} shown */
export function writeJavaScript(shown) {
  if (shown.kind === "source") return `${start(shown)}\n${MAKE_CANVAS}\n${source(shown)}`;
  const options = `const options = {\n${optionsOf(shown).map((it) => `  ${it},\n`).join("")}};`;
  return `${start(shown)}\n${options}\n\n${shown.kind === "photo" ? photo(shown) : video(shown)}`;
}

/** @param {Shown} shown */
function photo(shown) {
  const call = shown.model === "compare"
    ? "const { student, teacher, matches, image } = await server.compare(picture, options);"
    : "const { poses, image } = await server.predict(picture, options);";
  return `const picture = await (await fetch(${quoted(encodeURIComponent(fileOf(shown).name))})).blob();
${call}
console.log(${shown.model === "compare" ? "matches" : "poses"});

${MAKE_CANVAS}
${drawing("await createImageBitmap(picture)", shown)}`;
}

/** @param {Shown} shown */
function video(shown) {
  const opened = shown.kind === "camera"
    ? "video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });"
    : `video.src = ${quoted(encodeURIComponent(shown.name))};`;
  const loop = shown.model === "compare"
    ? `while (!video.ended) {
  await new Promise((resolve) => video.requestVideoFrameCallback(resolve)); // the next frame
  const { teacher, matches, image } = await server.compare(video, options);
  console.log(matches);`
    : "for await (const { poses, image } of server.stream(video, options)) {\n  console.log(poses);";
  return `const video = document.createElement("video");
video.muted = true;
${opened}
await video.play();
${MAKE_CANVAS}
${loop}
${indented(drawing("video", shown))}
}`;
}

/** @param {Shown} shown */
function source(shown) {
  return `for await (const { picture, poses, image } of server.sources.view(${quoted(shown.name)})) {
  console.log(poses);
${indented(drawing("picture", { ...shown, model: "auto" }))}
  picture.close();
}`;
}

/** @param {Shown} shown */
function start({ url, keyed }) {
  return `import { Posewright, draw } from ${quoted(`${url}posewright.js`)};

const server = new Posewright(${quoted(url)}${keyed ? `, { key: ${quoted(KEY)} }` : ""});`;
}

/** @param {Shown} shown */
function optionsOf({ model, minScore, maxPeople, threshold, boxes }) {
  return [
    ...(model === "compare" ? [] : [`model: ${quoted(model)}`]),
    `minScore: ${minScore}`,
    `maxPeople: ${maxPeople}`,
    `keypointThreshold: ${threshold}`,
    ...(boxes.length ? [`boxes: ${JSON.stringify(boxes)}`] : []),
  ];
}

/**
 * @param {string} picture Expression of what is drawn.
 * @param {Shown} shown
 */
function drawing(picture, { model, threshold, drawsBoxes }) {
  const poses = model === "compare" ? "teacher.poses" : "poses";
  return `Object.assign(canvas, image); // width and height
const context = canvas.getContext("2d");
context.drawImage(${picture}, 0, 0);
draw(context, ${poses}, { threshold: ${threshold}${drawsBoxes ? ", boxes: true" : ""} });`;
}

/** @param {string} text */
function indented(text) {
  return text.replaceAll(/^/gm, "  ");
}
