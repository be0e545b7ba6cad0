"""Which predictions a person should look at, given how many there is time for.

Four kinds of them, each for a reason of its own:

- confident: spot checks, drawn at random with an equal quota a class, so that precision can be estimated;
- rare: not confident, yet perhaps of a class with few examples, by the expected gain of looking;
- novel: far from everything that has a label, or in no cluster;
- confusing: not confident, those first whose two likeliest classes are nearest to a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from . import quotas, spread
from .novelty import Novelty
from .spread import Rows

KINDS = ("confident", "rare", "novel", "confusing")
SHARES = {"confident": 0.3, "rare": 0.4, "novel": 0.15, "confusing": 0.15}  # of the budget, while there are candidates
LIKELY = 0.01  # a class less probable is no reason to look; low, for of what it has seen little a model expects little
POOL = 4  # rows looked at for each one taken, so that those taken can differ
FEWEST_POOLED = 1_000
MOST_POOLED = 50_000  # rows of one class after another that are looked at beyond that
KEPT = 8  # of the rare classes those likeliest for a row: 32 bytes, however many are rare


@dataclass(frozen=True)
class Predictions:
    """What a model says of N ROIs, of C classes.

    Attributes:
        classes: the C names
        predicted: the class of each, int (N,)
        confidence: its probability, float (N,)
        second: the next class, int (N,); None where only the confidence is known
        margin: the probability of the first class less that of the second, float (N,); None likewise
        rare: the classes that count as rare, as numbers, (R,)
        likeliest: the rare classes that each may be of, as positions in `rare`, int (N, T); None where only the
            confidence is known
        chances: the probability of these, (N, T); None likewise
    """

    classes: Sequence[str]
    predicted: np.ndarray
    confidence: np.ndarray
    second: np.ndarray | None = None
    margin: np.ndarray | None = None
    rare: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    likeliest: np.ndarray | None = None
    chances: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    def may_be(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rare classes that rows may be of, and their probabilities, both (n, T); T is 1 without `chances`."""
        if self.likeliest is not None and self.chances is not None:
            return self.likeliest[rows], self.chances[rows]
        place = np.full(len(self.classes), -1)
        place[self.rare] = np.arange(len(self.rare))
        found = place[self.predicted[rows], None]
        return np.maximum(found, 0), np.where(found >= 0, self.confidence[rows, None], 0)

    def chances_of(self, rows: np.ndarray) -> np.ndarray:
        """The probability of each rare class, (n, R); 0 for what is not kept."""
        found = np.zeros((len(rows), len(self.rare)))
        np.put_along_axis(found, *self.may_be(rows), axis=1)
        return found


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        rows: the rows, (K,), kind by kind
        kinds: the kind of each, of `KINDS`
        reasons: a sentence for each, that begins with its kind
        candidates: how many rows there were to choose from, by kind; one row may be of several
    """

    rows: np.ndarray
    kinds: list[str]
    reasons: list[str]
    candidates: Mapping[str, int]


def summarise(probabilities: np.ndarray, predicted: np.ndarray, rare: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `Predictions` that a batch of distributions gives.

    Args:
        probabilities: (n, C), each row adding up to 1
        predicted: the class of each, (n,)
        rare: the rare classes, (R,)

    Returns:
        confidence, second, margin, likeliest and chances (float16, which is fine enough to rank by)
    """
    rows = np.arange(len(probabilities))
    of_rare = probabilities[:, rare]
    likeliest = np.argsort(-of_rare, axis=1, kind="stable")[:, :KEPT]
    confidence = probabilities[rows, predicted]
    others = probabilities.copy()
    others[rows, predicted] = -1
    second = others.argmax(axis=1)
    return {
        "confidence": confidence.astype(np.float32),
        "second": second.astype(np.int32),
        "margin": (confidence - np.maximum(others[rows, second], 0)).astype(np.float32),
        "likeliest": likeliest.astype(np.int16),
        "chances": np.take_along_axis(of_rare, likeliest, axis=1).astype(np.float16),
    }


def rare_classes(classes: Sequence[str], counts: Mapping[str, int], named: Sequence[str], share: float) -> np.ndarray:
    """The classes that count as rare: those named, else those with less than a share of all.

    Args:
        classes: the C names
        counts: how many of each class there are
        named: the names a person gave
        share: from 0 to 1

    Raises:
        InputError: a name is none of the classes
    """
    if problem := unknown(classes, named):
        raise InputError(problem)
    if named:
        return np.array(sorted({classes.index(name) for name in named}), np.int64)
    total = sum(counts.values())
    return np.array([i for i, name in enumerate(classes) if counts.get(name, 0) < share * total], np.int64)


def unknown(classes: Sequence[str], named: Sequence[str]) -> str | None:
    """Which of the classes that a person named a model cannot predict, as a sentence; None where there are none."""
    if strange := [name for name in named if name not in classes]:
        some = ", ".join(sorted(classes)[:10]) + (", ..." if len(classes) > 10 else "")
        return f"{', '.join(map(repr, strange))}: no such class among those predicted ({some})."
    return None


