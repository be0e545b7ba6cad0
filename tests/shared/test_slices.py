"""Names of slices: true of what is in them, few, in an order that a person expects."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError
from shared.slices import in_order, values, why_not


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ([], []),
        ([None, None], [None, None]),
        (["a", None, "b c", ""], ["a", None, "b c", ""]),
        ([True, None, False], ["True", None, "False"]),
        ([np.True_, np.False_], ["True", "False"]),
        ([np.str_("x")], ["x"]),
        ([3, 1, None, 2.5, float("nan"), float("inf")], ["3", "1", None, "2.5", None, None]),
        ([np.float32(0.5), np.int64(7)], ["0.5", "7"]),
        ([-1500000, 0.00025], ["-1500000", "0.00025"]),
        ([date(2014, 5, 31), None, date(2014, 12, 1)], ["2014-05", None, "2014-12"]),
        ([datetime(2014, 5, 31, 23), datetime(814, 6, 1, tzinfo=UTC)], ["2014-05", "0814-06"]),
    ],
)
def test_names_of_values(column, names):
    assert values(column) == names
    assert (why_not(column) is None) == any(name is not None for name in names)


def test_numbers_are_cut_at_their_quartiles():
    column = [*range(1, 101), None]
    names = values(column)
    assert Counter(names) == {"1 to 25.8": 25, "25.8 to 50.5": 25, "50.5 to 75.2": 25, "75.2 to 100": 25, None: 1}
    assert names[:2] == ["1 to 25.8"] * 2
    assert values(list(range(0, 41)))[10:12] == ["0 to 10", "10 to 20"]  # with its upper end, not with its lower


@given(st.lists(st.floats(-1e6, 1e6) | st.integers(-1000, 1000), min_size=5, max_size=80))
def test_a_name_is_true_of_its_numbers(column):
    names = values(column)
    assert len(set(names)) <= 8
    shown = [[float(end) for end in name.split(" to ")] for name in names]
    low, high = min(column), max(column)
    for value, ends in zip(column, shown, strict=True):
        # At the outermost ends the shown number is rounded to three digits or more.
        slack = 0.006 * abs(value) if value in (low, high) or value < ends[0] or value > ends[-1] else 0
        assert ends[0] - slack <= value <= ends[-1] + slack
    # Names go up with the numbers.
    order = [shown[i] for i in np.argsort(column, kind="stable")]
    assert [ends[-1] for ends in order] == sorted(ends[-1] for ends in order)


def test_a_quarter_that_is_equal_is_a_slice_of_its_own():
    names = values([0] * 80 + list(range(1, 21)))
    assert Counter(names) == {"0": 80, "1 to 5.75": 5, "5.75 to 10.5": 5, "10.5 to 15.2": 5, "15.2 to 20": 5}
    assert set(values([0] * 80 + [1, 2, 3, 4])) == {"0", "1", "2", "3", "4"}
    assert set(values([9] * 80 + list(range(5)))) == {"0 to 9"}


def test_near_numbers_are_kept_apart_by_more_digits():
    names = in_order(set(values([100_000 + i / 10 for i in range(9)])))
    assert names == ["100000 to 100000.2", "100000.2 to 100000.4", "100000.4 to 100000.6", "100000.6 to 100000.8"]


def test_dates_of_many_months_go_by_year():
    days = [date(2014, 1, 1) + timedelta(days=30 * i) for i in range(120)]
    assert set(values(days[:50])) == {day.strftime("%Y-%m") for day in days[:50]}
    assert set(values(days)) == {str(year) for year in range(2014, 2024)}
    assert why_not(days) is None


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([str(i) for i in range(51)], "51 different values, more than 50"),
        ([date(1900 + i, 1, 1) for i in range(60)], "60 different values"),
        ([1, "a"], r"several kinds \(number and text\)"),
        ([True, 1], r"several kinds \(bool and number\)"),
        ([[1, 2]], "kind list"),
        ([{"a": 1}], "kind dict"),
        ([b"a"], "kind bytes"),
    ],
)
def test_what_cannot_be_sliced_by_says_why(column, said):
    with pytest.raises(InputError, match=said):
        values(column)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(why_not(column))


@pytest.mark.parametrize("column", [[], [None], [float("nan")]])
def test_a_field_without_values_is_no_field_to_slice_by(column):
    assert why_not(column) == "it has no value in any sample"


@pytest.mark.parametrize(
    "names",
    [
        ["-10 to -2.5", "-2.5 to 3", "3 to 10", "10 to 25"],
        ["2013-12", "2014-02", "2014-10"],
        ["cam2", "cam10", "deep"],
        ["", "0.5", "1", "a", "b"],
        ["False", "True"],
    ],
)
def test_names_are_sorted_as_a_person_would(names):
    assert in_order(reversed(names)) == names
    assert in_order(names) == names
