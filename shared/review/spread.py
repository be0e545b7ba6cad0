"""Choosing rows that differ from one another, so that nobody reviews five frames of the same animal.

Vectors are float32 rows of unit length; a row of zeros says that there is none, and is like no other. Distances are
cosine distances, 0 to 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

PAIRS = 1_000  # rows whose distances say what is near
CLOSE = 0.05  # this share of the pairs is nearer than what is far
COPY = 0.25  # of what is far: nearer ones count as the same animal
TILE = 2_048  # rows in memory at a time; of 384 numbers each, 3 MB, and the similarities of two tiles 16 MB
CELL = 10  # rows drawn at random for each one that is taken of them


class Rows(Protocol):
    """Unit rows (N, D): an array, or something that reads those asked for, so that they need not all be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The rows with a length of one, float32; rows that are zero or not finite become zero."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    usable = np.isfinite(lengths) & (lengths > 0)
    rows = vectors / np.where(usable, lengths, 1).astype(np.float32)[:, None]
    rows[~usable] = 0
    return rows


def nearest(vectors: np.ndarray, others: Rows) -> np.ndarray:
    """The cosine distance of each row to the nearest of other rows, of which a tile is read at a time.

    Args:
        vectors: unit rows (N, D)
        others: unit rows (M, D)

    Returns:
        float32 (N,); infinite where there is no other
    """
    found = np.full(len(vectors), np.inf, np.float32)
    for low in range(0, len(others), TILE):
        some = others[low : low + TILE]
        some = some[some.any(axis=1)]
        for start in range(0, len(vectors) if len(some) else 0, TILE):
            rows = slice(start, start + TILE)
            np.minimum(found[rows], 1 - (vectors[rows] @ some.T).max(axis=1), out=found[rows])
    return found


def pick(
    score: Callable[[], np.ndarray],
    count: int,
    vectors: np.ndarray | None,
    far: float = 1.0,
    apart: np.ndarray | None = None,
    chosen: Callable[[int], None] = lambda row: None,
    *,
    copies: bool = True,
) -> np.ndarray:
    """Takes rows one by one, each time the one with the highest score times its distance from those taken.

    This is greedy farthest-point selection (Gonzalez 1985) weighted by a score. Beyond what is far more distance
    counts for nothing, so that a high score is not given up for an outlier.

    Args:
        score: gives the scores now, (M,), 0 and above; rows at 0 are never taken
        count: how many rows at most
        vectors: unit rows (M, D), or None where there are none: the scores alone decide
        far: the distance from which two rows are different enough, see `far_apart`
        apart: how far each row is from the nearest one that was taken earlier, (M,); None where none was
        chosen: is told each row taken, so that the scores may change
        copies: whether frames of one that was taken may be taken when there is nothing else

    Returns:
        the rows in the order they were taken
    """
    taken: list[int] = []
    if vectors is not None:
        apart = np.full(len(vectors), np.inf, np.float32) if apart is None else apart.copy()
    free: np.ndarray | None = None
    while len(taken) < count:
        scores = np.asarray(score(), np.float64)
        free = np.ones(len(scores), bool) if free is None else free
        worth = scores * free
        if apart is not None:
            worth *= np.clip(apart / far, 0, 1) + 1e-6  # a copy of what was taken comes last
            if not copies:
                worth[apart < COPY * far] = 0
        row = int(worth.argmax()) if len(worth) else 0
        if not len(worth) or worth[row] <= 0:
            break
        taken.append(row)
        free[row] = False
        chosen(row)
        if vectors is not None and apart is not None:
            np.minimum(apart, 1 - vectors @ vectors[row], out=apart)
    return np.array(taken, np.int64)


def far_apart(vectors: Rows) -> float:
    """The distance from which two of these unit rows are different enough not to be the same animal.

    It is what 5 % of the pairs are nearer than; where one kind of animal is much of all, a quarter of the median.
    """
    between = pairs(vectors)
    if not len(between):
        return 1.0
    return max(float(np.quantile(between, CLOSE)), float(np.median(between)) / 4, 1e-6)


def pairs(vectors: Rows) -> np.ndarray:
    """The distances between each two of 1,000 of these unit rows, (P,); none of fewer than two rows."""
    some = vectors[np.linspace(0, len(vectors) - 1, min(PAIRS, len(vectors))).astype(int)]
    some = some[some.any(axis=1)]
    return (1 - some @ some.T)[np.triu_indices(len(some), 1)]


def sample(rows: np.ndarray, count: int, vectors: Rows | None, random: np.random.Generator) -> np.ndarray:
    """Draws rows at random, each exactly as likely as any other, and spread over what there is.

    A simple random sample of at most ten times as many is cut into `count` cells of equal size whose members are
    alike, and one is drawn from each (two-phase sampling with strata): an interval for a simple random sample is on
    the safe side of it, and the vectors of no more than that sample are read.

    Args:
        rows: the rows to draw from, (N,)
        count: how many; all of them where there are no more
        vectors: unit rows of all, indexed by `rows`, or None: a simple random sample
        random: the source of chance
    """
    if count >= len(rows):
        return rows
    if vectors is None:
        return random.choice(rows, count, replace=False)
    some = random.choice(rows, count * min(CELL, len(rows) // count), replace=False)
    return some[[random.choice(cell) for cell in _cells(np.arange(len(some)), count, vectors[some])]]


def _cells(rows: np.ndarray, count: int, vectors: np.ndarray) -> list[np.ndarray]:
    """Halves rows along the line between two that are far apart (FastMap's pivots) until there are `count` cells."""
    if count <= 1:
        return [rows]
    here = vectors[rows]
    one = here[int((here @ here[0]).argmin())]
    other = here[int((here @ one).argmin())]
    order = rows[np.argsort(here @ (one - other), kind="stable")]
    half = count // 2
    cut = len(rows) // count * half
    return [*_cells(order[:cut], half, vectors), *_cells(order[cut:], count - half, vectors)]
