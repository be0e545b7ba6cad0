"""Pictures of how a model version was trained and how good it is, as PNG files.

Figures are made without pyplot, which keeps global state that other threads would see. The same input gives the
same bytes: no time and no software version is written into the files.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 110
MOST_PIXELS = 30_000  # of a side; matplotlib ends at 65,536
BLUE, ORANGE, GREY = "#2b6ca3", "#d9772b", "#8a8a8a"
LONGEST = 34  # characters of a class name that are shown
SPLITS = {"train": GREY, "val": BLUE, "test": ORANGE}
WIDE_MIX = 30  # times as much of the largest as of the smallest class, from which their shares need a log scale
MOST_CELLS = 60  # classes up to which a confusion matrix shows its counts


def write_plots(
    folder: Path,
    metrics: Mapping[str, Any],
    training_csv: Path | None = None,
    class_counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Path]:
    """Draws `confusion.png`, `per_class_f1.png`, `reliability.png` and what else there is data for.

    That is `slices.png` where the metrics have slices, `class_mix.png` from the counts, `training.png` from the epochs.

    Args:
        folder: where to write them; made if need be.
        metrics: as `classifier.metrics.evaluate` gives them; those of before it gave intervals are drawn without.
        training_csv: Ultralytics' `results.csv`; without it, or where it has no epochs, there are no curves.
        class_counts: class -> split -> images used.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "confusion": _confusion(metrics),
        "per_class_f1": _per_class(metrics),
        "reliability": _reliability(metrics),
    }
    if metrics.get("slices"):
        figures["slices"] = _slices(metrics)
    used = {label: counts for label, counts in (class_counts or {}).items() if any(map(counts.get, SPLITS))}
    if used:
        figures["class_mix"] = _class_mix(used)
    epochs = _read_epochs(training_csv) if training_csv is not None and training_csv.is_file() else {}
    if epochs.get("epoch"):
        figures["training"] = _training(epochs)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        FigureCanvasAgg(figure)
        dpi = min(DPI, MOST_PIXELS / figure.get_figheight())
        figure.savefig(paths[-1], dpi=dpi, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return paths


def _confusion(metrics: Mapping[str, Any]) -> Figure:
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


def _per_class(metrics: Mapping[str, Any]) -> Figure:
    """F1 of each class that was present, best first, with its interval and its number of images."""
    rows = sorted((row for row in metrics["per_class"] if row["n"]), key=lambda row: (row["f1"], row["label"]))
    figure, axes = _sized(4.7, max(0.24 * len(rows), 0.8))
    axes.axvline(metrics["macro_f1"], color=ORANGE, linewidth=1.2, linestyle="--", zorder=1.5)
    axes.barh(range(len(rows)), [row["f1"] for row in rows], color=BLUE, height=0.72, zorder=2)
    _write_values(axes, [row["f1"] for row in rows])
    known = [(i, row) for i, row in enumerate(rows) if row.get("f1_interval")]
    ends = _spread([row["f1"] for _, row in known], [row["f1_interval"] for _, row in known])
    axes.errorbar(
        [row["f1"] for _, row in known],
        [i for i, _ in known],
        xerr=ends,
        fmt="none",
        ecolor="#333333",
        elinewidth=1,
        capsize=2,
        zorder=3,
    )
    labels = [f"{_short(row['label'])}  ({row['n']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("F1 (in brackets: images; thin lines: 95% intervals)" if known else "F1 (in brackets: images)")
    axes.set_title(f"F1 by class; dashed: macro {_with_ends(metrics, 'macro_f1')}", fontsize=11)
    _from_0_to_1(axes)
    return figure


def _slices(metrics: Mapping[str, Any]) -> Figure:
    """Top-1 and macro F1 of each slice with their intervals, field by field; on dashed lines those of all images."""
    labels: list[str] = []
    headings, rows, places = [], [], []
    for field, group in groupby(metrics["slices"], key=lambda row: row["field"]):
        headings.append(len(labels))
        labels.append(_short(field))
        for row in group:
            places.append(len(labels))
            rows.append(row)
            labels.append(f"{_short(str(row['value']))}  ({row['n']:,})")
    height = 0.24 * len(labels)
    figure = Figure(figsize=(7.4, height))
    for i, (name, title) in enumerate((("top1", "Top-1"), ("macro_f1", "Macro F1"))):
        axes = figure.add_axes((i * 0.53, 0, 0.47, 1))
        values = [row[name] for row in rows]
        axes.axvline(metrics[name], color=ORANGE, linewidth=1.2, linestyle="--", zorder=1.5)
        ends = _spread(values, [row[f"{name}_interval"] for row in rows])
        axes.errorbar(values, places, xerr=ends, fmt="o", color=BLUE, markersize=5, elinewidth=1.4, zorder=3)
        _write_values(axes, values, places)
        axes.set_yticks(range(len(labels)), labels if i == 0 else [""] * len(labels), fontsize=8.5, parse_math=False)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        # Fewer classes occur in a slice than in all images: its macro F1 is a mean over others.
        axes.set_xlabel(title if name == "top1" else f"{title} of the classes in the slice")
        axes.set_title(f"{title}: all {_with_ends(metrics, name)}", fontsize=10)
        axes.tick_params(axis="y", length=0)
        _from_0_to_1(axes)
        for heading in headings:
            axes.axhline(heading, color="white", linewidth=12, zorder=0.9)  # no grid behind a heading
            axes.get_yticklabels()[heading].set_fontweight("bold")
    title = f"By slice of {metrics['n']:,} images (in brackets: images; lines: 95% intervals; dashed: all)"
    figure.text(0.5, 1 + 0.38 / height, title, ha="center", fontsize=11)
    return figure


def _class_mix(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """The share that each class has of each split, the most frequent class first."""
    splits = [name for name in SPLITS if any(row.get(name) for row in counts.values())]
    totals = {name: sum(row.get(name, 0) for row in counts.values()) for name in splits}
    ordered = sorted(counts, key=lambda label: (-sum(counts[label].values()), label))
    shares = {name: [100 * counts[label].get(name, 0) / totals[name] for label in ordered] for name in splits}
    figure, axes = _sized(4.7, max(0.24 * len(ordered), 0.8))
    some = [share for column in shares.values() for share in column if share]
    wide = max(some) > WIDE_MIX * min(some)
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}%")
    else:
        axes.xaxis.set_major_formatter("{x:.0f}%" if max(some) > 4 else "{x:g}%")
        axes.set_xlim(0, 1.06 * max(some))
    _dots(axes, shares, totals)
    labels = [
        f"{_short(each)}  ({' / '.join(f'{counts[each].get(name, 0):,}' for name in splits)})" for each in ordered
    ]
    axes.set_yticks(range(len(ordered)), labels, fontsize=8.5, parse_math=False)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlabel(
        f"Share of the split{', on a log scale' if wide else ''} (in brackets: images of {' / '.join(splits)})"
    )
    axes.set_title("Class mix by split", fontsize=11, pad=24)
    _legend(axes)
    _plain(axes, grid="x")
    return figure


def _dots(axes: Axes, shares: Mapping[str, Sequence[float]], totals: Mapping[str, int]) -> None:
    """One dot for each class and split that has any, and a line from the least to the greatest share of a class."""
    for place, row in enumerate(zip(*shares.values(), strict=True)):
        drawn = [share for share in row if share]
        axes.plot([min(drawn), max(drawn)], [place, place], color="#c4c4c4", linewidth=1.6, zorder=1.5)
    # What lies below shows as a ring around what lies above it.
    for (name, column), size in zip(shares.items(), (8.5, 6, 3.5), strict=False):
        places = [i for i, share in enumerate(column) if share]
        at = [column[i] for i in places]
        label = f"{name} ({totals[name]:,})"
        axes.plot(at, places, "o", color=SPLITS[name], markersize=size, label=label, zorder=2, clip_on=False)


def _reliability(metrics: Mapping[str, Any]) -> Figure:
    """Accuracy of the predictions of each bin of confidence; on the diagonal the confidence can be believed."""
    bins = metrics["reliability"]
    middle = [(each["low"] + each["high"]) / 2 for each in bins]
    width = bins[0]["high"] - bins[0]["low"]
    figure = Figure(figsize=(5.4, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    upper.bar(middle, [each["accuracy"] for each in bins], width=width * 0.94, color=BLUE, label="accuracy")
    upper.plot([0, 1], [0, 1], color="#333333", linestyle="--", linewidth=1, label="as confident as right")
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
    upper.set_title(f"Reliability: expected calibration error {metrics['ece']:.3f}", fontsize=11, pad=24)
    _legend(upper)
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


def _spread(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> np.ndarray:
    """How far the ends are below and above the values, (2, n); rounding may put a value a hair outside."""
    ends = np.array(intervals, dtype=np.float64).reshape(-1, 2).T
    return np.maximum([[1], [-1]] * (np.array(values) - ends), 0)


def _with_ends(metrics: Mapping[str, Any], name: str) -> str:
    ends = metrics.get("intervals", {}).get(name)
    return f"{metrics[name]:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def _write_values(axes: Axes, values: Sequence[float], places: Sequence[int] | None = None) -> None:
    """Writes them in a column right of 1, where no bar and no interval is."""
    for place, value in zip(range(len(values)) if places is None else places, values, strict=True):
        axes.text(1.02, place, f"{value:.2f}", va="center", fontsize=8)


def _from_0_to_1(axes: Axes) -> None:
    """A horizontal scale for shares, with room for the values written beside it."""
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.arange(6) / 5)
    axes.spines["bottom"].set_bounds(0, 1)
    _plain(axes, grid="x")


def _legend(axes: Axes) -> None:
    """On one line between the plot and its title (which needs a pad of 24), where it hides nothing."""
    entries = len(axes.get_legend_handles_labels()[0])
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncol=entries,
        fontsize=8.5,
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.2,
    )


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
