"""Plots of a report (PNG) and of the bench (SVG), readable in print and by the colour-blind."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from service.pose.types import Floats
from training.engine.history import History
from training.evaluation.bench import BenchRow
from training.evaluation.error_analysis import KINDS, shares
from training.evaluation.predictions import Reliability

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # part of matplotlib, so the same on every machine
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": "#1f2937",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}
WIDTH = 9.6
HALF = (WIDTH / 2, 4.8)
"""Sizes in inches: the width of the page, and (width, height) of a plot of half the width."""
# The palette of Okabe and Ito; good keypoints are pale, so that mistakes stand out.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#9ca3af"
KIND_COLORS = ("#d5ede4", "#56B4E9", "#CC79A7", "#E69F00", "#B03A00")
KIND_TEXT = ("#1f2937", "#1f2937", "#1f2937", "#1f2937", "#ffffff")
RATES = ("lr", "learning_rate", "rate")
"""Names of the column of the learning rate, which is drawn last."""
MEDIUM_AREA, LARGE_AREA = 32**2, 96**2
"""Lower limits of pycocotools' size classes, px²."""
MIN_POINTS_WITHOUT_MARKERS = 30
"""Curves of fewer points have a marker at each."""
MIN_NUMBERED_SHARE = 0.05
"""Smaller shares are drawn without their number."""


def curves(history: History, samples: NDArray[np.float64], phase_ends: list[float]) -> bytes:
    """Draw every logged column over steps (left) and samples (right).

    Args:
        history: The log, R rows.
        samples: float64 (R,), count of samples up to each row.
        phase_ends: Steps at which a phase of the recipe ends, without the last one.
    """
    names = sorted(_distinct(history), key=lambda name: (name in RATES, name != "loss"))
    in_samples = np.interp(phase_ends, history.steps, samples).tolist()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.6 + 2.2 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 2, sharex="col", sharey="row", squeeze=False)
        for row, name in zip(grid, names, strict=True):
            _draw_curve(row[0], history.steps, history.columns[name], phase_ends)
            _draw_curve(row[1], samples, history.columns[name], in_samples)
            row[0].set_ylabel("learning rate" if name in RATES else name.replace("_", " "))
            if name in RATES:
                row[0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        for axes, label in zip(grid[-1], ("steps of the optimizer", "samples seen"), strict=True):
            axes.set_xlabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        grid[-1][1].xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
        return _png(figure)


def _distinct(history: History) -> list[str]:
    """Return the names of the columns to draw, without the term of a loss that has a single one."""
    loss = history.columns.get("loss")
    return [
        name
        for name, values in history.columns.items()
        if name == "loss" or (name != "samples" and (loss is None or not np.array_equal(values, loss)))
    ]


def _draw_curve(axes: Axes, x: NDArray, values: NDArray[np.float64], ends: list[float]) -> None:
    """Draw a line through the finite values, with points where they are few, and a dashed line at each end."""
    finite = np.isfinite(values)
    marker = "o" if finite.sum() < MIN_POINTS_WITHOUT_MARKERS else ""
    axes.plot(x[finite], values[finite], color=BLUE, linewidth=1.6, marker=marker, markersize=3.5)
    for end in ends:
        axes.axvline(end, color=GREY, linewidth=1, linestyle=(0, (4, 3)))


def breakdown(counted: NDArray[np.int64], keypoints: tuple[str, ...]) -> bytes:
    """Draw the shares of each keypoint's mistakes as stacked bars, with all keypoints together on top.

    Args:
        counted: int64 (K, 5), see `error_analysis.counts`.
        keypoints: K names.
    """
    table = np.concatenate([counted.sum(axis=0, keepdims=True), counted])
    parts = shares(table)
    places = -np.arange(len(table)) - 0.6 * (np.arange(len(table)) > 0)  # a gap below the first bar
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(table)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(table))
        for kind, color, ink in zip(range(len(KINDS)), KIND_COLORS, KIND_TEXT, strict=True):
            axes.barh(places, parts[:, kind], left=left, height=0.8, color=color, edgecolor="white", label=KINDS[kind])
            for place, start, share in zip(places, left, parts[:, kind], strict=True):
                if share >= MIN_NUMBERED_SHARE:
                    text = f"{100 * share:.0f}"
                    axes.text(start + share / 2, place, text, color=ink, ha="center", va="center", fontsize=8.5)
            left += parts[:, kind]
        for place, total in zip(places, table.sum(axis=1), strict=True):
            axes.text(1.01, place, f"{total:,}", ha="left", va="center", fontsize=8.5, color="#374151")
        axes.text(1.01, places[0] + 0.75, "labelled", ha="left", va="center", fontsize=8.5, color="#374151")
        axes.set_yticks(places, ["all keypoints", *(name.replace("_", " ") for name in keypoints)])
        axes.set_xlim(0, 1)
        axes.set_ylim(places[-1] - 0.6, places[0] + 0.6)
        axes.set_xlabel("share of the labelled keypoints")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(KINDS), handlelength=1.2, columnspacing=1.8)
        return _png(figure)


