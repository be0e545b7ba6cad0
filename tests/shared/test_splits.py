"""Splits: the promises as properties, and their quality beside scikit-learn's StratifiedGroupKFold."""

import random
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from shared.errors import InputError
from shared.splits import FRACTIONS, assign, leaks

names = st.sampled_from(["train", "val", "test"])
rows = st.lists(
    st.tuples(
        st.sampled_from(["Calanus", "fecal_pellet", "größer/als", "", None]),  # label
        st.one_of(st.none(), st.sampled_from([f"day {i}" for i in range(6)])),  # group
        st.one_of(st.none(), st.sampled_from([f"hash {i}" for i in range(12)])),  # hash
        st.one_of(st.none(), names),  # existing split
    ),
    max_size=60,
)
weights = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20))


def columns(table):
    return tuple(map(list, zip(*table, strict=True))) if table else ([], [], [], [])


def shares(parts) -> dict[str, float]:
    return {name: part / sum(parts) for name, part in zip(FRACTIONS, parts, strict=True)}


@settings(deadline=None)
@given(rows, weights, st.integers(0, 5))
def test_every_labelled_row_and_only_these_get_a_split_and_the_table_adds_up(table, parts, seed):
    labels, groups, hashes, _ = columns(table)
    result = assign(labels, shares(parts), groups, hashes, seed=seed)
    used = {name for name, part in zip(FRACTIONS, parts, strict=True) if part}
    assert all((split is None) == (label is None) for split, label in zip(result.split, labels, strict=True))
    assert set(result.split) - {None} <= used
    assert result.unlabelled == labels.count(None)
    counted = Counter(pair for pair in zip(labels, result.split, strict=True) if pair[0] is not None)
    assert counted == {(label, s): n for label, row in result.table.items() for s, n in row.items() if n}
    assert {label: set(row) for label, row in result.table.items()} == dict.fromkeys(set(labels) - {None}, used)


@settings(deadline=None)
@given(rows, weights)
def test_no_group_and_no_image_is_on_two_sides(table, parts):
    labels, groups, hashes, _ = columns(table)
    split = assign(labels, shares(parts), groups, hashes).split
    assert leaks(split, groups) == {}
    assert leaks(split, hashes) == {}


@settings(deadline=None)
@given(rows)
def test_existing_splits_are_kept_and_their_groups_follow(table):
    labels, groups, hashes, existing = columns(table)
    result = assign(labels, groups=groups, hashes=hashes, existing=existing)
    assert all(had in (None, got) for had, got in zip(existing, result.split, strict=True))
    assert all(got == had for had, got, label in zip(existing, result.split, labels, strict=True) if label is None)
    had_before = leaks(existing, groups) | leaks(existing, hashes)
    for group, sides in (leaks(result.split, groups) | leaks(result.split, hashes)).items():
        assert any(group in problem and all(name in problem for name in sides) for problem in result.problems)
    assert all(any(group in problem for problem in result.problems) for group in had_before)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 8), names), max_size=40))
def test_without_hashes_a_group_leaks_only_if_it_did_before(table):
    labels, groups = [row[0] for row in table], [f"g{row[1]}" for row in table]
    existing = [row[2] if row[1] % 2 else None for row in table]
    assert set(leaks(assign(labels, groups=groups, existing=existing).split, groups)) == set(leaks(existing, groups))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["A", "B", "C", None]), max_size=200), weights, st.integers(0, 3))
def test_without_groups_each_share_is_exact_to_one_row(labels, parts, seed):
    fractions = shares(parts)
    for row in assign(labels, fractions, seed=seed).table.values():
        assert all(abs(n - fractions[name] * sum(row.values())) < 1 + 1e-6 for name, n in row.items())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.booleans()), min_size=1, max_size=120))
def test_new_rows_bring_the_whole_to_its_shares_where_the_kept_ones_allow(table):
    labels = [row[0] for row in table]
    existing = ["train" if row[1] else None for row in table]
    for label, row in assign(labels, {"train": 0.5, "test": 0.5}, existing=existing).table.items():
        kept = sum(each == label and had == "train" for each, had in zip(labels, existing, strict=True))
        assert row["train"] == pytest.approx(max(kept, sum(row.values()) / 2), abs=0.51)


