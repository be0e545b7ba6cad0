"""The journal and the lease, on a real MongoDB server."""

import csv
import io
import signal
import threading
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest

from shared.errors import InputError, StorageError
from shared.sync import journal as journals
from shared.sync.corrections import Status
from shared.sync.journal import JOURNAL, Journal, Lease, Outcome, Row, parts, rows_csv, size
from shared.sync.lease import LEASES
from tests.mongod import Mongod, later

ABOUT: dict[str, Any] = {"run": "run 1", "store": "a store", "dataset": "d1", "label_field": "gt", "by": "ana"}
ODD = [
    '{"$ne": null}',
    "$label",
    "$$NOW",
    "a'b\"c",
    "50% \t, \r\n",
    "=1+1",
    "nul\0",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "",
    "\U0001f990",
]
DONE = Outcome(Status.DONE)


def row(number: int, **changes: Any) -> Row:
    values = {"before": "Copepod", "expected": "Copepod", "wanted": "Calanus", "tags": ("Calanus",), **changes}
    return Row(f"{number:024x}", f"id-{number}", **values)


def rows(count: int) -> list[Row]:
    return [row(number) for number in range(count)]


# --- the journal ---


def test_an_intent_is_there_before_it_returns_and_reads_back_the_same(db: Any) -> None:
    meant = [row(n, before=text, expected=text, wanted=text[::-1], tags=(text, "t")) for n, text in enumerate(ODD)]
    meant.append(Row("f" * 24, 2**62, None, "a", "b"))
    chunk = Journal(db).intend(meant, **ABOUT)
    assert db[JOURNAL].find_one({"_id": chunk.id})["state"] == "intent"
    [found] = Journal(db).unfinished("a store")
    assert found == chunk
    assert found.rows == meant
    assert found.outcomes is None
    assert abs(found.at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_chunk_says_what_it_was_for(db: Any) -> None:
    journal = Journal(db)
    journal.intend(rows(1), **ABOUT)
    journal.intend(rows(1), **ABOUT, how="revert")
    assert [chunk.how for chunk in journal.of_run("run 1")] == ["sync", "revert"]


def test_a_chunk_is_unfinished_until_it_is_closed(db: Any) -> None:
    journal = Journal(db)
    first, second = journal.intend(rows(2), **ABOUT), journal.intend(rows(1), **ABOUT)
    journal.intend(rows(1), **{**ABOUT, "store": "another store"})
    outcomes = [Outcome(Status.CONFLICT, '{"$ne": null}', "$x", written=True), Outcome(Status.FAILED, None, "")]
    journal.settle(first, outcomes)
    assert (first.state, first.outcomes) == ("settled", outcomes)
    assert Journal(db).unfinished("a store") == [first, second]
    journal.close(first)
    assert Journal(db).unfinished("a store") == [second]
    assert [chunk.state for chunk in Journal(db).of_run("run 1")] == ["closed", "intent", "intent"]


def test_a_chunk_without_outcomes_does_not_close(db: Any) -> None:
    journal = Journal(db)
    journal.close(journal.intend(rows(1), **ABOUT))
    assert [chunk.state for chunk in journal.unfinished("a store")] == ["intent"]


def test_each_row_needs_its_outcome(db: Any) -> None:
    journal = Journal(db)
    with pytest.raises(ValueError, match="1 outcomes for 2 rows"):
        journal.settle(journal.intend(rows(2), **ABOUT), [DONE])


def test_what_was_read_back_does_not_replace_what_another_run_has_settled(db: Any) -> None:
    mine = Journal(db).intend(rows(1), **ABOUT)
    [theirs] = Journal(db).unfinished("a store")
    Journal(db).settle(theirs, [Outcome(Status.CONFLICT, "x", "y")])
    Journal(db).close(theirs)
    assert not Journal(db).settle(mine, [DONE], sure=False)
    assert (mine.state, mine.outcomes) == ("closed", [Outcome(Status.CONFLICT, "x", "y")])


@pytest.mark.parametrize("seen", [DONE, Outcome(Status.CONFLICT, "x", "put back", written=True)])
def test_another_run_that_saw_the_write_knows_better_than_who_made_it(db: Any, seen: Outcome) -> None:
    mine = Journal(db).intend(rows(2), **ABOUT)
    [theirs] = Journal(db).unfinished("a store")
    assert Journal(db).settle(theirs, [Outcome(Status.CONFLICT, "y", "z"), seen], sure=False)
    Journal(db).close(theirs)
    assert not Journal(db).settle(mine, [DONE, DONE])
    assert (mine.state, mine.outcomes) == ("closed", [Outcome(Status.CONFLICT, "y", "z"), seen])
    Journal(db).reopen(mine)
    assert Journal(db).unfinished("a store") == []


def test_what_the_store_itself_answered_replaces_what_another_run_took_for_granted(db: Any) -> None:
    mine = Journal(db).intend(rows(1), **ABOUT)
    [theirs] = Journal(db).unfinished("a store")
    Journal(db).settle(theirs, [Outcome(Status.FAILED, None, "to do")])
    Journal(db).close(theirs)
    assert Journal(db).settle(mine, [DONE])
    assert [chunk.outcomes for chunk in Journal(db).unfinished("a store")] == [[DONE]]


def test_a_chunk_that_another_run_settled_too_early_is_looked_at_again(db: Any) -> None:
    journal = Journal(db)
    chunk = journal.intend(rows(2), **ABOUT)
    [other] = Journal(db).unfinished("a store")
    journal.settle(other, [Outcome(Status.FAILED, None, "to do")] * 2, sure=False)
    journal.close(other)
    journal.reopen(chunk)
    [again] = Journal(db).unfinished("a store")
    assert (again.id, again.state, again.outcomes) == (chunk.id, "intent", None)


def test_chunks_stay_below_what_mongodb_takes_whatever_the_labels_are(db: Any) -> None:
    journal = Journal(db)
    long = "\U0001f990" * 20_000
    many = [row(n, before=long, expected=long, wanted=long + "x", tags=(long,)) for n in range(60)]
    pieces = list(parts(many, 1000))
    assert [many[i] for piece in pieces for i in range(piece.start, piece.stop)] == many
    assert len(pieces) > 1
    for piece in pieces:
        chunk = journal.intend(many[piece], **ABOUT)
        held = "é" * 3_000_000
        journal.settle(chunk, [Outcome(Status.CONFLICT, held, held) for _ in chunk.rows])
    for document in db[JOURNAL].find_raw_batches():
        assert max(len(bson.encode(one)) for one in bson.decode_all(document)) < 16 << 20
    for chunk in journal.of_run("run 1"):
        assert all(o.status is Status.CONFLICT and o.reason.startswith("éé") for o in chunk.outcomes or ())


@pytest.mark.parametrize("text", ["", "ab", "é", "\U0001f990" * 50])
def test_the_bound_of_a_row_is_one(text: str) -> None:
    one = Row("f" * 24, text or 7, text, text, text, (text, text))
    document = {"sample": one.sample, "source": one.source, "before": text, "expected": text, "wanted": text}
    assert len(bson.encode({"rows": [document | {"tags": list(one.tags)}]})) <= size(one) + 30


def test_pieces_have_at_most_so_many_rows() -> None:
    assert [(p.start, p.stop) for p in parts(rows(7), 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(parts([], 3)) == []
    assert [p.stop - p.start for p in parts(rows(3), 3, most_bytes=1)] == [1, 1, 1]
    assert max(p.stop - p.start for p in parts(rows(20_000), 1_000_000)) <= journals.MOST_ROWS


def test_the_runs_of_a_dataset_are_listed_newest_first(db: Any) -> None:
    journal = Journal(db)
    for run, outcomes in (("run 1", [DONE, DONE]), ("run 2", [DONE, Outcome(Status.FAILED, None, "why")])):
        chunk = journal.intend(rows(2), **{**ABOUT, "run": run})
        journal.settle(chunk, outcomes)
        journal.close(chunk)
        time.sleep(0.01)
    journal.intend(rows(3), **{**ABOUT, "run": "run 2", "by": None})
    journal.intend(rows(1), **{**ABOUT, "run": "run 3", "dataset": "d2"})
    found = journal.runs("d1")
    assert [(r["run"], r["by"], r["labels"], r["updated"], r["unfinished"]) for r in found] == [
        ("run 2", "ana", 5, 1, 1),
        ("run 1", "ana", 2, 2, 0),
    ]
    assert all(r["at"].tzinfo is UTC and r["store"] == "a store" and r["label_field"] == "gt" for r in found)
    assert [chunk.run for chunk in journal.of_dataset("d1")] == ["run 1", "run 2", "run 2"]


def test_the_history_is_csv_that_a_program_reads_back_byte_for_byte(db: Any) -> None:
    journal = Journal(db)
    chunk = journal.intend([row(n, expected=text, wanted=text[::-1]) for n, text in enumerate(ODD)], **ABOUT)
    journal.settle(chunk, [Outcome(Status.CONFLICT, None, text, row=n or None) for n, text in enumerate(ODD)])
    open_ = journal.intend(rows(1), **ABOUT)
    read = list(csv.DictReader(io.StringIO(rows_csv(journal.of_run("run 1")), newline="")))
    assert [(r["from"], r["to"], r["reason"]) for r in read[:-1]] == [(text, text[::-1], text) for text in ODD]
    assert read[0] == {
        "at": chunk.at.isoformat(timespec="milliseconds"),
        "run": "run 1",
        "by": "ana",
        "store": "a store",
        "dataset": "d1",
        "label_field": "gt",
        "sample_id": "0" * 24,
        "source_id": "id-0",
        "from": ODD[0],
        "to": ODD[0][::-1],
        "status": "conflict",
        "reason": ODD[0],
        "row": "",
    }
    assert (read[1]["row"], read[-1]["row"]) == ("1", "")
    assert (read[-1]["at"], read[-1]["status"]) == (open_.at.isoformat(timespec="milliseconds"), "")


def test_a_journal_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    with Mongod(tmp_path / "db", "--auth") as server, server.client() as client:
        journal = Journal(client["fiftyone"])
        with pytest.raises(StorageError, match="refuses to keep the journal") as caught:
            journal.intend(rows(1), **ABOUT)
    assert "\n" not in str(caught.value)


# --- the lease ---


def test_of_many_that_ask_at_once_one_gets_it(db: Any) -> None:
    got: list[Lease] = []
    refused: list[str] = []
    start = threading.Barrier(8)

    def ask(number: int) -> None:
        lease = Lease(db, "a store", f"run {number}", seconds=3)
        start.wait()
        try:
            got.append(lease.acquire(patience=0))
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = got
    winner.confirm()
    winner.release()
    owner = winner._owner
    assert len(refused) == 7
    assert all(f'The run "{owner}" is sending labels to the same store' in text for text in refused)


def test_two_never_hold_it_at_once(db: Any) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            lease = Lease(db, "a store", f"run {number}", seconds=2)
            while True:
                try:
                    lease.acquire(patience=0)
                    break
                except InputError:
                    time.sleep(0.01)
            inside.append(number)
            most.append(len(inside))
            lease.confirm()
            time.sleep(0.01)
            inside.remove(number)
            lease.release()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20
    assert db[LEASES].count_documents({}) == 0


def test_stores_have_a_lease_each_whatever_their_names(db: Any) -> None:
    with Lease(db, '{"$ne": null}', "$owner"), Lease(db, "$x", "run 2"), Lease(db, "a.b", "run 3") as third:
        third.confirm()
        assert {d["_id"]: d["owner"] for d in db[LEASES].find()} == {
            '{"$ne": null}': "$owner",
            "$x": "run 2",
            "a.b": "run 3",
        }


def dies(lease: Lease) -> None:
    """What a killed process leaves: a lease that nobody renews."""
    lease._ended.set()
    assert lease._thread is not None
    lease._thread.join()


def test_a_dead_owners_lease_is_taken_over_when_it_has_run_out_and_not_before(db: Any) -> None:
    dead = Lease(db, "a store", "run 1", seconds=2).acquire()
    dies(dead)
    until = db[LEASES].find_one()["until"]
    with pytest.raises(InputError, match="run 1"):
        Lease(db, "a store", "run 2").acquire(patience=0)
    with Lease(db, "a store", "run 2", seconds=2) as lease:
        assert db.command("serverStatus")["localTime"] >= until
        lease.confirm()
        with pytest.raises(StorageError, match="taken over"):
            dead.confirm()
        dead.release()  # not the other's
        lease.confirm()


def test_a_live_owner_is_not_waited_for(db: Any) -> None:
    with Lease(db, "a store", "run 1", seconds=1.5):
        with pytest.raises(InputError, match='"run 1" is sending labels') as caught:
            Lease(db, "a store", "run 2", seconds=1.5).acquire(patience=60)
        assert "Stop a run" in str(caught.value)
        assert db[LEASES].find_one()["owner"] == "run 1"


def test_only_the_servers_clock_counts(db: Any) -> None:
    now = db.command("serverStatus")["localTime"]
    db[LEASES].insert_one({"_id": "a", "owner": "run 0", "token": "t", "beat": 0, "until": now + timedelta(hours=1)})
    db[LEASES].insert_one({"_id": "b", "owner": "run 0", "token": "t", "beat": 0, "until": now - timedelta(seconds=1)})
    with pytest.raises(InputError, match="run 0"):
        Lease(db, "a", "run 1").acquire(patience=0)
    with Lease(db, "b", "run 1") as lease:
        lease.confirm()
        assert db[LEASES].find_one({"_id": "b"})["until"] > now + timedelta(seconds=29)


def test_a_lease_outlives_its_time_as_long_as_its_context(db: Any) -> None:
    with Lease(db, "a store", "run 1", seconds=0.6) as lease:
        time.sleep(2)
        found = db[LEASES].find_one()
        assert found["beat"] >= 3
        assert found["until"] > db.command("serverStatus")["localTime"]
        thread = lease._thread
        assert thread is not None
        assert thread.is_alive()
    assert not thread.is_alive()
    assert db[LEASES].count_documents({}) == 0


def test_the_renewal_ends_with_an_error_too(db: Any) -> None:
    threads = []

    def work() -> None:
        with Lease(db, "a store", "run 1") as lease:
            threads.append(lease._thread)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not threads[0].is_alive()
    with Lease(db, "a store", "run 2") as other:
        other.confirm()


def test_a_lease_that_was_lost_is_noticed_before_the_next_write(db: Any) -> None:
    with Lease(db, "a store", "run 1") as lease:
        db[LEASES].update_one({}, {"$set": {"token": "somebody else's"}})
        with pytest.raises(StorageError, match="Another run has taken over"):
            lease.confirm()
    assert db[LEASES].count_documents({}) == 1


def test_a_database_that_was_away_loses_neither_lease_nor_journal(tmp_path: Path) -> None:
    with Mongod(tmp_path / "db") as server, server.client() as client:
        db = client["fiftyone"]
        journal = Journal(db)
        with Lease(db, "a store", "run 1", seconds=2) as lease:
            chunk = journal.intend(rows(3), **ABOUT)
            server.end(signal.SIGKILL)
            started = later(3, server.start)
            lease.confirm()  # longer away than the lease lasts: still ours, for nobody took it
            journal.settle(chunk, [DONE] * 3)
            started.join()
            server.end(signal.SIGTERM)
            started = later(1, server.start)
            second = journal.intend(rows(1), **ABOUT)
            started.join()
            lease.confirm()
        assert [(c.id, c.state) for c in journal.unfinished("a store")] == [
            (chunk.id, "settled"),
            (second.id, "intent"),
        ]
        assert db[LEASES].count_documents({}) == 0
