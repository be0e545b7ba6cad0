"""Draws plankton-like regions of interest for the demo: nine classes, grainy, on dark ground, of any shape.

They imitate what makes real ones hard: sizes from 24 to some hundred pixels, defocus, animals that lost their
antennae or lie half outside the frame, the same animal in neighbouring frames, uneven classes, a few wrong labels.
Everything follows from the seed.
"""

import csv
import math
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

Rng = np.random.Generator

# How often each class occurs; the last is rare on purpose, and so small that it will be hard to learn.
SHARES = {
    "detritus": 0.23,
    "fecal_pellet": 0.18,
    "Pseudo-nitzschia": 0.15,
    "Calanoida": 0.14,
    "Detonula_Cerataulina_Lauderia": 0.10,
    "Acantharia": 0.08,
    "Hydromedusae": 0.06,
    "Appendicularia_house": 0.05,
    "Tomopteris": 0.01,
}
# What a tired person takes one class for.
MISTAKEN = {
    "detritus": "fecal_pellet",
    "fecal_pellet": "detritus",
    "Pseudo-nitzschia": "Detonula_Cerataulina_Lauderia",
    "Detonula_Cerataulina_Lauderia": "Pseudo-nitzschia",
    "Appendicularia_house": "detritus",
    "Acantharia": "detritus",
}
WRONG = 0.03
DEPLOYMENTS = {
    "M1_spring": (4, "spring"),
    "M1_summer": (7, "summer"),
    "MARS_summer": (8, "summer"),
    "M1_autumn": (10, "autumn"),
}


@dataclass(frozen=True)
class Roi:
    """One drawn image and what is known about it; `true_label` is what was drawn, `label` what a person said."""

    file: str
    label: str
    true_label: str
    deployment: str
    captured_at: str
    capture_day: str
    season: str
    depth_m: float
    elemental_id: str


def generate(folder: Path, count: int = 1200, seed: int = 51) -> list[Roi]:
    """Draws `count` images into `folder` and writes `rois.csv` beside them.

    Returns:
        one row per image, in the order of capture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rois: list[Roi] = []
    for index, (label, frames) in enumerate(_animals(rng, count)):
        rois += _capture(folder, rng, index, label, frames, seed)
    with (folder / "rois.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Roi)])
        table.writeheader()
        table.writerows(asdict(roi) for roi in rois)
    return rois


def draw(label: str, animal_seed: int, frame: int = 0) -> np.ndarray:
    """One image of an animal of class `label`: uint8 RGB (H, W, 3); frames of one seed show the same animal."""
    shape = np.random.default_rng([animal_seed, 0])
    view = np.random.default_rng([animal_seed, 1, frame])
    # Most are small: a median of some 120 pixels, up to about 500.
    side = int(np.clip(math.exp(shape.normal(4.75, 0.6)), 40, 520))
    canvas = np.zeros((side, side), np.uint8)
    tint = SHAPES[label](canvas, shape)
    return _photograph(canvas, tint, shape, view)


def _animals(rng: Rng, count: int) -> list[tuple[str, int]]:
    """Class and number of frames of each animal, shuffled; the frames add up to `count`."""
    animals = []
    for label, share in SHARES.items():
        left = max(8, round(share * count)) if label != "detritus" else 0
        while left > 0:
            frames = min(left, int(rng.choice([1, 2, 3], p=[0.75, 0.17, 0.08])))
            animals.append((label, frames))
            left -= frames
    rest = max(0, count - sum(frames for _, frames in animals))
    animals += [("detritus", 1)] * rest
    return [animals[i] for i in rng.permutation(len(animals))]


def _capture(folder: Path, rng: Rng, index: int, label: str, frames: int, seed: int) -> list[Roi]:
    """Draws the frames of one animal, seconds apart at one place."""
    deployment = str(rng.choice(list(DEPLOYMENTS)))
    month, season = DEPLOYMENTS[deployment]
    day = datetime(2024, month, 1 + int(rng.integers(0, 12)), tzinfo=UTC)
    when = day + timedelta(seconds=int(rng.integers(0, 86_000)))
    depth = round(float(rng.gamma(3.0, 18.0)), 1)
    said = MISTAKEN.get(label, label) if rng.random() < WRONG else label
    rois = []
    for frame in range(frames):
        moment = when + timedelta(seconds=frame)
        name = f"{deployment}-{moment:%Y%m%dT%H%M%S}-{index:05d}-{frame}.png"
        image = draw(label, seed * 1_000_003 + index, frame)
        cv2.imwrite(str(folder / name), image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        # Some ROIs have not reached the database of record yet.
        known = rng.random() >= 0.04
        identity = str(uuid.UUID(bytes=rng.bytes(16), version=4)) if known else ""
        rois.append(Roi(name, said, label, deployment, moment.isoformat(), f"{day:%Y-%m-%d}", season, depth, identity))
    return rois


# --- drawing: coordinates are in units of half an animal's length, around (0, 0), the long axis along x ---


def _pixels(canvas: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit coordinates as fixed-point pixels with 4 fractional bits, as OpenCV takes them."""
    return np.rint((np.asarray(points) * 0.40 + 0.5) * canvas.shape[0] * 16).astype(np.int32)


