/** The panel with the results to download: as JSON, as a COCO data set, and as a picture. */

import { download, downloadJson, Recording } from "./recording.js";

/** @typedef {import("./inference.js").Result} Result */
/** @typedef {import("./pose_view.js").PoseView} PoseView */
/** @typedef {import("./settings_form.js").SettingsForm} SettingsForm */

/** Pixels between two pictures side by side. */
const GAP = 4;

export class ResultsPanel {
  #element;
  #recording = new Recording();

  /**
   * @param {(id: string) => HTMLElement} element Returns the element with an id.
   * @param {PoseView[]} views What the picture shows: the second only when two models are compared.
   * @param {SettingsForm} settings
   */
  constructor(element, views, settings) {
    this.#element = element;
    element("save-json").addEventListener("click", () => downloadJson(this.#recording.json(), ".json"));
    element("save-coco").addEventListener("click", () => {
      downloadJson(this.#recording.coco(settings.threshold), "-coco.json");
    });
    element("save-picture").addEventListener("click", () => {
      downloadPicture(settings.comparing ? views : views.slice(0, 1));
    });
  }

  /** @param {string} name Of the source. */
  start(name) {
    this.#recording.start(name);
    this.#render();
  }

  /** @param {Result} result */
  add({ predictions, matches, image, capturedMs }) {
    const { model, poses } = predictions[predictions.length - 1];
    const comparison = predictions.length > 1 ? { student: predictions[0], matches } : {};
    this.#recording.add(capturedMs, { image, model, poses, ...comparison });
    this.#render();
  }

  #render() {
    const count = this.#recording.size;
    const frames = count === 1 ? "1 picture" : `${count} frames`;
    this.#element("recorded").textContent = count ? `${frames} to download.` : "Nothing to download yet.";
    for (const id of ["save-json", "save-coco", "save-picture"]) {
      /** @type {HTMLButtonElement} */ (this.#element(id)).disabled = count === 0;
    }
  }
}

/** @param {PoseView[]} views Side by side. */
function downloadPicture(views) {
  const canvases = views.map((it) => it.toCanvas()).filter((it) => it !== null);
  if (!canvases.length) return;
  const whole = document.createElement("canvas");
  whole.width = canvases.reduce((sum, it) => sum + it.width + GAP, -GAP);
  whole.height = canvases[0].height;
  let left = 0;
  for (const canvas of canvases) {
    whole.getContext("2d")?.drawImage(canvas, left, 0);
    left += canvas.width + GAP;
  }
  whole.toBlob((blob) => blob && download(blob, ".jpg"), "image/jpeg", 0.92);
}
