/** Runs a model on a photo or a video: one call for a photo, a stream or repeated comparisons for a video. */

/** @typedef {import("./browser/index.js").Posewright} Posewright */
/** @typedef {import("./browser/index.js").Pose} Pose */
/** @typedef {import("./browser/index.js").Match} Match */
/** @typedef {import("./browser/index.js").Size} Size */
/** @typedef {import("./browser/index.js").StreamState} StreamState */
/** @typedef {import("./browser/index.js").StateDetails} StateDetails */

/**
 * @typedef {object} Settings
 * @property {string} model `student`, `teacher` or `compare`.
 * @property {number} minScore
 * @property {number} maxPeople
 * @property {[number, number, number, number][]} [boxes] People's boxes, instead of those that the detector finds.
 */

/** @typedef {{ answered: number, dropped: number, skipped: number }} Counts Frames so far. */

/**
 * @typedef {object} Result The poses in one picture.
 * @property {{ model: string, poses: Pose[], poseMs?: number }[]} predictions Of one model; of student and teacher when
 *   they are compared.
 * @property {Match[]} matches When student and teacher are compared.
 * @property {Size} image
 * @property {CanvasImageSource | null} picture The picture, to show with the poses; null if the video keeps playing.
 * @property {number} capturedMs
 * @property {number} ageMs
 * @property {Record<string, number>} timingsMs
 * @property {Counts} counts
 */

/**
 * @typedef {object} Handlers
 * @property {(result: Result) => void} onResult
 * @property {(error: unknown) => void} onError
 * @property {(state: StreamState, details: StateDetails) => void} onState Streams only.
 */

/** @typedef {{ close: () => void, reconnect?: () => void }} Inference A running inference. */

/** Longest side of the frames that are compared, pixels. */
const COMPARED_SIDE = 960;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 8000;

/**
 * @param {Posewright} server
 * @param {{ blob: Blob, bitmap: ImageBitmap }} photo
 * @param {Settings} settings
 * @param {Handlers} handlers
 * @returns {Inference}
 */
export function inferPhoto(server, { blob, bitmap }, settings, handlers) {
  const abort = new AbortController();
  const { signal } = abort;
  const startedMs = performance.now();
  const call = settings.model === "compare" ? compare : predict;
  call(server, blob, settings, signal).then(
    (found) => {
      const counts = { answered: 1, dropped: 0, skipped: 0 };
      const [capturedMs, ageMs] = [startedMs, performance.now() - startedMs];
      if (!signal.aborted) handlers.onResult({ ...found, picture: bitmap, capturedMs, ageMs, counts });
    },
    (error) => signal.aborted || handlers.onError(error),
  );
  return { close: () => abort.abort() };
}

/**
 * @param {Posewright} server
 * @param {HTMLVideoElement} video A file or a camera.
 * @param {Settings} settings
 * @param {Handlers} handlers
 * @returns {Inference} Runs until it is closed.
 */
export function inferVideo(server, video, settings, handlers) {
  if (settings.model === "compare") return compareVideo(server, video, settings, handlers);
  const stream = server.stream(video, {
    ...settings,
    onResult: ({ model, poses, image, capturedMs, ageMs, timingsMs }) => {
      const [predictions, counts] = [[{ model, poses }], stream.stats];
      handlers.onResult({ predictions, matches: [], image, picture: null, capturedMs, ageMs, timingsMs, counts });
    },
    onError: handlers.onError,
    onState: handlers.onState,
  });
  return stream;
}

/**
 * @param {Posewright} server
 * @param {HTMLVideoElement} video
 * @param {Settings} settings
 * @param {Handlers} handlers
 * @returns {Inference}
 */
function compareVideo(server, video, settings, handlers) {
  const abort = new AbortController();
  const { signal } = abort;
  const canvas = document.createElement("canvas");
  const counts = { answered: 0, dropped: 0, skipped: 0 };
  const run = async () => {
    for (let [retryMs, lastTime] = [FIRST_RETRY_MS, -1]; !signal.aborted; ) {
      lastTime = await nextFrame(video, lastTime, signal);
      if (signal.aborted) return;
      const capturedMs = performance.now();
      capture(video, canvas);
      try {
        const found = await compare(server, canvas, settings, signal);
        if (signal.aborted) return;
        counts.answered += 1;
        retryMs = FIRST_RETRY_MS;
        handlers.onResult({ ...found, picture: canvas, capturedMs, ageMs: performance.now() - capturedMs, counts });
      } catch (error) {
        if (signal.aborted) return;
        handlers.onError(error);
        await new Promise((resolve) => setTimeout(resolve, retryMs));
        retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
      }
    }
  };
  run();
  return { close: () => abort.abort() };
}

/**
 * Wait until a video shows another frame than at `lastTime`. The frame of a paused video is processed once.
 *
 * @param {HTMLVideoElement} video
 * @param {number} lastTime
 * @param {AbortSignal} signal
 */
async function nextFrame(video, lastTime, signal) {
  while (!signal.aborted && (video.readyState < 2 || video.currentTime === lastTime)) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
  return video.currentTime;
}

/**
 * @param {HTMLVideoElement} video
 * @param {HTMLCanvasElement} canvas
 */
function capture(video, canvas) {
  const factor = Math.min(1, COMPARED_SIDE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(video.videoWidth * factor);
  canvas.height = Math.round(video.videoHeight * factor);
  canvas.getContext("2d", { willReadFrequently: true })?.drawImage(video, 0, 0, canvas.width, canvas.height);
}

/**
 * @param {Posewright} server
 * @param {Blob} blob
 * @param {Settings} settings
 * @param {AbortSignal} signal
 */
async function predict(server, blob, { boxes, ...settings }, signal) {
  const options = { ...settings, ...givenBoxes(boxes), signal };
  const { model, poses, image, timingsMs } = await server.predict(blob, options);
  return { predictions: [{ model: model.name, poses }], matches: /** @type {Match[]} */ ([]), image, timingsMs };
}

/**
 * @param {Posewright} server
 * @param {Blob | HTMLCanvasElement} source
 * @param {Settings} settings
 * @param {AbortSignal} signal
 */
async function compare(server, source, { minScore, maxPeople, boxes }, signal) {
  const options = { minScore, maxPeople, ...givenBoxes(boxes), signal };
  const { student, teacher, matches, image, timingsMs } = await server.compare(source, options);
  const predictions = [student, teacher].map(({ model, poses, poseMs }) => ({ model: model.name, poses, poseMs }));
  return { predictions, matches, image, timingsMs };
}

/** @param {[number, number, number, number][]} [boxes] Without any, the detector looks for people. */
function givenBoxes(boxes = []) {
  return boxes.length ? { boxes } : {};
}
