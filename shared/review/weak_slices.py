"""Slices on which a model is wrong more often than elsewhere, of single fields and of any two together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from ..intervals import wilson

LEVEL = 0.05  # how often, at most, any slice at all is named where there is nothing but chance
GROUPS = 10  # of images that are alike: with fewer, how alike they are cannot be measured
LEAST = 10  # images of a slice: with fewer, not even all being wrong says much among so many slices

Columns = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class WeakSlice:
    """A slice that is worse than the rest.

    Attributes:
        fields: one name, or two
        values: the slice's name in each of them
        n: images in it
        wrong: how many of them are wrong
        interval: of the share that is right, 95%
        elsewhere: the share that is right among all others
        p: how likely chance alone does that to one of the slices looked at (Holm)
    """

    fields: tuple[str, ...]
    values: tuple[str, ...]
    n: int
    wrong: int
    interval: tuple[float, float]
    elsewhere: float
    p: float

    @property
    def right(self) -> float:
        """The share that is right."""
        return 1 - self.wrong / self.n

    @property
    def lost(self) -> float:
        """How many more would be right if it were like elsewhere."""
        return self.n * (self.elsewhere - self.right)

    @property
    def name(self) -> str:
        """Such as "depth 10 to 25, camera B"."""
        return ", ".join(f"{field} {value}" for field, value in zip(self.fields, self.values, strict=True))


def find(
    correct: np.ndarray,
    columns: Columns,
    level: float = LEVEL,
    least: int = LEAST,
    groups: np.ndarray | None = None,
) -> list[WeakSlice]:
    """The slices that are worse than the rest of the images, those first that lose the most.

    Each slice of at least `least` images is held against all others by Fisher's exact test, one-sided, and the
    p-values of all of them, pairs included, are corrected together (Holm 1979, "A simple sequentially rejective
    multiple test procedure"): where wrong images are spread by chance, nothing is named in at least 95 of 100 cases.
    A pair is left out where one of its two slices is named and the pair is no worse than the rest of that slice; a
    slice is left out where it is like elsewhere without a pair that is named.

    Images of one group are no independent evidence: the same animal is in many frames. So counts are divided by how
    much more they vary between groups than those of independent images would (the design effect; Rao and Scott 1992,
    "A Simple Method for the Analysis of Clustered Binary Data"). Without, slices were named in 37 of 40 generated sets
    with nothing but chance and animals in 5 to 20 frames; with days, in 1.

    Args:
        correct: which of N images are right, bool (N,)
        columns: for each field N names of slices, None where there is none; see `slices.values`
        level: how often, at most, anything is named where there is nothing but chance
        least: images that a slice must have to be looked at
        groups: which images may be alike, such as those of one day, (N,); those that are NaT are alone. With fewer than
            10 of them all images are taken to be independent, for how alike they are cannot be measured

    Raises:
        InputError: a column is not of the same images
    """
    wrong = ~np.asarray(correct, dtype=bool)
    coded = {name: code(column) for name, column in columns.items()}
    for name, (codes, _) in coded.items():
        if len(codes) != len(wrong):
            raise InputError(f"The field {name!r} has {len(codes):,} values for {len(wrong):,} images.")
    group = _numbered(groups, len(wrong))
    tables = [_count(wrong, fields, coded, group) for fields in _looked_at(coded)]
    kept = [(fields, *(column[counts[1] >= least] for column in counts)) for fields, *counts in tables]
    if not sum(len(cells) for _, cells, *_ in kept):
        return []
    of = np.repeat(np.arange(len(kept)), [len(cells) for _, cells, *_ in kept])
    cells, n, bad, effect, usual = (np.concatenate([part[i] for part in kept]) for i in range(1, 6))
    counts = (bad / effect, n / effect, (wrong.sum() - bad) / usual, (len(wrong) - n) / usual)
    bad_counted, counted, bad_rest, rest = (np.round(count).astype(np.int64) for count in counts)
    adjusted = holm(_tail(bad_counted, counted + rest, bad_counted + bad_rest, counted))
    found = {}
    for row in np.flatnonzero(adjusted <= level):
        fields = kept[of[row]][0]
        parts = np.unravel_index(cells[row], [len(coded[field][1]) for field in fields])
        values = tuple(coded[field][1][part] for field, part in zip(fields, parts, strict=True))
        one = _weak(fields, values, int(n[row]), int(bad[row]), wrong, float(adjusted[row]), float(effect[row]))
        found[fields, values] = one
    looked = len(adjusted)
    pairs = [one for one in found.values() if len(one.fields) == 2 and not _by_a_field(one, found, level / looked)]
    single = [one for one in found.values() if len(one.fields) == 1 and not _by_a_pair(one, pairs, wrong, level)]
    return sorted(single + pairs, key=lambda one: (-one.lost, one.fields, one.values))


def members(columns: Columns, slice_: WeakSlice) -> np.ndarray:
    """Which images are in a slice, bool (N,)."""
    inside = [
        np.fromiter((value == name for name in columns[field]), bool, len(columns[field]))
        for field, value in zip(slice_.fields, slice_.values, strict=True)
    ]
    return np.logical_and.reduce(inside)


def code(column: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
    """Names as numbers: int64 (N,), -1 for None; and the names that they stand for."""
    names = sorted({name for name in column if name is not None})
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)} | {None: -1}
    return np.fromiter((number[name] for name in column), np.int64, len(column)), names


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, (K,): what is at most the level may be rejected."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def _looked_at(coded: Mapping[str, tuple[np.ndarray, list[str]]]) -> Iterator[tuple[str, ...]]:
    names = [name for name, (_, values) in coded.items() if values]
    yield from ((name,) for name in names)
    yield from combinations(names, 2)


def _numbered(groups: np.ndarray | None, rows: int) -> np.ndarray | None:
    """The group of each row as a number, (N,), rows without one alone; None where there are too few groups."""
    if groups is None:
        return None
    number = np.unique(groups, return_inverse=True)[1]
    if number.max(initial=0) + 1 < GROUPS:
        return None
    alone = groups != groups  # NaT and NaN
    return np.where(alone, number.max(initial=0) + 1 + np.arange(rows), number)


def _count(
    wrong: np.ndarray,
    fields: tuple[str, ...],
    coded: Mapping[str, tuple[np.ndarray, list[str]]],
    group: np.ndarray | None,
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The cells of one field or two that have images: number, images, wrong ones, design effect, and the usual one."""
    columns = [coded[field][0] for field in fields]
    shape = [len(coded[field][1]) for field in fields]
    known = np.logical_and.reduce([column >= 0 for column in columns])
    cell = np.ravel_multi_index([column[known] for column in columns], shape)
    n = np.bincount(cell, minlength=int(np.prod(shape)))
    bad = np.bincount(cell[wrong[known]], minlength=len(n))
    cells = np.flatnonzero(n)
    effects = np.ones((2, len(n))) if group is None else _effects(wrong[known], cell, n, bad, group[known])
    return fields, cells, n[cells], bad[cells], effects[0, cells], effects[1, cells]


def _effects(wrong: np.ndarray, cell: np.ndarray, n: np.ndarray, bad: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The design effects of cells, and the usual one among them, (2, cells): no cell has less than the usual one.

    Args:
        wrong: which images are, bool (N,)
        cell: of each image, (N,)
        n: images of each cell
        bad: wrong ones of each cell
        group: of each image, (N,)
    """
    of_all = int(group.max(initial=0)) + 1
    parts, part = np.unique(cell * of_all + group, return_inverse=True)
    share = bad / np.maximum(n, 1)
    beyond = np.bincount(part, wrong - share[cell], minlength=len(parts))
    groups = np.bincount(parts // of_all, minlength=len(n))
    varied = np.bincount(parts // of_all, beyond**2, minlength=len(n)) * groups / np.maximum(groups - 1, 1)
    expected = n * share * (1 - share)
    several = groups > 1
    usual = max(1.0, float(varied[several].sum()) / max(float(expected[several].sum()), 1e-9))
    own = np.divide(varied, expected, out=np.ones(len(n)), where=expected > 0)
    # How much a single group varies nobody can know: it counts as nothing.
    own = np.where(several, np.maximum(own, usual), np.inf)
    return np.stack([own, np.full(len(n), usual)])


def _tail(bad: np.ndarray, total: np.ndarray | int, wrong: np.ndarray | int, n: np.ndarray) -> np.ndarray:
    """The probability of so many wrong ones or more among n of `total` of which `wrong` are."""
    from scipy.stats import hypergeom

    return hypergeom.sf(bad - 1, total, wrong, n)


def _weak(
    fields: tuple[str, ...],
    values: tuple[str, ...],
    n: int,
    bad: int,
    wrong: np.ndarray,
    p: float,
    effect: float,
) -> WeakSlice:
    elsewhere = 1 - (int(wrong.sum()) - bad) / (len(wrong) - n)  # a slice that is all there is has p = 1
    interval = wilson(round((n - bad) / effect), round(n / effect))
    return WeakSlice(fields, values, n, bad, interval, elsewhere, p)


def _by_a_field(pair: WeakSlice, found: Mapping[tuple, WeakSlice], level: float) -> bool:
    """Whether a pair is weak only because one of its two slices is: it is no worse than the rest of that one."""
    wholes = [found.get(((field,), (value,))) for field, value in zip(pair.fields, pair.values, strict=True)]
    return any(whole is not None and _p(pair.wrong, whole.n, whole.wrong, pair.n) > level for whole in wholes)


def _by_a_pair(one: WeakSlice, pairs: Sequence[WeakSlice], wrong: np.ndarray, level: float) -> bool:
    """Whether a slice is weak only because a part of it is: without that it is like elsewhere."""
    total, bad = len(wrong), int(wrong.sum())
    for pair in pairs:
        if (one.fields[0], one.values[0]) in zip(pair.fields, pair.values, strict=True):
            rest = one.n - pair.n
            if _p(one.wrong - pair.wrong, total - pair.n, bad - pair.wrong, rest) > level:
                return True
    return False


def _p(bad: int, total: int, wrong: int, n: int) -> float:
    return float(_tail(np.array([bad]), total, wrong, np.array([n]))[0])
