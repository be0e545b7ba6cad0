"""Intervals against their formulas written another way, and against scipy's bootstrap of scikit-learn's scores."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as peer

from shared import intervals
from shared.errors import InputError

Z = 1.959963984540054


def drawn(n: int, classes: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal classes, and predictions of which about this share is right."""
    random = np.random.RandomState(seed)
    truth = random.choice(classes, n, p=random.dirichlet(np.full(classes, 2.0)))
    return truth, np.where(random.rand(n) < right, truth, random.randint(classes, size=n))


def confusion(truth, predicted, classes: int) -> np.ndarray:
    return peer.confusion_matrix(truth, predicted, labels=range(classes))


def macro(truth, predicted) -> float:
    return peer.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)


def bootstrapped(statistic, *columns, resamples: int = 2000) -> tuple[float, float]:
    done = stats.bootstrap(
        columns, statistic, paired=True, vectorized=False, n_resamples=resamples, method="percentile", random_state=7
    )
    return tuple(done.confidence_interval)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipys_and_its_formula(case):
    hits, n = case
    ours = intervals.wilson(hits, n)
    assert ours == pytest.approx(tuple(stats.binomtest(hits, n).proportion_ci(method="wilson")), abs=1e-12)
    # The ends are the two shares p for which |hits / n - p| is exactly z standard errors.
    for p in ours:
        assert (hits / n - p) ** 2 == pytest.approx(Z**2 * p * (1 - p) / n, abs=1e-10)


def test_wilson_of_nothing_knows_nothing():
    assert intervals.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_what_is_no_share_is_refused(hits, n):
    with pytest.raises(InputError, match="not a share"):
        intervals.wilson(hits, n)


def test_the_interval_of_a_class_is_wilsons_carried_over():
    truth, predicted = drawn(500, 6, 0.6, seed=1)
    ours = intervals.class_f1(confusion(truth, predicted, 6))
    for c in range(6):
        hits = int(np.sum((truth == c) & (predicted == c)))
        concerned = int(np.sum((truth == c) | (predicted == c)))
        low, high = stats.binomtest(hits, concerned).proportion_ci(method="wilson")
        assert ours[c] == pytest.approx([2 * low / (1 + low), 2 * high / (1 + high)], abs=1e-12)


def test_for_many_images_the_interval_of_a_class_is_that_of_a_bootstrap():
    truth, predicted = drawn(4000, 3, 0.7, seed=2)
    ours = intervals.class_f1(confusion(truth, predicted, 3))
    for c in range(3):
        is_true, is_predicted = truth == c, predicted == c
        theirs = bootstrapped(
            lambda t, p: 2 * np.sum(t & p) / (np.sum(t) + np.sum(p)), is_true, is_predicted, resamples=1000
        )
        assert ours[c] == pytest.approx(theirs, abs=0.006)
        width = ours[c, 1] - ours[c, 0]
        assert width == pytest.approx(theirs[1] - theirs[0], rel=0.15)


def test_three_of_three_are_not_certain_and_absent_classes_are_unknown():
    ours = intervals.class_f1(np.diag([3, 0, 30]))
    assert ours[:, 1].tolist() == [1, 1, 1]
    assert ours[1, 0] == 0
    assert 0.4 < ours[0, 0] < ours[2, 0] < 0.96


@pytest.mark.parametrize(("truly", "n"), [(0.5, 12), (0.8, 12), (0.9, 40)])
def test_the_interval_of_a_class_holds_the_true_value_as_often_as_it_says(truly, n):
    """Exactly, over all outcomes of n images that concern the class; F1 = 2p / (1 + p)."""
    outcomes = np.arange(n + 1)
    chance = stats.binom.pmf(outcomes, n, truly)
    ends = np.array([intervals.class_f1(np.array([[hits, n - hits], [0, 99]]))[0] for hits in outcomes])
    f1 = 2 * truly / (1 + truly)
    assert 0.92 < chance[(ends[:, 0] <= f1) & (f1 <= ends[:, 1])].sum() < 0.99


# Many images in few cells, and few images in many: the two ways of drawing.
@pytest.mark.parametrize(("n", "classes", "right"), [(600, 4, 0.75), (150, 12, 0.6)])
def test_macro_f1_equals_scipys_bootstrap_of_scikit_learns(n, classes, right):
    truth, predicted = drawn(n, classes, right, seed=3)
    low, high = intervals.macro_f1(confusion(truth, predicted, classes))
    assert low < macro(truth, predicted) < high
    # Monte Carlo: an end of 2,000 resamples of a standard error of 0.02 to 0.04 has one of about 0.001 to 0.002.
    assert (low, high) == pytest.approx(bootstrapped(macro, truth, predicted), abs=0.008)


