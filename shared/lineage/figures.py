"""Figures of a version for the App's panel, as Plotly's traces and layouts: what `plots` draws, to be hovered over.

Fonts and grounds are left to FiftyOne's theme; the colours here can be seen on its dark ground and on its light one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

BLUE, ORANGE, GREY, GREEN = "#4a90c9", "#e08a3c", "#8a8a8a", "#5aa469"
LONGEST = 34  # characters of a class name that are shown
MOST_ROWS = 80  # classes or slices in one figure
ROW = 22  # pixels of one bar
SPLIT_COLOURS = {"train": GREY, "val": BLUE, "test": ORANGE}

Figure = dict[str, Any]


def figures(
    metrics: Mapping[str, Any], training_csv: str | None, classes: Mapping[str, Mapping[str, int]]
) -> list[Figure]:
    """What can be drawn of a version.

    Args:
        metrics: of the split that is shown, as `classifier.metrics.evaluate` gives them; empty where there are none
        training_csv: the text of Ultralytics' `results.csv`, or None
        classes: class -> split -> ROIs used; empty where the card does not say

    Returns:
        dicts of name, title, caption, traces, layout and height (pixels); what there is no data for is left out
    """
    made = [
        _per_class(metrics.get("per_class") or []),
        _confusion(metrics.get("confusion") or [], metrics.get("per_class") or []),
        _reliability(metrics.get("reliability") or [], metrics.get("ece")),
        _slices(metrics.get("slices") or []),
        _class_mix(classes),
        *_training(training_csv),
    ]
    return [figure for figure in made if figure]


def _per_class(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """F1 of each class that was present, best on top, with its interval and number of images."""
    present = sorted((row for row in rows if row["n"]), key=lambda row: (row["f1"], row["label"]))
    if not present:
        return None
    shown = present[:MOST_ROWS]  # the worst are what one looks for
    labels = [f"{_short(row['label'])} ({row['n']:,})" for row in shown]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row["f1"] for row in shown],
        "y": list(range(len(shown))),
        "hovertext": [row["label"] for row in shown],
        "marker": {"color": BLUE},
        "error_x": _spread([row["f1"] for row in shown], [row.get("f1_interval") for row in shown]),
        "customdata": [[row["precision"], row["recall"]] for row in shown],
        "hovertemplate": "%{hovertext}<br>F1 %{x:.3f}<br>"
        "precision %{customdata[0]:.3f}, recall %{customdata[1]:.3f}<extra></extra>",
    }
    left_out = f" The worst {MOST_ROWS} of {len(present)} classes." if len(present) > MOST_ROWS else ""
    return _figure(
        "per_class",
        "F1 by class",
        f"1 is perfect; in brackets the images it was judged on. The line through a bar is the 95% interval.{left_out}",
        [trace],
        {"xaxis": {"range": [0, 1.02], "title": {"text": "F1"}}, "yaxis": _named(labels)},
        ROW * len(shown) + 70,
    )


def _confusion(counts: Sequence[Sequence[int]], rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """True classes in rows, predicted ones in columns; colours are shares of a row, hovering tells the images."""
    if not counts or len(counts) != len(rows):
        return None
    seen = [i for i in range(len(rows)) if sum(counts[i]) or any(row[i] for row in counts)]
    names = [str(rows[i]["label"]) for i in seen]
    cells = [[counts[i][j] for j in seen] for i in seen]
    shares = [[value / max(sum(row), 1) for value in row] for row in cells]
    trace = {
        "type": "heatmap",
        "z": shares,
        "text": [[str(value) if value else "" for value in row] for row in cells],
        "customdata": [[[cells[i][j], names[i], names[j]] for j in range(len(names))] for i in range(len(names))],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#2a3744"], [1, "#6fb4f2"]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "true: %{customdata[1]}<br>predicted: %{customdata[2]}<br>"
        "%{customdata[0]} images, %{z:.0%} of the class<extra></extra>",
    }
    if len(names) <= MOST_ROWS // 2:
        trace["texttemplate"] = "%{text}"
    axis = {**_named([_short(name) for name in names]), "showgrid": False, "zeroline": False}
    return _figure(
        "confusion",
        "What was taken for what",
        "Each row is a true class, each column what the model said; on the diagonal it was right.",
        [trace],
        {
            "xaxis": {**axis, "side": "top", "tickangle": -60},
            "yaxis": {**axis, "autorange": "reversed"},
            "margin": {"b": 44, "r": 120},  # the names above lean to the right, and Plotly drops one that is cut
        },
        max(ROW * len(names) + 220, 320),
    )


def _reliability(bins: Sequence[Mapping[str, Any]], ece: float | None) -> Figure | None:
    """Accuracy of the predictions of each bin of confidence."""
    if not bins:
        return None
    bars = {
        "type": "bar",
        "x": [(each["low"] + each["high"]) / 2 for each in bins],
        "y": [each["accuracy"] for each in bins],
        "width": [(each["high"] - each["low"]) * 0.94 for each in bins],
        "customdata": [[each["n"], each["confidence"]] for each in bins],
        "marker": {"color": BLUE},
        "name": "right",
        "hovertemplate": "said %{customdata[1]:.2f}, right %{y:.2f} (%{customdata[0]} images)<extra></extra>",
    }
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"dash": "dash", "color": GREY},
        "hoverinfo": "skip",
    }
    error = f" The mean distance (expected calibration error) is {ece:.3f}." if ece is not None else ""
    return _figure(
        "reliability",
        "Can its confidence be believed",
        f"Bars on the dashed line: of what it is 80% sure of, 80% is right. Bars below it: too sure.{error}",
        [bars, diagonal],
        {
            "xaxis": {"range": [0, 1], "title": {"text": "confidence"}},
            "yaxis": {"range": [0, 1.02], "title": {"text": "share that is right"}},
        },
        320,
    )


def _slices(slices: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Top-1 for each value of each field, with its interval."""
    if not slices:
        return None
    shown = list(reversed(slices[:MOST_ROWS]))
    labels = [f"{row['field']}: {_short(str(row['value']))} ({row['n']:,})" for row in shown]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [row["top1"] for row in shown],
        "y": list(range(len(shown))),
        "hovertext": labels,
        "marker": {"color": BLUE, "size": 9},
        "error_x": _spread([row["top1"] for row in shown], [row.get("top1_interval") for row in shown]),
        "hovertemplate": "%{hovertext}<br>top-1 %{x:.3f}<extra></extra>",
    }
    left_out = f" The first {MOST_ROWS} of {len(slices)}." if len(slices) > MOST_ROWS else ""
    return _figure(
        "slices",
        "Where it is better and where it is worse",
        f"Top-1 by the values of sample fields, in brackets the images; lines are 95% intervals.{left_out}",
        [trace],
        {"xaxis": {"range": [0, 1.02], "title": {"text": "top-1"}}, "yaxis": _named(labels)},
        ROW * len(shown) + 80,
    )


