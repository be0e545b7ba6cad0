"""How good a classifier is on labelled images, by scikit-learn's definitions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import intervals
from ..errors import InputError
from ..slices import in_order

BINS = 15  # of confidence, as in Guo et al. 2017


def evaluate(
    y_true: np.ndarray,
    probs: np.ndarray,
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str | None]] | None = None,
) -> dict[str, Any]:
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
        slices: by field the slice that each image is in, n of them, None for one that is in none.

    Returns:
        `n`, `top1`, `top5`, `macro_precision`, `macro_recall`, `macro_f1`; `intervals`, 95%, of `top1` and
        `macro_f1`, each [low, high], see `intervals`; `per_class`, for every class in order, `label`, `precision`,
        `recall`, `f1`, `n` (its true images), `recall_interval`, `f1_interval` (None where `n` is 0); `slices`, by
        field and in the order of their values, `field`, `value`, `n`, `top1`, `top1_interval`, `macro_f1`,
        `macro_f1_interval`; `confusion`, counts with a row for each true and a column for each predicted class;
        `ece` and its bins `reliability`, see `calibration`.

    Raises:
        InputError: no images, shapes, classes or slices that do not fit, or probabilities that are not numbers.
    """
    y_true, probs = np.asarray(y_true), np.asarray(probs, dtype=np.float64)
    _check(y_true, probs, len(classes))
    predicted = probs.argmax(axis=1)
    confusion = _confusion(y_true, predicted, len(classes))
    hits, true, chosen = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(hits, chosen), _ratio(hits, true)
    present = true > 0
    overall = _overall(confusion)
    ece, bins = calibration(probs.max(axis=1), predicted == y_true)
    return {
        "n": overall["n"],
        "top1": overall["top1"],
        "top5": _top(y_true, probs, 5),
        "macro_precision": float(precision[present].mean()),
        "macro_recall": float(recall[present].mean()),
        "macro_f1": overall["macro_f1"],
        "intervals": {"top1": overall["top1_interval"], "macro_f1": overall["macro_f1_interval"]},
        "per_class": [
            {"label": str(label), "precision": float(p), "recall": float(r), "f1": float(f), "n": int(t), **ends}
            for label, p, r, f, t, ends in zip(
                classes, precision, recall, _f1(confusion), true, _class_intervals(confusion), strict=True
            )
        ],
        "slices": _slices(y_true, predicted, len(classes), slices or {}),
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


def _overall(confusion: np.ndarray) -> dict[str, Any]:
    """The share that is right and the macro F1 of the images of a confusion matrix, with their intervals."""
    n, hits = int(confusion.sum()), int(confusion.trace())
    return {
        "n": n,
        "top1": hits / n,
        "top1_interval": list(intervals.wilson(hits, n)),
        "macro_f1": float(_f1(confusion)[confusion.any(axis=1)].mean()),
        "macro_f1_interval": list(intervals.macro_f1(confusion)),
    }


def _class_intervals(confusion: np.ndarray) -> list[dict[str, list[float] | None]]:
    """Of each class; None where it is absent."""
    return [
        {"recall_interval": list(intervals.wilson(int(hits), int(true))), "f1_interval": f1.tolist()}
        if true
        else {"recall_interval": None, "f1_interval": None}
        for hits, true, f1 in zip(
            confusion.diagonal(), confusion.sum(axis=1), intervals.class_f1(confusion), strict=True
        )
    ]


def _slices(
    y_true: np.ndarray, predicted: np.ndarray, count: int, slices: Mapping[str, Sequence[str | None]]
) -> list[dict[str, Any]]:
    """The scores of the images of each slice; one slice after the other, so that memory stays small."""
    rows = []
    for field, column in slices.items():
        if len(column) != len(y_true):
            raise InputError(f"There are {len(y_true)} images but {len(column)} values of {field} to slice by.")
        names = in_order({value for value in column if value is not None})
        number = {name: i for i, name in enumerate(names)}
        place = np.array([number.get(value, -1) if value is not None else -1 for value in column])
        for i, name in enumerate(names):
            inside = place == i
            scores = _overall(_confusion(y_true[inside], predicted[inside], count))
            rows.append({"field": field, "value": name, **scores})
    return rows


def _confusion(y_true: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Counts with a row for each true and a column for each predicted class."""
    return np.bincount(y_true * count + predicted, minlength=count * count).reshape(count, count)


def _f1(confusion: np.ndarray) -> np.ndarray:
    return _ratio(2 * confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1))


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