def reliability(found: Reliability) -> bytes:
    """Draw a reliability diagram, with the line of calibrated scores and the count of keypoints in each bin."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=HALF, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="calibrated")
        upper.plot(found.scores, found.similarities, color=BLUE, marker="o", linewidth=1.6, label="measured")
        upper.set(ylabel="mean keypoint similarity", xlim=(0, 1), ylim=(0, 1))
        upper.legend(loc="lower right")
        upper.set_title(f"expected calibration error {found.error:.3f}")
        lower.bar(found.scores, found.keypoints, width=0.06, color=BLUE)
        lower.set(xlabel="mean keypoint score", ylabel="keypoints")
        lower.yaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
        return _png(figure)


def people(oks: Floats, areas: Floats) -> bytes:
    """Draw a histogram of people by OKS and size: oks float32 (N,), areas float32 (N,) px²."""
    large = areas >= LARGE_AREA
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=HALF, layout="constrained")
        axes: Axes = figure.subplots()
        groups = [oks[~large], oks[large]]
        labels = [f"medium and smaller ({len(groups[0]):,})", f"large ({len(groups[1]):,})"]
        axes.hist(groups, bins=20, range=(0, 1), stacked=True, color=[ORANGE, BLUE], label=labels, edgecolor="white")
        middle = float(np.median(oks))
        axes.axvline(middle, color="#1f2937", linewidth=1.2, linestyle=(0, (4, 3)), label=f"median {middle:.2f}")
        axes.set(xlabel="OKS", ylabel="people", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")
        return _png(figure)


def accuracy_over_latency(rows: list[BenchRow]) -> bytes:
    """Draw AP over latency as SVG: filled markers for labelled boxes, hollow ones for whole pictures with a detector.

    Args:
        rows: Rows of the bench; pose networks whose AP was measured are drawn.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": "posewright"}):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        axes: Axes = figure.subplots()
        for row in (it for it in rows if it.kind == "pose"):
            color = BLUE if row.ours else ORANGE
            points = [(row.median_ms, row.precision.labelled, color)]
            if row.detector_ms is not None:
                points.append((row.median_ms + row.detector_ms, row.precision.whole, "white"))
            known = [(ms, ap, face) for ms, ap, face in points if ap is not None]
            axes.plot([it[0] for it in known], [it[1] for it in known], color=color, linewidth=1, alpha=0.5)
            for ms, ap, face in known:
                axes.plot(ms, ap, "o", markersize=7, markerfacecolor=face, markeredgecolor=color, linestyle="")
            if known:
                axes.annotate(row.name, known[0][:2], (7, 5), textcoords="offset points", fontsize=8.5)
        for color, face, label in (
            (BLUE, BLUE, "ours"),
            (ORANGE, ORANGE, "rivals"),
            ("#1f2937", "#1f2937", "labelled boxes"),
            ("#1f2937", "white", "whole picture, with its detector"),
        ):
            axes.plot([], [], "o", markerfacecolor=face, markeredgecolor=color, label=label)
        axes.set(xlabel="ms for one person, one core", ylabel="keypoint AP (COCO)")
        axes.set_xlim(left=0)
        axes.margins(x=0.12)
        figure.legend(loc="outside upper center", ncols=4, handlelength=1.2, columnspacing=1.8)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})  # reproducible bytes
        return stream.getvalue()


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
