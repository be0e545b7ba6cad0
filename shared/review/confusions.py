"""Pairs of classes that a model confuses more often than their sizes explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .weak_slices import LEVEL, holm

LEAST = 3  # mistakes of a pair: with fewer there is nothing to look into


@dataclass(frozen=True)
class Confusion:
    """A class that is taken for another.

    Attributes:
        true: the class that it is
        predicted: the one that it is taken for
        count: how often
        n: images of the true class
        expected: how often it would be, if as many mistakes fell on the classes by their sizes alone
        back: how often it is the other way round
        p: how likely chance alone does that to any pair (Holm)
    """

    true: int
    predicted: int
    count: int
    n: int
    expected: float
    back: int
    p: float


def find(confusion: np.ndarray, level: float = LEVEL, least: int = LEAST) -> list[Confusion]:
    """The pairs that are confused more often than their sizes explain, the most frequent first.

    If mistakes fell on the classes by their sizes alone, an image of class i that is taken for class j would be as
    frequent as n_i n_j over the sum of that for all pairs. The number of mistakes is given, so that each pair's is
    binomial; the p-values of all pairs are corrected together (Holm).

    Args:
        confusion: counts, rows true and columns predicted, (C, C)
        level: how often, at most, anything is named where there is nothing but sizes
        least: mistakes that a pair must have to be named
    """
    from scipy.stats import binom

    confusion = np.asarray(confusion, dtype=np.int64)
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    sizes = confusion.sum(axis=1)
    # A class that is only predicted has a size as well: at least that of one image.
    weight = np.outer(sizes, np.maximum(sizes, 1)).astype(float)
    np.fill_diagonal(weight, 0)
    true, predicted = np.nonzero(weight)
    if not mistakes.any():
        return []
    share = weight[true, predicted] / weight.sum()
    counts, total = mistakes[true, predicted], int(mistakes.sum())
    p = holm(binom.sf(counts - 1, total, share))
    found = [
        Confusion(
            int(true[i]),
            int(predicted[i]),
            int(counts[i]),
            int(sizes[true[i]]),
            float(total * share[i]),
            int(mistakes[predicted[i], true[i]]),
            float(p[i]),
        )
        for i in np.flatnonzero((p <= level) & (counts >= least))
    ]
    return sorted(found, key=lambda one: (-one.count, one.p, one.true, one.predicted))
