"""Patience with a database, on real MongoDB servers that stop and start."""

import signal
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from shared.errors import StorageError
from shared.retry import is_away, persist
from tests.mongod import Mongod, later


def test_a_result_is_handed_through(db: Any) -> None:
    assert persist(lambda: db.things.insert_one({"_id": 1}).inserted_id) == 1


def test_a_database_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    with Mongod(tmp_path / "db") as server, server.client(serverSelectionTimeoutMS=500) as client:
        things = client["test"]["things"]
        things.insert_one({"_id": 1, "n": 0})
        server.end(signal.SIGTERM)
        started = later(2, server.start)
        calls = []

        def call() -> Any:
            calls.append(1)
            return things.find_one_and_update({"_id": 1}, {"$set": {"n": 7}}, return_document=True)

        assert persist(call, seconds=60)["n"] == 7
        started.join()
        assert len(calls) > 1


def test_a_database_that_stays_away_is_one_sentence_without_its_password(tmp_path: Path) -> None:
    with Mongod(tmp_path / "db") as server:
        uri = server.uri.replace("//", "//ana:hunter2@")
    things = pymongo.MongoClient(uri, serverSelectionTimeoutMS=200)["test"]["things"]
    with pytest.raises(StorageError, match="has not answered for") as caught:
        persist(things.find_one, seconds=1)
    things.database.client.close()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_tried_again(db: Any) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        db.things.insert_many([{"_id": 1}, {"_id": 1}])

    with pytest.raises(BulkWriteError):
        persist(call)
    with pytest.raises(ZeroDivisionError):
        persist(lambda: 1 // 0)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (AutoReconnect("x"), True),
        (NotPrimaryError("x"), True),
        (ServerSelectionTimeoutError("x"), True),
        (WTimeoutError("x", 64, {}), True),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), True),
        (BulkWriteError({"writeErrors": [{"code": 11000}], "writeConcernErrors": [{"code": 64}]}), False),
        (DuplicateKeyError("x"), False),
        (OperationFailure("x", 13), False),
    ],
)
def test_what_passes_by_itself_is_told_from_what_does_not(error: Any, away: bool) -> None:
    assert is_away(error) is away
