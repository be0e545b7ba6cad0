"""What the set-up check says of a label store: it asks the store itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shared import setup_check
from tests import labels
from tests.shared.sync.stores.tators import PLACE, Troubled, element, uri


def look(db: Any, **secrets: str) -> tuple[str, str]:
    """State and detail of the row on the label store."""
    rows = setup_check.run(secrets, db)
    assert secrets.get("MBARI_LABEL_STORE_TOKEN", "hunter2") not in json.dumps(rows)
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
        ("tator+https://tator.example/1?version=hunter2", "lacks the key `type`"),
        ("tator+https://ana:hunter2@tator.example/1?version=a&type=b", "names no host, or one that cannot be"),
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


@pytest.fixture
def tator() -> Iterator[Troubled]:
    """A stand-in Tator server with three labels, one of them empty."""
    with Troubled() as server:
        server.project()
        server.put([(element(0), "Calanus"), (element(1), "Metridia"), (element(2), None)])
        yield server


def test_tator_is_shown_with_all_that_its_address_names_and_nothing_is_written(db, tator: Troubled) -> None:
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN=tator.token())
    assert state == "ok"
    for said in (
        "project 'Planktivore lab' (7), version 'Baseline' (31), type 'Boxes' (21)",
        "attribute 'Label' of 'Label', 'score', 'cluster', 'verified'",
        "3 localizations; of the first 3, 2 have a label",
        "the token may write (permission 'Can Edit')",
    ):
        assert said in detail
    assert "in_place" not in detail
    chosen = uri(tator, more="timeout=2&in_place=0&verified=verified&chunk=50&pause=0.5")
    _, detail = look(db, MBARI_LABEL_STORE=chosen, MBARI_LABEL_STORE_TOKEN=tator.token())
    assert "; verified='verified', in_place=0, chunk=50, pause=0.5; 3 localizations" in detail
    assert not [asked for asked in tator.requests if not asked.startswith(("GET ", "PUT "))]


@pytest.mark.parametrize(
    ("project", "query", "says"),
    [
        ("Planktivor", PLACE, "has no project 'Planktivor'; there is 'Planktivore lab', did you mean"),
        (
            "7",
            PLACE.replace("Baseline", "Basline"),
            "has no version 'Basline'; there are 'Baseline', 'Second', did you",
        ),
        ("7", PLACE.replace("Boxes", "Dots"), "has no type 'Dots'; there is 'Boxes'"),
        ("7", PLACE.replace("Label", "Lable"), "has no attribute 'Lable' (`attribute`); there are 'Label', 'score'"),
        ("7", f"{PLACE}&verified=Verified", "has no attribute 'Verified' (`verified`); there are 'Label', 'score'"),
        ("7", "media_type=Image", "has no media_type 'Image'; there is 'Images'"),
    ],
)
def test_a_wrong_name_is_said_with_those_there_are(db, tator: Troubled, project: str, query: str, says: str) -> None:
    secrets = {"MBARI_LABEL_STORE": uri(tator, query, project=project), "MBARI_LABEL_STORE_TOKEN": tator.token()}
    state, detail = look(db, **secrets)
    assert state == "failed"
    assert says in detail


@pytest.mark.parametrize("fine_grain", [False, True], ids=["by project", "by row"])
def test_a_token_that_may_only_read_or_is_none_is_found_out_without_a_write(
    db, tator: Troubled, fine_grain: bool
) -> None:
    tator.api.fine_grain = fine_grain
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN=tator.token("viewer"))
    assert state == "failed"
    assert "may not write to" in detail
    assert "'Can Edit'" in detail
    state, detail = look(db, MBARI_LABEL_STORE=uri(tator), MBARI_LABEL_STORE_TOKEN="no-such-token")
    assert state == "failed"
    assert "does not accept the token of MBARI_LABEL_STORE_TOKEN" in detail
    assert look(db, MBARI_LABEL_STORE=uri(tator))[1].startswith("The token of the label store is missing")
    assert not [asked for asked in tator.requests if not asked.startswith(("GET ", "PUT "))]
