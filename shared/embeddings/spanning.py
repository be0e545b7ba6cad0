"""The minimum spanning tree of vectors under cosine distance, exact and without the square matrix.

Density clustering (HDBSCAN) and near-duplicate groups (single linkage) need no more of the distances than
the minimum spanning tree of a graph in which every row is joined to every other. The usual way writes down
all N x N distances. Here each row keeps a short list of the lightest edges that leave its component, found
in tiles by matrix products, and Boruvka's method merges components by those edges. Whatever is not in a
row's list is at least as heavy as its last entry, so that it is known when a component's lightest edge is
in the lists; where it is not, only the rows in doubt are compared with all others again. Memory grows with
N times the length of the lists, time with N x N at worst, as matrix products.

Edges are chosen with float32 products (an error of about 1e-7; of near pairs, whose distance such an error
would drown in, the distance is computed again from differences), and weighed in float64 at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
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
class _Graph:
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


def minimum_spanning_tree(
    vectors: np.ndarray,
    *,
    min_samples: int = 1,
    alpha: float = 1.0,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The tree that joins all rows with the least total weight, by mutual reachability (Campello et al., 2013).

    The weight of an edge is max(core(i), core(j), distance(i, j) / alpha), where the distance is one minus
    the cosine, and core(i) the distance from i to its `min_samples`-th nearest other row, as in the package
    hdbscan. Nothing in it is random.

    Args:
        vectors: (N, D), finite, no row all zero
        min_samples: 0 leaves out the core distances: then it is the tree of single linkage
        alpha: hdbscan's `alpha`, more than 0
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<n>`
        monitor: is told the progress, and asked whether to stop

    Returns:
        edges int64 (N - 1, 2) and their weights float64 (N - 1,), lightest first; which of equally heavy edges
        are in the tree, and in which order, is as with hdbscan on the same machine (see `_as_hdbscan`)

    Raises:
        InputError: vectors that have no direction, or parameters out of range
        Stopped: the monitor asked for an end
    """
    vectors = _checked(vectors, min_samples, alpha)
    monitor = monitor or Monitor()
    rows = len(vectors)
    if rows < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    graph = _nearest(vectors, min(min_samples, rows - 1), alpha, device, monitor)
    edges = _boruvka(graph, monitor)
    return _weighed(vectors, edges, graph, min_samples)


def groups_at(edges: np.ndarray, weights: np.ndarray, rows: int, similarity: float) -> np.ndarray:
    """Groups of rows joined by a chain of pairs that are at least so similar (single linkage).

    Args:
        edges: of `minimum_spanning_tree(..., min_samples=0)`
        weights: of the same
        rows: number of vectors
        similarity: cosine from which on two rows belong together

    Returns:
        int64 (rows,): the number of each row's group; groups are numbered without gaps in the order in which
        they first occur, and a row like no other is a group of its own
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A rounding error must not part identical rows at a similarity of 1.
    kept = edges[weights <= 1 - similarity + 1e-9]
    links = coo_array((np.ones(len(kept), bool), (kept[:, 0], kept[:, 1])), shape=(rows, rows))
    labels = connected_components(links, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def unusable(vectors: np.ndarray) -> np.ndarray:
    """Which rows have no direction, bool (N,): a value that is not finite, or nothing but zeros."""
    return np.concatenate(
        [~np.isfinite(part).all(axis=1) | ~part.any(axis=1) for part in _parts(vectors)] or [np.empty(0, bool)]
    )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The rows scaled to length one, float32; lengths are taken in float64, so that none overflows."""
    unit = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), 4096):
        unit[start : start + 4096] = _unit(vectors[start : start + 4096])
    return unit


def _unit(vectors: np.ndarray) -> np.ndarray:
    part = vectors.astype(np.float64)
    part /= np.abs(part).max(axis=1, keepdims=True)  # the squares of very small or large values would be 0 or inf
    return part / np.linalg.norm(part, axis=1, keepdims=True)


def _parts(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[start : start + 4096] for start in range(0, len(vectors), 4096))


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


