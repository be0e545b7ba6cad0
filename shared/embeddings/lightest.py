"""The lightest edges out of components of rows, found in tiles by matrix products.

The distances of all pairs are computed here and nowhere kept: of each row's only the lightest remain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..runs import Monitor

if TYPE_CHECKING:
    import torch

LISTED = 16  # edges kept for each row
MOST_TIED = 512  # edges as heavy as a row's core distance that are looked at: more than that, only the nearest
TILE_ROWS, TILE_COLUMNS = 512, 4_096  # 8 MiB of similarities at a time, about what stays in the caches
NEAR = 1e-3  # cosine distances below this one are computed again from differences


class Stopped(Exception):
    """The monitor asked for an end; half a tree is of no use, so there is no result."""


@dataclass
class Graph:
    """The rows and what is known of the edges between them; arrays have a row for each vector.

    Attributes:
        unit: vectors of length one, float32 (D, N), a column each, on the device that computes
        core: core distances, float32 (N,)
        nearest: the row whose distance is the core distance, int (N,)
        alpha: what distances are divided by
        ends: the listed edges' other ends, int32 (N, LISTED), lightest first; -1 where there is none
        weights: their weights, float32, inf where there is none
        bound: every edge that leaves the row's component and is not listed weighs at least this
        tied: int64 (T, 2), edges that weigh no more than the core distance of their first end, but for rounding
    """

    unit: torch.Tensor
    core: np.ndarray
    nearest: np.ndarray
    alpha: float
    ends: np.ndarray
    weights: np.ndarray
    bound: np.ndarray
    tied: np.ndarray


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The rows scaled to length one, float32; lengths are taken in float64, so that none overflows."""
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), 4096):
        unit[start : start + 4096] = unit_of(vectors[start : start + 4096])
    return unit


def unit_of(vectors: np.ndarray) -> np.ndarray:
    """A few rows scaled to length one, float64."""
    part = vectors.astype(np.float64)
    part /= np.abs(part).max(axis=1, keepdims=True)  # the squares of very small or large values would be 0 or inf
    return part / np.linalg.norm(part, axis=1, keepdims=True)


