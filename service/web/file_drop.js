/** Opens files that are dropped or pasted anywhere on the page. */

/**
 * @param {HTMLElement} stage Gets the class `dropping` while a file is dragged over the page.
 * @param {(file: File) => void} open
 */
export function acceptDroppedFiles(stage, open) {
  /** @param {DragEvent} event */
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
    stage.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => {
    // Without a related target, the pointer left the window and not just one element for another.
    if (!event.relatedTarget) stage.classList.remove("dropping");
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    stage.classList.remove("dropping");
    const file = event.dataTransfer?.files[0];
    if (file) open(file);
  });
  addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) open(file);
  });
}
