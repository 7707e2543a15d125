/** The page: holds the open source and the running inference, and connects the controls with the parts that show it. */

import { Posewright, PosewrightError } from "./browser/index.js";
import { ApiKeyForm } from "./api_key.js";
import { explainCameraError, listCameras } from "./camera.js";
import { acceptDroppedFiles } from "./file_drop.js";
import { inferPhoto, inferVideo } from "./inference.js";
import { Messages } from "./messages.js";
import { labelOf, PeopleTable } from "./people_table.js";
import { PoseView } from "./pose_view.js";
import { download, downloadJson, Recording } from "./recording.js";
import { ServerStatus } from "./server_status.js";
import { cameraSource, fileSource, releaseSource } from "./source.js";
import { Statistics } from "./statistics.js";
import { debounce } from "./throttle.js";

/** @typedef {import("./inference.js").Inference} Inference */
/** @typedef {import("./inference.js").Result} Result */
/** @typedef {import("./source.js").Source} Source */

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = /** @type {(id: string) => HTMLInputElement} */ (element);
const button = /** @type {(id: string) => HTMLButtonElement} */ (element);

// The page itself asks again, and tells its visitor meanwhile.
const server = new Posewright(document.baseURI, { retries: { attempts: 1 } });
const video = /** @type {HTMLVideoElement} */ (element("video"));
const cameraChoice = /** @type {HTMLSelectElement} */ (element("camera-choice"));
const views = [new PoseView(element("view-one")), new PoseView(element("view-two"))];
const statistics = new Statistics(element);
const people = new PeopleTable(element("people"), element("no-people"));
const recording = new Recording();
const messages = new Messages(element("messages"));
const keyForm = new ApiKeyForm(server, element, () => status.check());
const status = new ServerStatus(server, messages, element, () => restart(), () => keyForm.ask());

/** @type {Source | null} */
let source = null;
/** @type {Inference | null} */
let inference = null;
/** @type {Result | null} */
let lastResult = null;
/** Counts the sources, so that one that opens too late is recognized. */
let sourceCount = 0;

// Settings

function chosenModel() {
  return /** @type {HTMLInputElement} */ (document.querySelector("input[name=model]:checked")).value;
}

function settings() {
  const [minScore, maxPeople] = [field("min-score").valueAsNumber, field("max-people").valueAsNumber];
  return { model: chosenModel(), minScore, maxPeople };
}

const threshold = () => field("threshold").valueAsNumber;

// Inference

/** Start again, because the settings, the source or the server changed. */
function restart() {
  inference?.close();
  inference = lastResult = null;
  statistics.reset(source !== null && source.kind !== "photo");
  recording.start(source?.name ?? "");
  people.clear();
  for (const view of views) view.clear();
  showRecording();
  showSource();
  if (!source) return;
  const handlers = { onResult, onError, onState };
  if (source.kind === "photo") inference = inferPhoto(server, source, settings(), handlers);
  else inference = inferVideo(server, video, settings(), handlers);
}

/** @param {Result} result */
function onResult(result) {
  const comparing = result.predictions.length > 1;
  lastResult = result;
  messages.clear("server", "frame");
  status.reportSuccess();
  result.predictions.forEach(({ poses, model, poseMs }, i) => {
    if (result.picture) views[i].showPicture(result.picture, result.image);
    views[i].caption = comparing ? [i ? "Teacher" : "Student", `${model}, ${poseMs?.toFixed(1)} ms`] : null;
    views[i].show(poses, result.image, (pose, index) => {
      const label = labelOf(pose, index);
      return comparing ? `${label}  OKS ${result.matches[index].oks.toFixed(2)}` : label;
    });
  });
  statistics.add(result);
  people.show(result, threshold());
  record(result);
}

/** @param {Result} result */
function record({ predictions, matches, image, capturedMs }) {
  const { model, poses } = predictions[predictions.length - 1];
  const comparison = predictions.length > 1 ? { student: predictions[0], matches } : {};
  recording.add(capturedMs, { image, model, poses, ...comparison });
  showRecording();
  if (source?.kind === "photo") announce(`Found ${poses.length === 1 ? "1 person" : `${poses.length} people`}.`);
}

/** @param {unknown} error */
function onError(error) {
  if (error instanceof PosewrightError && error.status === 401) status.reportUnauthorized();
  else if (error instanceof PosewrightError && error.slug === "unreachable") status.reportFailure();
  else if (error instanceof PosewrightError && error.status === 503) status.reportFailure(error.detail);
  else messages.show("frame", error instanceof Error ? error.message : String(error));
}

/**
 * @param {import("./browser/index.js").StreamState} state
 * @param {import("./browser/index.js").StateDetails} details
 */
function onState(state, { error, retryMs = 0 }) {
  if (state === "open") {
    messages.clear("server", "frame");
    status.reportSuccess();
  }
  if (state === "waiting") {
    const when = `Retrying in ${Math.max(1, Math.round(retryMs / 1000))} s.`;
    const action = /** @type {[string, () => void]} */ (["Retry now", () => inference?.reconnect?.()]);
    messages.show("server", `The stream ended: ${error?.detail}. ${when}`, { action });
    status.reportFailure(null);
  }
  if (state === "closed" && error?.status === 401) status.reportUnauthorized();
  else if (state === "closed" && error) messages.show("frame", error.detail, { action: ["Retry", restart] });
}

// Sources

