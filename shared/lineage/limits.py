"""What a model version is for, and what not to expect of it, as far as its data and figures say.

Sentences for somebody who looks at plankton, not at code; plain text, `render` makes Markdown of it.
"""

from collections.abc import Iterable, Sequence

from ..wording import many
from .schema import ClassScore, Data, Evaluation

FEW = 20  # training images of a class, below which it has hardly been learned
FEW_TESTED = 10  # images of a class, below which its score says little
WEAK = 0.5  # F1 below which a class is weak
UNEVEN = 50  # how many times as many training images the largest class has, to be worth a word
OVERCONFIDENT = 0.1  # calibration error from which on confidence misleads
NAMED = 12  # classes named in one sentence

UNKNOWN = "not recorded"  # where a label came from


def intended_use(classes: Sequence[str], data: Data) -> str:
    """What the version is for, as far as that is known without asking a person."""
    like = f' like those of the dataset "{data.dataset}"' if data.dataset else " like those it was trained on"
    return (
        f"Suggests one of {len(classes):,} class names for an image of a single plankton object (an ROI), on images"
        f"{like}. It is meant to speed up labelling and counting under the eyes of somebody who knows the animals; its "
        "names are suggestions, and by themselves no basis for a published count."
    )


def limitations(classes: Sequence[str], data: Data, evaluation: Sequence[Evaluation]) -> list[str]:
    """What the data and the figures say against relying on the version, the weightiest first.

    Args:
        classes: of the version
        data: what it learned from
        evaluation: on each split; the first one counts

    Returns:
        sentences; the first one holds for every classifier
    """
    said = [
        f"It knows {len(classes):,} classes and nothing else: any other object, an unknown animal or a speck of dirt, "
        "gets one of these names as well."
    ]
    if not evaluation:
        return [*said, "It was never measured on images it had not seen.", *_leaks(data), *_learned(data)]
    first = evaluation[0]
    return [*said, *_measured(first), *_leaks(data), *_scores(first, data), *_learned(data)]


def _measured(first: Evaluation) -> Iterable[str]:
    if first.split != "test":
        yield (
            f"There was no test split: the figures are for the {first.n:,} {first.split} images, by which the best "
            "epoch was chosen as well, and are too good for that."
        )


def _leaks(data: Data) -> Iterable[str]:
    if data.groups_across_splits:
        yield (
            f"{many(data.groups_across_splits, 'group')} of related images ({data.group_field or 'no group field'}) "
            f"{_have(data.groups_across_splits)} images both in training and in what it was measured on: the figures "
            "are too good."
        )
    elif data.group_field is None:
        yield (
            "The splits did not keep related images together. The same animal recurs in neighbouring frames, so it may "
            "have been measured on animals it was trained on, and the figures may be too good."
        )
    if data.identical_across_splits:
        yield (
            f"{many(data.identical_across_splits, 'group')} of identical images stood in several splits; the copies "
            "in training were left out, but near copies may remain."
        )
    if data.identical_other_label:
        yield (
            f"{many(data.identical_other_label, 'group')} of identical images {_have(data.identical_other_label)} "
            "different labels: at least one of them is wrong."
        )


def _scores(first: Evaluation, data: Data) -> Iterable[str]:
    tested = [row for row in first.per_class if row.n]
    untested = [row.label for row in first.per_class if not row.n]
    if untested:
        yield f"Never measured, for want of {first.split} images: {_names(untested)}."
    weak = sorted((row for row in tested if row.f1.value < WEAK), key=_by_f1)
    if weak:
        yield f"Weak (F1 below {WEAK}) on: {_names(f'{row.label} ({row.f1.value:.2f})' for row in weak)}."
    little = [row for row in tested if row.n < FEW_TESTED]
    if little:
        yield (
            f"{many(len(little), 'class')} {_have(len(little))} fewer than {FEW_TESTED} {first.split} images, so that "
            "their scores say little: look at the intervals."
        )
    if first.ece > OVERCONFIDENT:
        yield (
            "Its confidence is not to be taken at its word: on average it is "
            f"{first.ece * 100:.0f} points away from how often it is right."
        )


def _by_f1(row: ClassScore) -> tuple[float, str]:
    return row.f1.value, row.label


def _learned(data: Data) -> Iterable[str]:
    trained = {label: row.get("train", 0) for label, row in data.classes.items()}
    few = [label for label, n in trained.items() if n < FEW]
    if few:
        yield (
            f"Hardly learned, from fewer than {FEW} training images each: "
            f"{_names(f'{label} ({trained[label]})' for label in few)}."
        )
    least, most = min(trained.values(), default=0), max(trained.values(), default=0)
    if most >= UNEVEN * max(least, 1):
        yield (
            f"The classes are very uneven, from {least:,} to {most:,} training images: in doubt it tends to the large "
            "ones."
        )
    if data.vocabulary is not None:
        foreign = sorted(set(data.classes) - set(data.vocabulary.names))
        if foreign:
            yield f"Not names of the vocabulary it was trained with: {_names(foreign)}."
    if data.dataset and not data.extra_views:
        yield (
            f'All its images are from one dataset, "{data.dataset}": other instruments, places and seasons were not '
            "tried."
        )


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED:,} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
