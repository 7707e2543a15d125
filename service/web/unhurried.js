/** Less often than things happen. */

/**
 * Act now, but at most so often; what comes too early acts later, in time with the newest.
 *
 * @param {number} everyMs
 * @param {() => void} act
 */
export function atMostEvery(everyMs, act) {
  let actedMs = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const now = () => {
    clearTimeout(timer);
    timer = undefined;
    actedMs = performance.now();
    act();
  };
  return () => {
    const waitMs = actedMs + everyMs - performance.now();
    if (waitMs <= 0) now();
    else timer ??= setTimeout(now, waitMs);
  };
}

/**
 * Act once things have come to rest.
 *
 * @param {number} restMs
 * @param {() => void} act
 */
export function afterRest(restMs, act) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, restMs);
  };
}
