"""The last verdict on each version's training data: kept, replaced, and read for many versions at once."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from shared.lineage import freshness

COUNTS = {"used": 10, "deleted": 0, "reimaged": "not checked"}


def test_a_verdict_is_kept_with_its_rule_counts_time_and_person(db):
    before = datetime.now(UTC) - timedelta(seconds=1)
    saved = freshness.save(db, "m/1", "ageing", "Ageing: why.", COUNTS, "ann")
    assert freshness.read(db, ["m/1", "m/2"]) == {"m/1": saved}
    assert (saved.verdict, saved.rule, saved.counts, saved.by) == ("ageing", "Ageing: why.", COUNTS, "ann")
    assert before < saved.at <= datetime.now(UTC)


def test_a_later_verdict_takes_the_place_of_the_earlier(db):
    freshness.save(db, "m/1", "fresh", "Fresh.", COUNTS, "ann")
    freshness.save(db, "m/2", "fresh", "Fresh.", COUNTS, None)
    freshness.save(db, "m/1", "stale", "Stale.", COUNTS, "bob")
    assert {name: found.verdict for name, found in freshness.read(db, ["m/1", "m/2"]).items()} == {
        "m/1": "stale",
        "m/2": "fresh",
    }
    assert db[freshness.COLLECTION].count_documents({}) == 2


def test_an_unknown_verdict_is_a_bug_and_not_kept(db):
    with pytest.raises(ValidationError):
        freshness.save(db, "m/1", "rotten", "", {}, None)
    assert freshness.read(db, ["m/1"]) == {}


def test_a_damaged_entry_is_left_out(db):
    freshness.save(db, "m/1", "fresh", "Fresh.", COUNTS, None)
    db[freshness.COLLECTION].insert_many([{"_id": "m/2"}, {"_id": "m/3", "verdict": 3, "at": "yesterday"}])
    assert set(freshness.read(db, ["m/1", "m/2", "m/3"])) == {"m/1"}
    assert freshness.read(db, []) == {}
