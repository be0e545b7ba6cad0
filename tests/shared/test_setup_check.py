"""What the set-up check says of a label store: it asks the store itself."""

import json
from typing import Any

import pytest

from shared import setup_check
from tests import labels


def look(db: Any, **secrets: str) -> tuple[str, str]:
    """State and detail of the row on the label store."""
    rows = setup_check.run(secrets, db)
    assert "hunter2" not in json.dumps(rows)
    return next((row["state"], row["detail"]) for row in rows if row["item"] == "label store")


@pytest.fixture(autouse=True)
def _only_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hub is far away, or cannot be reached at all: either takes its time."""
    monkeypatch.setattr(setup_check, "REACH_SECONDS", 0.01)


def test_a_store_is_read_and_its_records_are_counted(db) -> None:
    assert look(db)[0] == "not set"
    uri = labels.store_uri(db.name)
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "failed"
    assert "no collection 'rois'" in detail
    db["rois"].insert_many([{"elemental_id": f"e{n}", "label": "Calanus"} for n in range(3)])
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "ok"
    assert "about 3 records; of the first 3, 3 have an id and 3 a label; no index on 'elemental_id'" in detail
    state, detail = look(db, MBARI_LABEL_STORE=f"{uri}&id_type=string".replace("id=elemental_id", "id=element"))
    assert state == "failed"
    assert "correct the key `id` of MBARI_LABEL_STORE" in detail


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("tator+https://tator.example/1?version=hunter2", "not in this release yet"),
        ("postgres://ana:hunter2@host/db", "it begins with one of: mongodb://"),
        ("mongodb://ana:hunter2@host/db", "names no collection"),
        (
            "mongodb://ana:hunter2@127.0.0.1:1/db?collection=rois&socketTimeoutMS=500",
            "The label store mongodb://127.0.0.1:1/db.rois gave no answer",
        ),
    ],
)
def test_a_store_that_cannot_be_used_is_said_without_its_password(db, uri: str, says: str) -> None:
    state, detail = look(db, MBARI_LABEL_STORE=uri)
    assert state == "failed"
    assert says in detail
