"""MongoDB as a label store: the conformance suite on a real server with access control, and what is MongoDB's own."""

import contextlib
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote_plus

import bson
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from shared.errors import StorageError
from shared.sync.stores import open_store
from shared.sync.stores.base import Change, Found, SourceId, Store, Unreachable, Written
from tests.mongod import Mongod
from tests.shared.sync.stores.conformance import STAMP, Conformance, Harness
from tests.shared.sync.trouble import FIND, UPDATE, proxy

ADMIN = "admin's password"
PASSWORD = "p@ss/wo:rd?&%=#" + uuid.uuid4().hex
# Short, for servers that are made to fail, and long enough for a busy machine.
TIMEOUTS = "serverSelectionTimeoutMS=1500&connectTimeoutMS=1500&socketTimeoutMS=3000&heartbeatFrequencyMS=500"
OWN = f"collection=labels&history=history&directConnection=true&{TIMEOUTS}"


def change(expected: str = "Calanus", wanted: str = "Oithona", source: SourceId = "a") -> Change:
    return Change(source, expected, wanted)


# --- servers ---


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoClient]:
    """The administrator's client of a server with access control."""
    with Mongod(tmp_path_factory.mktemp("guarded"), "--auth") as server:
        with server.client() as first:  # all that is allowed as long as there is no user
            first.admin.command("createUser", "admin", pwd=ADMIN, roles=["root"])
        with server.client(username="admin", password=ADMIN) as client:
            yield client


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoClient]:
    """A client of a replica set of one server, which lets itself be told to fail."""
    options = ("--replSet", "rs0", "--setParameter", "enableTestCommands=1")
    with (
        Mongod(tmp_path_factory.mktemp("replicas"), *options) as server,
        server.client(directConnection=True) as client,
    ):
        members = [{"_id": 0, "host": f"127.0.0.1:{server.port}"}]
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        await_primary(client)
        yield client


def await_primary(client: MongoClient) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(PyMongoError):
            if client.admin.command("hello")["isWritablePrimary"]:
                return
        time.sleep(0.1)
    raise TimeoutError("the replica set has no primary")


@pytest.fixture
def there(replicas: MongoClient) -> Iterator[Database]:
    """A fresh database on the replica set."""
    database = replicas[f"labels-{uuid.uuid4().hex[:12]}"]
    yield database
    replicas.drop_database(database.name)


def address(database: Database, port: int | None = None) -> str:
    host, usual = database.client.address
    return f"mongodb://{host}:{port or usual}/{database.name}"


@contextmanager
def opened(database: Database, query: str = OWN, port: int | None = None) -> Iterator[Store]:
    """A store without access control on this database."""
    with contextlib.closing(open_store(f"{address(database, port)}?{query}")) as store:
        yield store


@contextmanager
def failing(client: MongoClient, command: str, **how: Any) -> Iterator[None]:
    """The server fails the next one of these commands."""
    client.admin.command(
        "configureFailPoint", "failCommand", mode={"times": 1}, data={"failCommands": [command], **how}
    )
    try:
        yield
    finally:
        client.admin.command("configureFailPoint", "failCommand", mode="off")


# --- what every store must do ---


