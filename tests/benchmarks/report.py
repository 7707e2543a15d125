"""The figures of a run as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TITLES = ("", "clients", "p50 ms", "p95 ms", "p99 ms", "requests/s", "CPU ms", "beyond in-process", "MB", "start s")


def table(rows: list[dict[str, Any]]) -> str:
    """Write a Markdown table; "beyond in-process" is the CPU time of a request beyond that of the steps alone."""
    base = {row["clients"]: row["cpu_ms"] for row in rows if row["name"] == "in-process"}
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + "---|" * len(_TITLES)]
    for row in rows:
        cells = [row["name"], str(row["clients"])]
        cells += [f"{row[f'p{share}_ms']:.2f}" for share in (50, 95, 99)]
        cells += [f"{row['requests_per_s']:.0f}", f"{row['cpu_ms']:.2f}", f"{row['cpu_ms'] - base[row['clients']]:.2f}"]
        cells += [f"{row['memory_mb']:.0f}", f"{row['start_s']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draw the CPU time of a request beyond the steps in-process, one panel for each set of models, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - of the training extra

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "posewright"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, len(results), figsize=(5 * len(results), 3.6), layout="constrained", squeeze=False)
    for panel, (models, rows) in zip(panels[0], results.items(), strict=True):
        alone = [row for row in rows if row["clients"] == rows[0]["clients"]]
        base = next(row["cpu_ms"] for row in alone if row["name"] == "in-process")
        rivals = [row for row in alone if row["name"] != "in-process"][::-1]
        colors = ["#1f77b4" if row["name"].startswith("ours") else "#b0b0b0" for row in rivals]
        bars = panel.barh([row["name"] for row in rivals], [row["cpu_ms"] - base for row in rivals], color=colors)
        panel.bar_label(bars, fmt="%.2f", padding=3)
        panel.set_title(f"{models} ({base:.2f} ms in-process)")
        panel.set_xlabel("CPU ms a request beyond the steps in-process")
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.15)
    figure.savefig(file, metadata={"Date": None})
