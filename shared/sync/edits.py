"""What applying, accepting, undoing, pulling and settling make of each sample's label: decisions, no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .corrections import SYNCED, Correction, Status
from .journal import Outcome, Row
from .labels import Move

if TYPE_CHECKING:
    from pymongo.database import Database

UNDOABLE = ("correction", "accepted", "cluster", "theirs", "pull")


def applied(correction: Correction, marker: str) -> Move:
    """The correction becomes the label; where the store does not hold it, as far as is known, the marker says so."""
    stored = correction.stored
    has_id = correction.source_id not in (None, "")
    if stored is None and has_id:
        stored = correction.label or ""  # what the store is expected to hold, now that the label no longer says it
    # A label that differs from a stored label as wanted is one that the store took and somebody put back: a conflict,
    # which would be out of sight without the marker.
    send = has_id and (stored != correction.wanted or correction.label != correction.wanted)
    return Move(
        correction.sample_id,
        before=correction.label,
        to=correction.wanted,
        tags_off=correction.tags,
        tags_on=(marker,) if send else (),
        stored=stored,
    )


def undone(rows: Iterable[Mapping[str, Any]], run: str, marker: str) -> tuple[list[Move], Counter[str]]:
    """What takes a run's labels back, and why the others are left alone.

    Args:
        rows: samples with the run in their history: id, label, history
        run: the run
        marker: the marker tag, which goes

    Returns:
        moves, and the number of labels left alone by reason
    """
    moves: list[Move] = []
    left: Counter[str] = Counter()
    for row in rows:
        history = _standing(row["history"])
        last = max((n for n, entry in enumerate(history) if entry["run"] == run), default=None)
        if last is None:
            left["it was taken back before"] += 1
            continue
        entry, later = history[last], history[last + 1 :]
        if entry["how"] not in UNDOABLE:
            left["it is in the label store since; 'Revert a sync' takes that back"] += 1
        elif any(other["how"] in ("sync", "revert") for other in later):
            left["it was sent to the label store since; 'Revert a sync' takes that back"] += 1
        elif later or row["label"] != entry["to"]:
            left["it was changed since"] += 1
        else:
            note = {"undoes": run}
            if entry.get("confidence") is not None:
                note["confidence"] = entry["confidence"]
            moves.append(
                Move(
                    row["id"],
                    before=entry["to"],
                    to=entry["from"],
                    tags_off=(marker, SYNCED),
                    tags_on=tuple(entry.get("tags", ())),
                    # Else what conflicted before would not any more.
                    stored=entry.get("stored_before"),
                    note=note,
                )
            )
    return moves, left


def _standing(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A history without what was done and taken back again: what came before can be taken back in its turn."""
    back = {entry.get("undoes") for entry in history if entry["how"] == "undo"}
    return [entry for entry in history if entry["how"] != "undo" and entry["run"] not in back]


def accepted(
    sample_id: str, label: str, stored: str | None, has_id: bool, marker: str, confidence: float | None
) -> Move:
    """A prediction becomes the label of an unlabelled sample."""
    if stored is None and has_id:
        stored = ""
    send = has_id and stored != label
    note = {} if confidence is None else {"predicted": confidence}
    return Move(sample_id, None, label, (), (marker,) if send else (), stored, note=note)


def settled(row: Row, outcome: Outcome) -> Move | None:
    """What the store's answer makes of a sample: the label sent is its label and its stored label, the correction goes.

    None where the store was left as it was: the correction stays.
    """
    if outcome.status in (Status.DONE, Status.ALREADY):
        wrote = row.expected if outcome.status == Status.DONE else None
        return Move(row.sample, row.before, row.wanted or None, row.tags, (SYNCED,), row.wanted, store_from=wrote)
    if outcome.written:
        # Somebody changed it after us. From now on that is a conflict, even where they put the old label back.
        return Move(row.sample, row.before, row.before, stored=row.wanted)
    return None


def theirs(correction: Correction, found: str) -> Move:
    """The store's label ("" takes ours away) comes in; the correction is dropped, and the history remembers it."""
    note = {"dropped": correction.wanted, "stored_before": correction.expected}
    return Move(correction.sample_id, correction.label, found or None, correction.tags, (SYNCED,), found, note=note)


def pulled(
    label: str | None, stored: str | None, held: str, sample_id: str, marked: bool, named: bool
) -> tuple[str | None, Move | None]:
    """What a label as the store holds it now means for a sample: a merge of three, in which no edit is lost.

    Args:
        label: the label in FiftyOne
        stored: what the store held when it was last read; None where that is not known
        held: what it holds now; "" where it has no label
        sample_id: the sample
        marked: whether the marker tag is on it
        named: whether a tag says another label

    Returns:
        how the two differ (None where they agree), and what to do
    """
    here = label or ""
    note = Move(sample_id, label, label, stored=held) if stored != held else None
    if held == here:
        return None, note
    if marked or named:
        if stored is None and marked and not named:
            return OPEN, note  # from now on it is known what the correction replaces
        return (OPEN, None) if held == stored or (stored is None and held == here) else (DISAGREE, None)
    if not held:
        return ONLY_HERE, note
    if stored is not None and here != stored:
        return (EDITED, None) if held == stored else (BOTH_EDITED, None)
    note_before = {"stored_before": here if stored is None else stored}
    return CHANGED, Move(sample_id, label, held, stored=held, note=note_before)


# How a label here and in the store differ.
CHANGED = "changed in the store"
ONLY_HERE = "labelled here, not in the store"
OPEN = "corrected here, not sent yet"
DISAGREE = "corrected here, and changed in the store"
EDITED = "edited here, not tagged"
BOTH_EDITED = "edited here without a tag, and changed in the store"


def recent(db: Database, dataset: str, most: int = 20) -> list[tuple[str, str]]:
    """The latest runs that changed labels of a dataset, newest first: (run, what to call it)."""
    operators = ["apply_corrections", "accept_predictions", "label_clusters", "sync_back", "pull_labels"]
    query = {"dataset": dataset, "operator": {"$regex": f"/({'|'.join(operators)})$"}, "state": {"$ne": "failed"}}
    found = db["mbari_runs"].find(query).sort("started_at", -1).limit(most)
    return [(str(run["_id"]), f"{run['name']}, {run['started_at']:%Y-%m-%d %H:%M}") for run in found]
