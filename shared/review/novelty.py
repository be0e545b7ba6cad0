"""How far predictions are from everything that has a label: what no label speaks for is worth a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .spread import nearest

REFERENCE = 5_000  # labelled rows that all predictions are compared with; what seems far, with all of them
MEASURED = 2_000  # labelled rows that say how far apart labelled ones are
USUAL = 0.99  # this share of the labelled ROIs is nearer to another one than what counts as far
FEWEST = 20  # labelled rows below which nothing can be said


@dataclass(frozen=True)
class Novelty:
    """How unlike the labelled ones each row is.

    Attributes:
        distance: cosine distance to the nearest labelled row, float32 (N,); NaN where it is not known. Of rows beyond
            `far` it is that to the nearest of all, of the others that to the nearest of a sample of them
        far: the distance from which a row is far: 99 of 100 labelled rows are nearer to another labelled one
    """

    distance: np.ndarray
    far: float


def novelty(vectors: np.ndarray, labelled: np.ndarray, most: int = 20_000, seed: int = 51) -> Novelty | None:
    """Measures how far rows are from the labelled ones.

    All rows are compared with a sample of the labelled ones, which can only make them seem farther; those that seem
    far are compared with every one. So a million labels cost little more than five thousand.

    Args:
        vectors: unit rows (N, D); those that are zero have no known distance
        labelled: unit rows (L, D)
        most: of the rows that seem far, so many of the farthest are looked at more closely
        seed: which labelled rows make up the sample

    Returns:
        None with fewer than 20 labelled rows
    """
    labelled = labelled[labelled.any(axis=1)]
    if len(labelled) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    order = random.permutation(len(labelled))
    reference = labelled[np.sort(order[:REFERENCE])]
    far = _usual(reference, random)
    distance = nearest(vectors, reference)
    if len(labelled) > len(reference):
        seem = np.flatnonzero(distance > far)
        seem = seem[np.argsort(-distance[seem], kind="stable")[:most]]
        distance[seem] = nearest(vectors[seem], labelled)
    distance[~vectors.any(axis=1)] = np.nan
    return Novelty(distance, far)


def _usual(reference: np.ndarray, random: np.random.Generator) -> float:
    """The distance that 99 of 100 labelled rows have at most from the nearest other one."""
    some = random.choice(len(reference), min(MEASURED, len(reference)), replace=False)
    similarity = reference[some] @ reference.T
    similarity[np.arange(len(some)), some] = -np.inf
    return float(np.quantile(1 - similarity.max(axis=1), USUAL))
