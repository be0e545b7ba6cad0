"""What must be true after every schedule of the torture test, whatever happened in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.sync.send import UNKNOWN
from tests.shared.sync.torture_syncer import Roi

MARKER = "needs-sync"
SIX = ("updated", "already", "conflict", "missing", "invalid", "failed")


@dataclass(frozen=True)
class Happened:
    """What a schedule left behind.

    Attributes:
        rois: as they were planned
        before: the samples' documents by source id, before any run
        after: the same after the last
        records: of the store
        buried: records that the outside editor deleted, as they were then
        edited: source id, label before and after of each of its edits, in their order
        runs: records of the runs of `sync_back`
        chunks: the journal's documents
        traces: whether the store itself tells which run wrote a record. Where it does not, a run that got no answer
            cannot know its own write from an edit that came on top of it, or in its place
    """

    rois: Sequence[Roi]
    before: Mapping[str, Mapping[str, Any]]
    after: Mapping[str, Mapping[str, Any]]
    records: Sequence[Mapping[str, Any]]
    buried: Sequence[Mapping[str, Any]]
    edited: Sequence[tuple[str, str | None, str | None]]
    runs: Sequence[Mapping[str, Any]]
    chunks: Sequence[Mapping[str, Any]]
    traces: bool = True

    @property
    def blurred(self) -> set[str]:
        """The source ids of which nobody can say for sure who wrote what: edited from outside, and not traced."""
        return set() if self.traces else {source for source, _, _ in self.edited}


def check(happened: Happened) -> list[str]:
    """What is wrong, one sentence each; nothing, if all is well."""
    return [*_store(happened), *_samples(happened), *_journal(happened), *_runs(happened)]


def _by_id(happened: Happened) -> dict[str, list[Mapping[str, Any]]]:
    records = defaultdict(list)
    for record in (*happened.records, *happened.buried):
        records[record["elemental_id"]].append(record)
    return records


def _chain(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return record.get("history", ())


def _store(happened: Happened) -> Iterator[str]:
    """Every write replaced what was there, each correction was written once at most, and nothing else was."""
    records = _by_id(happened)
    for roi in happened.rois:
        if len(records[roi.source]) != roi.records:
            yield f"{roi.source} has {len(records[roi.source])} records, not {roi.records}"
        for record in records[roi.source]:
            held = roi.label or ""
            for entry in _chain(record):
                who = f"run {entry['run']}" if entry["run"] else "the outside editor"
                if (entry["from"] or "") != held:
                    yield f"{roi.source}: {who} replaced {held!r}, and thought it was {entry['from']!r}"
                held = entry["to"] or ""
            if (record.get("label") or "") != held:
                yield f"{roi.source} holds {record.get('label')!r}, though the last write left {held!r}"
            if not str(record.get("note", "")).startswith(roi.source):
                yield f"{roi.source}: another field was touched"
            yield from _written(roi, record, roi.source in happened.blurred)
            theirs = [(roi.source, e["from"], e["to"]) for e in _chain(record) if not e["run"]]
            if theirs != [edit for edit in happened.edited if edit[0] == roi.source and roi.records == 1]:
                yield f"{roi.source}: the edits from outside are not all there: {theirs}"


def _written(roi: Roi, record: Mapping[str, Any], blurred: bool) -> Iterator[str]:
    ours = [entry for entry in _chain(record) if entry["run"]]
    if len(ours) > 1 and not blurred:
        yield f"{roi.source}: one correction was written {len(ours)} times, by {[entry['run'] for entry in ours]}"
    if ours and (roi.wanted is None or roi.how == "two" or roi.records != 1):
        yield f"{roi.source} was written, and should not have been"
    for entry in ours:
        if entry["to"] != roi.wanted or entry["from"] != (roi.label or ""):
            yield f"{roi.source}: {entry['from']!r} -> {entry['to']!r} was written for {roi.label!r} -> {roi.wanted!r}"
    if bool(ours) != ("modified_by" in record):
        yield f"{roi.source}: who modified it is not written along with the label"


def _samples(happened: Happened) -> Iterator[str]:
    """No correction is lost: each is in the store or still on its sample, with the reason."""
    records = _by_id(happened)
    buried = {record["elemental_id"] for record in happened.buried}
    for roi in happened.rois:
        before, after = happened.before[roi.source], happened.after[roi.source]
        if roi.wanted is None:
            if _bare(before) != _bare(after):
                yield f"the sample of {roi.source} was changed, though it had no correction"
            continue
        tags = {*after["tags"], *((after.get("ground_truth") or {}).get("tags") or ())}
        open_ = {*before["tags"], *((before.get("ground_truth") or {}).get("tags") or ()), MARKER} & tags
        held: list[str | None] = [record.get("label") or "" for record in records[roi.source]]
        if roi.source in buried:
            held = []
        ever = {roi.label or ""} | {e["to"] or "" for record in records[roi.source] for e in _chain(record)}
        yield from _open(roi, before, after, held) if open_ else _settled(roi, after, tags, ever)


def _open(roi: Roi, before: Mapping[str, Any], after: Mapping[str, Any], held: list[str | None]) -> Iterator[str]:
    reason, label = after.get("ground_truth_sync"), _label(after)
    if not reason:
        yield f"{roi.source} is still to be sent, and nothing says why"
    if label not in (_label(before), roi.wanted):
        yield f"the label of {roi.source} became {label!r}, though its correction is open"
    if roi.how == "two" or len(held) != 1:
        return
    stored = after.get("ground_truth_stored")
    expected = label or "" if stored is None else stored
    if held[0] in (roi.wanted, expected):
        yield f"{roi.source} was left though the store holds {held[0]!r}: {reason}"


def _settled(roi: Roi, after: Mapping[str, Any], tags: set[str], ever: set[str]) -> Iterator[str]:
    label, stored = _label(after), after.get("ground_truth_stored")
    if "synced" not in tags:
        yield f"the correction of {roi.source} is gone, and it is not synced"
    if (label or "") != stored:
        yield f"{roi.source} is labelled {label!r} and its stored label is {stored!r}"
    if stored not in ever or roi.records != 1:
        yield f"{roi.source} is synced as {stored!r}, which the store never held: {sorted(ever)}"
    history = after.get("ground_truth_history") or ()
    dropped = [entry for entry in history if entry["how"] == "theirs"]
    if label != roi.wanted and not dropped:
        yield f"the correction of {roi.source} to {roi.wanted!r} is lost: it is {label!r}, synced"
    if any(entry["dropped"] != roi.wanted or entry["to"] != label for entry in dropped) or len(dropped) > 1:
        yield f"{roi.source}: a correction was dropped wrongly: {dropped}"


def _journal(happened: Happened) -> Iterator[str]:
    """What the journal says was written is what the store's own history says."""
    buried = {record["elemental_id"] for record in happened.buried}
    said, missed = defaultdict(set), defaultdict(set)
    for chunk in happened.chunks:
        if chunk["state"] != "closed":
            yield f"a chunk of run {chunk['run']} was left {chunk['state']}"
            continue
        for row, outcome in zip(chunk["rows"], chunk["outcomes"], strict=True):
            if outcome["status"] == "updated" or outcome["written"]:
                said[chunk["run"]].add(row["source"])
            elif outcome["status"] == "not in the store" and row["source"] in buried:
                missed[chunk["run"]].add(row["source"])  # whether it was written before, nobody can know
            if outcome["status"] == "updated":
                yield from _noted(happened, chunk["run"], row["source"])
    true = defaultdict(set)
    for source, records in _by_id(happened).items():
        for record in records:
            for entry in _chain(record):
                if entry["run"]:
                    true[entry["run"]].add(source)
    for run in {*said, *true}:
        if more := said[run] - true[run] - happened.blurred:
            yield f"the journal says that run {run} wrote {sorted(more)}, and the store's history does not"
        if less := true[run] - said[run] - missed[run] - happened.blurred:
            yield f"the store's history says that run {run} wrote {sorted(less)}, and the journal does not"


