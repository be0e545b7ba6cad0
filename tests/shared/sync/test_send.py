"""The engine against real MongoDB servers: what is sent is sent once, and the account is true whatever happens.

An interleaving is made by a wrapper around the real store, which lets a test act between two steps: an outside
editor, an answer that gets lost, a process that dies.
"""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StorageError
from shared.runs import Monitor
from shared.sync import send as engine
from shared.sync.corrections import Correction, Status
from shared.sync.journal import MOST_BYTES, Chunk, Journal, Outcome
from shared.sync.lease import LEASES, Lease
from shared.sync.plan import Line, counts, plan
from shared.sync.send import recover, send
from shared.sync.stores import open_store
from shared.sync.stores.base import Change, Found, SourceId, Stamp, Store, Unreachable, Written
from tests.mongod import Mongod, later
from tests.shared.sync.test_journal import ODD
from tests.shared.sync.trouble import UPDATE, proxy

ROOT = Path(__file__).resolve().parents[3]
ROWS = 10
CHUNK = 4  # so three chunks
QUICK = "&serverSelectionTimeoutMS=500&connectTimeoutMS=500&socketTimeoutMS=2000&heartbeatFrequencyMS=500"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the suite catches it."""


class Between:
    """A store, with a call before and after each write, and before each read, that gets its number (from 1)."""

    def __init__(self, store: Store) -> None:
        self.store, self.name, self.chunk = store, store.name, store.chunk
        self.writes = self.reads = 0
        self.before_write: Callable[[int], Any] = lambda number: None
        self.after_write: Callable[[int], Any] = lambda number: None
        self.before_read: Callable[[int], Any] = lambda number: None

    def check(self, writing: bool = True) -> str:
        return self.store.check(writing)

    def refuses(self, label: str) -> str | None:
        return self.store.refuses(label)

    def count(self) -> int | None:
        return self.store.count()

    def read(self, ids: Sequence[SourceId], run: str | None = None) -> dict[SourceId, Found]:
        self.reads += 1
        self.before_read(self.reads)
        return self.store.read(ids, run=run)

    def write(self, changes: Sequence[Change], stamp: Stamp) -> Written:
        self.writes += 1
        self.before_write(self.writes)
        answer = self.store.write(changes, stamp)
        self.after_write(self.writes)
        return answer

    def close(self) -> None:
        self.store.close()


def address(db: Any) -> str:
    db.client.admin.command("ping")  # a client that asked nothing yet has no server
    return "{}:{}".format(*db.client.address)


class World:
    """A label store, and samples with corrections; `apply` is the samples' side of a chunk.

    Samples are documents of a collection of their own here: what FiftyOne does with them is tested elsewhere.
    """

    def __init__(self, db: Any, uri: str | None = None, options: str = "history=history", chunk: int = CHUNK) -> None:
        self.db = db
        self.samples, self.records = db["samples"], db["rois"]
        where = uri or f"mongodb://{address(db)}/{db.name}"
        self.store = Between(open_store(f"{where}?collection=rois&chunk={chunk}&directConnection=true&{options}"))
        self.journal = Journal(db)
        self.applied: Counter[Any] = Counter()

    def fill(self, labels: Sequence[tuple[str, str]] = (("Copepod", "Calanus"),) * ROWS) -> None:
        """One sample and one record for each pair of old and new label."""
        self.records.create_index("elemental_id")
        self.records.insert_many([{"elemental_id": f"e{n}", "label": old} for n, (old, _) in enumerate(labels)])
        self.samples.insert_many(
            [{"_id": f"s{n}", "source": f"e{n}", "label": old, "tag": new} for n, (old, new) in enumerate(labels)]
        )

    def plan(self) -> list[Line]:
        corrections = [
            Correction(s["_id"], s["source"], s["label"], s["label"], s["tag"], (s["tag"],))
            for s in self.samples.find({"tag": {"$exists": True}}).sort("_id")
        ]
        found = self.store.store.read([c.source_id for c in corrections if c.source_id is not None])
        return plan(corrections, found, (), self.store.refuses)

    def apply(self, chunk: Chunk) -> None:
        self.applied[chunk.id] += 1
        for row, outcome in zip(chunk.rows, chunk.outcomes or (), strict=True):
            if outcome.status in (Status.DONE, Status.ALREADY):
                change = {"$set": {"label": row.wanted}, "$unset": {"tag": ""}, "$push": {"history": chunk.run}}
                self.samples.update_one({"_id": row.sample, "history": {"$ne": chunk.run}}, change)
            else:
                self.samples.update_one({"_id": row.sample}, {"$set": {"why": outcome.reason}})

    def send(self, run: str = "run 1", lines: Sequence[Line] | None = None, **options: Any) -> list[Line]:
        about: dict[str, Any] = {"run": run, "by": "ana", "dataset": "d", "label_field": "gt", "patience": 2.0}
        with Lease(self.db, self.store.name, run, seconds=options.pop("seconds", 3)) as lease:
            return send(
                self.plan() if lines is None else lines,
                self.store,
                self.journal,
                lease,
                self.apply,
                **{**about, **options},
            )

    def recover(self) -> list[Chunk]:
        with Lease(self.db, self.store.name, "the next run", seconds=3):
            return recover(self.store, self.journal, self.apply, patience=2.0)

    # --- what is to be true afterwards ---

    def held(self) -> dict[str, Any]:
        return {record["elemental_id"]: record.get("label") or "" for record in self.records.find()}

    def check(self, lines: Sequence[Line]) -> None:
        """The account adds up and is what the store holds; nothing was written twice; the samples say the same."""
        assert Status.UPDATE not in {line.status for line in lines}
        assert sum(counts(lines).values()) == len(lines)
        held = self.held()
        for line in lines:
            its = line.correction
            sample = self.samples.find_one({"_id": its.sample_id})
            if line.status in (Status.DONE, Status.ALREADY):
                assert held[its.source_id] == its.wanted == sample["label"]
                assert "tag" not in sample
            else:
                assert sample["label"] == its.label
                assert sample["tag"] == its.wanted
        for record in self.records.find({"history": {"$exists": True}}):
            written = [(entry["from"], entry["to"]) for entry in record["history"]]
            assert len(written) == 1, written
        for sample in self.samples.find({"history": {"$exists": True}}):
            assert len(sample["history"]) == 1

    def all_sent(self) -> None:
        """Everything has arrived, once, and the journal says so."""
        pairs = {sample["_id"]: sample for sample in self.samples.find()}
        assert all("tag" not in sample for sample in pairs.values())
        assert self.held() == {sample["source"]: sample["label"] for sample in pairs.values()}
        assert all(len(record["history"]) == 1 for record in self.records.find())
        assert self.journal.unfinished(self.store.name) == []
        done = Counter(row.sample for row, outcome in self.history() if outcome.status is Status.DONE)
        assert done == dict.fromkeys(pairs, 1)
        assert set(self.applied) >= {chunk.id for chunk in self.journal.of_dataset("d")}

    def history(self) -> Iterator[tuple[Any, Outcome]]:
        for chunk in self.journal.of_dataset("d"):
            yield from zip(chunk.rows, chunk.outcomes or (), strict=True)


@pytest.fixture
def world(db: Any) -> Iterator[World]:
    made = World(db)
    yield made
    made.store.close()


@pytest.fixture
def bare(db: Any) -> Iterator[World]:
    """A store that keeps no history: who wrote a record cannot be told."""
    made = World(db, options="")
    yield made
    made.store.close()


def statuses(lines: Sequence[Line]) -> list[Status]:
    return [line.status for line in lines]


def at(number: int, call: Callable[[], Any]) -> Callable[[int], None]:
    """Calls when the number is reached, and only then."""

    def hook(now: int) -> None:
        if now == number:
            call()

    return hook


def lose() -> None:
    raise Unreachable("no answer")


def lose_always(number: int) -> None:
    lose()


# --- what is sent, and what is not ---


def test_changes_arrive_and_everything_says_so(world: World) -> None:
    world.fill()
    lines = world.send()
    assert statuses(lines) == [Status.DONE] * ROWS
    assert [line.reason for line in lines] == [""] * ROWS
    assert (world.store.writes, world.store.reads) == (3, 0)
    world.check(lines)
    world.all_sent()
    assert list(world.applied.values()) == [1, 1, 1]
    assert {chunk.by for chunk in world.journal.of_run("run 1")} == {"ana"}


def test_the_journal_says_what_was_sent_for_whom_and_what_for(world: World) -> None:
    world.fill([("a", "b")])
    world.send(how="revert")
    [chunk] = world.journal.of_run("run 1")
    assert (chunk.how, chunk.by, chunk.dataset, chunk.label_field) == ("revert", "ana", "d", "gt")
    assert (chunk.store, chunk.state) == (world.store.name, "closed")
    [row] = chunk.rows
    assert (row.sample, row.source, row.before, row.expected, row.wanted, row.tags) == (
        "s0",
        "e0",
        "a",
        "a",
        "b",
        ("b",),
    )


def test_only_lines_that_would_change_are_sent_and_all_come_back_in_order(world: World) -> None:
    world.fill([("a", "b"), ("a", "b"), ("a", "b"), ("a", "b"), ("a", "b")])
    world.records.update_one({"elemental_id": "e1"}, {"$set": {"label": "b"}})
    world.records.update_one({"elemental_id": "e3"}, {"$set": {"label": "c"}})
    planned = world.plan()
    lines = world.send(lines=planned)
    assert statuses(lines) == [Status.DONE, Status.ALREADY, Status.DONE, Status.CONFLICT, Status.DONE]
    assert [line.correction for line in lines] == [line.correction for line in planned]
    assert (lines[1], lines[3]) == (planned[1], planned[3])
    assert world.held() == {"e0": "b", "e1": "b", "e2": "b", "e3": "c", "e4": "b"}


def test_nothing_to_send_asks_nobody(world: World) -> None:
    assert world.send(lines=[]) == []
    assert world.store.writes == world.store.reads == 0
    assert list(world.journal.of_dataset("d")) == []


def test_any_label_is_a_label(world: World) -> None:
    pairs = [(old, new) for old in ODD for new in ODD if old != new]
    world.fill(pairs)
    lines = world.send()
    assert statuses(lines) == [Status.DONE] * len(pairs)
    world.check(lines)
    assert world.held() == {f"e{n}": new for n, (_, new) in enumerate(pairs)}


def test_a_label_too_long_for_the_journal_is_left_alone(world: World) -> None:
    world.fill([("a", "b"), ("a", "c")])
    planned = world.plan()
    long = Correction("s0", "e0", "a", "a", "x" * MOST_BYTES, ())
    lines = world.send(lines=[Line(long, Status.UPDATE, "a", ""), planned[1]])
    assert statuses(lines) == [Status.CANNOT, Status.DONE]
    assert "too long" in lines[0].reason


def test_an_update_that_expects_nothing_is_a_bug_and_never_a_write(world: World) -> None:
    world.fill([("a", "b")])
    loose = Correction("s0", "e0", None, None, "b", (), Status.NO_STORED)
    with pytest.raises(ValueError, match="not complete"):
        world.send(lines=[Line(loose, Status.UPDATE, None, "")])
    assert world.held() == {"e0": "a"}


# --- an outside editor ---


def test_who_changes_a_label_between_plan_and_write_is_not_overwritten(world: World) -> None:
    world.fill()

    def edit() -> None:
        world.records.update_one({"elemental_id": "e0"}, {"$set": {"label": "Oithona"}})
        world.records.update_one({"elemental_id": "e1"}, {"$set": {"label": "Calanus"}})
        world.records.update_one({"elemental_id": "e2"}, {"$set": {"label": 7}})
        world.records.update_one({"elemental_id": "e4"}, {"$unset": {"label": ""}})
        world.records.delete_one({"elemental_id": "e5"})

    world.store.before_write = at(1, edit)
    lines = world.send()
    assert statuses(lines)[:6] == [
        Status.CONFLICT,
        Status.ALREADY,
        Status.CONFLICT,
        Status.DONE,
        Status.CONFLICT,
        Status.NOT_IN_STORE,
    ]
    assert (lines[0].found, lines[0].reason) == ("Oithona", "the store holds 'Oithona', not 'Copepod'")
    assert lines[2].reason == "the store holds 7, which is not text, not 'Copepod'"
    assert lines[4].reason == "the store holds no label, not 'Copepod'"
    assert world.held()["e0"] == "Oithona"
    world.check(lines)


def test_where_the_store_keeps_no_history_what_it_holds_counts(bare: World) -> None:
    bare.fill()
    bare.store.before_write = at(
        1, lambda: bare.records.update_one({"elemental_id": "e1"}, {"$set": {"label": "Calanus"}})
    )
    lines = bare.send()
    assert statuses(lines) == [Status.DONE] * ROWS
    bare.check(lines)


def test_an_id_that_became_double_is_not_called_done(world: World) -> None:
    world.fill()

    def double() -> None:
        world.records.insert_one({"elemental_id": "e0", "label": "x"})
        lose()

    world.store.before_write = at(1, double)
    lines = world.send()
    assert statuses(lines) == [Status.ID_TWICE] + [Status.DONE] * (ROWS - 1)


def test_what_an_editor_does_after_a_lost_answer_stands(world: World) -> None:
    world.fill()

    def edit() -> None:
        world.records.update_one({"elemental_id": "e0"}, {"$set": {"label": "Copepod"}})
        world.records.update_one({"elemental_id": "e1"}, {"$set": {"label": "Oithona"}})
        lose()

    world.store.after_write = at(1, edit)
    lines = world.send()
    assert statuses(lines) == [Status.CONFLICT] * 2 + [Status.DONE] * (ROWS - 2)
    assert lines[0].reason == "was written, and put back since"
    assert "changed to 'Oithona' since" in lines[1].reason
    assert [outcome.written for _, outcome in world.history()][:3] == [True, True, False]
    assert world.held() | {"e0": "Copepod", "e1": "Oithona"} == world.held()
    world.check(lines)


# --- lost answers ---


@pytest.mark.parametrize("kept", [0, 2, CHUNK])
def test_a_lost_answer_is_settled_by_reading_and_nothing_is_written_twice(world: World, kept: int) -> None:
    world.fill()

    def partly() -> None:
        first = [Change(f"e{n}", "Copepod", "Calanus") for n in range(kept)]
        [chunk] = world.journal.unfinished(world.store.name)
        world.store.store.write(first, Stamp("run 1", "ana", chunk.at))
        lose()

    world.store.before_write = at(1, partly)
    lines = world.send()
    assert statuses(lines) == [Status.DONE] * ROWS
    assert world.store.writes == (3 if kept == CHUNK else 4)
    world.check(lines)
    world.all_sent()


def test_answers_and_requests_that_the_network_loses(world: World) -> None:
    world.fill()
    host, port = world.db.client.address
    with proxy(host, port) as between:
        there = World(world.db, f"mongodb://127.0.0.1:{between.port}/{world.db.name}", f"history=history{QUICK}")
        there.store.before_write = lambda number: (
            between.drop_answers(1, holding=UPDATE) if number % 2 else between.drop_requests(1, holding=UPDATE)
        )
        lines = there.send()
        assert between.faults == there.store.writes
        there.store.close()
    # The first chunk is written, its answer lost. Of the second no request arrives, then its answer is lost...
    assert statuses(lines) == [Status.DONE] * ROWS
    there.check(lines)
    there.all_sent()


def test_a_store_that_loses_every_request_but_answers_questions(world: World) -> None:
    world.fill()
    world.store.before_write = lose_always
    lines = world.send()
    assert world.store.writes == engine.ROUNDS
    assert [line.reason for line in lines] == ["no answer"] * CHUNK + ["not sent: no answer"] * (ROWS - CHUNK)
    world.check(lines)
    assert world.journal.unfinished(world.store.name) == []
    world.store.before_write = lambda number: None
    world.check(world.send("run 2"))
    world.all_sent()


@pytest.mark.parametrize("written", [True, False])
def test_what_cannot_be_read_back_is_not_known_and_the_next_run_looks(world: World, written: bool) -> None:
    world.fill()
    if written:
        world.store.after_write = at(2, lose)
    else:
        world.store.before_write = at(2, lose)
    world.store.before_read = lose_always
    lines = world.send(patience=0.3)
    assert world.store.reads > 1
    assert statuses(lines) == [Status.DONE] * CHUNK + [Status.FAILED] * (ROWS - CHUNK)
    assert [line.reason for line in lines[CHUNK:]] == [f"{engine.UNKNOWN}no answer"] * CHUNK + [
        "not sent: no answer"
    ] * 2
    [left] = world.journal.unfinished(world.store.name)
    assert left.state == "intent"

    with pytest.raises(StorageError, match="no answer"):
        world.recover()
    assert world.journal.unfinished(world.store.name) == [left]

    world.store.before_read = lambda number: None
    [finished] = world.recover()
    status = Status.DONE if written else Status.FAILED
    assert [outcome.status for outcome in finished.outcomes or ()] == [status] * CHUNK
    rest = world.send("run 2")
    assert statuses(rest) == [Status.DONE] * (2 if written else 2 + CHUNK)
    world.check(rest)
    world.all_sent()


def test_patience_outlasts_a_store_that_is_away_for_a_while(tmp_path: Path, db: Any) -> None:
    with Mongod(tmp_path / "store") as server, server.client() as client:
        world = World(db, f"{server.uri}/labels", f"history=history{QUICK}")
        world.records = client["labels"]["rois"]
        world.fill()
        started = []

        def away() -> None:
            server.end(signal.SIGKILL)
            started.append(later(2, server.start))

        world.store.before_write = at(2, away)
        lines = world.send(patience=30.0)
        started[0].join()
        assert statuses(lines) == [Status.DONE] * ROWS
        world.check(lines)
        world.all_sent()
        world.store.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_dies_in_mid_run_leaves_a_true_account(tmp_path: Path, db: Any, when: str) -> None:
    with Mongod(tmp_path / "store") as server, server.client() as client:
        world = World(db, f"{server.uri}/labels", f"history=history{QUICK}")
        world.records = client["labels"]["rois"]
        world.fill()

        def die() -> None:
            server.end(signal.SIGKILL)
            if when == "after":
                lose()

        setattr(world.store, f"{when}_write", at(2, die))
        lines = world.send(patience=0.5)
        assert statuses(lines) == [Status.DONE] * CHUNK + [Status.FAILED] * (ROWS - CHUNK)
        assert all(line.reason.startswith(engine.UNKNOWN) for line in lines[CHUNK : 2 * CHUNK])
        assert all(line.reason.startswith("not sent: ") for line in lines[2 * CHUNK :])

        server.start()
        [finished] = world.recover()
        known = Status.DONE if when == "after" else Status.FAILED
        assert {outcome.status for outcome in finished.outcomes or ()} == {known}
        world.check(world.send("run 2"))
        world.all_sent()
        world.store.close()


# --- refusals ---


def test_a_rule_of_the_store_refuses_single_changes(world: World) -> None:
    world.fill([("Copepod", "Forbidden" if n % 2 else "Calanus") for n in range(ROWS)])
    world.db.command("collMod", "rois", validator={"label": {"$ne": "Forbidden"}})
    lines = world.send()
    assert statuses(lines) == [Status.DONE, Status.FAILED] * (ROWS // 2)
    assert all("validator" in line.reason for line in lines[1::2])
    assert world.store.writes == 3
    world.check(lines)
    assert world.journal.unfinished(world.store.name) == []


def test_a_rule_and_a_lost_answer_together(world: World) -> None:
    world.fill([("Copepod", "Forbidden" if n % 2 else "Calanus") for n in range(ROWS)])
    world.db.command("collMod", "rois", validator={"label": {"$ne": "Forbidden"}})
    world.store.after_write = at(2, lose)  # of a chunk that has both kinds
    lines = world.send()
    assert statuses(lines) == [Status.DONE, Status.FAILED] * (ROWS // 2)
    assert all("validator" in line.reason for line in lines[1::2])
    world.check(lines)


def test_a_store_that_never_takes_what_it_should_is_given_up(world: World) -> None:
    world.fill([("a", "b")])

    def nothing(changes: Sequence[Change], stamp: Stamp) -> Written:
        world.store.writes += 1
        return Written(0)

    world.store.write = nothing  # type: ignore[method-assign]
    [line] = world.send()
    assert (line.status, world.store.writes) == (Status.FAILED, 3)
    assert line.reason == "the store did not take it in 3 tries, though it holds the expected label"
    world.check([line])


@pytest.mark.parametrize("left", [[], ["read"]])
def test_permission_that_is_lost_in_mid_run(tmp_path: Path, db: Any, left: list[str]) -> None:
    with Mongod(tmp_path / "store", "--auth") as server:
        with server.client() as first:  # all that is allowed as long as there is no user
            first.admin.command("createUser", "admin", pwd="admin", roles=["root"])
        with server.client(username="admin", password="admin") as admin:
            labels = admin["labels"]
            labels.command("createUser", "sync", pwd="hunter2", roles=["readWrite"])
            uri = server.uri.replace("//", "//sync:hunter2@")
            world = World(db, f"{uri}/labels", f"history=history&authSource=labels{QUICK}")
            world.records = labels["rois"]
            world.fill()
            world.store.before_write = at(2, lambda: labels.command("updateUser", "sync", roles=left))
            lines = world.send()
            assert statuses(lines) == [Status.DONE] * CHUNK + [Status.FAILED] * (ROWS - CHUNK)
            assert all("may not write to" in line.reason for line in lines[CHUNK:])
            assert not any("hunter2" in line.reason for line in lines)
            assert not any(line.reason.startswith("not sent") for line in lines[: 2 * CHUNK])
            assert all(line.reason.startswith("not sent: ") for line in lines[2 * CHUNK :])
            world.check(lines)
            assert world.journal.unfinished(world.store.name) == []  # known: nothing was taken

            labels.command("updateUser", "sync", roles=["readWrite"])
            world.check(world.send("run 2"))
            world.all_sent()
            world.store.close()


def test_what_a_store_refused_as_a_whole_was_written_by_somebody_else(bare: World) -> None:
    bare.fill()

    def refuse() -> None:
        bare.records.update_one({"elemental_id": "e0"}, {"$set": {"label": "Calanus"}})
        raise StorageError("no permission")

    bare.store.before_write = at(1, refuse)
    lines = bare.send()
    assert statuses(lines) == [Status.ALREADY] + [Status.FAILED] * (ROWS - 1)
    bare.check(lines)


# --- stops, leases, FiftyOne's database ---


def test_a_stop_ends_before_the_next_chunk(world: World) -> None:
    world.fill()

    class Stop(Monitor):
        def stopping(self) -> bool:
            return world.store.writes > 0

    lines = world.send(monitor=Stop())
    assert statuses(lines) == [Status.DONE] * CHUNK + [Status.FAILED] * (ROWS - CHUNK)
    assert {line.reason for line in lines[CHUNK:]} == {engine.STOPPED}
    world.check(lines)
    assert world.journal.unfinished(world.store.name) == []


def test_progress_reaches_its_end(world: World) -> None:
    world.fill()
    told = []

    class Watch(Monitor):
        def progress(self, done: int, total: int, what: str) -> None:
            told.append((done, total))

    world.send(monitor=Watch())
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]


def steal(world: World) -> None:
    world.db[LEASES].update_one({}, {"$set": {"token": "another run's"}})


def test_a_lease_that_was_lost_ends_the_sending(world: World) -> None:
    world.fill()
    world.store.after_write = at(1, lambda: steal(world))
    lines = world.send()
    assert statuses(lines) == [Status.DONE] * CHUNK + [Status.FAILED] * (ROWS - CHUNK)
    assert all("Another run has taken over" in line.reason for line in lines[CHUNK:])
    assert world.store.writes == 1
    world.check(lines)
    assert world.journal.unfinished(world.store.name) == []


def test_who_lost_the_lease_does_not_settle_by_reading(world: World) -> None:
    world.fill()

    def overtaken() -> None:
        steal(world)
        [chunk] = world.journal.unfinished(world.store.name)
        world.journal.settle(chunk, [Outcome(Status.CONFLICT, "x", "theirs")] * CHUNK)
        world.journal.close(chunk)
        lose()

    world.store.after_write = at(1, overtaken)
    lines = world.send()
    assert all(line.reason.startswith(engine.UNKNOWN) for line in lines[:CHUNK])
    assert world.store.writes == 1
    # Whoever took over may have looked before the write arrived, so it is looked at once more.
    [chunk] = world.recover()
    assert chunk.outcomes == [Outcome(Status.DONE)] * CHUNK


def test_fiftyones_database_away_for_seconds_loses_nothing(tmp_path: Path, db: Any) -> None:
    """Longer than the lease lasts, at each of the steps at which it is needed."""
    with Mongod(tmp_path / "fiftyone") as server, server.client() as client:
        world = World(client["fiftyone"], f"mongodb://{address(db)}/{db.name}")
        world.records = db["rois"]
        world.fill()
        starting = []

        def away() -> None:
            server.end(signal.SIGTERM)
            starting.append(later(1.5, server.start))

        world.store.before_write = at(1, away)  # settles when it is back
        before(world.journal, "intend", 2, away)
        lines = world.send(seconds=1)
        for thread in starting:
            thread.join()
        assert len(starting) == 2
        assert statuses(lines) == [Status.DONE] * ROWS
        world.check(lines)
        world.all_sent()
        world.store.close()


@pytest.mark.parametrize("step", ["intend", "settle", "apply", "close"])
def test_fiftyones_database_gone_for_good_leaves_a_true_account(world: World, step: str) -> None:
    world.fill()

    def gone() -> None:
        raise StorageError("FiftyOne's database has not answered")

    before(world if step == "apply" else world.journal, step, 2, gone)
    lines = world.send()
    held = world.held()
    for line in lines:
        assert line.status is (Status.DONE if held[line.correction.source_id] == "Calanus" else Status.FAILED)
    reached = CHUNK if step == "intend" else 2 * CHUNK
    assert [s is Status.DONE for s in statuses(lines)] == [True] * reached + [False] * (ROWS - reached)
    assert {line.reason for line in lines[CHUNK:reached]} <= {engine.BEHIND}
    assert all("not sent: FiftyOne's database" in line.reason for line in lines[reached:])
    assert len(world.recover()) == (0 if step == "intend" else 1)
    world.check(world.send("run 2"))
    world.all_sent()


# --- death ---


def before(target: Any, method: str, number: int, call: Callable[[], Any], *, after: bool = False) -> None:
    """Calls right before (or after) the given call of a method."""
    real, calls = getattr(target, method), []

    def wrapped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == number and not after:
            call()
        answer = real(*args, **options)
        if len(calls) == number and after:
            call()
        return answer

    setattr(target, method, wrapped)


STEPS = ["intend", "confirm", "write", "settle", "apply", "close"]


def place(world: World, step: str, call: Callable[[], Any], *, after: bool, number: int = 2) -> None:
    """Arranges for a call right before or after a step of the given chunk."""
    if step == "confirm":
        step, after = ("write", False) if after else ("intend", True)
    target = world.store if step == "write" else world if step == "apply" else world.journal
    before(target, step, number, call, after=after)


def die() -> None:
    raise Killed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_whoever_comes_next_finishes_what_a_killed_run_left(world: World, step: str, after: bool) -> None:
    world.fill()
    place(world, step, die, after=after)
    with pytest.raises(Killed):
        world.send()
    survivor = World(world.db)
    survivor.applied = world.applied
    survivor.recover()
    survivor.check(survivor.send("run 2"))
    survivor.all_sent()
    survivor.store.close()


@pytest.mark.parametrize("step", ["settle", "apply", "close"])
def test_whoever_finishes_may_be_killed_as_well(world: World, step: str) -> None:
    world.fill()
    place(world, "write", die, after=True)
    with pytest.raises(Killed):
        world.send()
    for after in (False, True):
        second = World(world.db)
        second.applied = world.applied
        place(second, step, die, after=after, number=1)
        try:
            second.recover()
        except Killed:
            pass
        else:
            assert (step, after) == ("close", True)  # the one before had closed it already
    third = World(world.db)
    third.applied = world.applied
    third.recover()
    third.check(third.send("run 3"))
    third.all_sent()


def test_what_an_editor_does_after_a_death_stands(world: World) -> None:
    world.fill()
    place(world, "write", die, after=True, number=1)
    with pytest.raises(Killed):
        world.send()
    world.records.update_one({"elemental_id": "e0"}, {"$set": {"label": "Oithona"}})
    world.records.update_one({"elemental_id": "e1"}, {"$set": {"label": "Copepod"}})
    world.records.delete_one({"elemental_id": "e2"})
    [chunk] = world.recover()
    found = [outcome.status for outcome in chunk.outcomes or ()]
    assert found == [Status.CONFLICT, Status.CONFLICT, Status.NOT_IN_STORE, Status.DONE]
    assert world.held()["e0"] == "Oithona"
    assert world.held()["e1"] == "Copepod"
    assert world.samples.find_one({"_id": "s3"})["label"] == "Calanus"
    assert {world.samples.find_one({"_id": f"s{n}"})["label"] for n in range(3)} == {"Copepod"}


def test_what_is_settled_is_not_looked_at_again(world: World) -> None:
    world.fill()
    place(world, "apply", die, after=False, number=1)
    with pytest.raises(Killed):
        world.send()
    world.records.update_one({"elemental_id": "e0"}, {"$set": {"label": "Oithona"}})
    [chunk] = world.recover()
    assert [outcome.status for outcome in chunk.outcomes or ()] == [Status.DONE] * CHUNK
    assert world.store.reads == 0
    assert world.held()["e0"] == "Oithona"


def test_two_that_finish_the_same_agree_with_who_was_first(world: World) -> None:
    world.fill()
    place(world, "write", die, after=True, number=1)
    with pytest.raises(Killed):
        world.send()
    [left] = world.journal.unfinished(world.store.name)
    theirs = [Outcome(Status.CONFLICT, "x", "theirs")] * CHUNK
    world.store.before_read = at(1, lambda: world.journal.settle(left, theirs))
    [chunk] = world.recover()
    assert chunk.outcomes == theirs
    assert [outcome for _, outcome in world.history()] == theirs


def test_a_stop_while_finishing_leaves_the_rest_for_the_next(world: World) -> None:
    world.fill()
    place(world, "write", die, after=True, number=1)
    with pytest.raises(Killed):
        world.send()

    class Stop(Monitor):
        def stopping(self) -> bool:
            return True

    assert recover(world.store, world.journal, world.apply, Stop()) == []
    assert len(world.recover()) == 1


def test_recovery_leaves_other_stores_alone(world: World) -> None:
    world.fill([("a", "b")])
    about: dict[str, Any] = {"run": "r", "dataset": "other", "label_field": "gt", "by": None}
    row = engine._row(world.plan()[0].correction)
    world.journal.intend([row], store="another store", **about)
    assert world.recover() == []
    assert len(world.journal.unfinished("another store")) == 1


VICTIM = """
import sys, time
from pymongo import MongoClient
from tests.shared.sync.test_send import World, place

