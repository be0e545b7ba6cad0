"""`show_runs`, called as the App and programs call it."""

from datetime import UTC, datetime, timedelta

import fiftyone.operators as foo
import pytest

from shared import runs
from tests.worker import form

URI = "@mbari/lineage_card/show_runs"


@pytest.fixture
def past(registry, dataset):
    """Two runs of this hour and one of last year, in FiftyOne's own database."""
    import fiftyone.core.odm as odm

    db = odm.get_db_conn()
    db[runs.COLLECTION].drop()  # what other tests of this process have left
    for name in ("Train ptvr on 10 ROIs", "Train isiis on 20 ROIs"):
        run = runs.Run(db, "@mbari/train_classifier/train_classifier", name, {}, dataset=dataset.name, operation="x")
        run.finish({})
        db[runs.COLLECTION].update_one({"name": name}, {"$set": {"seconds": 3600.0}})
    before = datetime.now(UTC) - timedelta(days=400)
    db[runs.COLLECTION].insert_one(
        {"operator": "@mbari/sync_back/sync_back", "name": "Sync", "state": "failed", "started_at": before}
        | {"alive_at": before, "dataset": "gone", "by": None, "operation": None, "error": {"message": "Why."}}
    )
    return dataset


def show(**params):
    """Without a dataset: the runs are everybody's."""
    return foo.execute_operator(URI, {"params": params}).result


def test_the_runs_of_the_last_days_are_listed_without_leaving_a_record(past, monkeypatch):
    monkeypatch.delenv("MBARI_PRICE_PER_HOUR", raising=False)
    shown = show()
    assert [row["what"] for row in shown["runs"]] == ["Train isiis on 20 ROIs", "Train ptvr on 10 ROIs"]
    assert shown["message"] == "2 runs in the last 30 days."
    assert not {"cost", "why"} & set(shown["runs"][0])  # columns that would be empty
    assert [row["what"] for row in show(days=500, state="failed")["runs"]] == ["Sync"]
    assert show(days=500, operator="sync_back", dataset="gone")["runs"][0]["why"] == "Why."
    assert show(operator="sync_back") == {"message": "There was no such run in the last 30 days.", "runs": []}
    assert len(show(days=500)["runs"]) == 3


def test_the_cost_is_shown_where_a_price_is_set(past, monkeypatch):
    monkeypatch.setenv("MBARI_PRICE_PER_HOUR", "1.5")
    shown = show()
    assert [row["cost"] for row in shown["runs"]] == [1.5, 1.5]
    assert "cost 3.00 together" in shown["message"]
    monkeypatch.setenv("MBARI_PRICE_PER_HOUR", "cheap")
    with pytest.raises(Exception, match="MBARI_PRICE_PER_HOUR is no price"):
        show()


def test_more_than_can_be_read_are_cut_and_that_is_said(past):
    import fiftyone.core.odm as odm

    collection = odm.get_db_conn()[runs.COLLECTION]
    record = collection.find_one({"state": "completed"})
    collection.insert_many([{**record, "_id": number} for number in range(400)])
    shown = show()
    assert len(shown["runs"]) == 300
    assert "402 runs" in shown["message"]
    assert "the newest 300 are shown" in shown["message"]


def test_the_form_says_when_nothing_was_run_and_refuses_what_is_no_outcome(registry, dataset):
    assert form(URI, dataset) == ["No long operator of the suite has been run yet."]
    with pytest.raises(Exception, match="cannot be 'died'"):
        show(state="died")