def choose(
    predictions: Predictions,
    budget: int,
    *,
    confident: float = 0.9,
    rare_quota: int | None = None,
    examples: np.ndarray | None = None,
    checked: np.ndarray | None = None,
    novelty: Novelty | None = None,
    unclustered: np.ndarray | None = None,
    vectors: Rows | None = None,
    seen: Rows | None = None,
    seed: int = 51,
) -> Selection:
    """Chooses what a person should look at.

    The budget is shared out by `SHARES`; what one kind cannot use goes to the others. Spot checks are drawn before
    all else, from all confident predictions: taking the novel ones out first would make precision look better.

    Args:
        predictions: what the model says of N ROIs, any of which may be chosen
        budget: how many ROIs a person can look at
        confident: the confidence from which a prediction is a confident one, 0 to 1
        rare_quota: how many of the budget are for rare classes at most; None for their share
        examples: how many labelled examples each class has, (C,): what one more is worth; None for none
        checked: how many spot checks of each class were reviewed before, (C,); None for none
        novelty: how far each row is from what has a label, where that is known
        unclustered: which rows are in no cluster, bool (N,), where there are clusters
        vectors: unit rows (N, D), zero where one has none, of which those that come into question are read; None:
            nothing is known of who looks alike
        seen: unit rows (K, D) of what was reviewed before, which need not be seen again
        seed: the source of chance

    Raises:
        InputError: a budget or a bound that makes no sense, or columns of different length
    """
    if budget < 1 or not 0 < confident <= 1:
        raise InputError(f"A budget of {budget} and a confidence of {confident}: at least 1, and above 0 up to 1.")
    count = len(predictions)
    given = [predictions.confidence, unclustered, vectors, None if novelty is None else novelty.distance]
    if any(column is not None and len(column) != count for column in given):
        raise InputError("The columns of the predictions to choose from differ in length.")
    chooser = _Chooser(predictions, confident, examples, checked, novelty, unclustered, vectors, seen, seed)
    free = np.ones(count, bool)
    candidates = {kind: int(np.count_nonzero(chooser.mask(kind))) for kind in KINDS}
    taken: dict[str, list[int]] = {kind: [] for kind in KINDS}
    copies = vectors is None
    while (left := budget - sum(map(len, taken.values()))) > 0:
        have = {kind: int(np.count_nonzero(chooser.mask(kind) & free)) for kind in KINDS}
        if not sum(have.values()):
            break
        fixed = {} if rare_quota is None else {"rare": min(rare_quota - len(taken["rare"]), left)}
        found = 0
        for kind, quota in quotas.share_out(left, have, fixed, SHARES).items():
            rows = chooser.take(kind, np.flatnonzero(chooser.mask(kind) & free), quota, taken, copies)
            free[rows] = False
            taken[kind] += rows.tolist()
            found += len(rows)
        if not found and copies:
            break
        copies = not found  # frames of one animal come when there is nothing else
    rows = np.array([row for kind in KINDS for row in taken[kind]], np.int64)
    kinds = [kind for kind in KINDS for _ in taken[kind]]
    return Selection(rows, kinds, [chooser.reason(k, r) for k, r in zip(kinds, rows.tolist(), strict=True)], candidates)