def _fill(canvas: np.ndarray, points: np.ndarray, value: float) -> None:
    cv2.fillPoly(canvas, [_pixels(canvas, points)], int(255 * value), cv2.LINE_AA, 4)


def _line(canvas: np.ndarray, points: np.ndarray, value: float, width: float = 0.02, closed: bool = False) -> None:
    thickness = max(1, round(width * 0.40 * canvas.shape[0]))
    cv2.polylines(canvas, [_pixels(canvas, points)], closed, int(255 * value), thickness, cv2.LINE_AA, 4)


def _oval(x: float, y: float, a: float, b: float, turn: float = 0.0, power: float = 2.0, n: int = 48) -> np.ndarray:
    """Outline of a superellipse with half axes `a`, `b`; `power` above 2 squares it."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    u = a * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power)
    v = b * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)


def _lumpy(rng: Rng, radius: float, rough: float, n: int = 72) -> np.ndarray:
    """A closed outline with random bumps of several wave lengths."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    r = np.ones(n)
    for k in range(2, 11):
        r += rough * rng.normal() / k**0.7 * np.cos(k * t + rng.uniform(0, 6.3))
    r = radius * np.clip(r, 0.25, None)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def _curve(start: tuple[float, float], angle: float, length: float, bend: float, n: int = 16) -> np.ndarray:
    """A line that leaves `start` at `angle` and turns by `bend` radians over its length."""
    turns = angle + bend * np.linspace(0, 1, n)
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / n
    return np.asarray(start) + np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])


def _pseudo_nitzschia(canvas: np.ndarray, rng: Rng) -> float:
    """Needle-shaped cells in a chain, their tips overlapping."""
    cells = int(rng.integers(1, 6))
    half = 1.15 / cells
    width = rng.uniform(0.022, 0.045) * (1.6 if cells == 1 else 1)
    spine = _curve((-1, 0), -0.5 * (bend := rng.normal(0, 0.25)), 2, bend, n=2 * cells)
    for i in range(cells):
        (x, y), ahead = spine[2 * i + 1], spine[2 * i + 2] - spine[2 * i]
        side = width * 1.5 * (-1) ** i
        _fill(canvas, _oval(x, y + side, half, width, math.atan2(ahead[1], ahead[0]), 1.5), rng.uniform(0.55, 0.9))
    return 0.25


def _detonula(canvas: np.ndarray, rng: Rng) -> float:
    """A chain of cylinders, with gaps; walls brighter than what they hold."""
    cells = int(rng.integers(2, 8))
    height = rng.uniform(0.10, 0.2)
    spine = _curve((-1, 0), -0.5 * (bend := rng.normal(0, 0.35)), 2, bend, n=2 * cells)
    for i in range(cells):
        (x, y), ahead = spine[2 * i + 1], spine[2 * i + 2] - spine[2 * i]
        cell = _oval(x, y, 0.92 / cells * rng.uniform(0.75, 1), height, math.atan2(ahead[1], ahead[0]), 5)
        _fill(canvas, cell, rng.uniform(0.25, 0.5))
        _line(canvas, cell, rng.uniform(0.6, 0.9), 0.025, closed=True)
    return 0.45


def _copepod(canvas: np.ndarray, rng: Rng) -> float:
    """A drop-shaped body, a jointed tail, two long antennae, which many have lost."""
    fat = rng.uniform(0.20, 0.34)
    body = _oval(0.15, 0, 0.55, fat, 0, 1.9)
    tail = _curve((-0.35, 0), math.pi + rng.normal(0, 0.2), rng.uniform(0.35, 0.55), rng.normal(0, 0.3))
    _line(canvas, tail, 0.6, 0.09)
    for fork in (-0.4, 0.4):
        _line(canvas, _curve(tuple(tail[-1]), math.pi + fork, 0.18, 0), 0.5, 0.02)
    for side in (-1, 1):
        if rng.random() < 0.75:
            reach = rng.uniform(0.5, 1.0)
            start = (0.6, side * 0.08)
            _line(
                canvas, _curve(start, side * rng.uniform(1.0, 1.9), reach, side * rng.uniform(-0.2, 0.9)), 0.75, 0.022
            )
        for leg in range(int(rng.integers(0, 4))):
            _line(canvas, _curve((0.3 - 0.15 * leg, side * fat * 0.7), side * 1.8, 0.25, side * 0.4), 0.45, 0.02)
    _fill(canvas, body, rng.uniform(0.35, 0.55))
    _line(canvas, body, 0.8, 0.03, closed=True)
    _fill(canvas, _oval(0.1, 0, 0.3, fat * 0.4), rng.uniform(0.6, 0.95))
    return 0.75


