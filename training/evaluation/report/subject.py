"""The subject of a report: the run folder of a training, or a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from service.pose import bundle
from service.pose.bundle import Bundle, BundleError
from training.engine import checkpoint, history
from training.engine.checkpoint import Checkpoint
from training.engine.history import History
from training.engine.tensorboard import LOG
from training.export import to_onnx
from training.recipe import recipe

LAST = "last.pt"


@dataclass(frozen=True, slots=True)
class ReportSubject:
    """A network and its origin.

    Attributes:
        opened: The network as it is served.
        facts: Facts by name, to be shown.
        plan: The recipe; None for a bundle.
        logged: The training's history; None for a bundle, or if a run has none yet.
    """

    opened: Bundle
    facts: dict[str, str]
    plan: recipe.Recipe | None = None
    logged: History | None = None

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.opened.manifest.name}, {self.opened.manifest.version}"


def read(folder: Path) -> ReportSubject:
    """Read a run folder (``last.pt``, ``log.csv``) or a bundle folder (``manifest.json``).

    Raises:
        BundleError: The folder is neither, or the bundle is damaged.
        CheckpointError: The checkpoint is damaged.
        HistoryError: The log is not of a training.
        ExportError: The exported graph differs from the network.
    """
    if (folder / LAST).exists():
        return _of_run(folder)
    if (folder / bundle.MANIFEST).exists():
        return _of_bundle(folder)
    raise BundleError(f"{folder}: expected a folder with {LAST} (a run) or {bundle.MANIFEST} (a bundle), got neither")


def _of_bundle(folder: Path) -> ReportSubject:
    opened = bundle.read(folder)
    by = opened.manifest.trained_by
    started = [
        f"{it['imported']}, imported" if "imported" in it else f"{it['recipe']} after {it['steps']:,} steps"
        for it in by.get("started_from", [])
    ]
    known = {
        "steps": f"{by['steps']:,}" if "steps" in by else "",
        "started from": ", ".join(started),
        "recipe sha256": str(by.get("recipe_sha256", "")),
        "code revision": str(by.get("revision", "")),
        "data": "; ".join(by.get("data", [])),
        "model.onnx sha256": opened.manifest.files[bundle.ONNX],
    }
    return ReportSubject(opened, _network_facts(opened) | {name: value for name, value in known.items() if value})


def _of_run(folder: Path) -> ReportSubject:
    state = checkpoint.load(folder / LAST)
    plan = state.recipe
    opened = _served(state)
    known = {
        "backbone": plan.network.backbone,
        "steps": f"{state.step:,} of {plan.steps:,}",
        "started from": plan.init_from,
        "recipe sha256": recipe.digest(plan),
        "code revision": state.revision,
        "data": "; ".join(f"{it.name} ({it.share:g})" for it in plan.data),
    }
    log = folder / LOG
    return ReportSubject(
        opened,
        _network_facts(opened) | {name: value for name, value in known.items() if value},
        plan,
        history.read(log) if log.exists() else None,
    )


def _served(state: Checkpoint) -> Bundle:
    """Export a checkpoint's averaged weights to a temporary bundle, so that it predicts as it is served."""
    # The lineage is left out: earlier runs may be on another machine, and a report does not need it.
    alone = replace(state, recipe=replace(state.recipe, init_from=""))
    with TemporaryDirectory() as folder:
        return to_onnx.export(alone, Path(folder) / "bundle", f"step {state.step:,}")


def _network_facts(opened: Bundle) -> dict[str, str]:
    manifest = opened.manifest
    width, height = manifest.input_size
    return {
        "role": manifest.role,
        "input": f"{width} x {height} px (width x height)",
        "parameters": f"{manifest.parameters / 1e6:.2f} M",
        "multiply-adds": f"{manifest.gflops:.3f} G",
    }
