/** The page: what is looked at (`source`), how (`wish`), and everything that shows what comes of it. */

import { Posewright, PosewrightError } from "./posewright.js";
import { listCameras, openCamera, whyNoCamera } from "./camera.js";
import { Figures } from "./figures.js";
import { lookAtPhoto, lookAtVideo } from "./looking.js";
import { Messages } from "./messages.js";
import { Pane } from "./pane.js";
import { nameOf, People } from "./people.js";
import { download, Records } from "./records.js";
import { Shelf } from "./shelf.js";
import { afterRest } from "./unhurried.js";

/** @typedef {import("./looking.js").Sight} Sight */
/** @typedef {import("./looking.js").Look} Look */
/**
 * @typedef {{ kind: "camera", name: string, stream: MediaStream }
 *   | { kind: "video", name: string, url: string }
 *   | { kind: "photo", name: string, blob: Blob, bitmap: ImageBitmap }} Source
 */

/** @param {string} id */
const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = /** @type {(id: string) => HTMLInputElement} */ (at);
const button = /** @type {(id: string) => HTMLButtonElement} */ (at);

const server = new Posewright(document.baseURI);
const video = /** @type {HTMLVideoElement} */ (at("video"));
const which = /** @type {HTMLSelectElement} */ (at("which"));
const panes = [new Pane(at("pane-one")), new Pane(at("pane-two"))];
const figures = new Figures(at);
const people = new People(at("people"), at("nobody"));
const records = new Records();
const messages = new Messages(at("messages"));
const shelf = new Shelf(server, messages, at, () => restart());

/** @type {Source | null} */
let source = null;
/** @type {Look | null} */
let look = null;
/** @type {Sight | null} */
let lastSight = null;
/** Counts what was opened, so that what comes late is known to be late. */
let opened = 0;

// What is asked for

function chosenModel() {
  return /** @type {HTMLInputElement} */ (document.querySelector("input[name=model]:checked")).value;
}

function wish() {
  const [minScore, maxPeople] = [field("min-score").valueAsNumber, field("max-people").valueAsNumber];
  return { model: chosenModel(), minScore, maxPeople };
}

const threshold = () => field("threshold").valueAsNumber;

// Looking

/** Look at the source anew: something about the wish, the source or the server has changed. */
function restart() {
  look?.close();
  look = lastSight = null;
  figures.begin(source !== null && source.kind !== "photo");
  records.begin(source?.name ?? "");
  people.clear();
  for (const pane of panes) pane.clear();
  showKept();
  showSource();
  if (!source) return;
  const eyes = { onSight, onTrouble, onState };
  look = source.kind === "photo" ? lookAtPhoto(server, source, wish(), eyes) : lookAtVideo(server, video, wish(), eyes);
}

/** @param {Sight} sight */
function onSight(sight) {
  const comparing = sight.looks.length > 1;
  lastSight = sight;
  messages.hush("server", "frame");
  shelf.isThere();
  sight.looks.forEach(({ poses, model, poseMs }, i) => {
    if (sight.picture) panes[i].showPicture(sight.picture, sight.image);
    panes[i].caption = comparing ? [i ? "Teacher" : "Student", `${model}, ${poseMs?.toFixed(1)} ms`] : null;
    panes[i].show(poses, sight.image, (pose, index) => {
      const name = nameOf(pose, index);
      return comparing ? `${name}  OKS ${sight.matches[index].oks.toFixed(2)}` : name;
    });
  });
  figures.add(sight, sight.counts);
  people.show(sight, threshold());
  keep(sight);
}

/** @param {Sight} sight */
function keep({ looks, matches, image, capturedMs }) {
  const { model, poses } = looks[looks.length - 1];
  const compared = looks.length > 1 ? { student: looks[0], matches } : {};
  records.add(capturedMs, { image, model, poses, ...compared });
  showKept();
  if (source?.kind === "photo") announce(`Found ${poses.length === 1 ? "1 person" : `${poses.length} people`}.`);
}

/** @param {unknown} error */
function onTrouble(error) {
  if (error instanceof PosewrightError && error.status === 0 && error.type.endsWith(":unreachable")) shelf.isGone();
  else if (error instanceof PosewrightError && error.status === 503) shelf.isGone(error.detail);
  else messages.say("frame", error instanceof Error ? error.message : String(error));
}

