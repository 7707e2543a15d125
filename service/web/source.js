/** What the page shows: a camera, a video file or a photo. */

import { openCamera } from "./camera.js";

/**
 * @typedef {{ kind: "camera", name: string, stream: MediaStream }
 *   | { kind: "video", name: string, url: string }
 *   | { kind: "photo", name: string, blob: Blob, bitmap: ImageBitmap }} Source
 */

/**
 * @param {HTMLVideoElement} video
 * @param {string} choice As in `openCamera`.
 * @returns {Promise<{ source: Source, track: MediaStreamTrack, mirrored: boolean }>}
 */
export async function cameraSource(video, choice) {
  const { stream, mirrored } = await openCamera(video, choice);
  const [track] = stream.getVideoTracks();
  return { source: { kind: "camera", name: "camera", stream }, track, mirrored };
}

/**
 * @param {HTMLVideoElement} video Plays the file if it is a video.
 * @param {File} file
 * @returns {Promise<Source>}
 * @throws {Error} The browser cannot decode the file.
 */
export async function fileSource(video, file) {
  if (!file.type.startsWith("video/")) {
    return { kind: "photo", name: file.name || "pasted.png", blob: file, bitmap: await createImageBitmap(file) };
  }
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

/** @param {Source | null} source */
export function releaseSource(source) {
  if (source?.kind === "camera") for (const track of source.stream.getTracks()) track.stop();
  if (source?.kind === "video") URL.revokeObjectURL(source.url);
  if (source?.kind === "photo") source.bitmap.close();
}
