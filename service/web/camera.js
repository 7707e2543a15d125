/** The camera: choosing and opening one, and saying in plain words why it cannot be opened. */

/**
 * Open a camera.
 *
 * @param {HTMLVideoElement} video Shows it.
 * @param {string} which `user`, `environment`, or the id of a device.
 * @returns {Promise<{ stream: MediaStream, mirrored: boolean }>} `mirrored`: whoever it films expects a mirror.
 */
export async function openCamera(video, which) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no mediaDevices", "InsecureError");
  const facing = which === "user" || which === "environment";
  const device = facing ? { facingMode: which } : { deviceId: { exact: which } };
  const size = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const stream = await navigator.mediaDevices.getUserMedia({ video: { ...device, ...size }, audio: false });
  video.removeAttribute("src");
  video.srcObject = stream;
  await video.play();
  return { stream, mirrored: stream.getVideoTracks()[0].getSettings().facingMode !== "environment" };
}

/**
 * List cameras in a choice. Before anybody has allowed one, browsers tell no names: then front and back stay in it.
 *
 * @param {HTMLSelectElement} choice
 * @param {string} [open] Id of the device that is open.
 */
export async function listCameras(choice, open) {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const cameras = devices.filter((it) => it.kind === "videoinput" && it.deviceId && it.label);
  if (!cameras.length) return;
  choice.replaceChildren(...cameras.map((it) => new Option(nameOf(it.label), it.deviceId)));
  if (open) choice.value = open;
}

/** @param {string} label */
function nameOf(label) {
  if (/\b(back|rear|environment)\b/i.test(label)) return `Back camera${numberIn(label)}`;
  if (/\b(front|user)\b/i.test(label)) return `Front camera${numberIn(label)}`;
  // Chromium adds the USB ids of vendor and product.
  return label.replace(/\s*\([0-9a-f]{4}:[0-9a-f]{4}\)$/i, "");
}

/** @param {string} label `camera2 1, facing back` on Android. */
function numberIn(label) {
  const number = /^camera2? (\d+)/i.exec(label)?.[1];
  return number && Number(number) > 1 ? ` ${number}` : "";
}

/**
 * @param {unknown} error What opening threw.
 * @returns {string} What it means, and what to do.
 */
export function whyNoCamera(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "InsecureError") {
    return (
      "Browsers give the camera only to pages from https or from localhost, " +
      `and this one came from ${location.origin}. ` +
      "Open it through https or localhost; photos and videos work here as well."
    );
  }
  if (name === "NotAllowedError") {
    return "The camera is blocked for this page. Allow it beside the address bar, or in the system's settings.";
  }
  if (name === "NotFoundError" || name === "OverconstrainedError") {
    return "There is no such camera here. Plug one in or choose another; photos and videos work without.";
  }
  if (name === "NotReadableError" || name === "AbortError") {
    return "The camera does not start. Another program may be using it: close that one and start again.";
  }
  return `The camera does not start: ${error instanceof Error ? error.message : error}`;
}