@settings(deadline=None)
@given(rows, st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_order_of_rows_does_not_matter_where_each_has_a_name(table, shuffle: random.Random, seed):
    named = [(label, group or "no group", image, had) for label, group, image, had in table]
    order = list(range(len(named)))
    shuffle.shuffle(order)

    def split(lines):
        labels, groups, hashes, existing = columns(lines)
        return assign(labels, groups=groups, hashes=hashes, existing=existing, seed=seed).split

    straight, mixed = split(named), split([named[i] for i in order])
    assert mixed == [straight[i] for i in order]


def test_the_seed_decides_and_decides_alone():
    labels, groups = ["A", "B"] * 200, [f"g{i // 5}" for i in range(400)]
    assert assign(labels, groups=groups, seed=1) == assign(labels, groups=groups, seed=1)
    assert assign(labels, groups=groups, seed=1).split != assign(labels, groups=groups, seed=2).split
    assert assign(labels, seed=1).split != assign(labels, seed=2).split
    assert assign(labels, seed=-1) == assign(labels, seed=-1)


def test_the_splits_of_a_seed_never_change():
    """People quote the seed in papers: another version of this suite or of numpy must not change its meaning."""
    thirds = {"train": 0.4, "val": 0.3, "test": 0.3}
    grouped = assign(list("ABBB" * 8), thirds, groups=[f"g{i // 3}" for i in range(32)], seed=51)
    assert "".join(name[1] for name in grouped.split) == "aaarrraaaeeeeeeaaarrrrrreeerrraa"
    assert "".join(name[1] for name in assign(["A"] * 20, thirds, seed=51).split) == "raerrrraaaaeereeearr"


def test_identical_images_join_their_groups():
    labels = ["A"] * 40
    groups = [f"g{i}" for i in range(40)]
    hashes = [f"h{i // 2}" for i in range(40)]  # each image in two groups
    split = assign(labels, groups=groups, hashes=hashes).split
    assert all(split[i] == split[i + 1] for i in range(0, 40, 2))
    chain = [f"h{i // 2}" for i in range(40)], [f"g{(i + 1) // 2}" for i in range(40)]  # all hang together
    assert len(set(assign(labels, hashes=chain[0], groups=chain[1]).split)) == 1


def test_classes_too_small_for_a_split_are_named():
    labels = ["one"] + ["three"] * 3 + ["day"] * 12 + ["many"] * 40
    groups = [None] * 4 + ["monday"] * 12 + [None] * 40
    result = assign(labels, groups=groups)
    assert result.too_small == {
        "one": "1 image: none in val and test",
        "three": "3 images: none in test",
        "day": "12 images in 1 group: none in val and test",
    }
    assert result.table["one"] == {"train": 1, "val": 0, "test": 0}
    assert result.problems == []


def test_a_split_that_nobody_is_in_is_a_problem():
    assert assign(["A"] * 9, groups=["monday"] * 9).problems == [
        'No labelled ROI is in "val": there is only 1 group; keep together by a finer field.',
        'No labelled ROI is in "test": there is only 1 group; keep together by a finer field.',
    ]


def test_a_group_on_both_sides_is_named_and_the_rest_goes_where_most_of_it_is():
    existing = ["train", "val", "val", None, None]
    result = assign(["A"] * 5, groups=["monday"] * 5, existing=existing)
    assert result.split == ["train", "val", "val", "val", "val"]
    assert result.problems[0].startswith('Group "monday" is in train (1) and val (4): splits it had already were kept')


def test_many_groups_on_both_sides_are_counted():
    groups = [f"g{i:02}" for i in range(30) for _ in "ab"]
    problems = assign(["A"] * 60, groups=groups, existing=["train", "val"] * 30).problems
    assert problems[20] == "The same holds for 10 more."


def test_a_kept_split_that_is_not_asked_for_stays():
    result = assign(["A"] * 10, {"train": 0.8, "val": 0.2}, existing=["holdout"] * 2 + [None] * 8)
    assert result.split[:2] == ["holdout"] * 2
    assert result.table == {"A": {"train": 6, "val": 2, "holdout": 2}}
    assert assign(["A"] * 10, {"train": 1, "test": 0}, existing=["test"] + [None] * 9).table["A"]["test"] == 1


def test_an_empty_view_and_one_without_labels():
    assert assign([]).table == {}
    result = assign([None, None], groups=["a", "a"], hashes=[None, "h"])
    assert (result.split, result.table, result.unlabelled, result.problems) == ([None, None], {}, 2, [])


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ({"train": 0.7, "val": 0.2}, "sum to 1, not train 0.7, val 0.2"),
        ({"train": 1.2, "val": -0.2}, "0 or more"),
        ({"train": float("nan"), "val": 1}, "0 or more"),
        ({"train": 0, "val": 0.5, "test": 0.5}, '"train" must be above 0'),
        ({"val": 1}, '"train" must be above 0'),
        ({}, "sum to 1"),
    ],
)
def test_fractions_that_are_no_shares_are_refused(fractions, said):
    with pytest.raises(InputError, match=said):
        assign(["A"], fractions)


