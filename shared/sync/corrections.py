"""Corrections: what the tags of a sample say its label should be, one decision a sample, never a guess.

A correction is a sample tag or a label tag that is a name of the vocabulary, or the marker tag, which says
that the label as it stands is right and that the label store should have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from ..vocabulary import Vocabulary
from .stores.base import SourceId

MARKER = "needs-sync"
SYNCED = "synced"
# Tags that the suite itself sets or reads; never taken for a label, nor for one nearly typed right.
OWN_TAGS = frozenset({"train", "val", "test", "unreadable", "review", "reviewed", SYNCED, MARKER})

COLUMNS = ("id", "source_id", "label", "stored", "tags", "label_tags")


class Status(StrEnum):
    """What becomes, or became, of one correction."""

    UPDATE = "would change"
    ALREADY = "already so"
    CONFLICT = "conflict"
    NO_ID = "missing id"
    ID_TWICE = "id twice"
    NOT_IN_STORE = "not in the store"
    TWO = "two corrections"
    NOT_IN_VOCABULARY = "not in the vocabulary"
    CANNOT = "cannot be stored"
    NO_STORED = "stored label not known"
    DONE = "updated"
    FAILED = "failed"


@dataclass(frozen=True)
class Tags:
    """The tags of a dataset that have to do with corrections.

    Attributes:
        names: the name of the vocabulary, by the tag that says it
        unknown: the nearest names, by a tag that is nearly one (or has the prefix and is none)
        marker: the tag which says that the label as it stands is right
    """

    names: Mapping[str, str]
    unknown: Mapping[str, list[str]]
    marker: str

    @property
    def relevant(self) -> list[str]:
        """Every tag by which a sample has something to do with corrections."""
        return [*self.names, *self.unknown, self.marker]


def sort_tags(tags: Iterable[str], vocabulary: Vocabulary, marker: str = MARKER, prefix: str | None = None) -> Tags:
    """Which of a dataset's tags are corrections, and which look like one and are none.

    Args:
        tags: the distinct tags of samples and labels
        vocabulary: the names a label may have
        marker: the marker tag; it has no prefix
        prefix: only tags that begin with it count, and whatever follows it should be a name; without one a tag
            is `unknown` only if it is nearly a name
    """
    names: dict[str, str] = {}
    unknown: dict[str, list[str]] = {}
    for tag in dict.fromkeys(tags):
        if tag in OWN_TAGS or tag == marker or (prefix and not tag.startswith(prefix)):
            continue
        name = tag.removeprefix(prefix or "")
        if name in vocabulary:
            names[tag] = name
            continue
        nearest = vocabulary.nearest(name)
        if nearest or prefix:
            unknown[tag] = nearest
    return Tags(names, unknown, marker)


@dataclass(frozen=True, slots=True)
class Correction:
    """What the tags of one sample come to.

    Attributes:
        sample_id: the sample's id
        source_id: the id of its label in the label store; None where it has none
        label: what it is labelled in FiftyOne; None where it is not
        stored: what the label store held when it was last read; None where that is not known
        wanted: what it should be labelled; None where the tags do not say one thing
        tags: the correction tags on sample and label, to be removed once this is settled; a tag that is only
            nearly a name is none of them
        problem: why it cannot be sent, whatever the store holds; None where it can
        reason: the problem in words
        marked: whether it is the marker tag alone that says so
    """

    sample_id: str
    source_id: SourceId | None
    label: str | None
    stored: str | None
    wanted: str | None
    tags: tuple[str, ...]
    problem: Status | None = None
    reason: str | None = None
    marked: bool = False

    @property
    def expected(self) -> str | None:
        """What the store should still hold for this to be sent; "" is no label.

        The stored label; where that is not known, the label as it stands, unless the tags say that it may have
        been changed: then None.
        """
        if self.stored is not None:
            return self.stored
        return self.label or "" if self.problem is None else None


def applicable(correction: Correction) -> bool:
    """Whether it can become the label in FiftyOne, whatever the store is to it."""
    if correction.wanted is None or correction.marked:
        return False
    return correction.problem in (None, Status.NO_STORED)


def resolve(rows: Mapping[str, Sequence], tags: Tags, vocabulary: Vocabulary) -> list[Correction]:
    """The corrections among samples, in their order; samples without a relevant tag are left out.

    Args:
        rows: N values each under `id`, `source_id`, `label`, `stored` (None where there is none), `tags` and
            `label_tags` (lists; None is an empty one)
        tags: what the tags of the dataset are, from `sort_tags`
        vocabulary: the names a label may have
    """

    @cache
    def not_a_name(label: str) -> str | None:
        return None if label in vocabulary else _not_in_vocabulary({label: vocabulary.nearest(label)})

    corrections = []
    for sample_id, source_id, label, stored, on_sample, on_label in zip(*(rows[c] for c in COLUMNS), strict=True):
        present = dict.fromkeys((*(on_sample or ()), *(on_label or ())))
        named = {tag: tags.names[tag] for tag in present if tag in tags.names}
        marked = tags.marker in present
        near = {tag: tags.unknown[tag] for tag in present if tag in tags.unknown}
        if (named or marked) and not near:
            found = (*named, tags.marker) if marked else tuple(named)
            wanted, problem, reason = _decide(
                label, stored, set(named.values()), tags.marker if marked else None, not_a_name
            )
        else:
            if not near:
                continue
            # Also beside a name or the marker: it may have been meant to say something else.
            found = (*named, tags.marker) if marked else tuple(named)
            wanted, problem, reason = None, Status.NOT_IN_VOCABULARY, _not_in_vocabulary(near)
        alone = marked and not named and not near
        corrections.append(Correction(sample_id, source_id, label, stored, wanted, found, problem, reason, alone))
    return corrections


def _decide(
    label: str | None,
    stored: str | None,
    names: set[str],
    marker: str | None,
    not_a_name: Callable[[str], str | None],
) -> tuple[str | None, Status | None, str | None]:
    """The label wanted, the problem and its reason, from the names that tags say and from the marker, if there."""
    others = names - {label}
    if len(others) > 1:
        return None, Status.TWO, f"tagged {' and '.join(_quoted(sorted(others)))}"
    if others and marker is not None:
        return None, Status.TWO, f"tagged {_quoted(others)[0]}, and '{marker}' for the label as it stands"
    if others:
        wanted, unknown = next(iter(others)), False
    elif label is None:
        return None, Status.CANNOT, "there is no label to send"
    else:
        wanted = label
        unknown = stored is None and marker is not None
        reason = None if names else not_a_name(label)
        if reason:
            return wanted, Status.NOT_IN_VOCABULARY, reason
    if unknown:
        return wanted, Status.NO_STORED, "what the store should still hold is not known: run 'Pull labels' first"
    return wanted, None, None


def _not_in_vocabulary(nearest: Mapping[str, Sequence[str]]) -> str:
    """The reason for texts that are no names, with the names they may have been meant for."""
    parts = []
    for text, names in sorted(nearest.items()):
        meant = f": did you mean {' or '.join(_quoted(names))}?" if names else ""
        parts.append(f"'{text}' is not in the vocabulary{meant}")
    return "; ".join(parts)


def _quoted(names: Iterable[str]) -> list[str]:
    return [f"'{name}'" for name in names]