def test_both_ways_of_drawing_give_the_same(monkeypatch):
    table = confusion(*drawn(500, 8, 0.7, seed=4), 8)
    ends = []
    for cost in (0, 10_000):
        monkeypatch.setattr(intervals, "_CELL_COST", cost)
        ends.append(intervals.macro_f1(table))
    assert ends[0] != ends[1]
    assert ends[0] == pytest.approx(ends[1], abs=0.006)


def test_blocks_of_any_size_are_as_many_resamples(monkeypatch):
    table = confusion(*drawn(300, 5, 0.7, seed=5), 5)
    for cost in (0, 10_000):
        monkeypatch.setattr(intervals, "_CELL_COST", cost)
        whole = intervals.macro_f1(table)
        with monkeypatch.context() as small:
            small.setattr(intervals, "BLOCK", 7 * 300)
            counts = table[np.nonzero(table)]
            blocks = list(intervals._resamples(counts))
            assert len(blocks) > 2
            assert sum(map(len, blocks)) == intervals.RESAMPLES
            assert all((block.sum(axis=1) == 300).all() for block in blocks)
            assert intervals.macro_f1(table) == pytest.approx(whole, abs=0.006)


def test_a_macro_f1_without_mistakes_or_hits():
    assert intervals.macro_f1(np.diag([5, 9])) == (1, 1)
    assert intervals.macro_f1(np.array([[0, 5], [9, 0]])) == (0, 0)
    assert intervals.macro_f1(np.array([[3]])) == (1, 1)


@pytest.mark.parametrize("table", [np.zeros((2, 2), int), np.zeros((0, 0), int), np.ones((2, 3), int), -np.eye(2)])
def test_what_is_no_confusion_matrix_is_refused(table):
    for function in (intervals.macro_f1, intervals.class_f1):
        with pytest.raises(InputError, match="confusion matrix"):
            function(table)


@pytest.mark.parametrize(("n", "classes"), [(600, 3), (150, 12)])
def test_paired_differences_equal_scipys_bootstrap_of_scikit_learns(n, classes):
    truth, first = drawn(n, classes, 0.6, seed=6)
    # Much agrees with the first model: what makes pairing worth it.
    second = np.where(np.random.RandomState(1).rand(n) < 0.2, truth, first)
    ours = intervals.paired(truth, first, second, classes)

    def top1(t, a, b):
        return peer.accuracy_score(t, b) - peer.accuracy_score(t, a)

    def macros(t, a, b):
        return macro(t, b) - macro(t, a)

    for name, statistic, resamples in (("top1", top1, 1500), ("macro_f1", macros, 1000)):
        value, low, high = ours[name]
        assert value == pytest.approx(statistic(truth, first, second))
        assert 0 < low < value < high
        theirs = bootstrapped(statistic, truth, first, second, resamples=resamples)
        assert (low, high) == pytest.approx(theirs, abs=0.008)


def test_a_model_does_not_differ_from_itself_and_differences_change_sign():
    truth, first = drawn(200, 5, 0.6, seed=8)
    _, second = drawn(200, 5, 0.3, seed=9)
    assert intervals.paired(truth, first, first, 5) == {"top1": (0, 0, 0), "macro_f1": (0, 0, 0)}
    one, other = intervals.paired(truth, first, second, 5), intervals.paired(truth, second, first, 5)
    for name in one:
        assert one[name][0] == pytest.approx(-other[name][0])
        assert one[name][1] == pytest.approx(-other[name][2], abs=0.02)


def test_pairing_narrows_the_difference():
    truth, first = drawn(2000, 5, 0.6, seed=10)
    second = np.where(np.random.RandomState(2).rand(2000) < 0.05, truth, first)
    _, low, high = intervals.paired(truth, first, second, 5)["top1"]
    alone = [np.subtract(*intervals.wilson(int((truth == each).sum()), 2000)) for each in (first, second)]
    assert high - low < 0.5 * math.hypot(*alone)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([], [], []), "nothing to compare"),
        (([0, 1], [0, 1], [0]), "same images"),
        (([[0]], [[0]], [[0]]), "same images"),
        (([0, 2], [0, 1], [0, 1]), "not among the 2"),
        (([0, 1], [0, -1], [0, 1]), "not among the 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(columns, said):
    with pytest.raises(InputError, match=said):
        intervals.paired(*[np.array(column, dtype=int) for column in columns], classes=2)


def test_the_same_counts_give_the_same_intervals_in_another_process():
    code = (
        "import numpy as np; from shared import intervals; t = np.arange(90) % 7; p = t * (np.arange(90) % 4 > 0);"
        "c = np.bincount(t * 7 + p, minlength=49).reshape(7, 7);"
        "print(intervals.macro_f1(c), intervals.paired(t, p, t, 7))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    t = np.arange(90) % 7
    p = t * (np.arange(90) % 4 > 0)
    table = confusion(t, p, 7)
    assert said == {f"{intervals.macro_f1(table)} {intervals.paired(t, p, t, 7)}\n".encode()}
