"""Where a version comes from and what came of it, as boxes and arrows that Plotly draws.

From left to right: the weights it all began with, the versions it was fine-tuned from, the version itself, and those
that were fine-tuned from it. Above a version stands the data that it learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from .overview import Entry

ANCESTORS, GENERATIONS, ROWS = 2, 2, 8  # boxes to the left, to the right, and below each other, that are drawn
WIDTH, HEIGHT = 0.43, 0.42  # half of a box; boxes stand at whole numbers
PIXELS = 104  # of a row
LONGEST = 16  # characters of a line; five boxes must fit into half a window
STYLES = {
    "chosen": ("rgba(224,138,60,0.28)", "#e08a3c"),
    "version": ("rgba(74,144,201,0.18)", "#4a90c9"),
    "data": ("rgba(90,164,105,0.18)", "#5aa469"),
    "weights": ("rgba(138,138,138,0.15)", "#8a8a8a"),
}


@dataclass(frozen=True)
class Box:
    """One box; `arrows` are the keys of the boxes that arrows lead to from it."""

    key: str  # the name of a version, or something that is none
    kind: str  # of STYLES
    x: int
    y: int
    lines: tuple[str, ...]
    arrows: tuple[str, ...] = ()


def family(listed: Sequence[Entry], name: str) -> tuple[list[Box], int]:
    """The boxes around one version of those listed, and how many descendants have none for want of room."""
    known = {entry.name: entry for entry in listed}
    after, left_out = _after(listed, known[name])
    boxes = [*_before(known, known[name]), _version(known[name], 0, 0, known[name]), _data(known[name], 0), *after]
    there = {box.key: box for box in boxes}  # each once, whatever a damaged record says of its base
    children = {
        base: tuple(entry.name for entry in listed if entry.base_version == base and entry.name in there)
        for base in there
    }
    return [replace(box, arrows=box.arrows + children[box.key]) for box in there.values()], left_out


def _before(known: Mapping[str, Entry], chosen: Entry) -> list[Box]:
    """Ancestors and their data to the left, the nearest first, then the weights that they began with."""
    boxes: list[Box] = []
    entry = chosen
    while (base := known.get(entry.base_version or "")) and len(boxes) < 2 * ANCESTORS:
        entry, x = base, -1 - len(boxes) // 2
        boxes += [_version(entry, x, 0, chosen), _data(entry, x)]
    x = -1 - len(boxes) // 2
    if entry.base_version in known:
        boxes.append(Box("before", "weights", x, 0, ("earlier", "versions"), arrows=(entry.name,)))
    elif entry.base_version or entry.base:
        lines = (_short(PurePosixPath(entry.base_version or entry.base or "").name), "weights")
        boxes.append(Box("weights", "weights", x, 0, lines, arrows=(entry.name,)))
    return boxes


def _after(listed: Sequence[Entry], chosen: Entry) -> tuple[list[Box], int]:
    """Descendants to the right, the oldest on top, each family below the one before; and how many have no place."""
    children: dict[str, list[Entry]] = {}
    for entry in reversed(listed):
        if entry.base_version and entry.base_version != entry.name:
            children.setdefault(entry.base_version, []).append(entry)
    boxes: list[Box] = []
    row = 0

    def place(parent: str, x: int) -> None:
        nonlocal row
        for number, child in enumerate(children.get(parent, [])):
            row += number > 0
            if row < ROWS:
                boxes.append(_version(child, x, -row, chosen))
                if x < GENERATIONS:
                    place(child.name, x + 1)

    place(chosen.name, 1)
    return boxes, len(_descendants(children, chosen.name)) - len(boxes)


def _descendants(children: Mapping[str, Sequence[Entry]], name: str) -> set[str]:
    """The names of all versions that came of one."""
    found, fresh = set(), [name]
    while fresh:
        fresh = [child.name for parent in fresh for child in children.get(parent, []) if child.name not in found]
        found.update(fresh)
    return found


def _version(entry: Entry, x: int, y: int, chosen: Entry) -> Box:
    """The box of a version; it says what sets it apart from the chosen one."""
    lines = [f"<b>{entry.name[-6:]}</b>", f"{entry.created_at:%Y-%m-%d}"]
    if entry.model != chosen.model:
        lines.insert(0, _short(entry.model))
    if entry.aliases:
        lines.append(_short("@" + ", @".join(entry.aliases)))
    if entry.top1 is not None:
        lines.append(f"top-1 {entry.top1:.3f}")
    if x > 0:  # those to the left have a box for their data
        lines.append("same data" if entry.digest == chosen.digest else f"data {entry.data}")
    return Box(entry.name, "chosen" if entry is chosen else "version", x, y, tuple(lines))


def _data(entry: Entry, x: int) -> Box:
    lines = (f"data {entry.data}", _short(entry.dataset or ""))
    return Box(f"data of {entry.name}", "data", x, 1, lines, arrows=(entry.name,))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def drawing(boxes: Sequence[Box]) -> dict[str, Any]:
    """The boxes as a figure of `figures`; the id of a box that is clicked is its key."""
    at = {box.key: box for box in boxes}
    xs, ys = [box.x for box in boxes], [box.y for box in boxes]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": xs,
        "y": ys,
        "text": ["<br>".join(box.lines) for box in boxes],
        "textfont": {"size": 12},
        "ids": [box.key for box in boxes],  # Plotly draws only one of several with the same
        "hovertext": "click to open",
        "hoverinfo": ["text" if box.kind == "version" else "none" for box in boxes],
        "marker": {"size": 70, "opacity": 0, "symbol": "square"},
        "cliponaxis": False,
    }
    hidden = {"visible": False, "fixedrange": True}
    layout = {
        "shapes": [_shape(box) for box in boxes],
        "annotations": [_arrow(box, at[key]) for box in boxes for key in box.arrows],
        "xaxis": {**hidden, "range": [min(xs) - 0.5, max(max(xs), min(xs) + 2) + 0.5]},
        "yaxis": {**hidden, "range": [min(ys) - 0.5, max(ys) + 0.5]},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "dragmode": False,
    }
    return {"traces": [trace], "layout": layout, "height": PIXELS * (max(ys) - min(ys) + 1)}


def _shape(box: Box) -> dict[str, Any]:
    fill, line = STYLES[box.kind]
    return {
        "type": "rect",
        "layer": "below",
        "x0": box.x - WIDTH,
        "x1": box.x + WIDTH,
        "y0": box.y - HEIGHT,
        "y1": box.y + HEIGHT,
        "fillcolor": fill,
        "line": {"color": line, "width": 2 if box.kind == "chosen" else 1},
    }


def _arrow(box: Box, to: Box) -> dict[str, Any]:
    down = box.x == to.x
    start = (box.x, box.y - HEIGHT) if down else (box.x + WIDTH, box.y)
    end = (to.x, to.y + HEIGHT) if down else (to.x - WIDTH, to.y)
    return {
        "text": "",
        "showarrow": True,
        "arrowhead": 2,
        "arrowwidth": 1.3,
        "arrowcolor": STYLES["weights"][1],
        "axref": "x",
        "ayref": "y",
        "ax": start[0],
        "ay": start[1],
        "x": end[0],
        "y": end[1],
    }
