"""Slices on which a model is wrong more often than elsewhere, of single fields and of any two together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from ..intervals import wilson

LEVEL = 0.05  # how often, at most, any slice at all is named where there is nothing but chance
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


def find(correct: np.ndarray, columns: Columns, level: float = LEVEL, least: int = LEAST) -> list[WeakSlice]:
    """The slices that are worse than the rest of the images, those first that lose the most.

    Each slice of at least `least` images is held against all others by Fisher's exact test, one-sided, and the
    p-values of all of them, pairs included, are corrected together (Holm 1979, "A simple sequentially rejective
    multiple test procedure"): where wrong images are spread by chance, nothing is named in at least 95 of 100 cases.
    A pair is left out where one of its two slices is named and the pair is no worse than the rest of that slice; a
    slice is left out where it is like elsewhere without a pair that is named.

    Args:
        correct: which of N images are right, bool (N,)
        columns: for each field N names of slices, None where there is none; see `slices.values`
        level: how often, at most, anything is named where there is nothing but chance
        least: images that a slice must have to be looked at

    Raises:
        InputError: a column is not of the same images
    """
    wrong = ~np.asarray(correct, dtype=bool)
    coded = {name: code(column) for name, column in columns.items()}
    for name, (codes, _) in coded.items():
        if len(codes) != len(wrong):
            raise InputError(f"The field {name!r} has {len(codes):,} values for {len(wrong):,} images.")
    tables = [_count(wrong, fields, coded) for fields in _looked_at(coded)]
    kept = [
        (fields, cells[enough], n[enough], bad[enough]) for fields, cells, n, bad in tables for enough in [n >= least]
    ]
    if not sum(len(cells) for _, cells, _, _ in kept):
        return []
    of = np.repeat(np.arange(len(kept)), [len(cells) for _, cells, _, _ in kept])
    cells, n, bad = (np.concatenate([part[i] for part in kept]) for i in (1, 2, 3))
    adjusted = holm(_tail(bad, len(wrong), int(wrong.sum()), n))
    found = {}
    for row in np.flatnonzero(adjusted <= level):
        fields = kept[of[row]][0]
        parts = np.unravel_index(cells[row], [len(coded[field][1]) for field in fields])
        values = tuple(coded[field][1][part] for field, part in zip(fields, parts, strict=True))
        one = _weak(fields, values, int(n[row]), int(bad[row]), wrong, float(adjusted[row]))
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


def _count(
    wrong: np.ndarray, fields: tuple[str, ...], coded: Mapping[str, tuple[np.ndarray, list[str]]]
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """The cells of one field or two that have images: their numbers, how many images, and how many wrong ones."""
    columns = [coded[field][0] for field in fields]
    shape = [len(coded[field][1]) for field in fields]
    known = np.logical_and.reduce([column >= 0 for column in columns])
    cell = np.ravel_multi_index([column[known] for column in columns], shape)
    n = np.bincount(cell, minlength=int(np.prod(shape)))
    bad = np.bincount(cell[wrong[known]], minlength=len(n))
    cells = np.flatnonzero(n)
    return fields, cells, n[cells], bad[cells]


def _tail(bad: np.ndarray, total: int, wrong: int, n: np.ndarray) -> np.ndarray:
    """The probability of so many wrong ones or more among n of `total` of which `wrong` are."""
    from scipy.stats import hypergeom

    return hypergeom.sf(bad - 1, total, wrong, n)


def _weak(fields: tuple[str, ...], values: tuple[str, ...], n: int, bad: int, wrong: np.ndarray, p: float) -> WeakSlice:
    elsewhere = 1 - (int(wrong.sum()) - bad) / (len(wrong) - n)  # a slice that is all there is has p = 1
    return WeakSlice(fields, values, n, bad, wilson(n - bad, n), elsewhere, p)


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
