"""Class mix against earlier images of the same kind: the same collection, the same season, another year.

Plankton is seasonal and every collection has a mix of its own, so only like is held against like. The same animal is in
many frames, and what drifts by is of one kind for hours, so days are counted, not frames: how different two seasons are
by chance is seen by dealing out their days anew. (In generated data with one mix throughout and animals in 5 to 20
frames each, a chi-squared test of the frames named seasons in 20 of 20 sets; this one does in 15 of 300.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .weak_slices import LEVEL, code, holm

LEAST = 30  # images on either side
DIFFERS = 0.15  # the least share of images whose class would have to change: less is no reason to look
BLOCK = 200  # times that the days are dealt out anew at once
DEALS = 60  # times that they are for each season that is looked at: the more there are, the rarer chance must be
MOST = 10_000
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
        p: how likely chance alone does that to any season looked at (by dealing out days anew, Holm)
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
    looked: list[tuple[Mix, np.ndarray, np.ndarray]] = []
    for kind, rows in _kinds(kinds, len(predicted)):
        for season in range(len(SEASONS)):
            chosen = rows[seasons[rows] == season]
            looked += _years(kind, season, days[chosen], years[chosen], predicted[chosen], classes)
    random = np.random.default_rng(0)
    chances = [_chance(*one, most=min(max(DEALS * len(looked), BLOCK), MOST), random=random) for one in looked]
    p = holm(np.array(chances))
    found = [replace(one, p=float(adjusted)) for (one, *_), adjusted in zip(looked, p, strict=True)]
    return sorted((one for one in found if one.p <= level), key=lambda one: (-one.distance, one.name))


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
    kind: tuple[str, str] | None,
    season: int,
    days: np.ndarray,
    years: np.ndarray,
    predicted: np.ndarray,
    classes: int,
) -> list[tuple[Mix, np.ndarray, np.ndarray]]:
    """Each year of one season beside the years before it, with the counts of all days (D, C), and which are its own."""
    known, day = np.unique(days, return_inverse=True)
    counts = np.bincount(day * classes + predicted, minlength=len(known) * classes).reshape(-1, classes)
    year_of = np.zeros(len(known), np.int64)
    year_of[day] = years
    looked = []
    for year in np.unique(year_of).tolist():
        until = counts[year_of <= year]
        own = year_of[year_of <= year] == year
        now, before = until[own].sum(axis=0), until[~own].sum(axis=0)
        n, earlier = int(now.sum()), int(before.sum())
        if n >= LEAST and earlier >= LEAST:
            shares = np.stack([now / n, before / earlier])
            grown = int(np.argmax(shares[0] - shares[1]))
            distance = float(_distance(until, own[None])[0])
            share, was = shares[:, grown].tolist()
            looked.append((Mix(kind, year, season, n, earlier, distance, grown, share, was, 1.0), until, own))
    return looked


def _chance(one: Mix, counts: np.ndarray, own: np.ndarray, most: int, random: np.random.Generator) -> float:
    """How often days dealt out anew differ at least as much; 1 for what is not worth naming anyway.

    A permutation test of whole days, valid however alike the images of one day are. It ends early where chance does it
    often (Besag and Clifford 1991, "Sequential Monte Carlo p-values").

    Args:
        one: the season
        counts: images of each class on each of its days and those of earlier years, (D, C)
        own: which days are its own, bool (D,)
        most: how often days are dealt out anew
        random: deals them
    """
    if one.distance < DIFFERS:
        return 1.0
    done = exceeded = 0
    while done < most:
        dealt = random.permuted(np.tile(own, (BLOCK, 1)), axis=1)
        exceeded += int((_distance(counts, dealt) >= one.distance - 1e-6).sum())
        done += BLOCK
        if exceeded > 0.1 * BLOCK:
            break
    return (exceeded + 1) / (done + 1)


def _distance(counts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The total variation between the mix of some days and that of all others, (K,), for K choices of days (K, D)."""
    counts = counts.astype(np.float32)  # whole up to 16 million, and fast
    now = own.astype(np.float32) @ counts
    before = counts.sum(axis=0) - now
    shares = [part / np.maximum(part.sum(axis=1, keepdims=True), 1) for part in (now, before)]
    return np.abs(shares[0] - shares[1]).sum(axis=1) / 2