class MongoHarness:
    """A collection of a user's own behind a proxy."""

    others: ClassVar = [7, 2.5, True, ["Calanus"], {"label": "Calanus"}, {"$ne": None}]
    patience = 15.0
    secrets = (PASSWORD, quote_plus(PASSWORD))

    def __init__(self, admin: MongoClient) -> None:
        name = f"labels-{uuid.uuid4().hex[:12]}"
        self._db = admin[name]
        self._user = "bot"
        self.add_user("readWrite")
        self.records = self._db["labels"]
        self.records.create_index("elemental_id")
        host, port = admin.address
        self.stack = contextlib.ExitStack()
        self.proxy = self.stack.enter_context(proxy(host, port))
        login = f"{self._user}:{quote_plus(PASSWORD)}"
        place = f"{login}@{self.proxy.host}:{self.proxy.port}/{name}"
        self.store = open_store(f"mongodb://{place}?collection=labels&history=history&chunk=500&{TIMEOUTS}")
        self.stack.callback(admin.drop_database, name)
        self.stack.callback(self._db.command, "dropAllUsersFromDatabase")
        self.stack.callback(self.store.close)

    def add_user(self, role: str) -> None:
        self._db.command("createUser", self._user, pwd=PASSWORD, roles=[role])

    def put(self, records: Iterable[tuple[SourceId, Any]]) -> None:
        self.records.insert_many([{"elemental_id": source, "label": label} for source, label in records])

    def peek(self, source: SourceId) -> list[Any]:
        return [record.get("label") for record in self.records.find({"elemental_id": {"$eq": source}})]

    def times(self, source: SourceId) -> int | None:
        return sum(len(record.get("history", [])) for record in self.records.find({"elemental_id": {"$eq": source}}))

    def forbid(self, label: str) -> None:
        self._db.command("collMod", "labels", validator={"label": {"$ne": label}})

    @contextmanager
    def answer_lost(self) -> Iterator[None]:
        before = self.proxy.faults
        self.proxy.drop_answers(1, holding=UPDATE)
        yield
        assert self.proxy.faults == before + 1

    @contextmanager
    def request_lost(self) -> Iterator[None]:
        before = self.proxy.faults
        self.proxy.drop_requests(1, holding=UPDATE)
        yield
        assert self.proxy.faults == before + 1

    @contextmanager
    def down(self) -> Iterator[None]:
        self.proxy.refuse()
        yield
        self.proxy.accept()

    @contextmanager
    def slow(self) -> Iterator[None]:
        self.proxy.delay(60)
        yield
        self.proxy.heal()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._db.command("grantRolesToUser", self._user, roles=["read"])
        self._db.command("revokeRolesFromUser", self._user, roles=["readWrite"])
        yield
        self._db.command("grantRolesToUser", self._user, roles=["readWrite"])

    @contextmanager
    def locked_out(self) -> Iterator[None]:
        self._db.command("dropUser", self._user)
        yield
        self.add_user("readWrite")


class TestMongo(Conformance):
    @pytest.fixture
    def harness(self, guarded: MongoClient) -> Iterator[Harness]:
        made = MongoHarness(guarded)
        with made.stack:
            yield made


# --- reading ---


def test_asks_for_many_ids_in_several_requests(there: Database) -> None:
    ids = [f"roi-{i}" for i in range(20_000)]
    there["labels"].create_index("elemental_id")
    there["labels"].insert_many([{"elemental_id": source, "label": "Calanus"} for source in ids])
    before = there.command("serverStatus")["metrics"]["commands"]["find"]["total"]
    there.command("profile", 2)
    with opened(there) as store:
        assert len(store.read(ids)) == len(ids)
    there.command("profile", 0)
    assert there.command("serverStatus")["metrics"]["commands"]["find"]["total"] == before + 4
    asked = list(there["system.profile"].find({"op": "query", "ns": f"{there.name}.labels"}))  # the last of them
    assert asked
    assert max(request["keysExamined"] for request in asked) < 10_001


def test_asks_for_no_more_than_a_request_can_hold(there: Database) -> None:
    ids = [f"{i}" + "i" * 7_990 for i in range(3_000)]  # 24 MB, and a request can hold 16
    there["labels"].create_index("elemental_id")
    there["labels"].insert_many([{"elemental_id": source, "label": "Calanus"} for source in ids])
    with opened(there) as store:
        assert len(store.read(ids)) == len(ids)


def test_damaged_text_in_one_record_leaves_the_others_readable(there: Database) -> None:
    record = bson.encode({"elemental_id": "a", "label": "Calanus!"})
    damaged = RawBSONDocument(bson.encode({"_id": 1, **bson.decode(record)}).replace(b"Calanus!", b"Cal\xffnus!"))
    there["labels"].insert_one(damaged)
    there["labels"].insert_one({"elemental_id": "b", "label": "Oithona"})
    with opened(there) as store:
        found = store.read(["a", "b"])
        assert found["b"] == Found("Oithona")
        assert found["a"].label is None
        assert "nus!" in (found["a"].other or "")
        assert found["a"].other.isascii()  # can be shown and kept as it is


