"""Labels that look wrong: confident learning on probabilities that no label had a say in itself.

Confident learning is cleanlab's (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels"). It needs probabilities of each ROI from a model that has not learned that ROI's own label: a linear
probe over its features (embeddings, or a backbone's last layer), fitted on the other folds. So it can look at the
training set as well, which the model itself knows by heart.

cleanlab counts most of what such a probe gets wrong as wrong labels: of 1,144 real ROIs that it tells apart to 51%, it
names 406, or 458 with 57 labels flipped. So named are only those that are likely to be wrong, see `_chances`: 3, or 116
of which 35 are flipped. Without features, ranking by a model's logits like this finds more than FiftyOne brain's
mistakenness: 46% of the flipped in a list as long, against 19%.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from ..errors import InputError
from ..runs import Monitor
from . import calibration

# A probe learns from so many rows at most: more make it slow and hardly better, since it has few parameters.
ROWS = 20_000
# Weak regularisation: rows have length 1, and what tells classes apart is a small part of that.
STRENGTH = 3.0
ITERATIONS = 100
LIKELY = 0.1  # a label is named if it is wrong with this probability: one look in ten is not wasted
SURE, CHANCE = 0.9, 0.3  # another class is as sure as this, and how likely the label is wrong then, see `_chances`


@dataclass(frozen=True)
class WrongLabels:
    """What became of N labels.

    Attributes:
        indices: int64 (M,), the rows whose labels look wrong, the worst first
        quality: float32 (N,), 0 (surely wrong) to 1: the probability of the label that was given; NaN for a row that
            was not judged: without a label or usable features, or of a class that too few others have
        suggested: int64 (N,), the most probable class of each row; -1 where it was not judged
        chance: float32 (N,), how likely each label is wrong, 0 to 1; NaN where it was not judged. Their sum is about
            how many are wrong, or less: a label that is taken for a similar class is hard to tell from an unusual image
    """

    indices: np.ndarray
    quality: np.ndarray
    suggested: np.ndarray
    chance: np.ndarray

    @property
    def judged(self) -> int:
        """How many labels were looked at."""
        return int(np.isfinite(self.quality).sum())


def find(
    labels: np.ndarray,
    features: np.ndarray | None,
    probabilities: np.ndarray | None,
    classes: int,
    folds: int = 5,
    seed: int = 51,
    monitor: Monitor | None = None,
    groups: np.ndarray | None = None,
) -> WrongLabels | None:
    """Finds labels that look wrong, by features where there are any, else by a model's own probabilities.

    Args:
        labels: the class of each row, (N,), integers below `classes`; -1 for a row without a label.
        features: (N, D), one vector a row; a row that is not finite, or all zero, is not judged.
        probabilities: (N, C), used where there are no features; of a model that has not learned these labels, else
            what it has learned by heart looks right. A row that is not finite is not judged.
        classes: how many classes there are, C.
        folds: into how many parts the rows are cut; each is judged by what was learned from the others.
        seed: of the folds.
        monitor: is told the progress, and may say stop.
        groups: integers (N,), -1 for none: rows of one group (one animal in neighbouring frames) are in one fold.

    Returns:
        what looks wrong; None where `monitor` said stop.

    Raises:
        InputError: neither features nor probabilities, or columns that do not fit.
    """
    labels = np.asarray(labels)
    _check(labels, features, probabilities, classes, folds, groups)
    if features is not None:
        found = out_of_fold(labels, features, classes, folds, seed, monitor or Monitor(), groups)
        if found is None:
            return None
    else:
        assert probabilities is not None
        found = np.where(labels[:, None] >= 0, probabilities, np.nan).astype(np.float32, copy=False)
    return _judge(labels, found, seed)


def out_of_fold(
    labels: np.ndarray,
    features: np.ndarray,
    classes: int,
    folds: int,
    seed: int,
    monitor: Monitor,
    groups: np.ndarray | None = None,
) -> np.ndarray | None:
    """Probabilities of each row by a linear probe that was fitted on the other folds; arguments as in `find`.

    Returns:
        float32 (N, classes); NaN in rows that cannot be judged; None where `monitor` said stop.
    """
    # Not linalg.norm, which squares a copy of all features, and in their own precision.
    length = np.sqrt(np.einsum("ij,ij->i", features, features, dtype=np.float32, casting="same_kind"))
    usable = np.flatnonzero((labels >= 0) & np.isfinite(length) & (length > 0))
    fold = _folds(labels[usable], None if groups is None else np.asarray(groups)[usable], folds, seed)
    found = np.full((len(labels), classes), np.nan, dtype=np.float32)
    random = np.random.RandomState(seed)
    for number in range(folds):
        monitor.progress(number, folds, "Looking for wrong labels")
        if monitor.stopping():
            return None
        held, others = usable[fold == number], usable[fold != number]
        # What nobody has taught the probe it can neither confirm nor doubt.
        held = held[np.isin(labels[held], labels[others])]
        if len(held):
            found[held] = _probe(labels, features, length, others, held, classes, random)
    monitor.progress(folds, folds, "Looking for wrong labels")
    return found


def _probe(
    labels: np.ndarray,
    features: np.ndarray,
    length: np.ndarray,
    others: np.ndarray,
    held: np.ndarray,
    classes: int,
    random: np.random.RandomState,
) -> np.ndarray:
    """Probabilities of the held rows, (K, classes), by multinomial logistic regression on the others."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    rows, weights = _thinned(labels, others, random)
    found = np.zeros((len(held), classes), dtype=np.float32)
    present = np.unique(labels[rows])
    if len(present) == 1:
        found[:, present[0]] = 1
        return found
    probe = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS)
    # On one core: each step is short, and where another run has the processors too, threads that wait for each other
    # at every step made it fifty times slower.
    with threadpool_limits(1), warnings.catch_warnings():
        # The last digits of the coefficients change no verdict.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(_unit(features, length, rows), labels[rows], sample_weight=weights)
    for start in range(0, len(held), ROWS):
        block = held[start : start + ROWS]
        found[start : start + ROWS, probe.classes_] = probe.predict_proba(_unit(features, length, block))
    return found