def _noted(happened: Happened, run: str, source: str) -> Iterator[str]:
    """The history of a sample has what was written for it, once."""
    entries = happened.after[source].get("ground_truth_history") or ()
    times = sum(entry["run"] == run and entry["how"] == "sync" for entry in entries)
    if times != 1:
        yield f"{source}: the sample's history has the sync by run {run} {times} times"


def _runs(happened: Happened) -> Iterator[str]:
    """Each run that came to an end accounts for all its corrections, and truly."""
    true: dict[str, int] = defaultdict(int)
    for chunk in happened.chunks:
        for outcome in chunk["outcomes"] or ():
            true[chunk["run"]] += outcome["status"] == "updated"
    sent = {chunk["run"] for chunk in happened.chunks}
    for run in happened.runs:
        name = str(run["_id"])
        if run["state"] == "failed":
            yield from _failed(run, name in sent)
        if run["state"] != "completed":
            continue
        result = run["result"]
        if sum(result[key] for key in SIX) != result["corrections"]:
            yield f"the account of run {name} does not add up: { {key: result[key] for key in SIX} }"
        open_ = sum(row["labels"] for row in result["problems"] if row["reason"].startswith(UNKNOWN))
        if not result["updated"] <= true[name] <= result["updated"] + open_:
            said = f"{result['updated']} labels ({open_} not known)"
            yield f"run {name} says that it updated {said}, and it was {true[name]}"
    last = max(happened.runs, key=lambda run: run["started_at"])
    if last["state"] != "completed" or last["result"]["failed"]:
        yield f"the last run, without any trouble, did not send everything: {last.get('result', last.get('error'))}"


def _failed(run: Mapping[str, Any], sent: bool) -> Iterator[str]:
    """A run fails in one sentence of ours, and only if it is not known to have done anything: no account is lost."""
    message = run["error"]["message"]
    # FiftyOne's own calls do not wait for a database that is away; before anything is sent that is no harm.
    away = message.startswith(("AutoReconnect", "NetworkTimeout", "ServerSelectionTimeoutError"))
    if run["error"]["traceback"] and not (away and not sent):
        yield f"run {run['_id']} ended with an error that is not ours: {message}"
    elif sent and not message.startswith("None of ") and " may have been sent" not in message:
        yield f"run {run['_id']} has sent labels, and ended without an account: {message}"


def _label(sample: Mapping[str, Any]) -> str | None:
    return (sample.get("ground_truth") or {}).get("label")


def _bare(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if key != "last_modified_at"}