def _checked(vectors: np.ndarray, min_samples: int, alpha: float) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise InputError(
            f"Vectors must be a table of decimal numbers, a row each, not {vectors.dtype} {vectors.shape}: "
            "compute the embeddings again."
        )
    if min_samples < 0:
        raise InputError(f"min_samples is {min_samples}; it must be 0 or more.")
    if not (np.isfinite(alpha) and alpha > 0):
        raise InputError(f"alpha is {alpha}; it must be more than 0.")
    bad = np.flatnonzero(unusable(vectors))
    if bad.size:
        raise InputError(
            f"{bad.size:,} of {len(vectors):,} vectors are all zero or not finite, the first in row {bad[0]}: "
            "leave them out, or compute them again."
        )
    return vectors


def _nearest(vectors: np.ndarray, min_samples: int, alpha: float, device: str, monitor: Monitor) -> _Graph:
    """Lists of the nearest rows, which give the core distances, then ordered by mutual reachability."""
    import torch

    rows = len(vectors)
    length = min(max(LISTED, min_samples), rows - 1)
    nothing = np.zeros(rows, np.float32)
    graph = _Graph(
        unit=torch.from_numpy(unit_rows(vectors)).to(place(device)).T.contiguous(),
        core=nothing,
        nearest=np.arange(rows),
        alpha=1.0,
        ends=np.full((rows, length), -1, np.int32),
        weights=np.full((rows, length), np.inf, np.float32),
        bound=nothing.copy(),
        tied=np.empty((0, 2), np.int64),
    )
    _scan(graph, np.arange(rows), np.arange(rows), monitor, "Comparing vectors")
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


def _ties(graph: _Graph, monitor: Monitor) -> np.ndarray:
    """Edges that weigh no more than the core distance of their first end, int64 (T, 2), a few too many."""
    import torch

    limit = graph.core * np.float32(1 + 1e-4)
    row, at = np.nonzero(graph.weights <= limit[:, None])
    pairs = [np.stack([row, graph.ends[row, at]], axis=1)]
    # Where the whole list is as near as that, there may be more; their lists are made again, longer.
    full = np.flatnonzero(graph.bound <= limit)
    length = min(MOST_TIED, len(graph.core) - 1)
    parts, core = (torch.from_numpy(a).to(graph.unit.device) for a in (np.arange(len(graph.core)), graph.core))
    for start in range(0, len(full), TILE_ROWS):
        if monitor.stopping():
            raise Stopped
        some = full[start : start + TILE_ROWS]
        ends, weights = _lightest(graph, torch.from_numpy(some).to(core.device), parts, core, length)
        row, at = np.nonzero(weights.cpu().numpy() <= limit[some, None])
        pairs.append(np.stack([some[row], ends.cpu().numpy()[row, at]], axis=1))
        monitor.progress(start + len(some), len(full), "Comparing dense places")
    return np.concatenate(pairs)


def _scan(graph: _Graph, rows: np.ndarray, component: np.ndarray, monitor: Monitor, what: str) -> None:
    """Compares the given rows with all others and lists the lightest edges out of their components."""
    import torch

    on = graph.unit.device
    parts = torch.from_numpy(component.astype(np.int32)).to(on)
    core = torch.from_numpy(graph.core).to(on)
    for start in range(0, len(rows), TILE_ROWS):
        if monitor.stopping():
            raise Stopped
        some = rows[start : start + TILE_ROWS]
        ends, weights = _lightest(graph, torch.from_numpy(some).to(on), parts, core, graph.ends.shape[1])
        graph.ends[some], graph.weights[some] = ends.cpu().numpy(), weights.cpu().numpy()
        monitor.progress(start + len(some), len(rows), what)
    # Edges beyond a full list weigh no less than its last; a list that is not full holds all there are.
    graph.bound[rows] = graph.weights[rows, -1]