function closeSource() {
  inference?.close();
  inference = null;
  sourceCount += 1;
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  releaseSource(source);
  source = null;
}

function stop() {
  closeSource();
  restart();
}

async function startCamera() {
  closeSource();
  const count = sourceCount;
  button("camera").disabled = true;
  try {
    const opened = await cameraSource(video, cameraChoice.value);
    if (count !== sourceCount) {
      releaseSource(opened.source);
      return;
    }
    opened.track.addEventListener("ended", () => {
      stop();
      messages.show("camera", "The camera was disconnected.", { action: ["Start again", startCamera] });
    });
    source = opened.source;
    field("mirror").checked = opened.mirrored;
    messages.clear("camera", "file");
    await listCameras(cameraChoice, opened.track.getSettings().deviceId);
  } catch (error) {
    messages.show("camera", explainCameraError(error), { action: ["Retry", startCamera] });
  } finally {
    button("camera").disabled = false;
    if (count === sourceCount) restart();
  }
}

/** @param {File} file */
async function openFile(file) {
  closeSource();
  const count = sourceCount;
  try {
    const opened = await fileSource(video, file);
    if (count !== sourceCount) return;
    source = opened;
    messages.clear("camera", "file", "frame");
  } catch {
    const got = file.type || "unknown type";
    messages.show("file", `${file.name} (${got}) is not a photo or video that this browser can show.`);
  }
  if (count === sourceCount) restart();
}

// Display

function showSource() {
  const comparing = chosenModel() === "compare";
  element("welcome").hidden = source !== null;
  element("views").hidden = source === null;
  element("views").style.setProperty("--views", comparing ? "2" : "1");
  element("view-two").hidden = !comparing;
  button("camera").textContent = source?.kind === "camera" ? "Stop camera" : "Start camera";
  button("pause").hidden = source?.kind !== "video";
  /** @type {HTMLElement} */ (element("seek").parentElement).hidden = source?.kind !== "video";
  /** @type {HTMLElement} */ (element("mirror").parentElement).hidden = source?.kind !== "camera";
  showMirrored();
  for (const view of views) view.caption = null;
  if (source?.kind === "photo") {
    for (const view of views) view.showPicture(source.bitmap, source.bitmap);
  } else if (source) {
    showVideoSize();
    views[0].showVideo();
  }
}

/** Both views get the size; otherwise the second one would keep the old shape until its first result. */
function showVideoSize() {
  for (const view of views) view.size = { width: video.videoWidth, height: video.videoHeight };
}

function showMirrored() {
  const mirrored = source?.kind === "camera" && field("mirror").checked;
  for (const view of views) view.mirrored = mirrored;
}

function showThreshold() {
  for (const view of views) view.threshold = threshold();
  if (lastResult) people.show(lastResult, threshold());
}

function showRecording() {
  const count = recording.size;
  const frames = count === 1 ? "1 picture" : `${count} frames`;
  element("recorded").textContent = count ? `${frames} to download.` : "Nothing to download yet.";
  for (const id of ["save-json", "save-coco", "save-picture"]) button(id).disabled = count === 0;
}

/** @param {string} text For screen readers. */
function announce(text) {
  element("announce").textContent = text;
}

// Downloads

function downloadPicture() {
  const [one, two] = views.map((it) => it.toCanvas());
  if (!one) return;
  const canvas = document.createElement("canvas");
  const second = chosenModel() === "compare" && two ? two.width + 4 : 0;
  Object.assign(canvas, { width: one.width + second, height: one.height });
  canvas.getContext("2d")?.drawImage(one, 0, 0);
  if (second && two) canvas.getContext("2d")?.drawImage(two, one.width + 4, 0);
  canvas.toBlob((blob) => blob && download(blob, ".jpg"), "image/jpeg", 0.92);
}

// Controls

function connectControls() {
  button("camera").addEventListener("click", () => (source?.kind === "camera" ? stop() : startCamera()));
  cameraChoice.addEventListener("change", () => source?.kind === "camera" && startCamera());
  field("mirror").addEventListener("change", showMirrored);
  field("file").addEventListener("change", () => {
    const [file] = field("file").files ?? [];
    if (file) openFile(file);
    field("file").value = ""; // so that the same file can be chosen again
  });
  element("models").addEventListener("change", () => {
    status.describe(chosenModel());
    restart();
  });
  const restartSoon = debounce(200, restart);
  for (const id of ["min-score", "threshold", "max-people"]) {
    field(id).addEventListener("input", () => {
      const output = /** @type {HTMLOutputElement} */ (document.querySelector(`output[for=${id}]`));
      output.value = id === "max-people" ? field(id).value : field(id).valueAsNumber.toFixed(2);
      if (id === "threshold") showThreshold();
      else restartSoon();
    });
  }
  button("save-json").addEventListener("click", () => downloadJson(recording.json(), ".json"));
  button("save-coco").addEventListener("click", () => downloadJson(recording.coco(threshold()), "-coco.json"));
  button("save-picture").addEventListener("click", downloadPicture);
}

function connectVideo() {
  const seek = field("seek");
  video.addEventListener("resize", showVideoSize);
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

connectControls();
connectVideo();
acceptDroppedFiles(element("stage"), openFile);
listCameras(cameraChoice).catch(() => {});
navigator.mediaDevices?.addEventListener("devicechange", () => {
  listCameras(cameraChoice, cameraChoice.value).catch(() => {});
});
showSource();
status.check().then(() => status.describe(chosenModel()));
