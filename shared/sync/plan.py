"""The plan: what would become of each correction, from what the label store holds now; and its account in figures.

Only where the store still holds what is expected would anything be written.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .corrections import Correction, Status
from .stores.base import Found, SourceId, said

__all__ = ["COLUMNS", "OUTCOMES", "Line", "Status", "changes", "counts", "plan", "problems", "to_csv"]

# The figure of the account that each status counts in; they add up to the number of corrections.
OUTCOMES: Mapping[Status, str] = {
    Status.UPDATE: "updated",  # a forecast
    Status.DONE: "updated",
    Status.ALREADY: "already",
    Status.CONFLICT: "conflict",
    Status.NO_ID: "missing",
    Status.NOT_IN_STORE: "missing",
    Status.ID_TWICE: "invalid",
    Status.TWO: "invalid",
    Status.NOT_IN_VOCABULARY: "invalid",
    Status.CANNOT: "invalid",
    Status.NO_STORED: "invalid",
    Status.FAILED: "failed",
}

COLUMNS = ("sample_id", "source_id", "label", "stored", "wanted", "found", "status", "reason")


@dataclass(frozen=True, slots=True)
class Line:
    """What would become, or became, of one correction.

    Attributes:
        correction: which one
        status: what
        found: the label that the store held; None where it was not read, has none, or one that is not text
        reason: why, in words; empty where it would change
    """

    correction: Correction
    status: Status
    found: str | None
    reason: str


def plan(
    corrections: Iterable[Correction],
    found: Mapping[SourceId, Found],
    twice: Collection[SourceId],
    refuses: Callable[[str], str | None],
) -> list[Line]:
    """One line a correction, in their order.

    Args:
        corrections: from `resolve`
        found: what the store holds now, by id; ids that it does not have are left out
        twice: ids that several samples of the dataset have, corrected or not
        refuses: why the store cannot hold a label, or None (`Store.refuses`)
    """
    twice, refuses = frozenset(twice), cache(refuses)
    return [Line(correction, *_judge(correction, found, twice, refuses)) for correction in corrections]


def _judge(
    correction: Correction,
    found: Mapping[SourceId, Found],
    twice: Collection[SourceId],
    refuses: Callable[[str], str | None],
) -> tuple[Status, str | None, str]:
    """Status, the label found and the reason."""
    source_id, wanted = correction.source_id, correction.wanted
    if correction.problem is not None or wanted is None:
        return correction.problem or Status.CANNOT, None, correction.reason or "there is no label to send"
    if source_id is None or source_id == "":
        return Status.NO_ID, None, "the sample has no id of the label store"
    if not isinstance(source_id, str | int) or isinstance(source_id, bool):
        return Status.NO_ID, None, "the sample's id is neither text nor a whole number"
    if source_id in twice:
        return Status.ID_TWICE, None, "several samples of the dataset have this id"
    held = found.get(source_id)
    if held is None:
        return Status.NOT_IN_STORE, None, "the store has no label of this id"
    if held.copies > 1:
        return Status.ID_TWICE, held.label, "the store has several labels of this id"
    if held.label == wanted:
        return Status.ALREADY, held.label, "the store holds this label"
    refused = refuses(wanted)
    if refused is not None:
        return Status.CANNOT, held.label, refused
    expected = correction.expected
    if held.label is None or held.label != expected:
        return Status.CONFLICT, held.label, f"the store holds {held.said}, not {said(expected)}"
    return Status.UPDATE, held.label, ""


def changes(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """How many labels would change, or were changed, by old and new label, most first.

    Returns:
        rows of "from", "to" and "labels" (a number)
    """
    changed = (line for line in lines if line.status in (Status.UPDATE, Status.DONE))
    pairs = Counter((line.correction.expected, line.correction.wanted) for line in changed)
    return [{"from": old, "to": new, "labels": count} for (old, new), count in pairs.most_common()]


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """The account: updated, already, conflict, missing, invalid and failed; they add up to the number of lines.

    Before a run `updated` is the forecast.
    """
    account = dict.fromkeys(("updated", "already", "conflict", "missing", "invalid", "failed"), 0)
    for status, count in Counter(line.status for line in lines).items():
        account[OUTCOMES[status]] += count
    return account


def problems(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """What would not change, or did not, and why, most first.

    Returns:
        rows of "status", "reason" and "labels" (a number)
    """
    left = (line for line in lines if line.status not in (Status.UPDATE, Status.DONE))
    reasons = Counter((line.status, line.reason) for line in left)
    return [
        {"status": str(status), "reason": reason, "labels": count} for (status, reason), count in reasons.most_common()
    ]


def to_csv(lines: Iterable[Line]) -> str:
    """All lines as CSV (RFC 4180), so that a program reads back exactly what a person sees here.

    Nothing is put before a label that begins with `=`, `+`, `-`, `@`, a tab or a line end, which a spreadsheet
    would take for a formula: it would no longer be the label. Import the columns as text there.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line in lines:
        its = line.correction
        row = (its.sample_id, its.source_id, its.label, its.stored, its.wanted, line.found, line.status, line.reason)
        writer.writerow(row)
    return text.getvalue()