def _unit(features: np.ndarray, length: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, so that one strength of regularisation suits all features."""
    return (features[rows] / length[rows, None]).astype(np.float32, copy=False)


def _thinned(
    labels: np.ndarray, rows: np.ndarray, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray | None]:
    """At most `ROWS` of the rows, and their weights: rare classes whole, of others as many each as fit.

    Those that are kept weigh as much together as all of their class, so that the probe still knows what is frequent.
    """
    if len(rows) <= ROWS:
        return rows, None
    rows = rows[random.permutation(len(rows))]
    rows = rows[np.argsort(labels[rows], kind="stable")]
    counts = np.bincount(labels[rows])
    quota = _quota(counts, ROWS)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = rows[place < quota]
    weights = counts / np.maximum(np.minimum(counts, quota), 1)
    # Their mean is 1, so that the regularisation is that of as many rows.
    return kept, (weights[labels[kept]] * len(kept) / len(rows)).astype(np.float32)


def _quota(counts: np.ndarray, total: int) -> int:
    """The largest number with which classes of so many rows, cut to it, have `total` at most together."""
    low, high = 0, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= total else (low, middle - 1)
    return max(low, 1)


def _folds(labels: np.ndarray, groups: np.ndarray | None, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, (N,): each class spread evenly over all, and every group in one.

    A group goes by its most frequent class. (scikit-learn's StratifiedGroupKFold does it group by group, which takes
    minutes for a hundred thousand.)
    """
    random = np.random.RandomState(seed)
    if groups is None:
        group = np.arange(len(labels))
    else:
        # Rows without a group are groups of one.
        alone = groups < 0
        group = np.unique(
            np.where(alone, groups.max(initial=0) + 1 + np.arange(len(groups)), groups), return_inverse=True
        )[1]
    pairs, sizes = np.unique(np.stack([group, labels]), axis=1, return_counts=True)
    # Sorted by group and then size, the last of each group is its most frequent class.
    order = np.lexsort((sizes, pairs[0]))
    last = order[np.flatnonzero(np.diff(pairs[0][order], append=-1))]
    label_of = pairs[1][last]
    shuffled = random.permutation(len(label_of))
    shuffled = shuffled[np.argsort(label_of[shuffled], kind="stable")]
    # Dealt out class after class like cards, so that small classes do not all begin with the same fold.
    fold_of = np.empty(len(label_of), dtype=np.int64)
    fold_of[shuffled] = np.arange(len(label_of)) % folds
    return fold_of[group]


def _judge(labels: np.ndarray, probabilities: np.ndarray, seed: int) -> WrongLabels:
    """Asks cleanlab about the rows that have probabilities, (N, C); rows of NaN have none."""
    judged = np.flatnonzero((labels >= 0) & np.isfinite(probabilities).all(axis=1))
    quality, chance = np.full((2, len(labels)), np.nan, dtype=np.float32)
    suggested = np.full(len(labels), -1, dtype=np.int64)
    indices = np.empty(0, dtype=np.int64)
    given = labels[judged]
    # With one class there is nothing to take a label for.
    if len(np.unique(given)) > 1:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        sure = probabilities[judged]
        quality[judged] = get_label_quality_scores(given, sure, method="self_confidence")
        suggested[judged] = sure.argmax(axis=1)
        chance[judged] = _chances(given, sure, seed)
        with warnings.catch_warnings():
            # It says that it may miss some in small classes.
            warnings.simplefilter("ignore", UserWarning)
            # One process: a delegated worker has two runs on its processors, and it takes seconds.
            wrong = find_label_issues(
                given,
                sure,
                filter_by="low_self_confidence",
                return_indices_ranked_by="self_confidence",
                n_jobs=1,
            )
        indices = judged[np.asarray(wrong, dtype=np.int64)]
        indices = indices[chance[indices] >= LIKELY]
    return WrongLabels(indices, quality, suggested, chance)


def _chances(labels: np.ndarray, probabilities: np.ndarray, seed: int) -> np.ndarray:
    """How likely each label is wrong, float32 (K,), by what the doubts of the probe itself do not explain.

    A share e of the labels is taken to be any other class by chance, and the others to be drawn from the
    probabilities at a temperature t: P(label) = (1 - e) q + e (1 - q) / (C - 1). e and t are those with the greatest
    likelihood, and the chance is the second term's part of the sum. Of 1,144 real labels with 0, 11, 57 and 114
    flipped at random it expects 1, 10, 48 and 100 (cleanlab's estimate of the joint: 406 to 493); flipped to a similar
    class, 17 for 57 and 56 for 114.

    A probe that has learned a mistake which is made often explains it away. So where nearly all images like it have
    another label, the chance is at least what was measured there (0 to 0.8 in 18 settings, 0.3 on average).
    """
    rows = np.random.RandomState(seed).permutation(len(labels))[:ROWS]
    logs = np.log(np.maximum(probabilities[rows], 1e-12))
    others = max(len(np.unique(labels)) - 1, 1)

    def loss(point: np.ndarray) -> float:
        q = calibration.apply(logs, float(np.exp(point[0])))[np.arange(len(rows)), labels[rows]].astype(np.float64)
        wrong = expit(point[1])
        return -float(np.log((1 - wrong) * q + wrong * (1 - q) / others + 1e-12).mean())

    bounds = [(np.log(calibration.LOWEST), np.log(calibration.HIGHEST)), (logit(1e-5), 0.0)]
    # Its own first steps are a part of the start's size, which is none at all for a 0.
    start = np.array([[0.0, -3.0], [-0.7, -3.0], [0.0, -5.0]])
    best = minimize(loss, start[0], method="Nelder-Mead", bounds=bounds, options={"initial_simplex": start})
    log_temperature, odds = best.x
    wrong, chances = expit(odds), np.empty(len(labels), dtype=np.float32)
    for first in range(0, len(labels), ROWS):
        block = slice(first, first + ROWS)
        sure = calibration.apply(np.log(np.maximum(probabilities[block], 1e-12)), float(np.exp(log_temperature)))
        q = sure[np.arange(len(sure)), labels[block]]
        chance = wrong * (1 - q) / (wrong * (1 - q) + (1 - wrong) * q * others + 1e-12)
        at_odds = (sure.max(axis=1) >= SURE) & (sure.argmax(axis=1) != labels[block])
        chances[block] = np.where(at_odds, np.maximum(chance, CHANCE), chance)
    return chances


def _check(
    labels: np.ndarray,
    features: np.ndarray | None,
    probabilities: np.ndarray | None,
    classes: int,
    folds: int,
    groups: np.ndarray | None,
) -> None:
    if features is None and probabilities is None:
        raise InputError("Finding wrong labels needs embeddings, or predictions with stored logits: compute one first.")
    if labels.ndim != 1 or (len(labels) and not np.issubdtype(labels.dtype, np.integer)):
        raise InputError("Labels to look at must be class numbers, one for each ROI.")
    if labels.max(initial=-1) >= classes:
        raise InputError(f"A label is not among the {classes} classes.")
    for what, rows in (("features", features), ("probabilities", probabilities), ("groups", groups)):
        if rows is not None and len(rows) != len(labels):
            raise InputError(
                f"There are {what} of {len(rows):,} ROIs and labels of {len(labels):,}; they must be the same ROIs."
            )
    if (
        features is None
        and probabilities is not None
        and (probabilities.ndim != 2 or probabilities.shape[1] != classes)
    ):
        raise InputError(f"Probabilities must be of the {classes} classes.")
    if folds < 2:
        raise InputError(f"Wrong labels are found with at least 2 folds, not {folds}.")
