"""The memory of what was sent to a label store: one document a chunk of changes, in FiftyOne's own database.

A chunk is an "intent" before the store is asked, "settled" once the outcome of each row is known, and "closed"
once the samples in FiftyOne say the same. Whatever is not closed is unfinished: after a crash the next run
finds it and finishes it (`send.recover`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from pymongo import IndexModel, WriteConcern
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from ..errors import StorageError
from .corrections import Status
from .lease import DURABLE, ask
from .lease import Lease as Lease
from .stores.base import SourceId

JOURNAL = "mbari_journal"

MOST_BYTES = 4 << 20  # of the rows of one chunk; MongoDB takes documents of 16 MiB
MOST_FOUND = 6 << 20  # of what the store was found to hold, in one chunk's outcomes
MOST_REASONS = 3 << 20  # of their reasons
MOST_ROWS = 5_000  # of one chunk
CSV = (
    *("at", "run", "by", "store", "dataset", "label_field", "sample_id", "source_id", "from", "to", "status", "reason"),
    "row",
)

# Of a chunk: who settled it saw no trace of its write.
_UNSEEN = {"outcomes": {"$not": {"$elemMatch": {"$or": [{"status": str(Status.DONE)}, {"written": True}]}}}}


@dataclass(frozen=True, slots=True)
class Row:
    """One change as it was meant.

    Attributes:
        sample: the sample's id
        source: the id in the store
        before: the label in FiftyOne before the change
        expected: the label that the store must hold for the change to be made
        wanted: the label that it is to hold
        tags: the correction's tags on sample and label, gone once it is settled
    """

    sample: str
    source: SourceId
    before: str | None
    expected: str
    wanted: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        status: what
        found: what the store holds instead, where that is known
        reason: why, in words
        written: whether the store is known to have held the label wanted, though it no longer does
        row: the new id of the record, in a store where each write gives it one; the old one is a mark of history
    """

    status: Status
    found: str | None = None
    reason: str = ""
    written: bool = False
    row: int | None = None


@dataclass
class Chunk:
    """Changes that went to a store in one request; `outcomes` has one for each row, in order, once settled.

    `how` is what the history of each label calls it: "sync", or "revert" for what takes a sync back.
    """

    id: ObjectId
    run: str
    store: str
    dataset: str
    label_field: str
    by: str | None
    at: datetime
    rows: list[Row]
    outcomes: list[Outcome] | None = None
    state: str = "intent"
    how: str = "sync"


