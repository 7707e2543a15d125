"""The formats by name, and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from posewright_client.formats import (
    coco_dataset,
    csv_table,
    label_studio,
    openpose_folder,
    parquet_table,
    sleap_labels,
)
from posewright_client.formats.recording import Recording


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of the formats.

    Attributes:
        video: The video that the results are of, or None.
        threshold: As in `coco_dataset.write` and `label_studio.write`.
        layout: As in `openpose_folder.write`.
        root: As in `label_studio.write`.
    """

    video: Path | None = None
    threshold: float = coco_dataset.THRESHOLD
    layout: str = "body25"
    root: str = label_studio.LOCAL_FILES


Write = Callable[[Recording, Path, ExportOptions], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        ending: What its files or folders end with by default, in place of ``.jsonl``.
        write: Its writer.
        beside: Suffix of a second file that it writes beside the first one, or None.
    """

    ending: str
    write: Write
    beside: str | None = None

    def outputs(self, out: Path) -> list[Path]:
        """Return what it writes at a path."""
        return [out] if self.beside is None else [out, out.with_suffix(self.beside)]


FORMATS: Mapping[str, Format] = {
    "csv": Format(".csv", lambda results, out, _: csv_table.write(results, out)),
    "parquet": Format(".parquet", lambda results, out, _: parquet_table.write(results, out)),
    "openpose": Format("_json", lambda results, out, it: openpose_folder.write(results, out, layout=it.layout)),
    "coco": Format(".coco.json", lambda results, out, it: coco_dataset.write(results, out, threshold=it.threshold)),
    "sleap": Format(".slp", lambda results, out, it: sleap_labels.write(results, out, video=it.video)),
    "label-studio": Format(
        ".label-studio.json",
        lambda results, out, it: label_studio.write(results, out, threshold=it.threshold, root=it.root),
        ".xml",
    ),
}


def default_path(results: Path, name: str) -> Path:
    """Return the path beside a file of results that a format has by default."""
    return results.with_name(results.stem + FORMATS[name].ending)