def test_rounded_fractions_are_fine():
    assert len(assign(["A"] * 9, {"train": 0.3333333, "val": 0.3333333, "test": 0.3333334}).split) == 9


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="2 labels but 1 groups"):
        assign(["A", "B"], groups=["g"])


def test_leaks_counts_rows_by_side():
    split = ["train", "val", "train", None, "test", "val", "train"]
    groups = ["a", "a", "a", "a", "b", None, None]
    assert leaks(split, groups) == {"a": {"train": 2, "val": 1}}


def deviation(labels, split) -> np.ndarray:
    """How far each class's share of each split is from what was asked, (classes, splits)."""
    counted = Counter(zip(labels, split, strict=True))
    table = np.array([[counted[label, name] for name in FRACTIONS] for label in sorted(set(labels))])
    return abs(table / table.sum(axis=1, keepdims=True) - np.array(list(FRACTIONS.values())))


def stratified_group_k_fold(labels, groups, seed) -> list[str]:
    """70/15/15 from scikit-learn: of 20 folds 3 are val and 3 are test."""
    split = np.full(len(labels), "train", object)
    folds = StratifiedGroupKFold(20, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, inside) in enumerate(folds):
        split[inside] = "val" if fold < 3 else "test" if fold < 6 else "train"
    return split.tolist()


def draw(seed: int) -> tuple[list[str], list[str]]:
    """Rows of uneven classes in groups of uneven sizes, each group rich in few classes."""
    rng = np.random.RandomState(seed)
    size = rng.pareto(1.0, 150) + 0.1
    group = rng.choice(150, 3000, p=size / size.sum())
    label = np.minimum(rng.poisson(group % 7, 3000), 11)
    return [f"class {i}" for i in label], [f"day {i}" for i in group]


@pytest.mark.parametrize("seed", range(4))
def test_class_shares_are_nearer_than_those_of_scikit_learn(seed):
    labels, groups = draw(seed)
    ours = deviation(labels, assign(labels, groups=groups, seed=seed).split)
    theirs = deviation(labels, stratified_group_k_fold(labels, groups, seed))
    assert ours.mean() < theirs.mean()
    assert ours.max() < theirs.max()


def test_capture_days_of_real_images(pwssc):
    files = sorted(pwssc.glob("*/*.png"))
    labels = [file.parent.name for file in files]
    days = [f"{datetime.fromtimestamp(int(file.name.split('-')[2]), UTC):%Y-%m-%d}" for file in files]
    result = assign(labels, groups=days)
    ours, theirs = deviation(labels, result.split), deviation(labels, stratified_group_k_fold(labels, days, 0))
    assert leaks(result.split, days) == {}
    assert result.too_small == {}
    assert result.problems == []
    assert ours.mean() < min(0.01, theirs.mean())
    assert ours.max() < min(0.04, theirs.max())


def test_a_handful_of_groups_leaves_no_split_empty() -> None:
    labels, groups = ["a", "b"] * 40, [f"d{i // 20}" for i in range(80)]
    result = assign(labels, groups=groups)
    assert {name: sum(row[name] for row in result.table.values()) for name in ("train", "val", "test")} == {
        "train": 40,
        "val": 20,
        "test": 20,
    }
    assert not result.problems


def test_too_few_groups_are_said_once() -> None:
    labels, groups = ["a", "b"] * 40, [f"d{i // 40}" for i in range(80)]
    result = assign(labels, groups=groups)
    assert result.too_small == {}
    assert len(result.problems) == 1
    assert "there are only 2 groups" in result.problems[0]


def test_another_seed_gives_other_groups() -> None:
    labels, groups = ["a", "b"] * 200, [f"d{i // 8}" for i in range(400)]
    parts = []
    for seed in (1, 2, 3):
        splits = assign(labels, groups=groups, seed=seed).split
        parts.append({group for group, name in zip(groups, splits, strict=True) if name == "test"})
    assert len({frozenset(part) for part in parts}) == 3
