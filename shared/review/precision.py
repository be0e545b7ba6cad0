"""How often confident predictions are right, by class: what is expected, and what spot checks have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..intervals import wilson


@dataclass(frozen=True)
class Precision:
    """The confident predictions of one class.

    Attributes:
        name: the class
        predictions: how many ROIs have it as their prediction
        confident: how many of these are confident
        expected: the mean probability of the confident ones, which is their precision if it is calibrated; None
            without any
        to_check: spot checks chosen now
        after: the 95% interval that there will be after them, if the precision is as expected; a point where all were
            checked then
        checked: spot checks that were reviewed before
        right: how many of them were right
        shown: the 95% interval of the precision that those have shown (Wilson); a point where no others are left
    """

    name: str
    predictions: int
    confident: int
    expected: float | None
    to_check: int
    after: tuple[float, float]
    checked: int
    right: int
    shown: tuple[float, float]


def by_class(
    classes: Sequence[str],
    predicted: np.ndarray,
    confidence: np.ndarray,
    confident: float,
    to_check: np.ndarray,
    checked: np.ndarray,
    right: np.ndarray,
) -> list[Precision]:
    """The confident predictions class by class, those with most predictions first; classes without any are left out.

    Args:
        classes: the C names
        predicted: the class of each prediction, (N,)
        confidence: its probability, (N,)
        confident: the confidence from which one is a confident one
        to_check: spot checks of each class that were chosen now, (C,)
        checked: spot checks of each class that were reviewed before, (C,)
        right: how many of them were right, (C,)
    """
    count = len(classes)
    sure = confidence >= confident
    every = np.bincount(predicted, minlength=count)
    certain = np.bincount(predicted[sure], minlength=count)
    total = np.bincount(predicted[sure], weights=confidence[sure], minlength=count)
    found = []
    for number in np.argsort(-every, kind="stable").tolist():
        if not every[number]:
            continue
        expected = float(total[number] / certain[number]) if certain[number] else None
        known, new = int(checked[number]), int(to_check[number])
        hits = int(right[number]) + round(new * (expected or 0.0))
        found.append(
            Precision(
                classes[number],
                int(every[number]),
                int(certain[number]),
                expected,
                new,
                _interval(hits, known + new, int(certain[number]) - new),
                known,
                int(right[number]),
                _interval(int(right[number]), known, int(certain[number])),
            )
        )
    return found


def _interval(right: int, checked: int, left: int) -> tuple[float, float]:
    """The 95% interval of a share of which so many were checked and so many are left: all of them are no sample."""
    return wilson(right, checked) if left or not checked else (right / checked, right / checked)
