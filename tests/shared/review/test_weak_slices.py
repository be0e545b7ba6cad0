"""Weak slices: found where there is one, and not where there is only chance."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from shared.errors import InputError
from shared.intervals import wilson
from shared.review import weak_slices


def fields(rng: np.random.Generator, n: int) -> dict[str, list[str | None]]:
    """Four fields of 2 to 12 slices, one with gaps."""
    made = {name: [f"{name}{i}" for i in rng.integers(0, k, n)] for name, k in zip("abcd", (2, 4, 7, 12), strict=True)}
    return {**made, "d": [None if v == "d0" else v for v in made["d"]]}


def test_the_weak_slice_is_named_with_its_figures_and_no_pair_that_it_explains():
    rng = np.random.default_rng(1)
    columns = fields(rng, 3000)
    bad = np.array(columns["b"]) == "b2"
    correct = rng.random(3000) > np.where(bad, 0.4, 0.15)
    (found,) = weak_slices.find(correct, columns)
    n, wrong = int(bad.sum()), int((bad & ~correct).sum())
    assert (found.name, found.n, found.wrong) == ("b b2", n, wrong)
    assert found.interval == wilson(n - wrong, n)
    assert found.right == pytest.approx(correct[bad].mean())
    assert found.elsewhere == pytest.approx(correct[~bad].mean())
    assert found.lost == pytest.approx(n * (correct[~bad].mean() - correct[bad].mean()))
    assert (weak_slices.members(columns, found) == bad).all()


def test_two_fields_together_are_named_where_only_together_they_are_weak():
    rng = np.random.default_rng(2)
    columns = fields(rng, 6000)
    bad = (np.array(columns["b"]) == "b1") & (np.array(columns["c"]) == "c3")
    correct = rng.random(6000) > np.where(bad, 0.7, 0.1)
    (pair,) = weak_slices.find(correct, columns)  # and neither b1 nor c3, which are as good as others without it
    assert (pair.fields, pair.values, pair.name) == (("b", "c"), ("b1", "c3"), "b b1, c c3")
    assert (weak_slices.members(columns, pair) == bad).all()


def test_one_field_alone_has_the_p_value_of_fishers_exact_test():
    correct = np.array([False] * 9 + [True] * 11 + [False] * 4 + [True] * 76)
    (found,) = weak_slices.find(correct, {"x": ["in"] * 20 + ["out"] * 80})
    assert found.p == pytest.approx(2 * fisher_exact([[9, 11], [4, 76]], alternative="greater")[1])


def test_chance_alone_names_nothing_in_at_least_95_of_100_runs():
    rng = np.random.default_rng(3)
    columns = fields(rng, 1500)
    wrong = np.arange(1500) < 300
    named = sum(bool(weak_slices.find(rng.permutation(~wrong), columns)) for _ in range(100))
    assert named <= 5


def frames(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, list[str | None]], np.ndarray]:
    """300 animals in 5 to 20 frames each, 6 of them a day, which a model is right about as a whole or not."""
    animal = np.repeat(np.arange(300), rng.integers(5, 21, 300))
    share = rng.beta(4, 1, 300)
    columns = {name: [f"{name}{i}" for i in rng.integers(0, k, 300)[animal]] for name, k in (("a", 4), ("b", 10))}
    days = np.datetime64("2015-01-01") + animal // 6
    return rng.random(len(animal)) < share[animal], columns, days


def test_frames_of_the_same_animals_name_nothing_in_at_least_95_of_100_runs():
    rng = np.random.default_rng(4)
    drawn = [frames(rng) for _ in range(100)]
    assert sum(bool(weak_slices.find(correct, columns, groups=days)) for correct, columns, days in drawn) <= 5
    assert sum(bool(weak_slices.find(correct, columns)) for correct, columns, _ in drawn) > 50


def test_a_slice_that_is_weak_on_many_days_is_named_with_a_wider_interval():
    rng = np.random.default_rng(5)
    correct, columns, days = frames(rng)
    bad = np.array(columns["a"]) == "a2"
    correct &= ~(bad & (rng.random(len(bad)) < 0.4))
    (found,) = weak_slices.find(correct, columns, groups=days)
    (alone,) = [one for one in weak_slices.find(correct, columns) if one.name == "a a2"]
    assert (found.name, found.n, found.wrong, found.lost) == (alone.name, alone.n, alone.wrong, alone.lost)
    assert found.interval[0] < alone.interval[0] < found.right < alone.interval[1] < found.interval[1]
    assert found.p > alone.p


def test_what_is_weak_on_a_single_day_is_no_finding_and_images_without_a_day_are_alone():
    correct = np.array([False] * 40 + [True] * 400)
    columns = {"x": ["in"] * 40 + ["out"] * 400}
    days = np.datetime64("2015-01-01") + np.maximum(np.arange(440) - 39, 0)
    assert weak_slices.find(correct, columns, groups=days) == []
    without = np.full(440, "NaT", dtype="datetime64[D]")
    correct[::3] = ~correct[::3]
    assert [one.name for one in weak_slices.find(correct, columns, groups=without)] == ["x in"]
    few = np.arange(440) % 9
    assert weak_slices.find(correct, columns, groups=few) == weak_slices.find(correct, columns)


def test_slices_of_a_few_images_are_not_looked_at():
    correct = np.array([False] * 9 + [True] * 500)
    assert not weak_slices.find(correct, {"x": ["few"] * 9 + ["rest"] * 500})
    assert weak_slices.find(correct, {"x": ["few"] * 9 + ["rest"] * 500}, least=9)


@pytest.mark.parametrize("columns", [{}, {"x": [None] * 50}, {"x": ["all"] * 50}])
def test_nothing_to_slice_by_is_no_finding(columns):
    assert weak_slices.find(np.arange(50) % 2 == 0, columns) == []


def test_a_column_of_other_images_is_refused():
    with pytest.raises(InputError, match="'x' has 3 values for 2 images"):
        weak_slices.find(np.array([True, False]), {"x": ["a", "b", "c"]})


def test_holm_is_the_step_down_procedure():
    assert weak_slices.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
