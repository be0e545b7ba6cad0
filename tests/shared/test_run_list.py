"""The suite's runs, as people look them up."""

from datetime import UTC, datetime, timedelta

import pytest

from shared import run_list, runs
from shared.errors import InputError

NOW = datetime(2026, 3, 1, 12)


def add(db, hours, state="completed", operator="@mbari/apply_model/apply_model", **more):
    """A run that began so many hours before NOW; returns its id."""
    began = NOW - timedelta(hours=hours)
    record = {"operator": operator, "name": f"Run of {hours} h", "state": state, "started_at": began, "alive_at": began}
    record |= {"params": {"a": 1}, "dataset": "plankton", "by": "ann", "operation": None, **more}
    return db[runs.COLLECTION].insert_one(record).inserted_id


def found(db, days=30, **how):
    records, count = run_list.find(db, NOW - timedelta(days=days), NOW, **how)
    assert count >= len(records)
    return [record["_id"] for record in records]


def test_the_newest_come_first_and_old_ones_do_not_come(db):
    old, older, new = add(db, 50), add(db, 24 * 40), add(db, 1)
    assert found(db) == [new, old]
    assert found(db, days=1) == [new]
    assert found(db, days=100) == [new, old, older]


def test_runs_are_found_by_operator_dataset_and_outcome(db):
    train, sync = "@mbari/train_classifier/train_classifier", "@mbari/sync_back/sync_back"
    made = {
        "train": add(db, 1, operator=train, dataset="a"),
        "sync": add(db, 2, operator=sync, state="failed"),
        "apply": add(db, 3),
    }
    assert found(db, operator="train_classifier") == found(db, operator=train) == [made["train"]]
    assert found(db, operator="train") == []
    assert found(db, dataset="a") == [made["train"]]
    assert found(db, state="failed") == [made["sync"]]
    assert found(db, state="completed") == [made["train"], made["apply"]]
    assert run_list.known(db) == (["apply_model", "sync_back", "train_classifier"], ["a", "plankton"])


def test_one_that_gave_no_sign_of_life_is_lost_and_not_running(db):
    alive = add(db, 2, "running", alive_at=NOW - timedelta(seconds=1))
    lost = add(db, 3, "running", alive_at=NOW - timedelta(hours=1))
    assert found(db, state="running") == [alive]
    assert found(db, state="lost") == [lost]
    records, _ = run_list.find(db, NOW - timedelta(days=1), NOW)
    assert [record["state"] for record in records] == ["running", "lost"]
    assert [run_list.lasted(record, NOW) for record in records] == [7200.0, 7200.0]
    assert [run_list.row(record, NOW, None)["took"] for record in records] == ["2.0 h so far", "2.0 h"]


def test_only_the_newest_are_read_and_all_are_counted(db):
    for hours in range(1, 8):
        add(db, hours, params={"long": "x" * 1000}, result={"long": "x"})
    records, count = run_list.find(db, NOW - timedelta(days=1), NOW, most=3)
    assert count == 7
    assert [record["name"] for record in records] == ["Run of 1 h", "Run of 2 h", "Run of 3 h"]
    assert not any("params" in record or "result" in record for record in records)


def test_a_row_says_what_on_what_by_whom_how_it_ended_and_what_it_cost(db):
    failed = add(db, 1, "failed", seconds=5400.0, operation="op", error={"message": "No disk\nleft. " + "x" * 200})
    records, _ = run_list.find(db, NOW - timedelta(days=1), NOW)
    row = run_list.row(records[0], NOW, 2.0)
    assert row.pop("why").startswith("No disk left. xxx")
    assert row == {
        "started": "2026-03-01 11:00",
        "what": "Run of 1 h",
        "operator": "apply_model",
        "dataset": "plankton",
        "by": "ann",
        "outcome": "failed",
        "took": "1.5 h",
        "cost": 3.0,
        "run": str(failed),
    }
    assert "cost" not in run_list.row(records[0], NOW, None)


def test_what_ran_at_once_has_no_cost(db):
    add(db, 1, seconds=3600.0)
    records, _ = run_list.find(db, NOW - timedelta(days=1), NOW)
    assert run_list.row(records[0], NOW, 2.0)["cost"] is None


def test_the_record_of_a_real_run_is_a_row(db):
    run = runs.Run(db, "@mbari/x/y", "Do it", {}, by=None)
    run.fail(InputError("It cannot be done."))
    now = datetime.now(UTC).replace(tzinfo=None)
    records, _ = run_list.find(db, now - timedelta(hours=1), now)
    row = run_list.row(records[0], now, 1.0)
    assert (row["what"], row["outcome"], row["why"], row["run"]) == ("Do it", "failed", "It cannot be done.", run.id)
    assert row["took"] == "1 s"


def test_the_price_is_a_number_or_it_is_said():
    assert run_list.price_per_hour(None) is None
    assert run_list.price_per_hour("1.5") == 1.5
    with pytest.raises(InputError, match="MBARI_PRICE_PER_HOUR is no price"):
        run_list.price_per_hour("cheap")


def test_a_record_of_another_release_is_read(db):
    newer = add(
        db,
        1,
        "failed",
        error={"message": "why", "hint": 1},
        seconds=5.0,
        cluster={"nodes": [1]},
        result={"new": {"deep": [None]}},
    )
    older = add(db, 2, seconds=5.0)  # with nothing but what every release has written
    records, count = run_list.find(db, NOW - timedelta(days=1), NOW)
    assert (count, [record["_id"] for record in records]) == (2, [newer, older])
    rows = [run_list.row(record, NOW, 2.0) for record in records]
    assert [(row["outcome"], row["why"]) for row in rows] == [("failed", "why"), ("completed", "")]
    assert all("nodes" not in str(row) for row in rows)