def test_dates_outside_the_calendar_leave_the_others_readable(there: Database) -> None:
    label = bson.datetime_ms.DatetimeMS(2**60)
    there["labels"].insert_many([{"elemental_id": "a", "label": label}, {"elemental_id": "b", "label": "Oithona"}])
    with opened(there) as store:
        found = store.read(["a", "b"])
    assert found["b"] == Found("Oithona")
    assert found["a"].label is None
    assert found["a"].other


@pytest.mark.parametrize(
    ("id_type", "in_store", "in_fiftyone", "never"),
    [
        (None, [7, "7", "x"], [7, "7", "x"], ["07", 8, 2**70, "half \ud83e", "x" * 20_000]),
        ("string", ["7", "x"], [7, "x"], ["07", 8]),
        ("int", [7, -3, 2**62], ["7", -3, str(2**62)], ["07", "7.0", "+7", " 7", "", "\u0667", "9" * 19, "9" * 5_000]),
        ("objectid", [ObjectId("65a0c0ffee0123456789abcd")], ["65a0c0ffee0123456789abcd"], ["65a0", "x" * 12, 7]),
        ("uuid", [uuid.UUID(int=5)], [str(uuid.UUID(int=5))], [str(uuid.UUID(int=6)), "5", 5]),
    ],
)
def test_ids_have_the_type_of_the_store(
    there: Database, id_type: str | None, in_store: list[Any], in_fiftyone: list[SourceId], never: list[SourceId]
) -> None:
    codec = bson.CodecOptions(uuid_representation=bson.binary.UuidRepresentation.STANDARD)
    records = there["labels"].with_options(codec_options=codec)
    records.insert_many([{"elemental_id": there_as, "label": "Calanus"} for there_as in in_store])
    with opened(there, OWN + (f"&id_type={id_type}" if id_type else "")) as store:
        assert store.read([*in_fiftyone, *never]) == {source: Found("Calanus") for source in in_fiftyone}
        assert store.write([change(source=source) for source in [*never, *in_fiftyone]], STAMP).done == len(in_store)
    assert [record["label"] for record in records.find()] == ["Oithona"] * len(in_store)


def test_two_spellings_of_one_id_cannot_be_told_apart(there: Database) -> None:
    one = uuid.uuid4()
    codec = bson.CodecOptions(uuid_representation=bson.binary.UuidRepresentation.STANDARD)
    there["labels"].with_options(codec_options=codec).insert_one({"elemental_id": one, "label": "Calanus"})
    with opened(there, f"{OWN}&id_type=uuid") as store:
        found = store.read([str(one), str(one).upper()])
    assert [each.copies for each in found.values()] == [2, 2]


def test_paths_lead_into_documents(there: Database) -> None:
    record = {"roi": {"id": "a", "kept": 1}, "annotation": {"name": "Calanus", "kept": 2}, "kept": 3}
    there["labels"].insert_one(record)
    paths = "id=roi.id&label=annotation.name&modified=annotation.at&modified_by=log.by&history=log.all"
    with opened(there, f"{OWN.replace('history=history', paths)}") as store:
        assert store.read(["a"], run=STAMP.run) == {"a": Found("Calanus", ours=False)}
        assert store.write([change()], STAMP) == Written(1)
        assert store.read(["a"], run=STAMP.run) == {"a": Found("Oithona", ours=True)}
    at = STAMP.at.replace(tzinfo=None)
    entry = {"from": "Calanus", "to": "Oithona", "by": "ana", "at": at, "run": STAMP.run}
    assert there["labels"].find_one({}, {"_id": 0}) == {
        "roi": {"id": "a", "kept": 1},
        "annotation": {"name": "Oithona", "kept": 2, "at": at},
        "kept": 3,
        "log": {"by": "ana", "all": [entry]},
    }


