"""Runs: their records, how they end, and how they are told to."""

import time

import pytest

from shared import runs
from shared.errors import InputError


def record(db, run):
    from bson import ObjectId

    return db[runs.COLLECTION].find_one({"_id": ObjectId(run.id)})


def wait_for(condition, seconds=15.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_a_run_leaves_a_record_of_what_it_did(db):
    run = runs.Run(db, "@mbari/x/y", "Train ptvr on 10 ROIs", {"epochs": 3}, dataset="d", by="ann", operation="op")
    assert record(db, run)["state"] == "running"
    run.finish({"top1": 0.5})
    found = record(db, run)
    assert (found["state"], found["result"], found["params"]) == ("completed", {"top1": 0.5}, {"epochs": 3})
    assert found["seconds"] >= 0
    assert found["finished_at"] >= found["started_at"]


def test_an_error_of_ours_is_one_sentence_and_any_other_keeps_its_traceback(db):
    ours = runs.Run(db, "@mbari/x/y", "a", {})
    ours.fail(InputError("There is no label."))
    assert record(db, ours)["error"] == {"message": "There is no label.", "traceback": None}

    other = runs.Run(db, "@mbari/x/y", "b", {})
    try:
        _ = {}["missing"]
    except KeyError as error:
        other.fail(error)
    found = record(db, other)["error"]
    assert found["message"] == "KeyError: 'missing'"
    assert "test_runs.py" in found["traceback"]


def test_a_request_to_stop_reaches_the_run_and_is_its_outcome(db):
    run = runs.Run(db, "@mbari/x/y", "a", {})
    assert not run.stopping()
    runs.request_stop(db, run.id, "ann")
    wait_for(run.stopping)
    run.finish({})
    assert record(db, run)["state"] == "stopped"
    assert "ann" in run.stop_reason
    with pytest.raises(InputError, match="is not running: it is stopped"):
        runs.request_stop(db, run.id, "ann")


@pytest.mark.parametrize("name", ["nonsense", "0" * 24])
def test_stopping_a_run_that_does_not_exist_says_so(db, name):
    with pytest.raises(InputError, match="There is no run"):
        runs.request_stop(db, name, None)


def test_a_delegated_operation_marked_failed_ends_the_run(db):
    marked = []
    run = runs.Run(db, "@mbari/x/y", "a", {}, cancelled=lambda: bool(marked))
    assert not run.stopping()
    marked.append(True)
    wait_for(run.stopping)
    assert "marked as failed" in run.stop_reason


def test_progress_says_what_how_far_and_how_long_and_not_more_than_once_a_second(db):
    shown = []
    run = runs.Run(db, "@mbari/x/y", "a", {}, show=lambda fraction, label: shown.append((fraction, label)))
    for done in range(1000):
        run.progress(done, 2000, "Reading ROIs")
    assert shown[0] == (0.0, "Reading ROIs: 0 of 2,000")
    assert len(shown) <= 2  # a second may pass on a busy machine
    run._stage = (2000, time.monotonic() - 10, 0)  # as if the stage had begun ten seconds ago
    run._shown -= 2
    run.progress(1000, 2000, "Reading ROIs")
    assert shown[-1] == (0.5, "Reading ROIs: 1,000 of 2,000, about 10 s left")
    run.finish({})


def test_the_same_work_is_refused_while_another_run_does_it(db):
    first = runs.Run(db, "@mbari/x/y", "first", {})
    runs.claim(db, first.id, "key")
    second = runs.Run(db, "@mbari/x/y", "second", {})
    with pytest.raises(InputError, match="'first'"):
        runs.claim(db, second.id, "key", watch=30)
    first.finish({})
    runs.claim(db, second.id, "key", watch=30)
    other = runs.Run(db, "@mbari/x/y", "other", {})
    runs.claim(db, other.id, "another key")
    second.finish({})
    other.finish({})


def test_a_killed_run_does_not_stand_in_the_way(db):
    killed = runs.Run(db, "@mbari/x/y", "killed", {})
    runs.claim(db, killed.id, "key")
    killed._ended.set()  # silent from here on, as after a SIGKILL; its record goes on saying "running"
    next_one = runs.Run(db, "@mbari/x/y", "next", {})
    runs.claim(db, next_one.id, "key", watch=5)
    assert record(db, killed)["state"] == "running"
    next_one.finish({})


def test_runs_under_way_are_listed_and_the_silent_ones_marked(db):
    from datetime import timedelta

    alive, silent = (runs.Run(db, "@mbari/x/y", name, {}) for name in ("alive", "silent"))
    silent._ended.set()
    time.sleep(runs.BEAT_EVERY + 0.5)
    long_ago = record(db, silent)["alive_at"] - timedelta(seconds=2 * runs.LOST_AFTER)
    db[runs.COLLECTION].update_one({"name": "silent"}, {"$set": {"alive_at": long_ago}})
    assert {r["name"]: r["lost"] for r in runs.running(db)} == {"alive": False, "silent": True}
    alive.finish({})


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (40, "40 s"), (180, "3 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations_read_as_people_say_them(seconds, said):
    assert runs.duration(seconds) == said


def test_what_a_run_kept_is_there_for_the_next_one_until_the_work_is_complete(db):
    def run(key):
        made = runs.Run(db, "@mbari/x/y", "a", {})
        runs.claim(db, made.id, key, watch=0)
        return made

    first = run("k")
    first.keep({"splits": {}, "training": {"version": "m/1"}})
    first.fail(InputError("no."))
    run("k").fail(InputError("It is being done already."))  # kept nothing, and hides nothing
    other, second = run("another"), run("k")
    assert runs.left_by(db, other.id, "another") == {}
    assert runs.left_by(db, second.id, "k") == {"splits": {}, "training": {"version": "m/1"}}
    second.finish({})
    assert runs.left_by(db, run("k").id, "k") == {}
