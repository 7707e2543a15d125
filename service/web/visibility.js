/** Tells whether an element can be seen: on the screen, in a tab that is not hidden. */

const MARGIN = "100px"; // an element that is about to scroll into view counts as visible

/**
 * @param {Element} element
 * @param {(visible: boolean) => void} onChange Called when it changes.
 * @returns {() => void} Stops the calls.
 */
export function watchVisibility(element, onChange) {
  let [onScreen, visible] = [false, false];
  const update = () => {
    const now = onScreen && !document.hidden;
    if (now === visible) return;
    visible = now;
    onChange(visible);
  };
  const observer = new IntersectionObserver(
    (entries) => {
      onScreen = entries.at(-1)?.isIntersecting ?? false;
      update();
    },
    { rootMargin: MARGIN },
  );
  observer.observe(element);
  document.addEventListener("visibilitychange", update);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", update);
  };
}