def test_nothing_is_written_to_paths_that_are_not_named(there: Database) -> None:
    there["labels"].insert_one({"_id": 1, "elemental_id": "a", "label": "Calanus", "modified": 0})
    with opened(there, OWN.replace("history=history&", "")) as store:
        assert store.write([change()], STAMP) == Written(1)
        assert store.read(["a"], run=STAMP.run)["a"].ours is None
    assert there["labels"].find_one() == {"_id": 1, "elemental_id": "a", "label": "Oithona", "modified": 0}


def test_no_label_is_null_or_empty_or_not_there(there: Database) -> None:
    records: list[dict[str, Any]] = [{"label": None}, {"label": ""}, {}, {"label": []}, {"label": 0}]
    there["labels"].insert_many([{"elemental_id": str(number), **record} for number, record in enumerate(records)])
    with opened(there) as store:
        found = store.read([str(number) for number in range(5)])
        assert [found[str(number)].label for number in range(5)] == ["", "", "", None, None]
        assert store.write([change("", "Oithona", str(number)) for number in range(5)], STAMP) == Written(3)
    labels = [record.get("label") for record in there["labels"].find()]
    assert labels == ["Oithona", "Oithona", "Oithona", [], 0]


def test_a_label_that_is_taken_away_is_not_there_any_more(there: Database) -> None:
    there["labels"].insert_one({"_id": 1, "elemental_id": "a", "label": "Calanus"})
    with opened(there, OWN.replace("history=history&", "")) as store:
        assert store.write([change(wanted="")], STAMP) == Written(1)
        assert store.read(["a"]) == {"a": Found("")}
    assert there["labels"].find_one() == {"_id": 1, "elemental_id": "a"}


def test_no_id_is_no_id_of_anything(there: Database) -> None:
    there["labels"].insert_many([{"elemental_id": None, "label": "Calanus"}, {"label": "Calanus"}])
    there["labels"].insert_one({"elemental_id": "", "label": "Calanus"})
    with opened(there) as store:
        assert store.read([""]) == {}
        assert store.write([change(source="")], STAMP) == Written(0)
    assert {record["label"] for record in there["labels"].find()} == {"Calanus"}


