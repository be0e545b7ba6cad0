"""Where to look first: everything that is weak about a model's predictions, in one list by what could be won."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..intervals import class_f1
from ..wording import many
from . import confusions, mix, weak_slices

CONFIDENT = 0.9  # from here on nobody would look at a prediction by itself
FEW = 10  # judged images of a class
VAGUE = 0.3  # width of an F1's interval
MOST = {"confused": 15, "weak slice": 10, "class mix": 5}  # items of a kind; the least of them are left out
LISTED = 5  # names in a sentence
DOUBTED = 0.5  # from this chance on it is sooner the label that is wrong than the model


@dataclass(frozen=True)
class Suspects:
    """Labels that look wrong, the worst first.

    Attributes:
        rows: which ones, int (K,)
        suggested: what each looks like instead, a class, int (K,)
        chances: how likely each is wrong, float (K,)
    """

    rows: np.ndarray
    suggested: np.ndarray
    chances: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """N images with what a model says of them.

    Attributes:
        classes: C names
        truth: their labels, int (N,), -1 where there is none
        predicted: what the model says, int (N,), -1 where it says nothing
        confidence: of that, float (N,), NaN where it is not known
        learned: which of them the model was trained or chosen on, bool (N,)
        slices: for each field to slice by, N names of slices (None where there is none)
        days: when each was taken, datetime64[D] (N,), NaT where that is not known; None where no field says
        kinds: the fields among `slices` that tell kinds of images apart, such as the collection or the instrument
    """

    classes: Sequence[str]
    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    learned: np.ndarray
    slices: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    days: np.ndarray | None = None
    kinds: Sequence[str] = ()

    @property
    def judged(self) -> np.ndarray:
        """Which ones say how good the model is, bool (N,): labelled, predicted, and not learned from."""
        return (self.truth >= 0) & (self.predicted >= 0) & ~self.learned


@dataclass(frozen=True)
class Item:
    """One thing to look into.

    Attributes:
        kind: "wrong labels", "confused", "confident", "few examples", "weak slice" or "class mix"
        name: in a few words
        sentence: for a person, with the figures
        rows: the images to look at, int
        labels: how many images could be won; of few examples, how many more there may be
        top1: how much of the top-1 accuracy that is
        macro_f1: how much macro F1 could be won; with few examples, how far off it may be
        p: how likely chance alone does it, corrected for all that was looked at; None where nothing was tested
        of_learned: how much of what was learned from is likely to have a wrong label
    """

    kind: str
    name: str
    sentence: str
    rows: np.ndarray
    labels: float
    top1: float
    macro_f1: float
    p: float | None = None
    of_learned: float = 0.0

    @property
    def count(self) -> int:
        """How many images there are to look at."""
        return len(self.rows)

    @property
    def gain(self) -> float:
        """What the list is sorted by: the larger of what top-1 and macro F1 could win.

        What wrong labels among those learned from cost, nobody knows before the next training: their share stands for
        it.
        """
        return max(self.top1, self.macro_f1, self.of_learned)


def rank(found: Predictions, suspects: Suspects | None = None) -> list[Item]:
    """All that there is to look into, in the order of what could be won.

    What could be won is what the score would gain if the images of an item were right: so one common mistake and one
    rare class that is always missed can stand side by side. Items overlap, and their gains do not add up.

    Args:
        found: labels and predictions
        suspects: labels that look wrong, those of images that were learned from among them
    """
    score = _Score(found)
    doubted = np.zeros(len(found.truth), dtype=bool)
    if suspects is not None:
        doubted[suspects.rows[suspects.chances >= DOUBTED]] = True
    makers: list[Callable[[], list[Item]]] = [
        lambda: _wrong_labels(found, suspects, score),
        lambda: _confused(found, doubted, score),
        lambda: _confident(found, doubted, score),
        lambda: _few(found, score),
        lambda: _weak(found, score),
        lambda: _mixes(found, score),
    ]
    items = [_tested(item) for make in makers for item in make() if item.count]
    kept: list[Item] = []
    counts: Counter[str] = Counter()
    for item in sorted(items, key=lambda item: (-item.gain, -item.count, item.name)):
        counts[item.kind] += 1
        if counts[item.kind] <= MOST.get(item.kind, counts[item.kind]):
            kept.append(item)
    return kept


class _Score:
    """Macro F1 of the judged images, and what it would gain if some of them were right."""

    def __init__(self, found: Predictions) -> None:
        self.rows = np.flatnonzero(found.judged)
        self.truth, self.predicted = found.truth[self.rows], found.predicted[self.rows]
        self.classes = len(found.classes)
        cells = np.bincount(self.truth * self.classes + self.predicted, minlength=self.classes**2)
        self.confusion = cells.reshape(self.classes, self.classes)
        self._occurs = self.confusion.any(axis=1)
        self.f1 = self._f1(self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0))
        self._found = found

    def if_right(self, rows: np.ndarray, share: float = 1.0) -> tuple[float, float, float]:
        """Images, top-1 and macro F1 won if so much of these judged images had the right class predicted."""
        truth, predicted = self._found.truth[rows], self._found.predicted[rows]
        wrong = truth != predicted
        to, away = self._counts(truth[wrong]) * share, self._counts(predicted[wrong]) * share
        hits, true, said = self._sums()
        won = float(wrong.sum() * share)
        return won, won / max(len(self.rows), 1), self._macro(hits + to, true, said - away + to)

    def if_labelled(self, rows: np.ndarray, labels: np.ndarray, chances: np.ndarray) -> tuple[float, float]:
        """Top-1 and macro F1 won if these judged images had these labels, each with a probability."""
        truth, predicted = self._found.truth[rows], self._found.predicted[rows]
        before, after = truth == predicted, labels == predicted
        hits, true, said = self._sums()
        hits = hits - self._counts(truth[before], chances[before]) + self._counts(labels[after], chances[after])
        won = float(chances[after].sum() - chances[before].sum()) / max(len(self.rows), 1)
        return max(0.0, won), self._macro(
            hits, true - self._counts(truth, chances) + self._counts(labels, chances), said
        )

    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)

    def _counts(self, classes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(classes, weights, minlength=self.classes)

    def _f1(self, hits: np.ndarray, true: np.ndarray, said: np.ndarray) -> float:
        if not self._occurs.any():
            return 0.0
        return float((2 * hits / np.maximum(true + said, 1e-9))[self._occurs].mean())

    def _macro(self, hits: np.ndarray, true: np.ndarray, said: np.ndarray) -> float:
        return max(0.0, self._f1(hits, true, said) - self.f1)


def _wrong_labels(found: Predictions, suspects: Suspects | None, score: _Score) -> list[Item]:
    if suspects is None or not len(suspects.rows):
        return []
    rows, suggested, chances = suspects.rows, suspects.suggested, suspects.chances
    pairs = Counter(zip(found.truth[rows].tolist(), suggested.tolist(), strict=True))
    often = ", ".join(f"{found.classes[a]} like {found.classes[b]} ({n:,})" for (a, b), n in pairs.most_common(LISTED))
    agrees = int((found.predicted[rows] == suggested).sum())
    learned = int(found.learned[rows].sum())
    judged = found.judged[rows]
    expected = float(chances.sum())
    likely = f"about {_number(expected)} or more are" if expected < 0.9 * len(rows) else "nearly all are"
    sentence = (
        f"{many(len(rows), 'label does', 'labels do')} not fit what the image looks like; {likely} likely wrong. Most "
        f"often it is labelled and looks: {often}. In {agrees:,} the model says so too; {learned:,} were learned from."
    )
    top1, macro_f1 = score.if_labelled(rows[judged], suggested[judged], chances[judged])
    of_learned = float(chances[found.learned[rows]].sum()) / max(int(((found.truth >= 0) & found.learned).sum()), 1)
    return [
        Item("wrong labels", "Labels that look wrong", sentence, rows, expected, top1, macro_f1, of_learned=of_learned)
    ]


def _confused(found: Predictions, doubted: np.ndarray, score: _Score) -> list[Item]:
    items = []
    for one in confusions.find(score.confusion):
        rows = score.rows[(score.truth == one.true) & (score.predicted == one.predicted)]
        true, predicted = found.classes[one.true], found.classes[one.predicted]
        sentence = (
            f"{one.count:,} of {one.n:,} {true} are taken for {predicted}, where the sizes of the classes explain "
            f"{'none' if one.expected < 0.05 else _number(one.expected)}; the other way round it is {one.back:,}."
        )
        if n := int(doubted[rows].sum()):
            sentence += f" In {n:,} of them it is sooner the label that is wrong."
        name = f"{true} taken for {predicted}"
        items.append(Item("confused", name, sentence, rows, *score.if_right(rows), one.p))
    return items


def _confident(found: Predictions, doubted: np.ndarray, score: _Score) -> list[Item]:
    confidence = found.confidence[score.rows]
    sure = confidence >= CONFIDENT  # not where it is not known
    wrong = score.truth != score.predicted
    rows = score.rows[sure & wrong]
    # Where the label looks wrong it is no mistake of the model's, as far as anyone can tell.
    left = rows[~doubted[rows]]
    left = left[np.argsort(-found.confidence[left], kind="stable")]
    sentence = (
        f"{len(left):,} of {int(sure.sum()):,} predictions with a confidence of {CONFIDENT} or more are wrong; if "
        f"confidences meant what they say, {_number(float((1 - confidence[sure]).sum()))} would be."
    )
    if len(rows) > len(left):
        sentence += f" {len(rows) - len(left):,} more are not counted, where it is sooner the label that is wrong."
    return [Item("confident", "Errors at high confidence", sentence, left, *score.if_right(left))]


def _few(found: Predictions, score: _Score) -> list[Item]:
    if not len(score.rows):
        return []
    sizes = score.confusion.sum(axis=1)
    low, high = class_f1(score.confusion).T
    vague = (sizes > 0) & ((sizes < FEW) | (high - low > VAGUE))
    classes = np.flatnonzero(vague)
    if not len(classes):
        return []
    classes = classes[np.argsort(sizes[classes], kind="stable")]
    said = [f"{found.classes[c]} ({sizes[c]:,} judged, F1 {low[c]:.2f} to {high[c]:.2f})" for c in classes[:LISTED]]
    more = f" and {len(classes) - LISTED:,} more" if len(classes) > LISTED else ""
    judged = score.rows[np.isin(score.truth, classes)]
    # What may be further examples of them: nobody has labelled it, and the model says that it is one.
    new = np.flatnonzero((found.truth < 0) & ~found.learned & np.isin(found.predicted, classes))
    # More examples make none of them right: what is won is to know. Errors of classes are independent of each other.
    vagueness = float(np.sqrt(((high - low)[classes] ** 2).sum()) / 2 / (sizes > 0).sum())
    sentence = (
        f"{many(len(classes), 'class has', 'classes have')} too few judged images for the score to mean much: "
        f"{', '.join(said)}{more}. By that alone macro F1 may be off by {vagueness:.2f}."
    )
    if len(new):
        sentence += f" {many(len(new), 'unlabelled image', 'unlabelled images')} may be further ones."
    rows = np.concatenate([judged, new])
    return [Item("few examples", "Classes with too few examples", sentence, rows, float(len(new)), 0.0, vagueness)]


def _weak(found: Predictions, score: _Score) -> list[Item]:
    wrong = score.truth != score.predicted
    columns = {name: [column[row] for row in score.rows.tolist()] for name, column in found.slices.items()}
    items = []
    days = None if found.days is None else found.days[score.rows]
    for one in weak_slices.find(~wrong, columns, groups=days):
        rows = score.rows[weak_slices.members(columns, one) & wrong]
        low, high = one.interval
        sentence = (
            f"Where {one.name}, {one.n - one.wrong:,} of {one.n:,} are right: {_percent(one.right)} (95% interval "
            f"{_percent(low)} to {_percent(high)}), elsewhere {_percent(one.elsewhere)}."
        )
        gains = score.if_right(rows, one.lost / one.wrong)
        items.append(Item("weak slice", f"Weak where {one.name}", sentence, rows, *gains, one.p))
    return items


def _mixes(found: Predictions, score: _Score) -> list[Item]:
    if found.days is None:
        return []
    seen = np.flatnonzero((found.predicted >= 0) & ~found.learned)
    predicted, days = found.predicted[seen], found.days[seen]
    kinds = {name: [found.slices[name][row] for row in seen.tolist()] for name in found.kinds}
    items = []
    for one in mix.find(predicted, days, kinds, len(found.classes)):
        rows = seen[mix.members(days, kinds, one) & (predicted == one.grown)]
        said = score.confusion[:, one.grown].sum()
        doubtful = 1 - score.confusion[one.grown, one.grown] / said if said else 1.0
        surplus = one.n * (one.share - one.before) * float(doubtful)
        sentence = (
            f"{one.name}: {found.classes[one.grown]} is {_percent(one.share)} of {one.n:,} predictions, in the same "
            f"season of earlier years {_percent(one.before)} of {one.earlier:,}; {_percent(one.distance)} of the mix "
            "differs."
        )
        name = f"More {found.classes[one.grown]} than before, {one.name}"
        items.append(Item("class mix", name, sentence, rows, surplus, surplus / len(seen), 0.0, one.p))
    return items


def _tested(item: Item) -> Item:
    """The item with a word on chance, where that was looked at."""
    if item.p is None:
        return item
    p = "p below 0.001" if item.p < 0.001 else f"p = {item.p:.3f}"
    return replace(item, sentence=f"{item.sentence} Chance alone: {p}, with all that was looked at counted in.")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