/**
 * @param {import("./posewright.js").StreamState} state
 * @param {import("./posewright.js").StateDetails} details
 */
function onState(state, { error, retryMs = 0 }) {
  if (state === "open") {
    messages.hush("server", "frame");
    shelf.isThere();
  }
  if (state === "waiting") {
    const when = `Trying again in ${Math.max(1, Math.round(retryMs / 1000))} s.`;
    const action = /** @type {[string, () => void]} */ (["Try now", () => look?.reconnect?.()]);
    messages.say("server", `The stream ended: ${error?.detail}. ${when}`, { action });
    shelf.isGone(null);
  }
  if (state === "closed" && error) messages.say("frame", error.detail, { action: ["Try again", restart] });
}

// Sources

/** Leave what is looked at. */
function leave() {
  look?.close();
  look = null;
  opened += 1;
  if (source?.kind === "camera") for (const track of source.stream.getTracks()) track.stop();
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  if (source?.kind === "video") URL.revokeObjectURL(source.url);
  if (source?.kind === "photo") source.bitmap.close();
  source = null;
}

async function startCamera() {
  leave();
  const turn = opened;
  button("camera").disabled = true;
  try {
    const { stream, mirrored } = await openCamera(video, which.value);
    if (turn !== opened) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => {
      stop();
      messages.say("camera", "The camera went away.", { action: ["Start again", startCamera] });
    });
    source = { kind: "camera", name: "camera", stream };
    field("mirror").checked = mirrored;
    messages.hush("camera", "file");
    await listCameras(which, track.getSettings().deviceId);
  } catch (error) {
    messages.say("camera", whyNoCamera(error), { action: ["Try again", startCamera] });
  } finally {
    button("camera").disabled = false;
    if (turn === opened) restart();
  }
}

/** @param {File} file Chosen, dropped or pasted. */
async function openFile(file) {
  leave();
  const turn = opened;
  try {
    const found = file.type.startsWith("video/") ? await openVideo(file) : await openPhoto(file);
    if (turn !== opened) return;
    source = found;
    messages.hush("camera", "file", "frame");
  } catch {
    const got = file.type || "a file of no known type";
    messages.say("file", `${file.name} is no photo or video that this browser can show (${got}).`);
  }
  if (turn === opened) restart();
}

/**
 * @param {File} file
 * @returns {Promise<Source>}
 */
async function openPhoto(file) {
  return { kind: "photo", name: file.name || "pasted.png", blob: file, bitmap: await createImageBitmap(file) };
}

/**
 * @param {File} file
 * @returns {Promise<Source>}
 */
