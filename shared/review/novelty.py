"""How far predictions are from everything that has a label: what no label speaks for is worth a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..runs import Monitor
from .spread import CLOSE, COPY, TILE, Rows, nearest, pairs

REFERENCE = 5_000  # labelled rows that all predictions are compared with; what seems far, with all of them
CLOSER = 10_000  # rows that are compared with all labelled ones: more than are ever chosen as novel
MEASURED = 2_000  # labelled rows that say how far apart labelled ones are
USUAL = 0.99  # this share of the labelled ROIs is nearer to another one than what counts as far
FEWEST = 20  # labelled rows below which nothing can be said


@dataclass(frozen=True)
class Novelty:
    """How unlike the labelled ones each row is.

    Attributes:
        distance: cosine distance to the nearest labelled row, float32 (N,); NaN where it is not known. Of rows beyond
            `far` it is that to the nearest of all; of the others at most `far`
        far: the distance from which a row is far: 99 of 100 labelled rows are nearer to another labelled one that is
            no copy of theirs, such as the next frame of the same animal
    """

    distance: np.ndarray
    far: float


def novelty(vectors: Rows, labelled: Rows, seed: int = 51, monitor: Monitor | None = None) -> Novelty | None:
    """Measures how far rows are from the labelled ones, reading a tile of either at a time.

    All rows are compared with a sample of the labelled ones, which can only make them seem farther; the farthest of
    those that seem far, 10,000 at most, are compared with every one. So a million labels cost little more than five
    thousand.

    Args:
        vectors: unit rows (N, D); those that are zero have no known distance
        labelled: unit rows (L, D)
        seed: which labelled rows make up the sample
        monitor: is told of progress, and may stop it: then rows that were not looked at have no known distance

    Returns:
        None with fewer than 20 labelled rows
    """
    monitor, random = monitor or Monitor(), np.random.default_rng(seed)
    reference = labelled[np.sort(random.permutation(len(labelled))[:REFERENCE])]
    reference = reference[reference.any(axis=1)]
    if len(reference) < FEWEST:
        return None
    far = _usual(reference, random)
    distance = np.full(len(vectors), np.nan, np.float32)
    for start in range(0, len(vectors), TILE):
        tile = vectors[start : start + TILE]
        known = tile.any(axis=1)
        distance[start : start + TILE][known] = nearest(tile[known], reference)
        monitor.progress(min(start + TILE, len(vectors)), len(vectors), "Looking for what no label speaks for")
        if monitor.stopping():
            break
    if len(labelled) > len(reference):
        seem = np.flatnonzero(distance > far)
        closer = np.sort(seem[np.argsort(-distance[seem], kind="stable")[:CLOSER]])
        distance[seem] = far  # what is not looked at more closely does not count as far
        distance[closer] = nearest(vectors[closer], labelled)
    return Novelty(distance, far)


def _usual(reference: np.ndarray, random: np.random.Generator) -> float:
    """The distance that 99 of 100 labelled rows have at most from the nearest other one that is no copy."""
    some = random.choice(len(reference), min(MEASURED, len(reference)), replace=False)
    similarity = reference[some] @ reference.T
    similarity[np.arange(len(some)), some] = -np.inf
    # Not a part of `far_apart`, which may be a part of the median: ROIs of one class can be that much alike.
    similarity[1 - similarity < COPY * np.quantile(pairs(reference), CLOSE)] = -np.inf
    distance = 1 - similarity.max(axis=1)
    distance = distance[np.isfinite(distance)]
    # As a float32, for distances are held against it.
    return float(np.float32(np.quantile(distance, USUAL))) if len(distance) else 0.0
