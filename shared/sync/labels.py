"""How a label on a sample changes: always whole, in one conditional update that keeps what was there before.

Each change is one MongoDB update of one document, so a killed run leaves no half of it. The update is conditional on
the label that the decision was made for, and on not having been made by the same run before: making it twice is making
it once. Values enter expressions as `$literal`: a label such as `$set` is a label.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from .corrections import SYNCED

GROUP = 5_000  # samples an update names at most


def stored_field(label_field: str) -> str:
    """The string field with what the label store held when it was last read; "" is a record without a label."""
    return f"{label_field}_stored"


def history_field(label_field: str) -> str:
    """The field with the changes of a sample's label, oldest first: dicts with from, to, by, at, run, how."""
    return f"{label_field}_history"


def status_field(label_field: str) -> str:
    """The string field that says why a correction was not sent, or would not be."""
    return f"{label_field}_sync"


_ORIGINS = {
    "accepted": "an accepted prediction",
    "cluster": "a named cluster",
    "correction": "a correction",
    "pull": "the label store",
    "theirs": "the label store",
}


def origin(label: str | None, stored: str | None, history: Sequence[Mapping[str, Any]] | None) -> str | None:
    """Where a label came from, in words: the last change that made it what it is, else the label store.

    Args:
        label: the label, or None
        stored: what the label store held when it was last read
        history: the changes of the label, oldest first
    """
    if label is None:
        return None
    made = [change["how"] for change in history or () if change.get("to") == label and change.get("how") in _ORIGINS]
    if made:
        return _ORIGINS[made[-1]]
    return "the label store" if label == stored else "not known"


