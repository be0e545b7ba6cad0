"""How good a classifier is on labelled images, by scikit-learn's definitions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

BINS = 15  # of confidence, as in Guo et al. 2017


def evaluate(y_true: np.ndarray, probs: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores predictions; the result can be written as JSON.

    Where a division by zero would arise (a class never predicted, or absent) the value is 0. Macro averages are
    over the classes that are present in `y_true`, as scikit-learn gives them with `labels=` these and
    `zero_division=0`; a class that is absent cannot be judged and does not drag them down, while predicting it
    counts against the class it was mistaken for. Among equal probabilities the earlier class ranks first. With
    five classes or fewer `top5` is 1.

    Args:
        y_true: the true classes as positions in `classes`, (n,), integers.
        probs: a probability for each class, (n, C).
        classes: the names, C of them.

    Returns:
        `n`, `top1`, `top5`, `macro_precision`, `macro_recall`, `macro_f1`; `per_class`, for every class in order,
        `label`, `precision`, `recall`, `f1`, `n` (its true images); `confusion`, counts with a row for each true and
        a column for each predicted class; `ece` and its bins `reliability`, see `calibration`.

    Raises:
        InputError: no images, shapes or classes that do not fit, or probabilities that are not numbers.
    """
    y_true, probs = np.asarray(y_true), np.asarray(probs, dtype=np.float64)
    _check(y_true, probs, len(classes))
    n, count = probs.shape
    predicted = probs.argmax(axis=1)
    confusion = np.bincount(y_true * count + predicted, minlength=count * count).reshape(count, count)
    hits, true, chosen = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = _ratio(hits, chosen), _ratio(hits, true), _ratio(2 * hits, true + chosen)
    present = true > 0
    ece, bins = calibration(probs.max(axis=1), predicted == y_true)
    return {
        "n": n,
        "top1": float(hits.sum() / n),
        "top5": _top(y_true, probs, 5),
        "macro_precision": float(precision[present].mean()),
        "macro_recall": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "per_class": [
            {"label": str(label), "precision": float(p), "recall": float(r), "f1": float(f), "n": int(t)}
            for label, p, r, f, t in zip(classes, precision, recall, f1, true, strict=True)
        ],
        "confusion": confusion.tolist(),
        "ece": ece,
        "reliability": bins,
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[float, list[dict[str, float]]]:
    """The expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    The mean over images of |accuracy - mean confidence| of the bin they are in, with 15 bins of equal width, each
    without its lower and with its upper bound.

    Args:
        confidence: of the predicted class, (n,), 0 to 1.
        correct: whether the prediction is right, (n,), bool.

    Returns:
        the error, and of each bin that is not empty `low`, `high`, `n`, mean `confidence`, `accuracy`.
    """
    edges = np.arange(BINS + 1) / BINS
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    n = np.bincount(place, minlength=BINS)
    mean = _ratio(np.bincount(place, confidence, BINS), n)
    accuracy = _ratio(np.bincount(place, correct, BINS), n)
    bins = [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "n": int(n[b]),
            "confidence": float(mean[b]),
            "accuracy": float(accuracy[b]),
        }
        for b in np.flatnonzero(n)
    ]
    return float((n * abs(accuracy - mean)).sum() / n.sum()), bins


def _top(y_true: np.ndarray, probs: np.ndarray, k: int) -> float:
    """The share of images whose true class is among the k most probable."""
    own = probs[np.arange(len(probs)), y_true][:, None]
    earlier = np.arange(probs.shape[1]) < y_true[:, None]
    rank = ((probs > own) | ((probs == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Element by element, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _check(y_true: np.ndarray, probs: np.ndarray, classes: int) -> None:
    if not len(y_true):
        raise InputError("There is nothing to evaluate: no image has both a label and a prediction.")
    if probs.shape != (len(y_true), classes):
        raise InputError(
            f"Predictions of shape {probs.shape} do not fit {len(y_true)} labels of {classes} classes: "
            "was the model made for other classes?"
        )
    if y_true.min() < 0 or y_true.max() >= classes:
        raise InputError(f"A label is not among the {classes} classes of the model: leave such images out.")
    if not np.isfinite(probs).all():
        raise InputError("The model gave probabilities that are not numbers: its weights are not usable.")
