"""Which rows are for training, which for validation and which for testing.

Rows of one group (a deployment, a day) and identical images stay together: the same animal recurs in
neighbouring frames, and a model that was trained on them would look better on the rest than it is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np

from .errors import InputError

FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}
PASSES = 10  # over all groups, at most, to mend what placing them one after the other left
NAMED = 20  # problems of one kind that are spelt out


@dataclass(frozen=True)
class Splits:
    """The split of each row, and what a person should know about the whole."""

    split: list[str | None]  # one per row
    table: dict[str, dict[str, int]]  # class -> split -> labelled rows
    too_small: dict[str, str]  # class -> why, and from which splits, it is missing
    problems: list[str]  # sentences
    unlabelled: int  # rows without a label, which get no split


def assign(
    labels: Sequence[str | None],
    fractions: Mapping[str, float] = FRACTIONS,
    groups: Sequence[str | None] | None = None,
    hashes: Sequence[str | None] | None = None,
    existing: Sequence[str | None] | None = None,
    seed: int = 51,
    near: Sequence[str | None] | None = None,
) -> Splits:
    """Splits rows so that each class has its share in each split, as far as the groups allow.

    Groups are placed first, those that weigh most (large, or with much of a rare class) before others, each
    where it brings the classes nearest to their shares, and moved again while that helps. Single rows fill what
    is left, exact to one row a class. For a seed the outcome is always the same; the order of rows matters only
    among those that have neither a group nor a hash.

    Args:
        labels: the class of each row, None where it has none.
        fractions: the share of each split, summing to 1; one of 0 is not used.
        groups: what must not be torn apart; a row with None is on its own.
        hashes: of each image's bytes, None where unknown: rows with one hash stay together, and so do their groups.
        existing: the split that a row has already: it is kept, and the rest of its group goes there (to the
            most frequent one, where there are several). Unlabelled rows keep theirs, and get no new one.
        seed: for the order among equals.
        near: of each image's near-duplicates, None where it has none: rows with one name stay together, and so do
            their groups.

    Raises:
        InputError: fractions that are no shares of a whole, or columns of different lengths.
    """
    for column, what in (
        (groups, "groups"),
        (hashes, "hashes"),
        (near, "near-duplicates"),
        (existing, "existing splits"),
    ):
        if column is not None and len(column) != len(labels):
            raise InputError(f"There are {len(labels)} labels but {len(column)} {what}: give one for each row.")
    used = _used(fractions)
    had = existing if existing is not None else [None] * len(labels)
    names = [*used, *sorted({name for name in had if name is not None and name not in used})]
    share = np.array([used.get(name, 0.0) for name in names])
    classes = sorted({label for label in labels if label is not None})
    label, kept = _codes(labels, classes), _codes(had, names)
    unit = _units(len(labels), groups, hashes, near)

    split = np.where((kept < 0) & (label >= 0), _pins(unit, kept, len(names))[unit], kept)
    # RandomState, whose stream never changes: the seed gives the same splits with any version of numpy.
    order = np.random.RandomState(seed % 2**32).permutation(unit.max(initial=-1) + 1)[unit]
    if classes:
        _place_groups(split, label, unit, order, share, len(classes))
        _fill(split, label, order, share, len(classes))
        if groups is not None:
            _leave_none_empty(split, label, unit, kept, share)

    table = _count(split, label, len(names), len(classes))
    result = [None if code < 0 else names[code] for code in split.tolist()]
    problems = [
        *_both_sides(result, groups, 'Group "{}"'),
        *_both_sides(result, hashes, "The image with the hash {}"),
        *_both_sides(result, near, "The near-duplicates {}"),
    ]
    if classes:
        problems += [
            f'No labelled ROI is in "{name}"{_few_groups(groups)}.'
            for name, row in zip(used, table, strict=False)
            if not row.any()
        ]
    return Splits(
        split=result,
        table={each: dict(zip(names, table[:, c].tolist(), strict=True)) for c, each in enumerate(classes)},
        too_small=_too_small(classes, names[: len(used)], table, label, unit),
        problems=problems,
        unlabelled=int((label < 0).sum()),
    )


def leaks(split: Sequence[str | None], groups: Sequence[str | None]) -> dict[str, dict[str, int]]:
    """The groups that are in more than one split: group -> split -> rows. Rows without either do not count."""
    sides: dict[str, dict[str, int]] = defaultdict(dict)
    for (group, name), rows in Counter(zip(groups, split, strict=True)).items():
        if group is not None and name is not None:
            sides[group][name] = rows
    return {group: dict(sorted(sides[group].items())) for group in sorted(sides) if len(sides[group]) > 1}


def _used(fractions: Mapping[str, float]) -> dict[str, float]:
    """The fractions above zero, checked."""
    given = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
    if not all(fraction >= 0 for fraction in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise InputError(f"The fractions of the splits must be 0 or more and sum to 1, not {given}.")
    if not fractions.get("train"):
        raise InputError(f'The fraction of "train" must be above 0, or nothing can be trained; given: {given}.')
    return {name: fraction for name, fraction in fractions.items() if fraction > 0}


def _codes(values: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
    """The position of each value in `names`, -1 for None, (N,)."""
    position = {name: i for i, name in enumerate(names)}
    return np.fromiter(map(position.get, values, repeat(-1)), np.int64, len(values))  # type: ignore[arg-type]


def _units(n: int, *columns: Sequence[str | None] | None) -> np.ndarray:
    """For each row the number of what may not be torn apart: rows joined by any of the columns, (N,).

    Numbered by the sorted names of the first column, then of the next, then rows with none: not by the order of rows.
    """
    node, nodes, links = np.full(n, -1), 0, []
    for column in columns:
        if column is None:
            continue
        names = sorted({name for name in column if name is not None})
        code = _codes(column, names)
        has = code >= 0
        code = np.where(has, code + nodes, -1)
        nodes += len(names)
        both = has & (node >= 0)
        links.append((node[both], code[both]))
        node = np.where(node >= 0, node, code)
    alone = np.flatnonzero(node < 0)
    node[alone] = np.arange(len(alone)) + nodes
    nodes += len(alone)
    if not any(len(one) for one, _ in links):
        return node

    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = tuple(np.concatenate(side) for side in zip(*links, strict=True))
    graph = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(nodes, nodes))
    joined = connected_components(graph, directed=False)[1]
    first = np.unique(joined, return_index=True)[1]  # the lowest node of each component, which names it
    return np.unique(first[joined[node]], return_inverse=True)[1]


def _pins(unit: np.ndarray, kept: np.ndarray, splits: int) -> np.ndarray:
    """The split that each unit has already through one of its rows (the most frequent one), or -1, (units,)."""
    has = kept >= 0
    units = unit.max(initial=-1) + 1
    votes = np.bincount(unit[has] * splits + kept[has], minlength=units * splits).reshape(units, splits)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def _count(split: np.ndarray, label: np.ndarray, splits: int, classes: int) -> np.ndarray:
    """Labelled rows by split and class, (splits, classes)."""
    both = (split >= 0) & (label >= 0)
    return np.bincount(split[both] * classes + label[both], minlength=splits * classes).reshape(splits, classes)


def _wanted(split: np.ndarray, label: np.ndarray, share: np.ndarray, classes: int) -> np.ndarray:
    """How many of the rows still free each split should get of each class, (splits, classes), not rounded.

    In proportion to what a split lacks, so that one that kept splits have overfilled gets no more.
    """
    total = np.bincount(label[label >= 0], minlength=classes)
    have = _count(split, label, len(share), classes)
    lacks = np.maximum(share[:, None] * total - have, 0)
    return lacks * ((total - have.sum(axis=0)) / np.maximum(lacks.sum(axis=0), 1e-9))


def _place_groups(
    split: np.ndarray, label: np.ndarray, unit: np.ndarray, order: np.ndarray, share: np.ndarray, classes: int
) -> None:
    """Gives every free row of a unit with several free rows its split, in place."""
    free = np.flatnonzero((split < 0) & (label >= 0))
    rows = free[np.bincount(unit[free], minlength=1)[unit[free]] > 1]
    if not len(rows):
        return
    # Errors are shares of a class, so that a rare class counts as much as a frequent one.
    total = np.maximum(np.bincount(label[label >= 0], minlength=classes), 1)
    in_groups = np.bincount(label[rows], minlength=classes) / np.maximum(np.bincount(label[free], minlength=classes), 1)
    error = -_wanted(split, label, share, classes) * in_groups / total

    pairs, first, count = np.unique(unit[rows] * classes + label[rows], return_index=True, return_counts=True)
    number, members = pairs // classes, pairs % classes
    part = count / total[members]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    # The heaviest first, since they fit worst; those of about one weight in the order that the seed gives.
    weight = np.log2(np.add.reduceat(part**2, starts)).round()
    heaviest = np.lexsort((order[rows][first][starts], -weight))
    where = _place(members, part, starts, heaviest, error, np.flatnonzero(share > 0).tolist())

    of_unit = np.full(unit.max() + 1, -1)
    of_unit[number[starts]] = where
    split[rows] = of_unit[unit[rows]]


def _place(
    members: np.ndarray,
    part: np.ndarray,
    starts: np.ndarray,
    sequence: np.ndarray,
    error: np.ndarray,
    choices: list[int],
) -> list[int]:
    """Places units so that the sum of squared errors is small; the split of each unit.

    Putting parts p_c into split s adds sum(2 p_c e_sc + p_c^2) to it, and only the first term depends on s.

    Args:
        members: the classes of all units, one unit after the other.
        part: which share of its class each of these is.
        starts: where each unit begins in them.
        sequence: the order in which to place the units.
        error: how far each split is from its share of each class, (splits, classes).
        choices: the splits to choose from.
    """
    ends = [*starts[1:].tolist(), len(members)]
    spans = [(members[a:b].tolist(), part[a:b].tolist()) for a, b in zip(starts.tolist(), ends, strict=True)]
    errors = error.tolist()
    place = [-1] * len(spans)
    size = np.inf
    for _ in range(1 + PASSES):
        for i in sequence.tolist():
            inside, parts = spans[i]
            before = place[i]
            if before >= 0:
                _add(errors[before], inside, parts, -1)
            cost = [sum([errors[s][c] * p for c, p in zip(inside, parts, strict=True)]) for s in choices]
            place[i] = choices[cost.index(min(cost))]
            _add(errors[place[i]], inside, parts, 1)
        size, last = float(np.square(errors).sum()), size
        if size > 0.95 * last:  # such a pass costs more than it gains
            break
    return place


def _add(error: list[float], members: list[int], parts: list[float], sign: int) -> None:
    """Adds (or takes away) a unit's parts to one split's errors."""
    for c, p in zip(members, parts, strict=True):
        error[c] += sign * p


def _fill(split: np.ndarray, label: np.ndarray, order: np.ndarray, share: np.ndarray, classes: int) -> None:
    """Gives every row still free its split, in place: for each class the wanted numbers, by largest remainder."""
    free = np.flatnonzero((split < 0) & (label >= 0))
    wanted = _wanted(split, label, share, classes).round(9)  # 7 * 0.1 / 0.1 is 7
    whole = np.floor(wanted).astype(np.int64)
    left = np.bincount(label[free], minlength=classes) - whole.sum(axis=0)
    rank = np.argsort(np.argsort(whole - wanted, axis=0, kind="stable"), axis=0)
    whole += rank < left
    free = free[np.lexsort((order[free], label[free]))]
    split[free] = np.repeat(np.tile(np.arange(len(share)), classes), whole.T.ravel())


def _leave_none_empty(
    split: np.ndarray, label: np.ndarray, unit: np.ndarray, kept: np.ndarray, share: np.ndarray
) -> None:
    """Gives a split that got nothing the smallest free unit of the one with the most units, in place.

    With a handful of groups the nearest shares may leave one out, and a model without a test is worse than shares a
    little off.
    """
    free = np.flatnonzero((label >= 0) & ~np.isin(unit, unit[kept >= 0]))
    units, first, count = np.unique(unit[free], return_index=True, return_counts=True)
    for empty in [s for s in np.flatnonzero(share > 0) if not ((split == s) & (label >= 0)).any()]:
        home = split[free[first]]
        held = np.bincount(home, minlength=len(share))
        giver = held.argmax()
        if held[giver] > 1:
            smallest = units[home == giver][count[home == giver].argmin()]
            split[(unit == smallest) & (label >= 0)] = empty


def _few_groups(groups: Sequence[str | None] | None) -> str:
    count = len({group for group in groups or () if group is not None})
    there = "is only 1 group" if count == 1 else f"are only {count} groups"
    return f": there {there}; keep together by a finer field" if count else ""


def _too_small(
    classes: list[str], names: list[str], table: np.ndarray, label: np.ndarray, unit: np.ndarray
) -> dict[str, str]:
    """Why a class is missing from a split that should have it, by class."""
    reasons = {}
    for c, each in enumerate(classes):
        missing = [name for s, name in enumerate(names) if not table[s, c] and table[s].any()]
        if missing:
            rows, units = int((label == c).sum()), len(np.unique(unit[label == c]))
            held = f" in {units} group{'s' * (units > 1)}" if units < rows else ""
            reasons[each] = f"{rows} image{'s' * (rows > 1)}{held}: none in {' and '.join(missing)}"
    return reasons


def _both_sides(split: list[str | None], groups: Sequence[str | None] | None, what: str) -> Iterator[str]:
    """A sentence for each group in several splits; only splits that were kept can cause that."""
    found = leaks(split, groups) if groups is not None else {}
    for group, sides in islice(found.items(), NAMED):
        counts = " and ".join(f"{name} ({rows})" for name, rows in sides.items())
        yield f"{what.format(group)} is in {counts}: splits it had already were kept; overwrite them to mend this."
    if len(found) > NAMED:
        yield f"The same holds for {len(found) - NAMED} more."
