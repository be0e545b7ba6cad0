"""Class pairs that are confused more than their sizes explain."""

import numpy as np
import pytest
from scipy.stats import binomtest

from shared.review import confusions


def test_a_pair_is_named_with_its_direction():
    confusion = np.diag([100, 80, 60, 40])
    confusion[0, 1] = 30
    confusion[2, 3] = confusion[3, 2] = confusion[1, 0] = 2
    (found,) = confusions.find(confusion)
    assert (found.true, found.predicted, found.count, found.n, found.back) == (0, 1, 30, 130, 2)
    sizes = confusion.sum(axis=1)
    weight = np.outer(sizes, sizes) - np.diag(sizes**2)
    share = weight[0, 1] / weight.sum()
    assert found.expected == pytest.approx(36 * share)
    assert found.p == pytest.approx(12 * binomtest(30, 36, share, alternative="greater").pvalue)


def test_mistakes_that_sizes_explain_are_not_named():
    rng = np.random.default_rng(5)
    sizes = np.array([2000, 500, 200, 100, 50])
    named = 0
    for _ in range(100):
        weight = np.outer(sizes, sizes).astype(float)
        np.fill_diagonal(weight, 0)
        drawn = rng.multinomial(300, (weight / weight.sum()).ravel()).reshape(5, 5)
        named += bool(confusions.find(drawn + np.diag(sizes - drawn.sum(axis=1))))
    assert named <= 5


def test_a_class_that_is_only_predicted_can_be_what_others_are_taken_for():
    confusion = np.array([[90, 0, 10], [0, 100, 0], [0, 0, 0]])
    (found,) = confusions.find(confusion)
    assert (found.true, found.predicted) == (0, 2)


@pytest.mark.parametrize("confusion", [np.diag([3, 4]), np.zeros((0, 0), int), np.array([[5]])])
def test_without_mistakes_there_is_nothing(confusion):
    assert confusions.find(confusion) == []
