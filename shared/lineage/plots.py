"""Pictures of how a model version was trained and how good it is, as PNG files.

Figures are made without pyplot, which keeps global state that other threads would see. The same input gives the
same bytes: no time and no software version is written into the files.
"""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
BLUE, ORANGE, GREY = "#2b6ca3", "#d9772b", "#8a8a8a"
LONGEST = 34  # characters of a class name that are shown
MOST_CELLS = 60  # classes up to which a confusion matrix shows its counts


def write_plots(folder: Path, metrics: dict[str, Any], training_csv: Path | None = None) -> list[Path]:
    """Draws `confusion.png`, `per_class_f1.png`, `reliability.png` and, from the epochs, `training.png`.

    Args:
        folder: where to write them; made if need be.
        metrics: as `classifier.metrics.evaluate` gives them.
        training_csv: Ultralytics' `results.csv`; without it, or where it has no epochs, there are no curves.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "confusion": _confusion(metrics),
        "per_class_f1": _per_class(metrics),
        "reliability": _reliability(metrics),
    }
    epochs = _read_epochs(training_csv) if training_csv is not None and training_csv.is_file() else {}
    if epochs.get("epoch"):
        figures["training"] = _training(epochs)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        FigureCanvasAgg(figure)
        figure.savefig(paths[-1], dpi=DPI, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return paths


def _confusion(metrics: dict[str, Any]) -> Figure:
    """True classes in rows, predicted ones in columns; colours are shares of a row, numbers are images."""
    counts = np.array(metrics["confusion"])
    seen = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts = counts[np.ix_(seen, seen)]
    names = [_short(metrics["per_class"][i]["label"]) for i in seen]
    size = len(names)
    cell = min(0.42, max(0.16, 24 / size), 40 / size)  # inches
    figure, axes = _sized(max(size * cell, 1.6), max(size * cell, 1.6))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = min(9, cell * 72 * 0.5)
    axes.set_xticks(range(size), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(size), names, fontsize=font, parse_math=False)
    between = np.arange(1, size) - 0.5
    axes.hlines(between, -0.5, size - 0.5, color="#e8e8e8", linewidth=0.4)
    axes.vlines(between, -0.5, size - 0.5, color="#e8e8e8", linewidth=0.4)
    axes.tick_params(length=0)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.set_title(f"Confusion of {metrics['n']:,} images", fontsize=11)
    if size <= MOST_CELLS:
        _write_counts(axes, counts, shares, cell, font)
    side = figure.get_figwidth()
    long = min(side, 3.0) / side
    bar = figure.add_axes((1 + 0.2 / side, 1 - long, 0.16 / side, long))
    figure.colorbar(image, cax=bar).set_label("Share of the true class", fontsize=8)
    bar.tick_params(labelsize=7)
    return figure


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float, font: float) -> None:
    """Writes the images of each cell that has any, as large as the cell (inches) allows."""
    for row, column in np.argwhere(counts):
        text = str(counts[row, column])
        fits = cell * 72 * 0.85 / (0.62 * len(text))  # a digit is 0.62 as wide as the font is high
        colour = "white" if shares[row, column] > 0.55 else "#333333"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=min(0.9 * font, fits))


def _per_class(metrics: dict[str, Any]) -> Figure:
    """F1 of each class that was present, best first, with its number of images."""
    rows = sorted((row for row in metrics["per_class"] if row["n"]), key=lambda row: (row["f1"], row["label"]))
    figure, axes = _sized(4.7, max(0.24 * len(rows), 0.8))
    axes.axvline(metrics["macro_f1"], color=ORANGE, linewidth=1.2, linestyle="--", zorder=1.5)
    bars = axes.barh(range(len(rows)), [row["f1"] for row in rows], color=BLUE, height=0.72, zorder=2)
    values = axes.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=8, zorder=3)
    for value in values:
        value.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    labels = [f"{_short(row['label'])}  ({row['n']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1.09)
    axes.set_xticks(np.arange(6) / 5)
    axes.set_xlabel("F1 (in brackets: images)")
    axes.set_title(f"F1 by class, macro {metrics['macro_f1']:.3f} (dashed)", fontsize=11)
    _plain(axes, grid="x")
    return figure


def _reliability(metrics: dict[str, Any]) -> Figure:
    """Accuracy of the predictions of each bin of confidence; on the diagonal the confidence can be believed."""
    bins = metrics["reliability"]
    middle = [(each["low"] + each["high"]) / 2 for each in bins]
    width = bins[0]["high"] - bins[0]["low"]
    figure = Figure(figsize=(5.4, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    upper.bar(middle, [each["accuracy"] for each in bins], width=width * 0.94, color=BLUE, label="accuracy")
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as confident as right")
    upper.plot(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        color=ORANGE,
        marker="o",
        markersize=3.5,
        linewidth=0,
        clip_on=False,
        label="at the mean confidence",
    )
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("Accuracy")
    upper.set_title(f"Reliability: expected calibration error {metrics['ece']:.3f}", fontsize=11)
    upper.legend(loc="upper left", fontsize=8.5, frameon=False)
    lower.bar(middle, [each["n"] for each in bins], width=width * 0.94, color=GREY)
    lower.set_ylabel("Images")
    lower.set_xlabel("Confidence of the prediction")
    lower.set_xlim(0, 1)
    for axes in (upper, lower):
        _plain(axes, grid="y")
    return figure


def _training(epochs: dict[str, list[float]]) -> Figure:
    """Loss and accuracy by epoch, and the epoch with the best validation top-1."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = (
        (left, "train/loss", "training", GREY),
        (left, "val/loss", "validation", BLUE),
        (right, "metrics/accuracy_top1", "top-1", BLUE),
        (right, "metrics/accuracy_top5", "top-5", GREY),
    )
    marker = "o" if len(epochs["epoch"]) == 1 else None
    for axes, column, label, colour in curves:
        if column in epochs:
            axes.plot(epochs["epoch"], epochs[column], color=colour, label=label, marker=marker)
    top1 = epochs.get("metrics/accuracy_top1", [])
    if any(map(math.isfinite, top1)):
        best = int(np.nanargmax(top1))
        label = f"best: {top1[best]:.3f} in epoch {epochs['epoch'][best]:.0f}"
        right.plot(epochs["epoch"][best], top1[best], "o", color=ORANGE, label=label)
    right.set_ylim(0, 1.02)
    for axes, title in ((left, "Loss"), (right, "Validation accuracy")):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8.5, frameon=False)
        _plain(axes, grid="both")
    return figure


def _read_epochs(path: Path) -> dict[str, list[float]]:
    """The columns of Ultralytics' `results.csv`; of an epoch that was run twice (after a resume) the last."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = [[value.strip() for value in line] for line in csv.reader(file)]
    rows = {}
    for line in lines[1:]:
        row = dict(zip(lines[0], map(_number, line), strict=False))
        if math.isfinite(row.get("epoch", math.nan)):
            rows[row["epoch"]] = row
    ordered = [rows[epoch] for epoch in sorted(rows)]
    return {name: [row.get(name, math.nan) for row in ordered] for name in lines[0]} if ordered else {}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _sized(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure filled by one plot of this size in inches; what is written around it enlarges the picture."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0, 0, 1, 1))


def _short(name: str) -> str:
    """A class name on one line; a very long one keeps its ends, where names of one family differ."""
    name = " ".join(name.split()) or "(empty)"
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def _plain(axes: Axes, grid: Any) -> None:
    """Leaves out what does not inform, and puts a faint grid behind the rest."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e8e8e8", linewidth=0.7)
    axes.set_axisbelow(True)