class Event(NamedTuple):
    """Who changes labels: kept in the history of each."""

    run: str
    by: str | None
    at: datetime
    how: str


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one sample's label.

    Attributes:
        sample_id: the sample
        before: the label for which this was decided (None: it had none); another one by now is left alone
        to: the label it gets, which may be the same; None takes it away
        tags_off: tags that go, from the sample and from its label
        tags_on: tags that the sample gets
        stored: the stored label from now on; None leaves it as it is
        store_from: what the store held before, where this change is the store's too
        note: more for the history
    """

    sample_id: str
    before: str | None
    to: str | None
    tags_off: tuple[str, ...] = ()
    tags_on: tuple[str, ...] = ()
    stored: str | None = None
    store_from: str | None = None
    note: Mapping[str, Any] = field(default_factory=dict)


def updates(
    moves: Iterable[Move], label_field: str, event: Event, tagged: bool = False
) -> list[UpdateMany | UpdateOne]:
    """The MongoDB updates of some moves: one for all samples that change alike.

    Args:
        moves: at most one a sample
        label_field: the field whose labels move
        event: who, when and how
        tagged: only samples that still have one of `tags_off`: who took the tag away meanwhile, meant it
    """
    alike: dict[Any, list[Move]] = defaultdict(list)
    for move in moves:
        # A label that is made new needs an id of its own.
        own = move.sample_id if move.before is None and move.to is not None else None
        note = tuple(sorted(move.note.items()))
        alike[own, move.before, move.to, move.tags_off, move.tags_on, move.stored, move.store_from, note].append(move)
    made: list[UpdateMany | UpdateOne] = []
    for (own, *_), group in alike.items():
        change = [{"$set": _change(group[0], label_field, event, own)}]
        for start in range(0, len(group), GROUP):
            ids = [ObjectId(move.sample_id) for move in group[start : start + GROUP]]
            chosen = _condition(ids, group[0], label_field, event, tagged)
            made.append(UpdateOne(chosen, change) if len(ids) == 1 else UpdateMany(chosen, change))
    return made


def stored_only(moves: Iterable[Move], label_field: str) -> list[UpdateMany]:
    """Updates that note what the store holds on samples whose label has become another one meanwhile."""
    alike: dict[Any, list[ObjectId]] = defaultdict(list)
    for move in moves:
        if move.stored is not None:
            alike[move.before, move.to, move.stored].append(ObjectId(move.sample_id))
    change = {
        key: {"$set": {stored_field(label_field): key[2]}, "$currentDate": {"last_modified_at": True}} for key in alike
    }
    return [
        UpdateMany({"_id": {"$in": ids}, f"{label_field}.label": {"$nin": [key[0], key[1]]}}, change[key])
        for key, ids in alike.items()
    ]


def _condition(ids: Sequence[ObjectId], move: Move, label_field: str, event: Event, tagged: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "_id": ids[0] if len(ids) == 1 else {"$in": ids},
        f"{label_field}.label": {"$in": [move.before, move.to]},  # None matches a sample without a label
    }
    if _is_history(move, event):
        chosen[history_field(label_field)] = {"$not": {"$elemMatch": {"run": event.run, "how": event.how}}}
    if tagged:
        there = {"$in": list(move.tags_off)}
        chosen["$or"] = [{"tags": there}, {f"{label_field}.tags": there}]
    return chosen


def _is_history(move: Move, event: Event) -> bool:
    # A correction that is dropped for the label as it stands has only its note to be remembered by.
    return move.before != move.to or move.store_from is not None or bool(move.note)


def _change(move: Move, label_field: str, event: Event, own: str | None) -> dict[str, Any]:
    change: dict[str, Any] = {"last_modified_at": "$$NOW"}
    if move.tags_off or move.tags_on:
        change["tags"] = _tags("$tags", move.tags_off, move.tags_on)
    if move.to is None:
        change[label_field] = None
    elif own is not None:
        made = {"_id": label_id(own, label_field), "_cls": "Classification", "tags": [], "label": move.to}
        change[label_field] = {"$literal": made}
    else:
        change[f"{label_field}.label"] = {"$literal": move.to}
        if move.tags_off:
            change[f"{label_field}.tags"] = _tags(f"${label_field}.tags", move.tags_off, ())
        if move.before != move.to:
            # They were another label's; the history keeps the confidence.
            change[f"{label_field}.confidence"] = move.note.get("confidence", "$$REMOVE")
            change[f"{label_field}.logits"] = "$$REMOVE"
    if move.stored is not None:
        change[stored_field(label_field)] = {"$literal": move.stored}
    if _is_history(move, event):
        history = f"${history_field(label_field)}"
        change[history_field(label_field)] = {
            "$concatArrays": [{"$ifNull": [history, []]}, [_entry(move, label_field, event)]]
        }
    if move.tags_off or move.stored is not None:
        change[status_field(label_field)] = None
    return change


def _entry(move: Move, label_field: str, event: Event) -> dict[str, Any]:
    """A line of the history; `from` and `confidence` are what the sample has at that moment."""
    said: dict[str, Any] = {"to": move.to, **event._asdict(), **move.note}
    if move.tags_off:
        said["tags"] = list(move.tags_off)
    if move.store_from is not None:
        said["store_from"] = move.store_from
    said = {key: {"$literal": value} for key, value in said.items() if key != "confidence"}
    was = {"$ifNull": [f"${label_field}.label", None]}
    return {"from": was, "confidence": f"${label_field}.confidence", **said}


def _tags(path: str, off: Sequence[str], on: Sequence[str]) -> dict[str, Any]:
    have = {"$ifNull": [path, []]}
    gone = {"$literal": [*off, *on, *([SYNCED] if SYNCED not in on else [])]}
    kept = {"$filter": {"input": have, "cond": {"$not": [{"$in": ["$$this", gone]}]}}}
    return {"$concatArrays": [kept, {"$literal": list(on)}]}


def label_id(sample_id: str, label_field: str) -> ObjectId:
    """The id of a label that the suite makes; the same each time, so that making it twice is making it once."""
    return ObjectId(hashlib.sha256(f"{sample_id}/{label_field}".encode()).digest()[:12])
