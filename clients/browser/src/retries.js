/** When to retry a call, and after what delay. */

import { clientType, PosewrightError } from "./errors.js";

/**
 * @typedef {object} Retries Exponential back-off with jitter, limited in attempts and in time. Retries follow 429 and
 *   503, after the time in `Retry-After`, broken connections, and error pages (500, 502) of proxies. Predictions change
 *   nothing on the server, so that repeating them is safe. A call is not repeated once its answer has begun.
 * @property {number} [attempts] Maximum number of attempts including the first; default 4. 1 means no retry.
 * @property {number} [backoffMs] Maximum delay before the second attempt; doubles with every further one; default 200.
 * @property {number} [maxBackoffMs] Maximum delay between two attempts, unless `Retry-After` is longer; default 5000.
 * @property {number} [budgetMs] Time after the first attempt within which the last one must begin; default 30,000.
 */

const RETRIED_STATUS = [429, 503];
/** Without a problem document: a proxy says that the server behind it broke off. The next attempt may meet another. */
const RETRIED_OF_A_PROXY = [500, 502];

/**
 * Call a function again while its failure may pass.
 *
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {Retries} retries
 * @param {AbortSignal} [signal] Ends a delay.
 * @returns {Promise<T>}
 */
export async function retrying(attempt, retries, signal) {
  const startedMs = performance.now();
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof PosewrightError) || !isRetryable(error)) throw error;
      const delayMs = delayBeforeNext(failures, error, performance.now() - startedMs, retries);
      if (delayMs === null) throw error;
      await sleep(delayMs, signal);
    }
  }
}

/**
 * @param {number} failures Failed attempts so far.
 * @param {PosewrightError} error The last failure.
 * @param {number} elapsedMs Time since the first attempt began.
 * @param {Retries} retries
 * @returns {number | null} Null to give up.
 */
function delayBeforeNext(failures, error, elapsedMs, retries) {
  const { attempts = 4, backoffMs = 200, maxBackoffMs = 5000, budgetMs = 30_000 } = retries;
  if (failures >= attempts) return null;
  // Jitter, so that clients that failed together do not retry together.
  const stepMs = Math.min(maxBackoffMs, backoffMs * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
  const delayMs = stepMs + (error.retryAfterS ?? 0) * 1000;
  return elapsedMs + delayMs <= budgetMs ? delayMs : null;
}

/** @param {PosewrightError} error */
function isRetryable({ type, status }) {
  const ofAProxy = type === "about:blank" && RETRIED_OF_A_PROXY.includes(status);
  return ofAProxy || RETRIED_STATUS.includes(status) || type === clientType("unreachable");
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
