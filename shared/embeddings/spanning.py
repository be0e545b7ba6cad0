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

import numpy as np

from ..errors import InputError
from ..runs import Monitor
from .lightest import Graph, nearest, scan, unit_of
from .lightest import Stopped as Stopped  # whoever asks for a tree may be told to stop


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
    graph = nearest(vectors, min(min_samples, rows - 1), alpha, device, monitor)
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


def _parts(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[start : start + 4096] for start in range(0, len(vectors), 4096))


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


def _boruvka(graph: Graph, monitor: Monitor) -> np.ndarray:
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
        scan(graph, np.flatnonzero(doubted & (component != largest)), component, monitor, f"Joining, pass {passes}")
    return np.array(edges, np.int64)


def _outgoing(graph: Graph, component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _weighed(vectors: np.ndarray, edges: np.ndarray, graph: Graph, min_samples: int) -> tuple[np.ndarray, np.ndarray]:
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
        difference = unit_of(vectors[left[here]]) - unit_of(vectors[right[here]])
        apart[here] = np.einsum("ij,ij->i", difference, difference) / 2
    return apart
