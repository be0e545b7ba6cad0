"""Clusters of vectors as the lab makes them (MBARI's sdcat), without the square matrix of distances.

HDBSCAN (Campello et al., 2013; leaf selection) on cosine distances; the most probable member of each cluster
is its exemplar; noise joins the nearest exemplar where it is similar enough; clusters whose exemplars are
mutually that similar (complete linkage) become one. Each stage is a function, `cluster` is all of them.
Nothing is random, so there is no seed: the same vectors give the same clusters on the same machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..runs import Monitor
from .lightest import Stopped, place, unit_rows
from .spanning import groups_at, minimum_spanning_tree, unusable

TILE_ROWS, TILE_COLUMNS = 512, 4_096
# HDBSCAN's densities are 1 / distance: the distance of identical images, so that theirs is a number.
NO_DISTANCE = 1e-12
ROUNDING = 1e-6  # a bound that a cosine reaches but for float32's rounding counts as reached
MOST_LINKED = 20_000  # exemplars whose distances are held at one time: 1.6 GB


@dataclass(frozen=True)
class Clusters:
    """What rows belong together.

    Attributes:
        labels: int64 (N,), the number of each row's cluster, -1 for noise; numbered from 0 without gaps, the
            largest cluster first, of equally large ones that with the first row
        probabilities: float32 (N,), 0 to 1: HDBSCAN's membership probability, 0 for noise; a row that joined
            an exemplar afterwards, from 0 at `min_similarity` to 1 for one like the exemplar
        exemplars: int64 (K,), the row that stands for each cluster
        outlier: float32 (N,), 0 to 1: the cosine distance to the nearest exemplar of any cluster, 1 at most;
            1 for all where there is no cluster
        found: number of clusters before merging
        noise: number of noise rows before any joined
        joined: number of noise rows that joined a cluster
        unusable: int64, rows without a direction (all zero, or not finite): noise with outlier 1
    """

    labels: np.ndarray
    probabilities: np.ndarray
    exemplars: np.ndarray
    outlier: np.ndarray
    found: int
    noise: int
    joined: int
    unusable: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """The number of rows of each cluster, int64 (K,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.exemplars))


