"""The label stores that the torture test can be run against: what it does to each behind the syncers' backs."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.shared.sync.stores.tators import element
from tests.shared.sync.torture_plan import FORBIDDEN, Edit, Schedule
from tests.shared.sync.torture_syncer import Roi
from tests.shared.sync.trouble import FIND, UPDATE
from tests.tator.api import Answer, Request
from tests.tator.rows import Row
from tests.tator.server import Tator

QUICK = "&serverSelectionTimeoutMS=500&connectTimeoutMS=500&socketTimeoutMS=2000&heartbeatFrequencyMS=500"

Record = dict[str, Any]  # elemental_id, label, note, history, and modified_by where a run has written it


class Side(Protocol):
    """One schedule's store.

    Attributes:
        address: host and port of its server
        token: of its user, if it wants one
        traces: whether the store itself knows which run has written a record
        rule: what the reason says where the server's own rule refuses a label
        buried: records that the outside editor deleted, as they were then
        edited: what the outside editor did: source id, label before and after
    """

    address: tuple[str, int]
    token: str | None
    traces: bool
    rule: str
    buried: list[Record]
    edited: list[tuple[str, str | None, str | None]]

    def planned(self, plan: Schedule) -> Schedule:
        """The plan with ids that this store can have."""
        ...

    def holding(self, request: bytes) -> bytes:
        """What requests of this kind hold near their beginning."""
        ...

    def uri(self, host: str, port: int, chunk: int) -> str:
        """The store behind a proxy."""
        ...

    def fill(self, rois: Sequence[Roi]) -> None:
        """Adds the records."""
        ...

    def records(self) -> list[Record]:
        """All that are there."""
        ...

    def forbid(self, now: bool) -> None:
        """Whether a rule of the server's own refuses the forbidden name."""
        ...

    def edit(self, edit: Edit, single: dict[str, Roi], until: float) -> None:
        """Does one edit from outside, atomically; one to put back waits until a run has written something."""
        ...

    def close(self) -> None:
        """Leaves nothing behind."""
        ...


def label_after(edit: Edit, record: Record, single: dict[str, Roi]) -> str | None:
    """The label that an edit is to leave."""
    if edit.what == "put back":
        return record["history"][-1]["from"] or None
    if edit.what == "agree":
        return single[record["elemental_id"]].wanted or edit.label
    return edit.label


def pick(records: Callable[[], list[Record]], edit: Edit, until: float) -> Record | None:
    """The record to edit; one to put back is waited for, and is edited as soon as a run has written it."""
    while True:
        there = records()
        if edit.what == "put back":
            there = [record for record in there if (record.get("history") or [{}])[-1].get("run")]
        if there:
            return there[int(edit.pick * len(there))]
        if edit.what != "put back" or time.monotonic() >= until:
            return None
        time.sleep(0.005)


class MongoSide:
    """A collection of documents with a history."""

    token = None
    traces = True
    rule = "a rule of the collection"

    def __init__(self, client: MongoClient, name: str) -> None:
        self.name, self._db = name, client[name]
        self._rois = self._db["rois"]
        self.address = client.address
        self.buried: list[Record] = []
        self.edited: list[tuple[str, str | None, str | None]] = []

    def planned(self, plan: Schedule) -> Schedule:
        return plan

    def holding(self, request: bytes) -> bytes:
        return request

    def uri(self, host: str, port: int, chunk: int) -> str:
        keys = f"collection=rois&history=history&modified_by=modified_by&chunk={chunk}{QUICK}"
        return f"mongodb://{host}:{port}/{quote(self.name)}?{keys}"

    def fill(self, rois: Sequence[Roi]) -> None:
        self._rois.insert_many(
            {"elemental_id": roi.source, "label": roi.label, "note": f"{roi.source} {copy}"}
            for roi in rois
            for copy in range(roi.records)
        )

    def records(self) -> list[Record]:
        return list(self._rois.find())

    def forbid(self, now: bool) -> None:
        self._db.command("collMod", "rois", validator={"label": {"$ne": FORBIDDEN}} if now else {})

    def edit(self, edit: Edit, single: dict[str, Roi], until: float) -> None:
        with contextlib.suppress(OperationFailure):  # the rule that forbids a name is for this editor too
            self._edit(edit, single, until)

    def _edit(self, edit: Edit, single: dict[str, Roi], until: float) -> None:
        query = {"elemental_id": {"$in": list(single)}}
        record = pick(lambda: list(self._rois.find(query).sort("_id")), edit, until)
        if record is None:
            return
        source, held = record["elemental_id"], record.get("label")
        same = {"_id": record["_id"], "label": held}
        if edit.what == "delete":
            if gone := self._rois.find_one_and_delete(same):
                self.buried.append(gone)
            return
        label = label_after(edit, record, single)
        entry = {"from": held, "to": label, "by": "outside", "at": None, "run": None}
        if self._rois.update_one(same, {"$set": {"label": label}, "$push": {"history": entry}}).matched_count:
            self.edited.append((source, held, label))

    def close(self) -> None:
        self._db.client.drop_database(self.name)


