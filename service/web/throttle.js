/** Limits how often a function runs. */

/**
 * Run a function at most once in an interval. A call that comes too early runs it at the end of the interval.
 *
 * @param {number} intervalMs
 * @param {() => void} run
 */
export function throttle(intervalMs, run) {
  let ranMs = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const now = () => {
    clearTimeout(timer);
    timer = undefined;
    ranMs = performance.now();
    run();
  };
  return () => {
    const waitMs = ranMs + intervalMs - performance.now();
    if (waitMs <= 0) now();
    else timer ??= setTimeout(now, waitMs);
  };
}

/**
 * Run a function once no call has come for a while.
 *
 * @param {number} quietMs
 * @param {() => void} run
 */
export function debounce(quietMs, run) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, quietMs);
  };
}
