"""The precision of confident predictions: what is expected, what was shown."""

import numpy as np
import pytest

from shared.intervals import wilson
from shared.review.precision import by_class


def test_expected_and_shown_precision_by_class():
    predicted = np.array([0, 0, 0, 0, 1, 1, 2])
    confidence = np.array([0.9, 1.0, 0.95, 0.2, 0.99, 0.5, 0.1], np.float32)
    none = np.zeros(4, int)
    rows = by_class(["a", "b", "c", "d"], predicted, confidence, 0.9, np.array([2, 1, 0, 0]), none, none)
    assert [(row.name, row.predictions, row.confident, row.to_check) for row in rows] == [
        ("a", 4, 3, 2),
        ("b", 2, 1, 1),
        ("c", 1, 0, 0),
    ]
    assert rows[0].expected == pytest.approx(0.95)
    assert rows[2].expected is None
    assert rows[0].after == wilson(2, 2)
    assert rows[1].after == (1.0, 1.0)  # the only one
    assert rows[0].shown == rows[2].shown == (0.0, 1.0)


def test_what_was_checked_before_narrows_the_interval():
    predicted, confidence = np.zeros(1000, int), np.full(1000, 0.95)
    checked, right = np.array([50]), np.array([40])
    (row,) = by_class(["a"], predicted, confidence, 0.9, np.array([20]), checked, right)
    assert row.shown == wilson(40, 50)
    assert row.after == wilson(59, 70)


def test_a_class_that_is_checked_to_the_last_is_no_sample():
    predicted, confidence = np.zeros(10, int), np.r_[np.full(4, 0.95), np.full(6, 0.5)]
    checked, right = np.array([16]), np.array([12])
    (row,) = by_class(["a"], predicted, confidence, 0.9, np.array([4]), checked, right)
    assert row.shown == wilson(12, 16)
    assert row.after == (0.8, 0.8)
    (row,) = by_class(["a"], predicted[4:], confidence[4:], 0.9, np.array([0]), checked, right)
    assert row.shown == row.after == (0.75, 0.75)
