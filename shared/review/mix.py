"""Class mix against earlier images of the same kind: the same collection, the same season, another year.

Plankton is seasonal and every collection has a mix of its own, so only like is held against like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .weak_slices import LEVEL, code, holm

LEAST = 30  # images on either side
DIFFERS = 0.15  # the least share of images whose class would have to change; neighbouring frames are not independent
SEASONS = ("December to February", "March to May", "June to August", "September to November")


@dataclass(frozen=True)
class Mix:
    """A season whose class mix differs from that of earlier years.

    Attributes:
        kind: what it is compared within, as (field, value); None where there is no field to tell kinds by
        year: of its last month
        season: 0 (December to February) to 3
        n: images in it
        earlier: images of the same kind and season in earlier years
        distance: half the sum of the differences of all shares (total variation), 0 to 1
        grown: the class whose share has grown the most
        share: its share now
        before: its share earlier
        p: how likely chance alone does that to any season looked at (chi-squared, Holm)
    """

    kind: tuple[str, str] | None
    year: int
    season: int
    n: int
    earlier: int
    distance: float
    grown: int
    share: float
    before: float
    p: float

    @property
    def name(self) -> str:
        """Such as "camera B, March to May 2015"."""
        when = f"{SEASONS[self.season]} {self.year}"
        return when if self.kind is None else f"{self.kind[0]} {self.kind[1]}, {when}"


def find(
    predicted: np.ndarray,
    days: np.ndarray,
    kinds: Mapping[str, Sequence[str | None]],
    classes: int,
    level: float = LEVEL,
) -> list[Mix]:
    """The seasons whose class mix differs from the same season of earlier years, those first that differ the most.

    Args:
        predicted: classes, int (N,), below `classes`
        days: when each image was taken, datetime64[D] (N,), NaT where that is not known
        kinds: for each field that tells kinds apart, such as the collection, N names; with none all are of one kind
        classes: how many there are
        level: how often, at most, anything is named where there is nothing but chance
    """
    years, seasons = _season(days)
    looked = []
    for kind, rows in _kinds(kinds, len(predicted)):
        for season in range(len(SEASONS)):
            chosen = rows[seasons[rows] == season]
            looked += _years(kind, season, years[chosen], predicted[chosen], classes)
    p = holm(np.array([p for _, p in looked]))
    found = [
        Mix(**one, p=float(adjusted))
        for (one, _), adjusted in zip(looked, p, strict=True)
        if adjusted <= level and one["distance"] >= DIFFERS
    ]
    return sorted(found, key=lambda one: (-one.distance, one.name))


def members(days: np.ndarray, kinds: Mapping[str, Sequence[str | None]], mix: Mix) -> np.ndarray:
    """Which images are of a season and kind, bool (N,)."""
    years, seasons = _season(days)
    inside = (years == mix.year) & (seasons == mix.season)
    if mix.kind is not None:
        field, value = mix.kind
        inside &= np.fromiter((name == value for name in kinds[field]), bool, len(inside))
    return inside


def _season(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Year and season of each day, -1 where it is not known; December is of the next year's first season."""
    known = ~np.isnat(days)
    months = np.where(known, days, np.datetime64("1970-01-01")).astype("datetime64[M]").astype(np.int64) + 1
    return np.where(known, 1970 + months // 12, -1), np.where(known, months % 12 // 3, -1)


def _kinds(kinds: Mapping[str, Sequence[str | None]], n: int) -> list[tuple[tuple[str, str] | None, np.ndarray]]:
    """The rows of each kind."""
    if not kinds:
        return [(None, np.arange(n))]
    found: list[tuple[tuple[str, str] | None, np.ndarray]] = []
    for field, column in kinds.items():
        codes, names = code(column)
        found += [((field, name), np.flatnonzero(codes == i)) for i, name in enumerate(names)]
    return found


def _years(
    kind: tuple[str, str] | None, season: int, years: np.ndarray, predicted: np.ndarray, classes: int
) -> list[tuple[dict, float]]:
    """Each year of one season against the years before it, with the p-value of there being no difference."""
    from scipy.stats import chi2_contingency

    looked, earlier = [], np.zeros(classes, np.int64)
    for year in np.unique(years).tolist():
        now = np.bincount(predicted[years == year], minlength=classes)
        n, before = int(now.sum()), int(earlier.sum())
        if n >= LEAST and before >= LEAST:
            shares = np.stack([now / n, earlier / before])
            grown = int(np.argmax(shares[0] - shares[1]))
            one = {
                "kind": kind,
                "year": year,
                "season": season,
                "n": n,
                "earlier": before,
                "distance": float(np.abs(shares[0] - shares[1]).sum() / 2),
                "grown": grown,
                "share": float(shares[0, grown]),
                "before": float(shares[1, grown]),
            }
            table = _pooled(np.stack([now, earlier]))
            looked.append((one, float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0))
        earlier = earlier + now
    return looked


def _pooled(table: np.ndarray) -> np.ndarray:
    """Classes with fewer than 5 expected images on a side taken together, as the chi-squared test wants them."""
    table = table[:, table.sum(axis=0) > 0]
    few = np.outer(table.sum(axis=1), table.sum(axis=0)).min(axis=0) < 5 * table.sum()
    return np.column_stack([table[:, ~few], table[:, few].sum(axis=1)]) if few.any() else table