def _acantharia(canvas: np.ndarray, rng: Rng) -> float:
    """Spines out of one centre; in some they are short, and a halo is left."""
    core = rng.uniform(0.15, 0.4)
    short = rng.random() < 0.25
    spines = int(rng.integers(8, 20))
    _fill(canvas, _lumpy(rng, core * 1.5, 0.06), 0.22)
    for turn in np.linspace(0, 2 * np.pi, spines, endpoint=False) + rng.normal(0, 0.08, spines):
        reach = core * 1.6 if short else rng.uniform(0.7, 1.0)
        _line(canvas, _curve((0, 0), turn, reach, 0), rng.uniform(0.45, 0.8), 0.022)
    _fill(canvas, _lumpy(rng, core, 0.05), rng.uniform(0.5, 0.8))
    return 0.4


def _fecal_pellet(canvas: np.ndarray, rng: Rng) -> float:
    """A dense rod with round or torn ends, straight or a little bent."""
    width = rng.uniform(0.12, 0.38)
    spine = _curve((-0.9 + width, 0), -0.5 * (bend := rng.normal(0, 0.5)), 1.8 - 2 * width, bend, n=24)
    for x, y in spine:
        _fill(canvas, _oval(x, y, width, width * rng.uniform(0.9, 1.08), n=20), rng.uniform(0.5, 0.75))
    if rng.random() < 0.3:
        _fill(canvas, _lumpy(rng, width * 1.2, 0.12) + spine[-1], 0.55)
    return 0.9


def _medusa(canvas: np.ndarray, rng: Rng) -> float:
    """A clear bell with a bright rim, canals, and tentacles on one side or none."""
    open_ = rng.uniform(0.65, 1.0)
    bell = _oval(0.2, 0, 0.6 * open_, 0.62, 0, rng.uniform(2.0, 2.6))
    for y in np.linspace(-0.45, 0.45, int(rng.integers(0, 9))):
        reach = rng.uniform(0.3, 0.9)
        _line(canvas, _curve((-0.25, y), math.pi + rng.normal(0, 0.25), reach, rng.normal(0, 0.8)), 0.5, 0.018)
    _fill(canvas, bell, rng.uniform(0.10, 0.22))
    for turn in np.arange(4) * math.pi / 2 + rng.uniform(0, 1):
        _line(canvas, _curve((0.2, 0), turn, 0.5 * open_, 0), 0.4, 0.03)
    _line(canvas, bell, rng.uniform(0.6, 0.9), 0.05, closed=True)
    _fill(canvas, _oval(0.2, 0, 0.14, 0.12), rng.uniform(0.5, 0.85))
    return 0.35


def _house(canvas: np.ndarray, rng: Rng) -> float:
    """A thin lobed bubble with a mesh in it, and what has stuck to it."""
    outline = _lumpy(rng, 0.75, 0.10)
    _fill(canvas, outline, rng.uniform(0.08, 0.18))
    for lobe in (-1, 1):
        for turn in np.linspace(-0.7, 0.7, int(rng.integers(4, 8))):
            _line(
                canvas, _curve((-0.1, lobe * 0.08), lobe * (1.2 + turn), 0.5, lobe * 0.8), rng.uniform(0.3, 0.5), 0.015
            )
    _line(canvas, outline, rng.uniform(0.35, 0.6), 0.02, closed=True)
    for spot in rng.uniform(-0.5, 0.5, (int(rng.integers(0, 12)), 2)):
        _fill(canvas, _lumpy(rng, rng.uniform(0.03, 0.1), 0.1) + spot, rng.uniform(0.4, 0.8))
    return 0.5


def _detritus(canvas: np.ndarray, rng: Rng) -> float:
    """A loose heap of flakes and fibres, now compact, now stringy."""
    long = rng.uniform(0.3, 1.0)
    for _ in range(int(rng.integers(5, 30))):
        spot = rng.normal(0, 0.38, 2) * (1, long)
        _fill(canvas, _lumpy(rng, rng.uniform(0.06, 0.3), 0.16) + spot, rng.uniform(0.2, 0.75))
    for _ in range(int(rng.integers(0, 8))):
        spot = rng.normal(0, 0.3, 2) * (1, long)
        _line(canvas, _curve(tuple(spot), rng.uniform(0, 6.3), rng.uniform(0.2, 0.8), rng.normal(0, 1.5)), 0.5, 0.018)
    return 0.8