def _class_mix(classes: Mapping[str, Mapping[str, int]]) -> Figure | None:
    """ROIs of each class by split, the most frequent on top."""
    if not classes:
        return None
    ordered = sorted(classes, key=lambda label: (sum(classes[label].values()), label))[-MOST_ROWS:]
    splits = [split for split in SPLIT_COLOURS if any(classes[label].get(split) for label in ordered)]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": split,
            "y": list(range(len(ordered))),
            "hovertext": ordered,
            "x": [classes[label].get(split, 0) for label in ordered],
            "marker": {"color": SPLIT_COLOURS[split]},
            "hovertemplate": "%{hovertext}<br>%{x:,} ROIs<extra>%{fullData.name}</extra>",
        }
        for split in splits
    ]
    left_out = f" The {MOST_ROWS} largest of {len(classes)} classes." if len(classes) > MOST_ROWS else ""
    return _figure(
        "class_mix",
        "What it learned from and was judged on",
        f"ROIs of each class: trained on (train), watched while training (val), kept for judging (test).{left_out}",
        traces,
        {
            "barmode": "stack",
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"title": {"text": "ROIs"}},
            "yaxis": _named([_short(label) for label in ordered]),
        },
        ROW * len(ordered) + 100,
    )


def _training(text: str | None) -> list[Figure]:
    """Loss and accuracy by epoch."""
    epochs = read_epochs(text) if text else {}
    if not epochs.get("epoch"):
        return []
    drawn = (
        ("loss", "Loss by epoch", "The lower the better; validation going up again means learning by heart.",
         (("train/loss", "training", GREY), ("val/loss", "validation", BLUE))),
        ("accuracy", "Accuracy by epoch", "On the validation split, while it was trained.",
         (("metrics/accuracy_top1", "top-1", BLUE), ("metrics/accuracy_top5", "top-5", GREY))),
    )  # fmt: skip
    made = []
    for name, title, caption, curves in drawn:
        traces = [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label,
                "x": epochs["epoch"],
                "y": epochs[column],
                "line": {"color": colour},
            }
            for column, label, colour in curves
            if column in epochs
        ]
        layout = {
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        }
        if traces:
            made.append(_figure(name, title, caption, traces, layout, 280))
    return made


def read_epochs(text: str) -> dict[str, list[float | None]]:
    """The columns of Ultralytics' `results.csv`; of an epoch that was run twice (after a resume) the last."""
    rows: dict[float, dict[str, float | None]] = {}
    for line in csv.DictReader(io.StringIO(text), skipinitialspace=True):
        row = {(name or "").strip(): _number(value) for name, value in line.items() if isinstance(value, str)}
        if (epoch := row.get("epoch")) is not None:
            rows[epoch] = row
    ordered = [rows[epoch] for epoch in sorted(rows)]
    return {name: [row.get(name) for row in ordered] for name in ordered[0]} if ordered else {}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # JSON has no others


def _spread(values: Sequence[float], intervals: Sequence[Sequence[float] | None]) -> dict[str, Any]:
    """Plotly's error bars from intervals; nothing where there are none."""
    if not any(intervals):
        return {"visible": False}
    bounds = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(high - value, 0.0) for value, (_, high) in zip(values, bounds, strict=True)],
        "arrayminus": [max(value - low, 0.0) for value, (low, _) in zip(values, bounds, strict=True)],
        "color": ORANGE,
        "thickness": 1.5,
        "width": 3,
    }


def _figure(name: str, title: str, caption: str, traces: list[Any], layout: dict[str, Any], height: int) -> Figure:
    # A wheel over a figure must scroll the panel on, and a drag must not move what there is no need to move.
    return {
        "name": name,
        "title": title,
        "caption": caption,
        "traces": traces,
        "layout": {"dragmode": False, "margin": {"b": 44}, **layout},
        "height": height,
    }


def _named(labels: Sequence[str]) -> dict[str, Any]:
    """An axis with these names at 0, 1, 2...: by its names Plotly would take two that are shortened alike for one."""
    return {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": list(labels), "zeroline": False}


def _short(name: str) -> str:
    """A class name on one line; a very long one keeps its ends, where names of one family differ."""
    name = " ".join(name.split()) or "(empty)"
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"