class _Traced(Tator):
    """A server that keeps what Tator does not: which run wrote what over what, by what the request calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.trail: dict[str, list[Record]] = defaultdict(list)
        self.looked: dict[str, float] = {}  # elements that a single write has just looked at

    def serve(self, request: Request) -> Answer:
        # Check and write as one step here: what lies between them in a real server no client can help.
        with self.lock:
            if request.method == "PUT":
                self._looked(request)
            if request.method != "PATCH":
                return super().serve(request)
            before = self._labels()
            try:
                return super().serve(request)
            finally:
                self._note(before, request)

    def _looked(self, request: Request) -> None:
        ids = re.findall(rb"[0-9a-f]{8}-[0-9a-f-]{27}", request.raw)
        if len(ids) == 1:
            self.looked[ids[0].decode()] = time.monotonic() + 0.3

    def _labels(self) -> dict[int, Any]:
        return {number: row.attributes.get("Label") for number, row in self.data.rows.items()}

    def _note(self, before: dict[int, Any], request: Request) -> None:
        run = re.search(r"\(run ([\w-]+)\)", request.headers.get("User-Agent", ""))
        for number, label in before.items():
            row = self.data.rows[number]
            self.looked.pop(row.elemental_id, None) if row.elemental_id in request.path else None
            if row.attributes.get("Label") != label:
                # As a run would say it, to which no label is an empty one.
                entry = {"from": label or "", "to": row.attributes.get("Label"), "run": run[1] if run else "unknown"}
                self.trail[row.elemental_id].append(entry)


class TatorSide:
    """A stand-in server with one project."""

    traces = False
    rule = "is not allowed for attribute"

    def __init__(self, name: str) -> None:
        self.name, self._server = name, _Traced()
        self._server.project(7, name)
        self.token: str | None = self._server.token()
        self.address = ("127.0.0.1", self._server.port)
        self.buried: list[Record] = []
        self.edited: list[tuple[str, str | None, str | None]] = []
        self._lock = threading.Lock()

    def planned(self, plan: Schedule) -> Schedule:
        rois = [roi._replace(source=element(number)) for number, roi in enumerate(plan.rois)]
        return Schedule(plan.seed, rois, plan.pull, plan.chunk, plan.syncers, plan.edits)

    def holding(self, request: bytes) -> bytes:
        return {UPDATE: b"PATCH /rest/", FIND: b"PUT /rest/"}[request]

    def uri(self, host: str, port: int, chunk: int) -> str:
        keys = f"version=Baseline&type=Boxes&chunk={chunk}&timeout=2"
        return f"tator+http://{host}:{port}/{quote(self.name)}?{keys}"

    def fill(self, rois: Sequence[Roi]) -> None:
        for roi in rois:
            for copy in range(roi.records):
                self._server.put([(roi.source, roi.label)], attributes={"note": f"{roi.source} {copy}"})

    def _shown(self) -> Iterator[Row]:
        data = self._server.data
        return (row for row in list(data.rows.values()) if data.is_latest(row) and not row.deleted)

    def _record(self, row: Row) -> Record:
        history = list(self._server.trail[row.elemental_id])
        record = {
            "elemental_id": row.elemental_id,
            "label": row.attributes.get("Label"),
            "note": row.attributes.get("note"),
            "history": history,
        }
        return record | ({"modified_by": row.modified_by} if any(entry["run"] for entry in history) else {})

    def records(self) -> list[Record]:
        with self._server.lock:
            return [self._record(row) for row in self._shown()]

    def forbid(self, now: bool) -> None:
        (self._server.api.forbidden.add if now else self._server.api.forbidden.discard)(FORBIDDEN)

    def edit(self, edit: Edit, single: dict[str, Roi], until: float) -> None:
        record = pick(lambda: [r for r in self.records() if r["elemental_id"] in single], edit, until)
        if record is None:
            return
        source, held, label = record["elemental_id"], record["label"], label_after(edit, record, single)
        if label in self._server.api.forbidden:
            return
        # Not between the look and the write of a single change: nothing can help that.
        while time.monotonic() < self._server.looked.get(source, 0.0):
            time.sleep(0.005)
        with self._server.lock:
            row = next((row for row in self._shown() if row.elemental_id == source), None)
            if row is None or row.attributes.get("Label") != held:
                return
            if edit.what == "delete":
                self.buried.append(self._record(row))
                self._server.data.add(row.copy(id=0, mark=row.mark + 1, deleted=True))
                return
            if edit.pick < 0.5:  # as the web site does; the others as scripts do
                row = self._server.data.add(row.copy(id=0, mark=row.mark + 1))
            if label is None:
                row.attributes.pop("Label", None)
            else:
                row.attributes["Label"] = label
            self._server.trail[source].append({"from": held, "to": label, "run": None})
            self.edited.append((source, held, label))

    def close(self) -> None:
        self._server.close()
