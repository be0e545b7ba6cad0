"""Sending labels in the face of trouble, through the operators: every end is a true account, and no secret is told."""

import json
import os
import signal
import time

import fiftyone.core.odm as odm
import fiftyone.operators as foo
import pytest
from bson import json_util

from tests import labels
from tests.shared.sync.trouble import UPDATE, proxy
from tests.worker import delegate, error, form, operation, result, schedule, wait, worker

URI = "@mbari/sync_back/sync_back"
PASSWORD = "never-to-be-shown"


@pytest.fixture
def between(db, monkeypatch, registry):
    """A label store behind a proxy that makes trouble; the secret names it."""
    monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
    with proxy(*odm.get_db_conn().client.address) as trouble:
        options = "directConnection=true&serverSelectionTimeoutMS=2000&socketTimeoutMS=3000&chunk=4"
        uri = f"mongodb://127.0.0.1:{trouble.port}/{db.name}?{labels.STORE}&{options}"
        monkeypatch.setenv("MBARI_LABEL_STORE", uri)
        yield trouble
    for name in ("mbari_journal", "mbari_leases"):
        registry._versions.database[name].drop()


@pytest.fixture
def plankton(dataset, db, between):
    """Twelve samples and their records, pulled; all are to become Metridia."""
    dataset.persistent = True
    dataset.classes = {"ground_truth": ["Calanus", "Metridia"]}
    dataset.save()
    labels.fill(dataset, ["Calanus"] * 12, db["rois"])
    foo.execute_operator("@mbari/sync_back/pull_labels", {"dataset": dataset, "params": {"apply": True}})
    dataset.reload()
    dataset.tag_samples("Metridia")
    return dataset


def account(done):
    return {key: done[key] for key in ("updated", "already", "conflict", "missing", "invalid", "failed") if done[key]}


def agree(dataset, store):
    """Whether what was sent is settled on the samples, and what was not still waits."""
    dataset.reload()
    held = labels.held(store)
    rows = zip(*dataset.values(["elemental_id", "ground_truth.label", "ground_truth_stored", "tags"]), strict=True)
    return all(
        (label, stored, tags)
        == (("Metridia", "Metridia", ["synced"]) if held[i] == "Metridia" else ("Calanus", "Calanus", ["Metridia"]))
        for i, label, stored, tags in rows
    )


def test_a_store_that_is_down_is_one_sentence_and_nothing_changes(plankton, between, db):
    between.refuse()
    failed = error(delegate(URI, plankton)).splitlines()[0]
    assert "gave no answer" in failed
    assert f":{between.port}" in failed
    with pytest.raises(Exception, match="gave no answer"):
        foo.execute_operator("@mbari/sync_back/preview_sync", {"dataset": plankton})
    between.heal()
    assert agree(plankton, db["rois"])
    assert account(result(delegate(URI, plankton))) == {"updated": 12}


def test_a_lost_answer_is_looked_up_and_counted_once(plankton, between, db):
    between.drop_answers(1, holding=UPDATE)
    done = result(delegate(URI, plankton))
    assert between.faults == 1
    assert account(done) == {"updated": 12}
    assert agree(plankton, db["rois"])
    assert {len(record["history"]) for record in db["rois"].find()} == {1}


def test_a_killed_worker_s_labels_are_finished_by_the_next_run(plankton, between, db, tmp_path):
    between.drop_answers(1, holding=UPDATE)
    between.delay(0.5)
    with worker(tmp_path / "log") as process:
        first = schedule(URI, plankton)
        journal = odm.get_db_conn()["mbari_journal"]
        until = time.monotonic() + 120
        while not journal.count_documents({"state": "intent"}):
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    between.heal()
    assert operation(first).run_state == "running"
    with worker(tmp_path / "log2"):
        done = result(wait(schedule(URI, plankton)))
    assert agree(plankton, db["rois"])
    assert done["settled_for_earlier_runs"] == 4
    assert {len(record["history"]) for record in db["rois"].find()} == {1}
    assert set(labels.held(db["rois"]).values()) == {"Metridia"}


def test_no_secret_is_kept_or_told(plankton, between, db, monkeypatch):
    uri = os.environ["MBARI_LABEL_STORE"].replace("mongodb://", f"mongodb://somebody:{PASSWORD}@")
    monkeypatch.setenv("MBARI_LABEL_STORE", uri)
    delegated = delegate(URI, plankton)  # this server knows no such user
    told = [error(delegated), str(delegated.__dict__), *form(URI, plankton)]
    with pytest.raises(Exception, match="does not let the user") as refused:
        foo.execute_operator("@mbari/sync_back/preview_sync", {"dataset": plankton})
    told.append(str(refused.value))
    fiftyone = odm.get_db_conn()
    for name in ("mbari_runs", "mbari_journal", "mbari_leases", "delegated_ops"):
        told += [json.dumps(document, default=json_util.default) for document in fiftyone[name].find()]
    assert not [text for text in told if PASSWORD in text]
    assert any("does not let the user" in text for text in told)
