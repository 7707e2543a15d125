/** Pause and position of a video file. */

/**
 * @param {HTMLVideoElement} video
 * @param {HTMLButtonElement} pause
 * @param {HTMLInputElement} seek A slider.
 * @param {() => boolean} isFile Whether the video is a file, and not a camera.
 */
export function connectVideoControls(video, pause, seek, isFile) {
  video.addEventListener("durationchange", () => {
    if (Number.isFinite(video.duration)) seek.max = String(video.duration);
  });
  video.addEventListener("timeupdate", () => {
    if (!isFile()) return;
    seek.value = String(video.currentTime);
    seek.setAttribute("aria-valuetext", `${video.currentTime.toFixed(1)} of ${video.duration.toFixed(1)} seconds`);
  });
  seek.addEventListener("input", () => (video.currentTime = seek.valueAsNumber));
  pause.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
  for (const event of ["play", "pause"]) {
    video.addEventListener(event, () => (pause.textContent = video.paused ? "Play" : "Pause"));
  }
}