def test_who_wrote_is_never_left_at_who_wrote_before(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus", "who": "berta"})
    with opened(there, f"{OWN}&modified_by=who") as store:
        store.write([change()], STAMP._replace(by=None))
    assert there["labels"].find_one()["who"] == "fiftyone"


@pytest.mark.parametrize(
    ("query", "record"),
    [
        ("label=label", {"elemental_id": "a", "label": ["Calanus"]}),
        ("label=of.name", {"elemental_id": "a", "of": [{"name": "Calanus"}]}),
        ("label=label", {"elemental_id": ["a", "b"], "label": "Calanus"}),
        ("id=of.id", {"of": [{"id": "a"}], "label": "Calanus"}),
    ],
)
def test_a_list_is_no_label_and_no_id(there: Database, query: str, record: dict[str, Any]) -> None:
    there["labels"].insert_one(record)
    with opened(there, f"{OWN}&{query}") as store:
        found = store.read(["a"])
        assert not found or found["a"].label is None
        assert not found or found["a"].other
        assert store.write([change()], STAMP) == Written(0)
    assert there["labels"].find_one() == record


def test_a_collection_that_ignores_case_changes_nothing(there: Database) -> None:
    labels = there.create_collection("labels", collation={"locale": "en", "strength": 1})
    labels.insert_many([{"elemental_id": source, "label": "Calanus"} for source in ("a", "A", "á")])
    with opened(there) as store:
        assert store.read(["a", "A"]) == {"a": Found("Calanus"), "A": Found("Calanus")}
        assert store.write([change(expected="CALANUS"), change(source="A")], STAMP) == Written(1)
    assert [record["label"] for record in labels.find()] == ["Calanus", "Oithona", "Calanus"]


# --- writing ---


def test_a_history_that_is_no_list_is_refused_for_that_record_alone(there: Database) -> None:
    records = [{"elemental_id": "a", "label": "Calanus", "history": "?"}, {"elemental_id": "b", "label": "Calanus"}]
    there["labels"].insert_many(records)
    with opened(there) as store:
        written = store.write([change(), change(source="b")], STAMP)
        assert store.read(["a"], run=STAMP.run) == {"a": Found("Calanus", ours=False)}
    assert written.done == 1
    assert "array" in written.refused["a"]
    assert [record["label"] for record in there["labels"].find()] == ["Calanus", "Oithona"]


def test_a_write_that_hung_until_a_later_run_wrote_comes_too_late(there: Database) -> None:
    there["labels"].insert_many([{"elemental_id": source, "label": "Calanus"} for source in "ab"])
    later = STAMP._replace(run="a later run", at=STAMP.at + timedelta(seconds=40))
    with opened(there) as store:
        assert store.write([change()], later) == Written(1)
        # Somebody puts it back, with a line that is no run's.
        line = {"from": "Oithona", "to": "Calanus", "by": "eva", "at": later.at, "run": None}
        there["labels"].update_many({}, {"$set": {"label": "Calanus"}, "$push": {"history": line}})
        assert store.write([change(), change(source="b")], STAMP) == Written(1)
        assert {source: found.label for source, found in store.read(["a", "b"]).items()} == {
            "a": "Calanus",
            "b": "Oithona",
        }


def test_labels_too_long_are_refused_one_by_one(there: Database) -> None:
    long = "x" * 8_001
    there["labels"].insert_many([{"elemental_id": source, "label": "Calanus"} for source in "abc"])
    there["labels"].insert_one({"elemental_id": "d", "label": long})
    with opened(there) as store:
        assert store.refuses("x" * 8_000) is None
        assert "8,000" in (store.refuses(long) or "")
        half = change(source="b", wanted="\ud83e")
        written = store.write([change(wanted=long), half, change(source="c"), change(long, "x", "d")], STAMP)
    assert (written.done, sorted(written.refused)) == (1, ["a", "b", "d"])


def test_a_chunk_of_the_longest_labels_is_one_command(there: Database) -> None:
    there["labels"].create_index("elemental_id")
    ids = [f"{i:04}" + "i" * 7_996 for i in range(1_000)]
    there["labels"].insert_many([{"elemental_id": source, "label": "x" * 8_000} for source in ids])
    before = there.command("serverStatus")["metrics"]["commands"]["update"]["total"]
    with opened(there) as store:
        assert store.chunk == 1_000
        assert store.write([change("x" * 8_000, "y" * 8_000, source) for source in ids], STAMP) == Written(1_000)
        with pytest.raises(ValueError, match="at most 1000"):
            store.write([change()] * 1_001, STAMP)
    assert there.command("serverStatus")["metrics"]["commands"]["update"]["total"] == before + 1


# --- trouble of MongoDB's own ---


def test_a_view_cannot_be_written_and_says_so(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    there.create_collection("seen", viewOn="labels", pipeline=[])
    with opened(there, OWN.replace("labels", "seen")) as store:
        written = store.write([change()], STAMP)
        assert written.done == 0
        assert "view" in written.refused["a"]
        with pytest.raises(StorageError, match="is a view"):
            store.check()


@pytest.mark.parametrize("code", [6, 50, 91, 189, 10107, 11600, 11602, 13436])
@pytest.mark.parametrize("command", ["update", "find"])
def test_an_answer_that_passes_is_unreachable(there: Database, command: str, code: int) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    with opened(there, f"{OWN}&retryReads=false") as store:
        calls: dict[str, Callable[[], object]] = {
            "find": lambda: store.read(["a"]),
            "update": lambda: store.write([change()], STAMP),
        }
        with failing(there.client, command, errorCode=code), pytest.raises(Unreachable):
            calls[command]()
        await_primary(there.client)
        assert store.write([change()], STAMP) == Written(1)


def test_a_write_that_no_majority_confirmed_is_not_known(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    late = {"code": 64, "errmsg": "waiting for replication timed out", "errInfo": {"wtimeout": True}}
    with opened(there) as store:
        with failing(there.client, "update", writeConcernError=late), pytest.raises(Unreachable, match="majority"):
            store.write([change()], STAMP)
        # A majority may not have it yet, then a read does not see it; after a second try, every read does.
        assert store.write([change()], STAMP) == Written(0)
        assert store.read(["a"], run=STAMP.run) == {"a": Found("Oithona", ours=True)}
        assert len(there["labels"].find_one()["history"]) == 1


def test_a_shard_on_its_way_out_leaves_the_write_unknown(there: Database) -> None:
    # What a sharded cluster says of single writes; one server fails the whole command instead.
    said = {"index": 0, "code": 11600, "errmsg": "interrupted at shutdown"}
    answer = {"writeErrors": [said], "writeConcernErrors": [], "nMatched": 1}
    with opened(there) as store, pytest.raises(Unreachable, match="interrupted at shutdown"):
        store._partly(BulkWriteError(answer), [[("a", change())]])


# --- writing what is alike together, where the collection keeps ids unique ---


def test_alike_changes_of_unique_ids_are_one_update_each_conditional(there: Database) -> None:
    there["labels"].create_index("elemental_id", unique=True)
    there["labels"].insert_many([{"elemental_id": str(n), "label": "Calanus"} for n in range(6)])
    there["labels"].update_one({"elemental_id": "3"}, {"$set": {"label": "Salpa"}})
    changes = [change(source=str(n)) for n in range(5)] + [change("Calanus", "Salpa", "5"), change(source="gone")]
    with opened(there) as store:
        there.command("profile", 2)
        assert store.write(changes, STAMP) == Written(5)
        there.command("profile", 0)
        assert store.write(changes, STAMP) == Written(0)
    held = {record["elemental_id"]: record["label"] for record in there["labels"].find()}
    assert held == {**dict.fromkeys("0124", "Oithona"), "3": "Salpa", "5": "Salpa"}
    assert [len(record.get("history", [])) for record in there["labels"].find().sort("elemental_id")] == [
        1,
        1,
        1,
        0,
        1,
        1,
    ]
    assert there["system.profile"].count_documents({"op": "update", "ns": f"{there.name}.labels"}) == 2


@pytest.mark.parametrize("index", [None, {"unique": False}, {"unique": True, "partialFilterExpression": {"old": True}}])
def test_where_ids_may_be_double_each_change_is_counted_by_itself(there: Database, index: dict | None) -> None:
    if index is not None:
        there["labels"].create_index("elemental_id", **index)
    # A second "a" since the plan was made: one of them is written, and nothing else counts as done.
    there["labels"].insert_many([{"elemental_id": source, "label": "Calanus"} for source in "aa"])
    with opened(there) as store:
        assert store.write([change(source="a"), change(source="b")], STAMP) == Written(1)


def test_a_rule_that_stops_alike_changes_in_the_middle_refuses_one_and_holds_no_other(there: Database) -> None:
    there["labels"].create_index("elemental_id", unique=True)
    there["labels"].insert_many([{"elemental_id": str(n), "label": "Calanus", "frozen": n == 2} for n in range(5)])
    there["labels"].update_one({"elemental_id": "4"}, {"$set": {"label": "Salpa"}})
    free = {"$or": [{"frozen": False}, {"label": "Calanus"}]}
    there.command("collMod", "labels", validator=free)
    with opened(there) as store:
        written = store.write([change(source=str(n)) for n in range(5)], STAMP)
        assert list(written.refused) == ["2"]
        assert written.done <= 3  # those before the one refused are not told; a look at them says that they are ours
        assert {i: f.ours for i, f in store.read([str(n) for n in range(5)], STAMP.run).items()} == {
            "0": True,
            "1": True,
            "2": False,
            "3": True,
            "4": False,
        }
    assert [len(record.get("history", [])) for record in there["labels"].find().sort("elemental_id")] == [1, 1, 0, 1, 0]


@pytest.mark.parametrize("more", ["", "&retryWrites=true&w=1&journal=false&readConcernLevel=local"])
def test_pymongo_repeats_no_write_whatever_the_uri_says(there: Database, more: str) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    host, port = there.client.address
    with proxy(host, port) as between, opened(there, OWN + more, between.port) as store:
        for kind, label in ((between.drop_requests, "Calanus"), (between.drop_answers, "Oithona")):
            kind(1, holding=UPDATE)
            with pytest.raises(Unreachable):
                store.write([change()], STAMP)
            record = there["labels"].find_one()
            assert (record["label"], len(record.get("history", []))) == (label, int(label == "Oithona"))
        assert between.faults == 2


def test_a_read_is_repeated(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    host, port = there.client.address
    with proxy(host, port) as between, opened(there, port=between.port) as store:
        between.drop_answers(1, holding=FIND)
        assert store.read(["a"]) == {"a": Found("Calanus")}
        assert between.faults == 1


def test_a_primary_that_steps_down(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    with opened(there, OWN.replace("directConnection=true", "replicaSet=rs0")) as store:
        store.read(["a"])
        there.client.admin.command("replSetStepDown", 60, force=True)
        try:
            for _ in range(2):  # first from the connection that there is, then when looking for a primary
                with pytest.raises(Unreachable):
                    store.write([change()], STAMP)
            with pytest.raises(Unreachable):
                store.read(["a"])
        finally:
            there.client.admin.command("replSetFreeze", 0)  # it may be primary again
            await_primary(there.client)
        assert store.read(["a"], run=STAMP.run) == {"a": Found("Calanus", ours=False)}
        assert store.write([change()], STAMP) == Written(1)


def test_a_write_that_was_given_up_is_not_made_later(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    with opened(there, OWN.replace("3000", "1000")) as store:
        store.read(["a"])
        there.client.admin.command("fsync", lock=True)
        try:
            with pytest.raises(Unreachable):
                store.write([change()], STAMP)
            end = time.monotonic() + 30
            while waiting_writes(there):
                assert time.monotonic() < end, "the server still means to write"
                time.sleep(0.05)
        finally:
            there.client.admin.command("fsyncUnlock")
        assert store.read(["a"]) == {"a": Found("Calanus")}


def waiting_writes(database: Database) -> list[Any]:
    """The ids of the writes that the server has begun in this database."""
    match = {"$match": {"ns": f"{database.name}.labels", "op": "update"}}
    return [found["opid"] for found in database.client.admin.aggregate([{"$currentOp": {}}, match])]


def test_a_write_that_an_admin_ends_is_not_known(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    errors: list[Exception] = []

    def write() -> None:
        try:
            store.write([change()], STAMP)
        except Exception as error:
            errors.append(error)

    with opened(there, OWN.replace("3000", "20000")) as store:
        there.client.admin.command("fsync", lock=True)
        thread = threading.Thread(target=write)
        try:
            thread.start()
            end = time.monotonic() + 15
            while not (waiting := waiting_writes(there)):
                assert time.monotonic() < end, "the write did not begin"
                time.sleep(0.02)
            for each in waiting:
                there.client.admin.command("killOp", op=each)
            thread.join(15)
        finally:
            there.client.admin.command("fsyncUnlock")
            thread.join(30)
        assert [type(error) for error in errors] == [Unreachable]
        assert store.read(["a"]) == {"a": Found("Calanus")}


# --- access ---


@contextmanager
def user(admin: MongoClient, *roles: str) -> Iterator[str]:
    """A fresh database with one record and a user of it; yields the database's name."""
    db = admin[f"labels-{uuid.uuid4().hex[:12]}"]
    db["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    db.command("createUser", "bot", pwd=PASSWORD, roles=list(roles))
    try:
        yield db.name
    finally:
        db.command("dropAllUsersFromDatabase")
        admin.drop_database(db)


def guarded_uri(admin: MongoClient, login: str, name: str) -> str:
    host, port = admin.address
    return f"mongodb://{login}{host}:{port}/{name}?collection=labels&{TIMEOUTS}"


@pytest.mark.parametrize(
    "login",
    ["bot:wrong-" + PASSWORD[-8:] + "@", "nobody:" + quote_plus(PASSWORD) + "@"],
    ids=["password", "name"],  # the same in every process, unlike the password
)
def test_a_wrong_password_or_name_is_one_sentence(guarded: MongoClient, login: str) -> None:
    with (
        user(guarded, "readWrite") as name,
        contextlib.closing(open_store(guarded_uri(guarded, login, name))) as store,
    ):
        for call in (store.check, lambda: store.read(["a"]), lambda: store.write([change()], STAMP)):
            with pytest.raises(StorageError, match="password") as caught:
                call()
            assert type(caught.value) is StorageError
            shown = "".join(traceback.format_exception(caught.value))
            assert PASSWORD[-8:] not in shown
        assert guarded[name]["labels"].find_one()["label"] == "Calanus"


def test_without_a_user_nothing_is_allowed(guarded: MongoClient) -> None:
    with user(guarded, "readWrite") as name, contextlib.closing(open_store(guarded_uri(guarded, "", name))) as store:
        for call in (store.check, lambda: store.read(["a"]), lambda: store.write([change()], STAMP)):
            with pytest.raises(StorageError, match="may not") as caught:
                call()
            assert type(caught.value) is StorageError


def test_a_user_who_may_only_read(guarded: MongoClient) -> None:
    login = f"bot:{quote_plus(PASSWORD)}@"
    with user(guarded, "read") as name, contextlib.closing(open_store(guarded_uri(guarded, login, name))) as store:
        assert store.read(["a"]) == {"a": Found("Calanus")}
        for call in (store.check, lambda: store.write([change()], STAMP)):
            with pytest.raises(StorageError, match="may not write to") as caught:
                call()
            assert type(caught.value) is StorageError
        assert "1 records" in store.check(writing=False)


def test_the_token_is_the_password_of_a_user_without_one(guarded: MongoClient) -> None:
    with user(guarded, "readWrite") as name:
        uri = guarded_uri(guarded, "bot@", name)
        with contextlib.closing(open_store(uri, PASSWORD)) as store:
            assert "1 records" in store.check()
            assert PASSWORD not in f"{store!r}{store.name}"
        with contextlib.closing(open_store(uri, "wrong")) as store, pytest.raises(StorageError, match="password"):
            store.check()


# --- checking itself ---


def test_the_check_says_what_is_slow_and_what_is_odd(there: Database) -> None:
    there["labels"].insert_many([{"elemental_id": "a", "label": "Calanus"}, {"elemental_id": "b"}])
    with opened(there) as store:
        line = store.check()
        assert line.startswith(f"{store.name}: about 2 records; of the first 2, 2 have an id and 1 a label")
        assert "no index on 'elemental_id'" in line
        there["labels"].create_index([("elemental_id", 1), ("label", 1)])
        assert "index" not in store.check()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("collection=lables", "no collection 'lables'.*did you mean `labels`"),
        ("collection=labels&id=elementalid", "None of the first 1 records .* has an id at 'elementalid'"),
    ],
)
def test_the_check_finds_wrong_settings(there: Database, query: str, message: str) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    with opened(there, f"{query}&directConnection=true") as store, pytest.raises(StorageError, match=message):
        store.check()


def test_an_empty_collection_is_no_error(there: Database) -> None:
    there.create_collection("labels").create_index("elemental_id")
    with opened(there) as store:
        assert store.check() == f"{store.name}: about 0 records"


def test_settings_of_pymongo_reach_it(there: Database) -> None:
    there["labels"].insert_one({"elemental_id": "a", "label": "Calanus"})
    there.command("profile", 2)
    with opened(there, f"{OWN}&appName=from+the+URI") as store:
        store.read(["a"])
    with opened(there) as store:
        store.read(["a"])
    there.command("profile", 0)
    names = [entry.get("appName") for entry in there["system.profile"].find({"op": "query"})]
    assert names == ["from the URI", "mbari-fiftyone"]
    # A server that speaks no TLS is one that gives no answer, whoever's mistake it is.
    with opened(there, f"{OWN}&tls=true") as store, pytest.raises(Unreachable, match=r"SSL|TLS"):
        store.read(["a"])