class _Chooser:
    """The candidates of each kind, their scores and reasons."""

    def __init__(
        self,
        predictions: Predictions,
        confident: float,
        examples: np.ndarray | None,
        checked: np.ndarray | None,
        novelty: Novelty | None,
        unclustered: np.ndarray | None,
        vectors: Rows | None,
        seen: Rows | None,
        seed: int,
    ) -> None:
        self._of, self._vectors, self._seen, self._novelty = predictions, vectors, seen, novelty
        classes = len(predictions.classes)
        self._examples = np.zeros(classes) if examples is None else np.asarray(examples, np.float64)
        self._checked = np.zeros(classes, np.int64) if checked is None else np.asarray(checked).copy()
        self._random = np.random.default_rng(seed)
        self._far = 1.0 if vectors is None else spread.far_apart(vectors)
        sure = predictions.confidence >= confident
        self._novel = np.zeros(len(predictions), np.float32)
        if novelty is not None:
            # In units of what is far; what is nearer is not novel.
            beyond = np.nan_to_num(novelty.distance / max(novelty.far, 1e-6))
            self._novel = np.where(beyond > 1, beyond, 0).astype(np.float32)
        if unclustered is not None:
            self._novel = np.maximum(self._novel, np.asarray(unclustered, np.float32))
        self._masks = {
            "confident": sure,
            "rare": ~sure & self._may_be_rare(),
            "novel": self._novel > 0,
            "confusing": ~sure,
        }

    def mask(self, kind: str) -> np.ndarray:
        """Which rows are candidates, bool (N,)."""
        return self._masks[kind]

    def take(self, kind: str, rows: np.ndarray, count: int, taken: Mapping[str, list[int]], copies: bool) -> np.ndarray:
        """Chooses so many of these candidates at most; `copies`: frames of one animal too."""
        if count < 1 or not len(rows):
            return rows[:0]
        if kind == "confident":
            return self._spot_checks(rows, count)
        if kind == "rare":
            return self._rare(rows, count, taken, copies)
        score = self._novel if kind == "novel" else self._doubt()
        return self._best(rows, score[rows], count, taken, copies)

    def reason(self, kind: str, row: int) -> str:
        """Why a row was chosen; the texts of one class sort together."""
        of = self._of
        said = f"{of.classes[of.predicted[row]]} ({of.confidence[row]:.2f})"
        if kind == "rare":
            chances = of.chances_of(np.array([row]))[0]
            best = int((chances / (1 + self._examples[of.rare])).argmax())
            if of.rare[best] != of.predicted[row]:
                return f"rare: perhaps {of.classes[of.rare[best]]} ({chances[best]:.2f}), else {said}"
        if kind == "novel":
            if self._novelty is None or not self._novelty.distance[row] > self._novelty.far:
                return f"novel: in no cluster; {said}"
            return f"novel: {self._novelty.distance[row]:.2f} from all that have a label; {said}"
        if kind == "confusing" and of.second is not None and of.margin is not None:
            other = of.confidence[row] - of.margin[row]
            return f"confusing: {said}, then {of.classes[of.second[row]]} ({max(other, 0):.2f})"
        if kind == "confusing":
            return f"confusing: among the least confident, {said}"
        return f"{kind}: {said}"

    def _may_be_rare(self) -> np.ndarray:
        of = self._of
        found = np.isin(of.predicted, of.rare)
        if of.chances is not None and of.chances.shape[1]:
            found |= of.chances.max(axis=1) >= LIKELY
        return found

    def _doubt(self) -> np.ndarray:
        """1 where two classes are equally likely; without the second one's probability, 1 at no confidence."""
        return 1 - (self._of.confidence if self._of.margin is None else self._of.margin)

    def _spot_checks(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Random rows of each class: as many of every one, those of earlier selections counted."""
        predicted = self._of.predicted[rows]
        have = np.bincount(predicted, minlength=len(self._of.classes))
        counts = quotas.level(self._checked, have, count)
        self._checked += counts
        order = np.argsort(predicted, kind="stable")
        members = np.split(rows[order], np.cumsum(have)[:-1])
        drawn = [
            spread.sample(of_one, quota, self._vectors, self._random)
            for of_one, quota in zip(members, counts.tolist(), strict=True)
            if quota
        ]
        return np.concatenate([*drawn, rows[:0]])

    def _rare(self, rows: np.ndarray, count: int, taken: Mapping[str, list[int]], copies: bool) -> np.ndarray:
        """Rows by the gain that is to be expected of looking at them.

        What is gained are examples of rare classes, and the next one of a class is worth less the more there are:
        the sum over classes of log(1 + examples) grows by about p / (1 + examples) with a row that is of that class
        with probability p. Those chosen count as p examples, so that no class takes all.
        """
        of = self._of
        per_class = max(POOL * count, FEWEST_POOLED) // len(of.rare) + min(count, MOST_POOLED // len(of.rare))
        where = rows[_top_of_each(*of.may_be(rows), per_class)]
        chances = of.chances_of(where)
        examples = self._examples[of.rare] + of.chances_of(np.array(taken["rare"], np.int64)).sum(axis=0)

        def expected() -> np.ndarray:
            return chances @ (1 / (1 + examples))

        def count_in(row: int) -> None:
            nonlocal examples
            examples = examples + chances[row]

        # Two of a rare class are both worth a look, as long as they are not the same animal.
        near = spread.COPY * self._far
        found, apart = self._like(where, taken)
        return where[spread.pick(expected, count, found, near, apart, count_in, copies=copies)]

    def _best(
        self, rows: np.ndarray, score: np.ndarray, count: int, taken: Mapping[str, list[int]], copies: bool
    ) -> np.ndarray:
        """The rows with the highest scores that differ from one another."""
        pool = np.argsort(-score, kind="stable")[: max(POOL * count, FEWEST_POOLED)]
        where, scores = rows[pool], score[pool]
        found, apart = self._like(where, taken)
        return where[spread.pick(lambda: scores, count, found, self._far, apart, copies=copies)]

    def _like(
        self, rows: np.ndarray, taken: Mapping[str, list[int]]
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """The vectors of rows, and how far each is from all that a person has seen or will see.

        But for spot checks, which must not keep others from being chosen.
        """
        if self._vectors is None:
            return None, None
        found = self._vectors[rows]
        chosen = [row for kind, of_kind in taken.items() if kind != "confident" for row in of_kind]
        apart = spread.nearest(found, self._vectors[np.array(chosen, np.int64)])
        return found, apart if self._seen is None else np.minimum(apart, spread.nearest(found, self._seen))


def _top_of_each(likeliest: np.ndarray, chances: np.ndarray, most: int) -> np.ndarray:
    """The rows in which each class is likeliest, so many of each at most, in order; both arrays are (N, T)."""
    classes = likeliest.ravel()
    order = np.lexsort((-chances.ravel(), classes))
    classes = classes[order]
    rank = np.arange(len(order)) - np.searchsorted(classes, classes)
    return np.unique(order[rank < most] // likeliest.shape[1])
