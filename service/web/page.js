/** The page: holds the open source and the running inference, and connects the controls with the parts that show it. */

import { KEYPOINTS, Posewright } from "./browser/index.js";
import { Announcer } from "./announcer.js";
import { ApiKeyForm } from "./api_key.js";
import { BoxEditor } from "./box_editor.js";
import { explainCameraError, listCameras } from "./camera.js";
import { Failures } from "./failures.js";
import { acceptDroppedFiles } from "./file_drop.js";
import { inferPhoto, inferVideo } from "./inference.js";
import { SkeletonLegend } from "./legend.js";
import { Messages } from "./messages.js";
import { labelOf, PeopleTable } from "./people_table.js";
import { PoseView } from "./pose_view.js";
import { ResultsPanel } from "./results_panel.js";
import { ServerSources } from "./server_sources.js";
import { ServerStatus } from "./server_status.js";
import { SettingsForm } from "./settings_form.js";
import { subjectOf, subjectOfServer } from "./shown.js";
import { SnippetPanel } from "./snippet_panel.js";
import { cameraSource, fileSource, releaseSource } from "./source.js";
import { Statistics } from "./statistics.js";
import { debounce } from "./throttle.js";
import { connectVideoControls } from "./video_controls.js";

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
const messages = new Messages(element("messages"));
const announcer = new Announcer(element("announce"));
const keyForm = new ApiKeyForm(server, element, () => {
  status.check();
  serverSources.refresh();
});
const status = new ServerStatus(server, messages, element, () => restart(), () => keyForm.ask());
const failures = new Failures(status, messages, { reconnect: () => inference?.reconnect?.(), restart });
const settings = new SettingsForm(element, { onModel, onOptions: restart, onDisplay: showDisplay });
const boxEditor = new BoxEditor(element("given-boxes"), debounce(200, restart));
const results = new ResultsPanel(element, views, settings);
const legend = new SkeletonLegend(element, (name) => showHighlight(name), (text) => announcer.say(text));
const snippets = new SnippetPanel(element, (text) => announcer.say(text));
const serverSources = new ServerSources(server, element, {
  options: () => ({ ...settings.options, model: settings.streamModel, keypointThreshold: settings.threshold }),
  onUnauthorized: () => status.reportUnauthorized(),
  onCode: (of) => {
    showCode(of);
    snippets.reveal();
  },
  say: (text) => announcer.say(text),
});

/** @type {Source | null} */
let source = null;
/** @type {Inference | null} */
let inference = null;
/** @type {Result | null} */
let lastResult = null;
/** Counts the sources, so that one that opens too late is recognized. */
let sourceCount = 0;

// Inference

function onModel() {
  status.describe(settings.model);
  showSkeleton();
  restart();
}

/** Start again, because the settings, the source or the server changed. */
function restart() {
  inference?.close();
  inference = lastResult = null;
  statistics.reset(source !== null && source.kind !== "photo");
  announcer.reset();
  results.start(source?.name ?? "");
  people.clear();
  legend.showPoses([]);
  for (const view of views) view.clear();
  showSource();
  showCode();
  if (!source) return;
  const handlers = {
    onResult,
    onError: failures.onError.bind(failures),
    onState: failures.onState.bind(failures),
  };
  if (source.kind !== "photo") inference = inferVideo(server, video, settings.options, handlers);
  else inference = inferPhoto(server, source, { ...settings.options, boxes: boxEditor.boxes }, handlers);
}

/** @param {Result} result */
function onResult(result) {
  const comparing = result.predictions.length > 1;
  lastResult = result;
  failures.onSuccess();
  result.predictions.forEach(({ poses, model, poseMs }, i) => {
    if (result.picture) views[i].showPicture(result.picture, result.image);
    views[i].caption = comparing ? [i ? "Teacher" : "Student", `${model}, ${poseMs?.toFixed(1)} ms`] : null;
    views[i].show(poses, result.image, (pose, index) => {
      const label = labelOf(pose, index);
      return comparing ? `${label}  OKS ${result.matches[index].oks.toFixed(2)}` : label;
    });
  });
  statistics.add(result);
  people.show(result, settings.threshold);
  legend.showPoses(result.predictions[0].poses);
  results.add(result);
  announcer.people(result.predictions[0].poses.length, source?.kind !== "photo");
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
  boxEditor.start(null);
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
    if (opened.kind === "photo") boxEditor.start(opened.bitmap);
    messages.clear("camera", "file", "frame");
  } catch {
    const got = file.type || "unknown type";
    messages.show("file", `${file.name} (${got}) is not a photo or video that this browser can show.`);
  }
  if (count === sourceCount) restart();
}

// Display

function showSource() {
  const { comparing } = settings;
  element("welcome").hidden = source !== null;
  element("views").hidden = source === null;
  element("views").style.setProperty("--views", comparing ? "2" : "1");
  element("view-two").hidden = !comparing;
  button("camera").textContent = source?.kind === "camera" ? "Stop camera" : "Start camera";
  button("pause").hidden = source?.kind !== "video";
  button("add-box").hidden = source?.kind !== "photo";
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

/** Draw the same result in another way. */
function showDisplay() {
  const { threshold, boxes } = settings;
  for (const view of views) Object.assign(view, { threshold, boxes });
  serverSources.draw({ threshold, boxes });
  if (lastResult) people.show(lastResult, threshold);
  showCode();
}

/** The legend of the chosen model, until a result tells the skeleton. */
function showSkeleton() {
  legend.showSkeleton(status.skeletonOf(settings.model)?.keypoints ?? KEYPOINTS);
}

/** @param {string | undefined} name Name of a keypoint. */
function showHighlight(name) {
  for (const view of views) view.highlight = name;
  serverSources.draw({ highlight: name });
}

/** @param {import("./browser/index.js").ServerSource} [ofServer] Show code for it; default: for the picture. */
function showCode(ofServer) {
  const { threshold, boxes: drawsBoxes } = settings;
  const [url, keyed, boxes] = [new URL(".", document.baseURI).href, keyForm.used, boxEditor.boxes];
  const subject = ofServer ? subjectOfServer(ofServer) : subjectOf(source);
  snippets.show({ ...settings.options, ...subject, url, keyed, threshold, drawsBoxes, boxes });
}

// Controls

function connectControls() {
  button("camera").addEventListener("click", () => (source?.kind === "camera" ? stop() : startCamera()));
  cameraChoice.addEventListener("change", () => source?.kind === "camera" && startCamera());
  button("add-box").addEventListener("click", () => boxEditor.add());
  field("mirror").addEventListener("change", showMirrored);
  field("file").addEventListener("change", () => {
    const [file] = field("file").files ?? [];
    if (file) openFile(file);
    field("file").value = ""; // so that the same file can be chosen again
  });
}

connectControls();
video.addEventListener("resize", showVideoSize);
connectVideoControls(video, button("pause"), field("seek"), () => source?.kind === "video");
acceptDroppedFiles(element("stage"), openFile);
listCameras(cameraChoice).catch(() => {});
navigator.mediaDevices?.addEventListener("devicechange", () => {
  listCameras(cameraChoice, cameraChoice.value).catch(() => {});
});
showSource();
showCode();
legend.showSkeleton(KEYPOINTS);
status.check().then(() => {
  status.describe(settings.model);
  showSkeleton();
});