class Journal:
    """What was sent to label stores, chunk by chunk; all methods wait for a database that is away for a while.

    Args:
        db: FiftyOne's own database

    Every method raises StorageError when the database stays away or refuses.
    """

    def __init__(self, db: Database) -> None:
        self._chunks = db.get_collection(JOURNAL, write_concern=DURABLE)
        # A chunk that is closed twice is no harm, so this need not wait for the disk.
        self._loose = db.get_collection(JOURNAL, write_concern=WriteConcern(w=1))
        self._indexed = False

    def intend(
        self,
        rows: Sequence[Row],
        *,
        run: str,
        store: str,
        dataset: str,
        label_field: str,
        by: str | None,
        how: str = "sync",
    ) -> Chunk:
        """Writes down what is about to be sent; durable once it returns."""
        self._index()
        chunk = Chunk(ObjectId(), run, store, dataset, label_field, by, _now(), list(rows), how=how)
        document = {
            "_id": chunk.id,
            "run": run,
            "store": store,
            "dataset": dataset,
            "label_field": label_field,
            "how": how,
            "by": by,
            "at": chunk.at,
            "state": chunk.state,
            "rows": [
                {
                    "sample": row.sample,
                    "source": row.source,
                    "before": row.before,
                    "expected": row.expected,
                    "wanted": row.wanted,
                    "tags": list(row.tags),
                }
                for row in rows
            ],
            "outcomes": None,
        }

        def insert() -> None:
            with suppress(DuplicateKeyError):  # of this id: an earlier try arrived and its answer got lost
                self._chunks.insert_one(document)

        ask(insert)
        return chunk

    def settle(self, chunk: Chunk, outcomes: Sequence[Outcome], *, sure: bool = True) -> bool:
        """Writes down what became of a chunk's rows; durable once it returns.

        Where another run has settled the chunk meanwhile, its outcomes stand: it had the lease, and the samples
        may have moved on.

        Args:
            chunk: gets the outcomes and the state that the journal has afterwards
            outcomes: one a row, in order
            sure: the store's own answer to the write. It also replaces what another run has settled that looked
                before the write arrived, and so saw nothing of it

        Returns:
            whether these are the outcomes that count
        """
        if len(outcomes) != len(chunk.rows):
            raise ValueError(f"{len(outcomes)} outcomes for {len(chunk.rows)} rows")
        mine = ObjectId()  # known again where the answer to the first try got lost
        free: list[dict[str, Any]] = [{"state": "intent"}, {"settled": mine}, *([_UNSEEN] if sure else [])]
        change = {"$set": {"state": "settled", "settled": mine, "outcomes": _documents(outcomes)}}
        if ask(lambda: self._chunks.update_one({"_id": chunk.id, "$or": free}, change)).matched_count:
            chunk.outcomes, chunk.state = list(outcomes), "settled"
            return True
        standing = ask(lambda: self._chunks.find_one({"_id": chunk.id}))
        if standing is None:
            raise StorageError("A chunk of the journal was deleted while it was being settled: start this again.")
        chunk.outcomes, chunk.state = _chunk(standing).outcomes, standing["state"]
        return False

    def reopen(self, chunk: Chunk) -> None:
        """Leaves it to the next run to look what became of a chunk, if another run has settled it too early."""
        which = {"_id": chunk.id, **_UNSEEN}
        ask(lambda: self._chunks.update_one(which, {"$set": {"state": "intent", "outcomes": None}}))

    def close(self, chunk: Chunk) -> None:
        """Marks a settled chunk as done with: FiftyOne's samples say what its outcomes say."""
        ask(lambda: self._loose.update_one({"_id": chunk.id, "state": "settled"}, {"$set": {"state": "closed"}}))
        chunk.state = "closed"

    def unfinished(self, store: str) -> list[Chunk]:
        """The chunks for the store of this name that are not closed, oldest first."""
        return list(self._read({"store": {"$eq": store}, "state": {"$in": ["intent", "settled"]}}))

    def of_run(self, run: str) -> Iterator[Chunk]:
        """The chunks of a run, oldest first."""
        return self._read({"run": {"$eq": run}})

    def of_dataset(self, dataset: str) -> Iterator[Chunk]:
        """The chunks of a dataset (its id), oldest first."""
        return self._read({"dataset": {"$eq": dataset}})

    def runs(self, dataset: str) -> list[dict[str, Any]]:
        """The runs that sent labels of a dataset (its id), newest first.

        Returns:
            for each: `run`, `by`, `store`, `label_field`, `at` (its first chunk's time), `labels` (how many rows),
            `updated` (how many of them the store took) and `unfinished` (how many chunks are not closed)
        """
        updated = {
            "$filter": {"input": {"$ifNull": ["$outcomes.status", []]}, "cond": {"$eq": ["$$this", str(Status.DONE)]}}
        }
        group = {
            "_id": "$run",
            "at": {"$first": "$at"},
            "by": {"$first": "$by"},
            "store": {"$first": "$store"},
            "label_field": {"$first": "$label_field"},
            "labels": {"$sum": {"$size": "$rows"}},
            "updated": {"$sum": {"$size": updated}},
            "unfinished": {"$sum": {"$cond": [{"$eq": ["$state", "closed"]}, 0, 1]}},
        }
        stages: list[Mapping[str, Any]] = [
            {"$match": {"dataset": {"$eq": dataset}}},
            {"$sort": {"at": 1, "_id": 1}},
            {"$group": group},
            {"$sort": {"at": -1, "_id": -1}},
        ]
        found = ask(lambda: list(self._chunks.aggregate(stages, allowDiskUse=True)))
        return [{"run": run.pop("_id"), **run, "at": run["at"].replace(tzinfo=UTC)} for run in found]

    def _read(self, which: Mapping[str, Any]) -> Iterator[Chunk]:
        # Ids first: a cursor does not outlive its server, single documents can be asked for again.
        order = [("at", 1), ("_id", 1)]
        ids = ask(lambda: [found["_id"] for found in self._chunks.find(which, {"at": 1}).sort(order)])
        for identity in ids:
            found = ask(lambda identity=identity: self._chunks.find_one({"_id": identity}))  # type: ignore[misc]
            if found is not None:
                yield _chunk(found)

    def _index(self) -> None:
        if not self._indexed:
            keys = [[("store", 1), ("state", 1)], [("run", 1), ("at", 1)], [("dataset", 1), ("at", 1)]]
            ask(lambda: self._chunks.create_indexes([IndexModel(key) for key in keys]))
            self._indexed = True


