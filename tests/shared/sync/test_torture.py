"""A short torture; `make bench NAME=sync_torture` goes through hundreds of schedules."""

from collections import Counter

from tests.shared.sync.torture import torture
from tests.shared.sync.torture_plan import schedule

SEEDS, MORE, MOST = 10, 4, 30  # schedules; how many more at a time, and at most, until every fault has happened
FAULTS = (
    "kills",
    "stops",
    "answer dropped, store",
    "request dropped, store",
    "answer dropped, home",
    "cut",
    "cut home",
    "refuse",
    "slow",
    "refused by a rule",
    "outside edits",
)


def test_a_seed_says_everything():
    assert schedule(7) == schedule(7)
    assert schedule(7) != schedule(8)


def test_nothing_is_lost_nor_written_twice_nor_overwritten(db, tmp_path):
    happened: Counter[str] = Counter()
    done = 0
    # Where a syncer is when its connection breaks is for the threads to say: so no few seeds have every fault for sure.
    while done < MOST and not all(happened[fault] for fault in FAULTS):
        outcomes = torture(range(done, done + (MORE if done else SEEDS)), db.client.address, tmp_path)
        assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
        happened.update(sum((outcome.faults for outcome in outcomes), Counter()))
        done += len(outcomes)
    assert [fault for fault in FAULTS if not happened[fault]] == []
    assert happened["sent"] > done


def test_nor_is_anything_on_tator(db, tmp_path):
    outcomes = torture(range(1, 5), db.client.address, tmp_path, kind="tator")
    assert [wrong for outcome in outcomes for wrong in outcome.wrong] == []
    happened = sum((outcome.faults for outcome in outcomes), Counter())
    assert happened["sent"] > len(outcomes)
    assert [fault for fault in ("answer dropped, store", "outside edits") if not happened[fault]] == []