def _lightest(
    graph: _Graph, some: torch.Tensor, parts: torch.Tensor, core: torch.Tensor, length: int
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


def _boruvka(graph: _Graph, monitor: Monitor) -> np.ndarray:
    """The tree's edges, int64 (N - 1, 2), in no order.

    A component's lightest edge to the outside belongs to a minimum spanning tree; of edges equally light
    any one does, and the forest below sees to it that they close no ring.
    """
    rows = len(graph.core)
    forest, passes = list(range(rows)), 0
    edges: list[tuple[int, int]] = []
    component = np.arange(rows)
    while len(edges) < rows - 1:
        first, weight = _outgoing(graph, component)
        lightest = np.full(rows, np.inf, np.float32)
        np.minimum.at(lightest, component, weight)
        doubted = graph.bound < lightest[component]  # an edge not listed might be lighter
        certain = np.ones(rows, bool)
        certain[component[doubted]] = False
        chosen = np.flatnonzero(certain[component] & (weight == lightest[component]) & np.isfinite(weight))
        _, one_each = np.unique(component[chosen], return_index=True)
        if one_each.size:
            ends = graph.ends[chosen, first[chosen]]
            edges += _join(forest, chosen[one_each], ends[one_each])
            component = _roots(forest)
            continue
        # The others merge into the largest component: its own rows need not be looked at.
        largest = np.bincount(component).argmax()
        passes += 1
        _scan(graph, np.flatnonzero(doubted & (component != largest)), component, monitor, f"Joining, pass {passes}")
    return np.array(edges, np.int64)


def _outgoing(graph: _Graph, component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the place in its list, and the weight, of the lightest edge out of its component."""
    out = (component[graph.ends] != component[:, None]) & (graph.ends >= 0)
    first = out.argmax(axis=1)
    here = np.arange(len(first))
    return first, np.where(out[here, first], graph.weights[here, first], np.float32(np.inf))


def _join(forest: list[int], left: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """Joins the trees of the forest that edges lead between; the edges that did so."""
    kept = []
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        x, y = a, b
        while forest[x] != x:
            forest[x] = x = forest[forest[x]]
        while forest[y] != y:
            forest[y] = y = forest[forest[y]]
        if x != y:
            forest[max(x, y)] = min(x, y)
            kept.append((a, b))
    return kept


def _roots(forest: list[int]) -> np.ndarray:
    roots = np.array(forest)
    while not np.array_equal(above := roots[roots], roots):
        roots = above
    return roots


def _weighed(vectors: np.ndarray, edges: np.ndarray, graph: _Graph, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The tree in order of its weights, computed in float64."""
    rows = np.arange(len(vectors))
    core = _distances(vectors, rows, graph.nearest) if min_samples else np.zeros(len(vectors))
    both = np.concatenate([edges, graph.tied])
    apart = _distances(vectors, both[:, 0], both[:, 1]) / graph.alpha
    weights = np.maximum(apart, core[both].max(axis=1))
    keep = weights <= core[both[:, 0]]
    keep[: len(edges)] = True
    return _as_hdbscan(both[keep], weights[keep], len(vectors))


def _as_hdbscan(edges: np.ndarray, weights: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The minimum spanning tree that the package hdbscan finds, of a graph that holds all edges it may choose from.

    Core distances make many edges equally heavy, and clusters depend on which of them are taken and in which
    order they are merged. The package walks from row 0 (Prim): always to the row that can be reached by the
    lightest edge, of several to the first, from the earliest row it can be reached from. Then it sorts by
    weight with numpy's default sort, which is not stable and differs between kinds of processor.
    """
    starts = np.concatenate([edges[:, 0], edges[:, 1]])
    by_start = np.argsort(starts, kind="stable")
    first = np.searchsorted(starts[by_start], np.arange(rows + 1)).tolist()
    ends = np.concatenate([edges[:, 1], edges[:, 0]])[by_start].tolist()
    apart = np.concatenate([weights, weights])[by_start].tolist()
    seen, path, tree, steps = [False] * rows, [], [], []
    reachable = [(0.0, 0, 0)]  # weight, row, place in the path of the row it is reached from
    while reachable:
        weight, row, before = heapq.heappop(reachable)
        if seen[row]:
            continue
        seen[row] = True
        path.append(row)
        tree.append((path[before], row))
        steps.append(weight)
        for at in range(first[row], first[row + 1]):
            if not seen[ends[at]]:
                heapq.heappush(reachable, (apart[at], ends[at], len(path) - 1))
    order = np.argsort(np.array(steps[1:]))
    return np.array(tree[1:], np.int64)[order], np.array(steps[1:])[order]


def _distances(vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine distances of pairs of rows, from differences: 1 - cos = |a - b|^2 / 2, exact for near ones too."""
    apart = np.empty(len(left))
    for start in range(0, len(left), 4096):
        here = slice(start, start + 4096)
        difference = _unit(vectors[left[here]]) - _unit(vectors[right[here]])
        apart[here] = np.einsum("ij,ij->i", difference, difference) / 2
    return apart