def parts(rows: Sequence[Row], most: int, most_bytes: int = MOST_BYTES) -> Iterator[slice]:
    """Cuts rows into pieces of at most `most` rows that one chunk can hold, but of one row at least.

    A row that is larger than `most_bytes` by itself does not fit the journal: see `size`.
    """
    most = min(most, MOST_ROWS)
    start = total = 0
    for end, row in enumerate(rows):
        bytes_ = size(row)
        if end > start and (end - start == most or total + bytes_ > most_bytes):
            yield slice(start, end)
            start, total = end, 0
        total += bytes_
    if start < len(rows):
        yield slice(start, len(rows))


def size(row: Row) -> int:
    """A bound for the bytes that a row takes in the journal; a character takes four at most."""
    texts = (row.sample, str(row.source), row.before or "", row.expected, row.wanted, *row.tags)
    return 128 + 16 * len(row.tags) + 4 * sum(map(len, texts))


def rows_csv(chunks: Iterable[Chunk]) -> str:
    """The history that chunks tell, as CSV (RFC 4180) with one line a row and the columns of `CSV`.

    `from` is the label that the store was to hold before, `to` the one it was to hold after, `status` what came
    of it ("" where a crash left that open), `row` the new id of the record where a write gave it one. Labels stand as
    they are, byte for byte: a spreadsheet takes one that begins with "=", "+", "-" or "@" for a formula unless it is
    told to import the column as text.
    """
    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(CSV)
    for chunk in chunks:
        head = (
            chunk.at.isoformat(timespec="milliseconds"),
            chunk.run,
            chunk.by,
            chunk.store,
            chunk.dataset,
            chunk.label_field,
        )
        for index, row in enumerate(chunk.rows):
            end: tuple[Any, ...] = ("", "", "")
            if chunk.outcomes:
                outcome = chunk.outcomes[index]
                end = (outcome.status, outcome.reason, outcome.row)
            out.writerow((*head, row.sample, row.source, row.expected, row.wanted, *end))
    return text.getvalue()


def _documents(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    # Labels of any length fit one document only up to a sum; beyond, the reason's few words must do.
    fit = 4 * sum(len(outcome.found or "") for outcome in outcomes) <= MOST_FOUND
    most = MOST_REASONS // (4 * max(len(outcomes), 1))
    return [
        {
            "status": str(outcome.status),
            "found": outcome.found if fit else None,
            "reason": outcome.reason[:most],
            "written": outcome.written,
            **({} if outcome.row is None else {"row": outcome.row}),
        }
        for outcome in outcomes
    ]


def _chunk(document: Mapping[str, Any]) -> Chunk:
    outcomes = document["outcomes"]
    return Chunk(
        id=document["_id"],
        run=document["run"],
        store=document["store"],
        dataset=document["dataset"],
        label_field=document["label_field"],
        by=document["by"],
        at=document["at"].replace(tzinfo=UTC),
        rows=[Row(**{**row, "tags": tuple(row["tags"])}) for row in document["rows"]],
        outcomes=outcomes
        and [Outcome(Status(o["status"]), o["found"], o["reason"], o["written"], o.get("row")) for o in outcomes],
        state=document["state"],
        how=document["how"],
    )


def _now() -> datetime:
    """The time in the milliseconds that MongoDB keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