async function openVideo(file) {
  const url = URL.createObjectURL(file);
  Object.assign(video, { src: url, loop: true });
  try {
    await video.play();
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  return { kind: "video", name: file.name, url };
}

function stop() {
  leave();
  restart();
}

// What is shown

function showSource() {
  const comparing = chosenModel() === "compare";
  at("welcome").hidden = source !== null;
  at("panes").hidden = source === null;
  at("panes").style.setProperty("--panes", comparing ? "2" : "1");
  at("pane-two").hidden = !comparing;
  button("camera").textContent = source?.kind === "camera" ? "Stop camera" : "Start camera";
  button("pause").hidden = source?.kind !== "video";
  /** @type {HTMLElement} */ (at("seek").parentElement).hidden = source?.kind !== "video";
  const mirrored = source?.kind === "camera" && field("mirror").checked;
  /** @type {HTMLElement} */ (at("mirror").parentElement).hidden = source?.kind !== "camera";
  for (const pane of panes) Object.assign(pane, { mirrored, caption: null });
  if (source?.kind === "photo") {
    for (const pane of panes) pane.showPicture(source.bitmap, source.bitmap);
  } else if (source) {
    // Both, or the second one would keep the shape of what was there before, until its first answer.
    for (const pane of panes) pane.size = { width: video.videoWidth, height: video.videoHeight };
    panes[0].showVideo();
  }
}

function showKept() {
  const count = records.size;
  const words = count === 1 ? "1 picture" : `${count} frames`;
  at("kept").textContent = count ? `${words} to download.` : "Nothing to download yet.";
  for (const id of ["save-json", "save-coco", "save-picture"]) button(id).disabled = count === 0;
}

/** @param {string} text For screen readers. */
function announce(text) {
  at("announce").textContent = text;
}

/** @param {string} ending */
function fileName(ending) {
  return `posewright-${new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, "-")}${ending}`;
}

/** @param {object} document */
const jsonBlob = (document) => new Blob([JSON.stringify(document)], { type: "application/json" });

async function savePicture() {
  const [one, two] = panes.map((it) => it.photograph());
  if (!one) return;
  const canvas = document.createElement("canvas");
  const beside = chosenModel() === "compare" && two ? two.width + 4 : 0;
  Object.assign(canvas, { width: one.width + beside, height: one.height });
  canvas.getContext("2d")?.drawImage(one, 0, 0);
  if (beside && two) canvas.getContext("2d")?.drawImage(two, one.width + 4, 0);
  canvas.toBlob((blob) => blob && download(blob, fileName(".jpg")), "image/jpeg", 0.92);
}

// Controls

function wireControls() {
  button("camera").addEventListener("click", () => (source?.kind === "camera" ? stop() : startCamera()));
  which.addEventListener("change", () => source?.kind === "camera" && startCamera());
  field("mirror").addEventListener("change", showMirrored);
  field("file").addEventListener("change", () => {
    const [file] = field("file").files ?? [];
    if (file) openFile(file);
    field("file").value = ""; // the same file may be chosen again
  });
  at("models").addEventListener("change", () => {
    shelf.describe(chosenModel());
    restart();
  });
  const restartSoon = afterRest(200, restart);
  for (const id of ["min-score", "threshold", "max-people"]) {
    field(id).addEventListener("input", () => {
      const output = /** @type {HTMLOutputElement} */ (document.querySelector(`output[for=${id}]`));
      output.value = id === "max-people" ? field(id).value : field(id).valueAsNumber.toFixed(2);
      if (id === "threshold") showThreshold();
      else restartSoon();
    });
  }
  button("save-json").addEventListener("click", () => download(jsonBlob(records.json()), fileName(".json")));
  button("save-coco").addEventListener("click", () => {
    download(jsonBlob(records.coco(threshold())), fileName("-coco.json"));
  });
  button("save-picture").addEventListener("click", savePicture);
}

function showMirrored() {
  const mirrored = source?.kind === "camera" && field("mirror").checked;
  for (const pane of panes) pane.mirrored = mirrored;
}

function showThreshold() {
  for (const pane of panes) pane.threshold = threshold();
  if (lastSight) people.show(lastSight, threshold());
}

function wireVideo() {
  const seek = field("seek");
  video.addEventListener("resize", () => {
    for (const pane of panes) pane.size = { width: video.videoWidth, height: video.videoHeight };
  });
  video.addEventListener("durationchange", () => {
    if (Number.isFinite(video.duration)) seek.max = String(video.duration);
  });
  video.addEventListener("timeupdate", () => {
    if (source?.kind === "video") seek.value = String(video.currentTime);
  });
  seek.addEventListener("input", () => (video.currentTime = seek.valueAsNumber));
  button("pause").addEventListener("click", () => (video.paused ? video.play() : video.pause()));
  for (const event of ["play", "pause"]) {
    video.addEventListener(event, () => (button("pause").textContent = video.paused ? "Play" : "Pause"));
  }
}

function wireDropping() {
  const stage = at("stage");
  /** @param {DragEvent} event */
  const bringsFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragover", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
    stage.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    // Left the window, not just passed on to another element.
    if (!event.relatedTarget) stage.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    stage.classList.remove("dropping");
    const file = event.dataTransfer?.files[0];
    if (file) openFile(file);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) openFile(file);
  });
}

wireControls();
wireVideo();
wireDropping();
listCameras(which).catch(() => {});
navigator.mediaDevices?.addEventListener("devicechange", () => listCameras(which, which.value).catch(() => {}));
showSource();
shelf.check().then(() => shelf.describe(chosenModel()));
