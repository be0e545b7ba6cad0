"""Budgets are spent in whole numbers, on what there is."""

import numpy as np
import pytest

from shared.review import quotas

SHARES = {"confident": 0.5, "rare": 0.3, "novel": 0.2}


@pytest.mark.parametrize(
    ("budget", "have", "fixed", "expected"),
    [
        (10, (99, 99, 99), {}, (5, 3, 2)),
        (7, (99, 99, 99), {}, (4, 2, 1)),  # by the largest remainder
        (10, (99, 0, 99), {}, (7, 0, 3)),
        (10, (99, 1, 99), {}, (6, 1, 3)),
        (10, (2, 1, 1), {}, (2, 1, 1)),
        (10, (99, 99, 99), {"rare": 0}, (7, 0, 3)),
        (0, (99, 99, 99), {}, (0, 0, 0)),
    ],
)
def test_what_one_kind_cannot_use_goes_to_the_others(budget, have, fixed, expected):
    found = quotas.share_out(budget, dict(zip(SHARES, have, strict=True)), fixed, SHARES)
    assert tuple(found.values()) == expected


@pytest.mark.parametrize(
    ("checked", "have", "count", "expected"),
    [
        ((0, 0, 0), (9, 9, 9), 6, (2, 2, 2)),
        ((4, 0, 0), (9, 9, 9), 6, (0, 3, 3)),  # earlier ones count
        ((0, 0, 0), (1, 9, 9), 7, (1, 3, 3)),
        ((0, 0, 0), (5, 9, 7), 4, (1, 2, 1)),  # the odd one is of the largest
        ((0, 0, 0), (1, 2, 0), 9, (1, 2, 0)),
    ],
)
def test_classes_get_equal_sums(checked, have, count, expected):
    assert tuple(quotas.level(np.array(checked), np.array(have), count)) == expected
