"""Values of a sample field as the names of slices, on which a model is scored apart: depth, month, camera, site."""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np

from .errors import InputError

MOST = 50  # slices of one field: more cannot be read, and each has too few images
PARTS = 4  # that numbers are cut into, of about equally many images


def values(column: Sequence[Any]) -> list[str | None]:
    """The name of the slice that each value belongs to.

    Texts and booleans are names as they are. Numbers are cut at their quartiles: "10 to 25" is without its lower and
    with its upper end, but for the first one, which has both; four different numbers or fewer are not cut, and where a
    quarter has the lowest number it is a slice of its own and the rest is cut. Dates go by month, such as "2014-05",
    or by year where that makes more than 50 months.

    Args:
        column: the field's value of each sample.

    Returns:
        a name each; None for None and for numbers that are not finite.

    Raises:
        InputError: the field cannot be sliced by, see `why_not`; one without any value can.
    """
    known, kind = _known(column)
    if not known:
        return [None] * len(column)
    names = dict(zip(known, _NAMES[kind](known), strict=True)) if kind in _NAMES else {}
    if problem := _problem(kind, set(names.values())):
        raise InputError(f"Cannot slice by this field: {problem}.")
    return [names.get(_plain(value)) for value in column]


def why_not(column: Sequence[Any]) -> str | None:
    """Why a field with these values cannot be sliced by, to be said after its name; None if it can."""
    known, kind = _known(column)
    if not known:
        return "it has no value in any sample"
    return _problem(kind, set(_NAMES[kind](known)) if kind in _NAMES else set())


def in_order(names: Iterable[str]) -> list[str]:
    """The names sorted as a person would, numbers in them by their size: "5 to 10" before "10 to 25"."""
    return sorted(names, key=lambda name: (_pieces(name), name))


def _pieces(name: str) -> list[str | float]:
    """Text and numbers in turn; a minus is a sign where nothing stands before it ("-5", but "2014-05")."""
    pieces = re.split(r"((?:(?<!\w)-)?\d+(?:\.\d+)?)", name)
    return [float(piece) if i % 2 else piece for i, piece in enumerate(pieces)]


def _plain(value: Any) -> Any:
    """A value that can be looked up; numbers that are not finite are None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    for kind, types in (("text", str), ("number", (int, float)), ("date", date)):
        if isinstance(value, types):
            return kind
    return type(value).__name__


def _known(column: Iterable[Any]) -> tuple[list[Any], str]:
    """The values there are, and their kind."""
    known = [value for value in map(_plain, column) if value is not None]
    return known, " and ".join(sorted(set(map(_kind, known))))


def _problem(kind: str, names: set[str]) -> str | None:
    if " and " in kind:
        return f"its values are of several kinds ({kind})"
    if kind not in _NAMES:
        return f"its values are of the kind {kind}, not text, numbers, booleans or dates"
    if len(names) > MOST:
        return f"it has {len(names):,} different values, more than {MOST}"
    return None


def _by_quartile(known: Sequence[float]) -> list[str]:
    numbers = np.array(known, dtype=np.float64)
    different = np.unique(numbers)
    if len(different) <= PARTS:
        texts = _written(different)
        return [texts[i] for i in np.searchsorted(different, numbers)]
    edges = np.quantile(numbers, np.arange(PARTS + 1) / PARTS)
    if edges[0] == edges[1]:
        # A quarter or more are equal (no depth, no neighbour): they are a slice of their own.
        rest = iter(_by_quartile(numbers[numbers > edges[0]].tolist()))
        return [_written(edges[:1])[0] if number == edges[0] else next(rest) for number in numbers]
    texts = _written(np.unique(edges))
    # The bounds as they are shown, so that the name of a slice is true of all that is in it.
    inner = np.array(texts[1:-1], dtype=np.float64)
    names = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [names[i] for i in np.searchsorted(inner, numbers, side="left")]


def _written(numbers: np.ndarray) -> list[str]:
    """Numbers with as few digits, at least three, as keep them apart."""
    for digits in range(3, 18):
        texts = [np.format_float_positional(float(f"{number:.{digits}g}"), trim="-") for number in numbers]
        if len(set(texts)) == len(numbers):
            break
    return texts


def _by_month(known: list[date]) -> list[str]:
    months = [f"{value.year:04d}-{value.month:02d}" for value in known]
    return months if len(set(months)) <= MOST else [month[:4] for month in months]


_NAMES: dict[str, Any] = {
    "text": list,
    "bool": lambda known: list(map(str, known)),
    "number": _by_quartile,
    "date": _by_month,
}