def _tomopteris(canvas: np.ndarray, rng: Rng) -> float:
    """A worm with a paddle on both sides of each segment."""
    spine = _curve((-1, 0), -0.5 * (bend := rng.normal(0, 0.9)), 2, bend, n=26)
    for i in range(2, 24, 2):
        ahead = spine[i + 1] - spine[i - 1]
        for side in (-1, 1):
            turn = math.atan2(ahead[1], ahead[0]) + side * 1.7
            _line(canvas, _curve(tuple(spine[i]), turn, 0.32 * (1 - i / 34), side * 0.3), 0.55, 0.05)
    _line(canvas, spine, 0.7, 0.10)
    return 0.4


# Each draws white on black and returns how yellow its class looks (0 to 1).
SHAPES: dict[str, Callable[[np.ndarray, Rng], float]] = {
    "detritus": _detritus,
    "fecal_pellet": _fecal_pellet,
    "Pseudo-nitzschia": _pseudo_nitzschia,
    "Calanoida": _copepod,
    "Detonula_Cerataulina_Lauderia": _detonula,
    "Acantharia": _acantharia,
    "Hydromedusae": _medusa,
    "Appendicularia_house": _house,
    "Tomopteris": _tomopteris,
}


def _photograph(canvas: np.ndarray, tint: float, shape: Rng, view: Rng) -> np.ndarray:
    """What the camera makes of a drawing: turned, tilted, textured, defocused, coloured, cut out, grainy."""
    side = canvas.shape[0]
    centre = side / 2
    turn = cv2.getRotationMatrix2D((centre, centre), shape.uniform(0, 360) + view.normal(0, 8), 1)
    turn[:, :2] = turn[:, :2] @ np.diag([1, shape.uniform(0.75, 1.0)])  # seen at an angle
    turn[:, 2] = centre - turn[:, :2] @ (centre, centre)
    light = cv2.warpAffine(canvas, turn, (side, side), flags=cv2.INTER_LINEAR).astype(np.float32) / 255

    coarse, fine = _clouds(shape, side, max(3, side // 18)), _clouds(shape, side, max(6, side // 5))
    light *= 0.35 + 0.5 * coarse + 0.5 * fine
    defocus = float(np.clip(view.lognormal(-0.3, 0.75), 0.3, 5.0)) * side / 130
    light = cv2.GaussianBlur(light, (0, 0), max(0.35, defocus))

    light, offset = _cut_out(light, view)
    brightness = view.uniform(0.55, 1.25)
    warmth = tint * 0.5 + view.normal(0, 0.12)
    shift = view.normal(0, 0.5, 2)  # colour fringes: the channels lie a little apart
    channels = []
    for sign, gain in ((1, 1.0), (0, 1 - 0.18 * warmth), (-1, 1 - 0.55 * max(0, warmth))):
        move = np.float32([[1, 0, sign * shift[0]], [0, 1, sign * shift[1]]])
        channels.append(cv2.warpAffine(light, move, light.shape[::-1]) * gain)
    rgb = np.stack(channels, axis=2) * brightness + offset
    grain = view.normal(0, 1, rgb.shape[:2])[..., None] + 0.5 * view.normal(0, 1, rgb.shape)
    rgb += grain * (0.018 + 0.07 * np.sqrt(np.clip(rgb, 0, 1)))
    return np.clip(rgb * 235, 0, 255).astype(np.uint8)


def _clouds(rng: Rng, side: int, cells: int) -> np.ndarray:
    """Smooth noise between 0 and 1 with about `cells` bumps across."""
    grid = rng.random((cells, cells), dtype=np.float32)
    return np.clip(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def _cut_out(light: np.ndarray, view: Rng) -> tuple[np.ndarray, float]:
    """The box around what is bright, with a margin; some lie half outside. Also the haze of the water there."""
    rows, columns = np.where(light > 0.12)
    if len(rows) < 4:
        rows, columns = np.where(light >= np.quantile(light, 0.9))
    margin = int(view.uniform(2, 0.08 * light.shape[0] + 4))
    top, bottom = max(0, rows.min() - margin), rows.max() + 1 + margin
    left, right = max(0, columns.min() - margin), columns.max() + 1 + margin
    if view.random() < 0.12:
        left += int((right - left) * view.uniform(0.15, 0.4))
    box = light[top:bottom, left:right]
    if min(box.shape) < 16:
        box = cv2.copyMakeBorder(box, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(box), float(view.gamma(1.5, 0.012))