uri, name, step, after = sys.argv[1:]
world = World(MongoClient(uri)[name])

def here():
    print("here", flush=True)
    time.sleep(600)

place(world, step, here, after=after == "after")
world.send(seconds=1)
"""


@pytest.mark.parametrize(("step", "after"), [("write", "before"), ("write", "after"), ("settle", "after")])
def test_a_process_that_is_really_killed(world: World, step: str, after: str) -> None:
    world.fill()
    command = [sys.executable, "-c", VICTIM, f"mongodb://{address(world.db)}", world.db.name, step, after]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"here\n"
        [held] = world.db[LEASES].find()
        assert held["owner"] == "run 1"
        victim.send_signal(signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    assert len(world.recover()) == 1  # once the dead one's lease has run out
    world.check(world.send("run 2"))
    # The first chunk was applied over there.
    world.applied.update([chunk.id for chunk in world.journal.of_run("run 1")])
    world.all_sent()


def test_two_that_start_together_do_not_interleave(world: World) -> None:
    """The second one finds nothing left to do, or is told who is at it; the store has each change once."""
    world.fill()
    code = "import sys; from pymongo import MongoClient; from tests.shared.sync.test_send import World; "
    code += "World(MongoClient(sys.argv[1])[sys.argv[2]]).send(sys.argv[3])"
    uri = f"mongodb://{address(world.db)}"
    both = [
        subprocess.Popen([sys.executable, "-c", code, uri, world.db.name, run], cwd=ROOT, stderr=subprocess.PIPE)
        for run in ("run 1", "run 2")
    ]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0 or b"is sending labels to the same store" in said, said
    assert 0 in [process.returncode for process in both]
    world.applied.update([chunk.id for chunk in world.journal.of_dataset("d")])
    world.all_sent()
