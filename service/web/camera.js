/** Opens a camera, lists the cameras, and explains why a camera cannot be opened. */

/**
 * Open a camera.
 *
 * @param {HTMLVideoElement} video Shows the camera's picture.
 * @param {string} choice `user`, `environment`, or a device id.
 * @returns {Promise<{ stream: MediaStream, mirrored: boolean }>} `mirrored`: the camera faces the user, who expects a
 *   mirrored picture.
 */
export async function openCamera(video, choice) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("no mediaDevices", "InsecureError");
  const facing = choice === "user" || choice === "environment";
  const device = facing ? { facingMode: choice } : { deviceId: { exact: choice } };
  const size = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  const stream = await navigator.mediaDevices.getUserMedia({ video: { ...device, ...size }, audio: false });
  video.removeAttribute("src");
  video.srcObject = stream;
  await video.play();
  return { stream, mirrored: stream.getVideoTracks()[0].getSettings().facingMode !== "environment" };
}

/**
 * List the cameras. Browsers hide their names until a camera has been allowed; until then the list offers front and
 * back.
 *
 * @param {HTMLSelectElement} select
 * @param {string} [open] Id of the device that is open.
 */
export async function listCameras(select, open) {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const cameras = devices.filter((it) => it.kind === "videoinput" && it.deviceId && it.label);
  if (!cameras.length) return;
  select.replaceChildren(...cameras.map((it) => new Option(nameOf(it.label), it.deviceId)));
  if (open) select.value = open;
}

/** @param {string} label */
function nameOf(label) {
  if (/\b(back|rear|environment)\b/i.test(label)) return `Back camera${numberIn(label)}`;
  if (/\b(front|user)\b/i.test(label)) return `Front camera${numberIn(label)}`;
  // Chromium appends the USB vendor and product ids.
  return label.replace(/\s*\([0-9a-f]{4}:[0-9a-f]{4}\)$/i, "");
}

/** @param {string} label `camera2 1, facing back` on Android. */
function numberIn(label) {
  const number = /^camera2? (\d+)/i.exec(label)?.[1];
  return number && Number(number) > 1 ? ` ${number}` : "";
}

/**
 * @param {unknown} error The error that `openCamera` threw.
 * @returns {string} What it means, and what to do.
 */
export function explainCameraError(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "InsecureError") {
    return (
      "Browsers allow the camera only on pages from https or localhost, " +
      `and this page came from ${location.origin}. ` +
      "Open it through https or localhost. Photos and videos work here as well."
    );
  }
  if (name === "NotAllowedError") {
    return "The camera is blocked for this page. Allow it next to the address bar, or in the system settings.";
  }
  if (name === "NotFoundError" || name === "OverconstrainedError") {
    return "This camera was not found. Connect it or choose another one. Photos and videos work without a camera.";
  }
  if (name === "NotReadableError" || name === "AbortError") {
    return "The camera does not start. Another program may be using it: close that program and start again.";
  }
  return `The camera does not start: ${error instanceof Error ? error.message : error}`;
}
