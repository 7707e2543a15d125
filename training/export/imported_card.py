"""Writes the model card of a third party's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.pose.bundle import Manifest
from training.export.model_card import FIGURES, SCORES_UNKNOWN


def write(manifest: Manifest, what: str, conventions: Mapping[str, object], outside: str = "") -> str:
    """Write the card of an imported bundle.

    Args:
        manifest: Describes the bundle; `Manifest.trained_by` says where the network is from.
        what: What the network is imported as.
        conventions: What it expects, and what its outputs are, by name.
        outside: The convention that is not part of the bundle's graph.
    """
    width, height = manifest.input_size
    by: dict[str, Any] = manifest.trained_by
    figures = [f"| {name} | {value:.3f} |" for name, value in manifest.metrics.items()]
    kept = f"All of these are part of the graph, except {outside}."
    listed = ["## Conventions", "", kept, "", *(f"- {name}: {value}" for name, value in conventions.items()), ""]
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            f"Imported as {what} from `{by['imported_from']}` (sha256 `{by['imported_sha256']}`);",
            f"{manifest.parameters / 1e6:.2f} M parameters, input {width} x {height} (width x height),",
            f"{manifest.gflops:.3f} G multiply-adds.",
            "",
            f"Origin: {by['origin'] or 'not stated'}.",
            f"Licence: {by['licence'] or 'not stated; whoever imported it must know it'}.",
            "Not trained by this project; its training data has terms of its own.",
            "",
            *(listed if conventions else []),
            *SCORES_UNKNOWN,
            FIGURES,
            "",
            *(["| figure | value |", "|---|---|", *figures] if figures else ["None measured."]),
            "",
        ]
    )