def cluster(
    vectors: np.ndarray,
    *,
    min_cluster_size: int = 3,
    min_samples: int = 1,
    alpha: float = 1.1,
    min_similarity: float = 0.9,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Clusters:
    """Groups vectors by their density under cosine distance.

    Args:
        vectors: floating (N, D); rows that are all zero or not finite are set aside as noise
        min_cluster_size: the fewest rows that make a cluster, 2 or more
        min_samples: the nearest other row that sets a row's density, 1 or more: higher leaves more as noise
        alpha: hdbscan's `alpha`; above 1, distances weigh less than densities
        min_similarity: cosine from which noise joins an exemplar, and exemplars one another; above 1 neither
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<n>`
        monitor: is told the progress, and asked whether to stop

    Raises:
        InputError: a parameter out of range, or no table of numbers
        lightest.Stopped: the monitor asked for an end
    """
    _check(min_cluster_size, min_samples, min_similarity)
    monitor = monitor or Monitor()
    vectors = np.asarray(vectors)
    if vectors.ndim == 2 and np.issubdtype(vectors.dtype, np.floating):
        bad = unusable(vectors)
    else:
        bad = np.zeros(0, bool)  # the tree says what is wrong with it
    usable = vectors[~bad] if bad.any() else vectors
    edges, weights = minimum_spanning_tree(usable, min_samples=min_samples, alpha=alpha, device=device, monitor=monitor)
    labels, probabilities = dense(edges, weights, len(usable), min_cluster_size)
    exemplars = most_probable(labels, probabilities)
    nearest, similarity = nearest_exemplars(usable, exemplars, device=device, monitor=monitor)
    joining = (labels < 0) & (similarity >= min_similarity)
    above = np.clip((similarity - min_similarity) / max(1 - min_similarity, ROUNDING), 0, 1)
    everyone = np.where(joining, nearest, labels)
    into = merged(usable[exemplars], min_similarity, device=device)
    numbers, standing = _numbered(everyone, into, exemplars)
    return Clusters(
        labels=_spread(numbers, bad, -1),
        probabilities=_spread(np.where(joining, above, probabilities).astype(np.float32), bad, 0),
        exemplars=np.flatnonzero(~bad)[standing],
        outlier=_spread(np.clip(1 - similarity, 0, 1).astype(np.float32), bad, 1),
        found=len(exemplars),
        noise=int((labels < 0).sum() + bad.sum()),
        joined=int(joining.sum()),
        unusable=np.flatnonzero(bad),
    )


def _check(min_cluster_size: int, min_samples: int, min_similarity: float) -> None:
    if min_cluster_size < 2:
        raise InputError(f"min_cluster_size is {min_cluster_size}; a cluster has at least 2 members.")
    if min_samples < 1:
        raise InputError(f"min_samples is {min_samples}; it must be 1 or more.")
    if not min_similarity > 0:
        raise InputError(f"min_similarity is {min_similarity}; it is a cosine and must be more than 0.")


def dense(edges: np.ndarray, weights: np.ndarray, rows: int, min_cluster_size: int) -> tuple[np.ndarray, np.ndarray]:
    """HDBSCAN's leaf clusters of a spanning tree of mutual reachability.

    Scikit-learn builds the hierarchy. It is given a tree in place of a matrix of distances: of the smallest
    weight at a row it makes the core distance, and that changes no weight of the tree. Rows that nowhere fall
    apart into two clusters are noise, all of them.

    Core distances make many weights equal, and HDBSCAN leaves open in which order those merge, though the
    clusters depend on it: hdbscan agrees with itself on the same rows in another order to about 0.93
    (adjusted Rand index, 5,109 real vectors). The order of the edges decides here.

    Args:
        edges: of `minimum_spanning_tree`, lightest first
        weights: of the same
        rows: number of vectors
        min_cluster_size: the fewest rows that make a cluster

    Returns:
        labels int64 (rows,), -1 for noise, and membership probabilities float64 (rows,)
    """
    if rows < min_cluster_size or rows < 2:
        return np.full(rows, -1), np.zeros(rows)
    from scipy.sparse import coo_array, csr_matrix
    from sklearn.cluster import HDBSCAN

    # No two weights are equal from here on, so that no further sort changes the order of the edges.
    weights = np.maximum(weights, NO_DISTANCE) * (1 + np.arange(1, rows) * 1e-15)
    half = coo_array((weights, (edges[:, 0], edges[:, 1])), shape=(rows, rows))
    scan = HDBSCAN(
        metric="precomputed",
        min_cluster_size=min_cluster_size,
        min_samples=1,
        cluster_selection_method="leaf",
        copy=False,
    ).fit(csr_matrix(half + half.T))
    return scan.labels_.astype(np.int64), scan.probabilities_


def most_probable(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The row with the highest probability of each cluster, the first of equal ones; int64 (K,)."""
    # In float32: what differs less is equal but for rounding.
    order = np.lexsort((np.arange(len(labels)), -probabilities.astype(np.float32), labels))
    order = order[labels[order] >= 0]
    return order[np.unique(labels[order], return_index=True)[1]]


def nearest_exemplars(
    vectors: np.ndarray, exemplars: np.ndarray, *, device: str = "auto", monitor: Monitor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each row the number of the most similar exemplar, int64 (N,), and the cosine, float32 (N,).

    Where there are no exemplars: -1, and a cosine of 0.
    """
    import torch

    monitor = monitor or Monitor()
    nearest, similarity = np.full(len(vectors), -1), np.zeros(len(vectors), np.float32)
    if not len(exemplars):
        return nearest, similarity
    chosen = torch.from_numpy(unit_rows(vectors[exemplars])).to(place(device))
    for start in range(0, len(vectors), TILE_ROWS):
        if monitor.stopping():
            raise Stopped
        here = slice(start, start + TILE_ROWS)
        some = torch.from_numpy(unit_rows(vectors[here])).to(chosen.device)
        # A tile's best, then the best of the tiles: there may be as many exemplars as a third of the rows.
        tiles = [(some @ chosen[left : left + TILE_COLUMNS].T).max(dim=1) for left in _starts(len(chosen))]
        best, tile = torch.stack([t.values for t in tiles]).max(dim=0)
        where = torch.stack([t.indices + left for t, left in zip(tiles, _starts(len(chosen)), strict=True)])
        nearest[here] = where.gather(0, tile[None])[0].cpu().numpy()
        similarity[here] = best.cpu().numpy()
        monitor.progress(min(start + TILE_ROWS, len(vectors)), len(vectors), "Finding the nearest exemplars")
    return nearest, similarity


def _starts(length: int) -> range:
    return range(0, length, TILE_COLUMNS)


def merged(exemplars: np.ndarray, min_similarity: float, *, device: str = "auto") -> np.ndarray:
    """Which clusters are one: complete linkage of their exemplars at a cosine distance of 1 - `min_similarity`.

    Two exemplars can only ever come together where a chain of pairs within the bound leads from one to the
    other, so the linkage is made for each such chain by itself, in place of a square matrix of all.

    Returns:
        int64 (K,), a number for each cluster, the same for those that are one

    Raises:
        InputError: the bound chains together so many clusters that their distances do not fit in memory
    """
    into = np.arange(len(exemplars))
    if min_similarity > 1 or len(exemplars) < 2:
        return into
    edges, weights = minimum_spanning_tree(exemplars, min_samples=0, device=device)
    # A little below the bound: the linkage itself decides.
    chains = groups_at(edges, weights, len(exemplars), min_similarity - ROUNDING)
    order = np.argsort(chains, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(chains[order])) + 1):
        if len(members) > MOST_LINKED:
            raise InputError(
                f"With min_similarity {min_similarity} a chain of {len(members):,} clusters would have to be compared "
                f"pair by pair, and {MOST_LINKED:,} is the most: raise min_similarity or min_cluster_size."
            )
        if len(members) > 1:
            into[members] = members[_complete(exemplars[members], 1 - min_similarity)]
    return into


def _complete(vectors: np.ndarray, bound: float) -> np.ndarray:
    """Complete linkage cut at a cosine distance: for each vector the first of its group."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    # Half the squared distance of unit vectors is their cosine distance, and exact for near ones.
    distances = pdist(unit_rows(vectors).astype(np.float64), "sqeuclidean") / 2
    groups = fcluster(linkage(distances, "complete"), bound + ROUNDING, criterion="distance")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return first[inverse]


def _numbered(labels: np.ndarray, into: np.ndarray, exemplars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels after merging, the largest cluster first, and exemplars: of merged clusters that of the largest."""
    kept = labels >= 0
    before = np.bincount(labels[kept], minlength=len(into))
    _, target = np.unique(into, return_inverse=True)
    sizes = np.bincount(target, before).astype(int)
    first = np.full(len(sizes), len(labels))
    np.minimum.at(first, target[labels[kept]], np.flatnonzero(kept))
    order = np.lexsort((first, -sizes))
    number = np.argsort(order)[target]
    result = np.full(len(labels), -1)
    result[kept] = number[labels[kept]]
    largest = np.lexsort((exemplars, -before, number))
    return result, exemplars[largest][np.unique(number[largest], return_index=True)[1]]


def _spread(values: np.ndarray, bad: np.ndarray, filler: float) -> np.ndarray:
    """The values of the usable rows, and the filler for the others."""
    whole = np.full(len(bad), filler, values.dtype)
    whole[~bad] = values
    return whole
