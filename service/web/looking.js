/** Three ways to look: a stream or comparisons one after the other for what moves, one call for a photo. */

/** @typedef {import("./posewright.js").Posewright} Posewright */
/** @typedef {import("./posewright.js").Pose} Pose */
/** @typedef {import("./posewright.js").Match} Match */
/** @typedef {import("./posewright.js").Size} Size */
/** @typedef {import("./posewright.js").Comparison} Comparison */
/** @typedef {import("./posewright.js").StreamState} StreamState */
/** @typedef {import("./posewright.js").StateDetails} StateDetails */
/** @typedef {{ blob: Blob, bitmap: ImageBitmap }} Photo */

/**
 * @typedef {object} Wish
 * @property {string} model `student`, `teacher` or `compare`.
 * @property {number} minScore
 * @property {number} maxPeople
 */

/**
 * @typedef {object} Sight What has been seen in one picture.
 * @property {{ model: string, poses: Pose[], poseMs?: number }[]} looks One model's, or both.
 * @property {Match[]} matches In comparisons.
 * @property {Size} image
 * @property {CanvasImageSource | null} picture To be shown with it; null where the video goes on.
 * @property {number} capturedMs
 * @property {number} ageMs
 * @property {Record<string, number>} timingsMs
 * @property {{ answered: number, dropped: number, skipped: number }} counts
 */

/**
 * @typedef {object} Eyes Who is told.
 * @property {(sight: Sight) => void} onSight
 * @property {(error: unknown) => void} onTrouble
 * @property {(state: StreamState, details: StateDetails) => void} onState
 */

/** @typedef {{ close: () => void, reconnect?: () => void }} Look */

const COMPARED_SIDE = 960;
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 8000;

/**
 * Look at a photo.
 *
 * @param {Posewright} server
 * @param {Photo} photo
 * @param {Wish} wish
 * @param {Eyes} eyes
 * @returns {Look}
 */
export function lookAtPhoto(server, { blob, bitmap }, wish, eyes) {
  const ending = new AbortController();
  const { signal } = ending;
  const askedMs = performance.now();
  const asked = wish.model === "compare" ? compared(server, blob, wish, signal) : predicted(server, blob, wish, signal);
  asked.then(
    (seen) => {
      const [capturedMs, ageMs] = [askedMs, performance.now() - askedMs];
      const counts = { answered: 1, dropped: 0, skipped: 0 };
      if (!signal.aborted) eyes.onSight({ ...seen, picture: bitmap, capturedMs, ageMs, counts });
    },
    (error) => signal.aborted || eyes.onTrouble(error),
  );
  return { close: () => ending.abort() };
}

/**
 * Look at a video, or a camera, until closed.
 *
 * @param {Posewright} server
 * @param {HTMLVideoElement} video
 * @param {Wish} wish
 * @param {Eyes} eyes
 * @returns {Look}
 */
export function lookAtVideo(server, video, wish, eyes) {
  if (wish.model === "compare") return compareVideo(server, video, wish, eyes);
  const stream = server.stream(video, {
    ...wish,
    onResult: ({ model, poses, image, capturedMs, ageMs, timingsMs }) => {
      const looks = [{ model, poses }];
      eyes.onSight({ looks, matches: [], image, picture: null, capturedMs, ageMs, timingsMs, counts: stream.stats });
    },
    onError: eyes.onTrouble,
    onState: eyes.onState,
  });
  return stream;
}

/**
 * @param {Posewright} server
 * @param {HTMLVideoElement} video
 * @param {Wish} wish
 * @param {Eyes} eyes
 * @returns {Look}
 */
function compareVideo(server, video, wish, eyes) {
  const ending = new AbortController();
  const { signal } = ending;
  const canvas = document.createElement("canvas");
  const counts = { answered: 0, dropped: 0, skipped: 0 };
  const run = async () => {
    for (let [pauseMs, lastTime] = [FIRST_PAUSE_MS, -1]; !signal.aborted; ) {
      lastTime = await newFrame(video, lastTime, signal);
      if (signal.aborted) return;
      const capturedMs = performance.now();
      photograph(video, canvas);
      try {
        const seen = await compared(server, canvas, wish, signal);
        if (signal.aborted) return;
        counts.answered += 1;
        pauseMs = FIRST_PAUSE_MS;
        eyes.onSight({ ...seen, picture: canvas, capturedMs, ageMs: performance.now() - capturedMs, counts });
      } catch (error) {
        if (signal.aborted) return;
        eyes.onTrouble(error);
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        pauseMs = Math.min(2 * pauseMs, LAST_PAUSE_MS);
      }
    }
  };
  run();
  return { close: () => ending.abort() };
}

/**
 * Wait until a video shows another frame than at `lastTime`; the one that it pauses on is asked about once.
 *
 * @param {HTMLVideoElement} video
 * @param {number} lastTime
 * @param {AbortSignal} signal
 */
async function newFrame(video, lastTime, signal) {
  while (!signal.aborted && (video.readyState < 2 || video.currentTime === lastTime)) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
  return video.currentTime;
}

/**
 * @param {HTMLVideoElement} video
 * @param {HTMLCanvasElement} canvas
 */
function photograph(video, canvas) {
  const shrink = Math.min(1, COMPARED_SIDE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(video.videoWidth * shrink);
  canvas.height = Math.round(video.videoHeight * shrink);
  canvas.getContext("2d", { willReadFrequently: true })?.drawImage(video, 0, 0, canvas.width, canvas.height);
}

/**
 * @param {Posewright} server
 * @param {Blob} blob
 * @param {Wish} wish
 * @param {AbortSignal} signal
 */
async function predicted(server, blob, wish, signal) {
  const { model, poses, image, timingsMs } = await server.predict(blob, { ...wish, signal });
  return { looks: [{ model: model.name, poses }], matches: /** @type {Match[]} */ ([]), image, timingsMs };
}

/**
 * @param {Posewright} server
 * @param {Blob | HTMLCanvasElement} source
 * @param {Wish} wish
 * @param {AbortSignal} signal
 */
async function compared(server, source, { minScore, maxPeople }, signal) {
  const { student, teacher, matches, image, timingsMs } = await server.compare(source, { minScore, maxPeople, signal });
  const looks = [student, teacher].map(({ model, poses, poseMs }) => ({ model: model.name, poses, poseMs }));
  return { looks, matches, image, timingsMs };
}