def place(device: str) -> torch.device:
    """The torch device that a parameter `device` means.

    Raises:
        InputError: there is no such device here
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device '{device}': choose auto, cpu or cuda.") from error
    if found.type == "cpu" or (found.type == "cuda" and (found.index or 0) < torch.cuda.device_count()):
        return found
    raise InputError(f"There is no device '{device}' on this worker: choose auto or cpu, or another worker.")


def nearest(vectors: np.ndarray, min_samples: int, alpha: float, device: str, monitor: Monitor) -> Graph:
    """Lists of the nearest rows, which give the core distances, then ordered by mutual reachability."""
    import torch

    rows = len(vectors)
    length = min(max(LISTED, min_samples), rows - 1)
    nothing = np.zeros(rows, np.float32)
    graph = Graph(
        unit=torch.from_numpy(unit_rows(vectors)).to(place(device)).T.contiguous(),
        core=nothing,
        nearest=np.arange(rows),
        alpha=1.0,
        ends=np.full((rows, length), -1, np.int32),
        weights=np.full((rows, length), np.inf, np.float32),
        bound=nothing.copy(),
        tied=np.empty((0, 2), np.int64),
    )
    scan(graph, np.arange(rows), np.arange(rows), monitor, "Comparing vectors")
    if min_samples:
        graph.core = graph.weights[:, min_samples - 1].copy()
        graph.nearest = graph.ends[:, min_samples - 1].astype(np.int64)
    graph.alpha = alpha
    graph.weights /= np.float32(alpha)
    # What is not listed is at least as far as the last one listed; with nothing left to list, there is no bound.
    graph.bound = np.maximum(graph.core, graph.weights[:, -1]) if length < rows - 1 else np.full(rows, np.inf)
    np.maximum(graph.weights, np.maximum(graph.core[:, None], graph.core[graph.ends]), out=graph.weights)
    order = np.argsort(graph.weights, axis=1, kind="stable")  # of equal weights the nearer row stays first
    graph.ends = np.take_along_axis(graph.ends, order, axis=1)
    graph.weights = np.take_along_axis(graph.weights, order, axis=1)
    if min_samples:
        graph.tied = _ties(graph, monitor)
    return graph


def _ties(graph: Graph, monitor: Monitor) -> np.ndarray:
    """Edges that weigh no more than the core distance of their first end, int64 (T, 2), a few too many."""
    limit = graph.core * np.float32(1 + 1e-4)
    row, at = np.nonzero(graph.weights <= limit[:, None])
    pairs = [np.stack([row, graph.ends[row, at]], axis=1)]
    # Where the whole list is as near as that, there may be more; their lists are made again, longer.
    full = np.flatnonzero(graph.bound <= limit)
    length, alone = min(MOST_TIED, len(graph.core) - 1), np.arange(len(graph.core))
    for some, ends, weights in _compared(graph, full, alone, length, monitor, "Comparing dense places"):
        row, at = np.nonzero(weights <= limit[some, None])
        pairs.append(np.stack([some[row], ends[row, at]], axis=1))
    return np.concatenate(pairs)


def scan(graph: Graph, rows: np.ndarray, component: np.ndarray, monitor: Monitor, what: str) -> None:
    """Compares the given rows with all others and lists the lightest edges out of their components."""
    for some, ends, weights in _compared(graph, rows, component, graph.ends.shape[1], monitor, what):
        graph.ends[some], graph.weights[some] = ends, weights
    # Edges beyond a full list weigh no less than its last; a list that is not full holds all there are.
    graph.bound[rows] = graph.weights[rows, -1]


def _compared(
    graph: Graph, rows: np.ndarray, component: np.ndarray, length: int, monitor: Monitor, what: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Some rows at a time, with the ends and weights of their lightest edges out of their components."""
    import torch

    on = graph.unit.device
    parts = torch.from_numpy(component.astype(np.int32)).to(on)
    core = torch.from_numpy(graph.core).to(on)

    def compare(some: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ends, weights = _lightest(graph, torch.from_numpy(some).to(on), parts, core, length)
        return some, ends.cpu().numpy(), weights.cpu().numpy()

    # A thread for each core that works by itself: threads that share each step wait for one another, for long where
    # other programs want the cores too, and torch may have been left but one (Ultralytics sees to that).
    threads = len(os.sched_getaffinity(0)) if on.type == "cpu" else 1
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        done = 0
        for result in pool.map(compare, [rows[at : at + TILE_ROWS] for at in range(0, len(rows), TILE_ROWS)]):
            if monitor.stopping():
                raise Stopped
            yield result
            done += len(result[0])
            monitor.progress(done, len(rows), what)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _lightest(
    graph: Graph, some: torch.Tensor, parts: torch.Tensor, core: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends and weights of the lightest edges of some rows out of their components, lightest first."""
    import torch

    unit = graph.unit[:, some].T.contiguous()
    # Passing over a tile costs nearly as much as the product, so all but the two steps that need every pair
    # waits until the list is made: the larger of distance and core is the lower of two similarities.
    limit = 1 - core * graph.alpha
    best = torch.empty((len(some), 0), device=unit.device)
    ends = torch.empty((len(some), 0), dtype=torch.int64, device=unit.device)
    for left in range(0, len(parts), TILE_COLUMNS):
        here = slice(left, min(left + TILE_COLUMNS, len(parts)))
        tile = _cosines(unit, graph.unit[:, here])
        torch.minimum(tile, limit[here], out=tile)
        tile.masked_fill_(parts[some, None] == parts[here], -torch.inf)
        found, where = torch.topk(tile, min(length, tile.shape[1]), dim=1)
        best, ends = torch.cat([best, found], dim=1), torch.cat([ends, where + left], dim=1)
        best, order = torch.topk(best, min(length, best.shape[1]), dim=1)
        ends = ends.gather(1, order)
    apart = (1 - best).clamp_(min=0)
    near = (apart < NEAR).nonzero(as_tuple=True)
    for start in range(0, len(near[0]), TILE_COLUMNS):
        i, j = (index[start : start + TILE_COLUMNS] for index in near)
        apart[i, j] = (unit[i] - graph.unit[:, ends[i, j]].T).square_().sum(dim=1).div_(2)
    weights = torch.maximum(torch.maximum(apart / graph.alpha, core[ends]), core[some, None])
    weights, order = torch.sort(weights.masked_fill_(best.isinf(), torch.inf), dim=1, stable=True)
    ends = torch.where(weights.isinf(), -1, ends.gather(1, order))
    return ends.int(), weights


def _cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The products of rows (A, D) and columns (D, B), float32."""
    import torch

    if rows.device.type == "cpu":  # the same by the library behind convolutions: on AMD up to three times as fast
        return torch.nn.functional.conv1d(columns[None], rows[:, :, None])[0]
    return rows @ columns
