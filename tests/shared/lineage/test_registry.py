"""The registry against a real MongoDB, with real threads and processes for its promises about races."""

import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared.artifacts import FileInfo
from shared.errors import InputError, StorageError
from shared.lineage.registry import ALIASES, VERSIONS, Registry, VersionRecord, new_version, standing

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(model: str = "ptvr", version: str | None = None, **changes) -> VersionRecord:
    version = version or new_version(NOON)
    fields = {
        "model": model,
        "version": version,
        "uri": f"s3://lab/models/{model}/{version}",
        "key": f"models/{model}/{version}",
        "files": {
            "weights.pt": FileInfo(sha256="a" * 64, size=3_000_000),
            "plots/$confusion.v1.png": FileInfo(sha256="b" * 64, size=0),
        },
        "classes": ["Pseudo-nitzschia", "fecal.pellet", "$odd/name", "größer"],
        "class_counts": {"Pseudo-nitzschia": 12, "fecal.pellet": 3, "$odd/name": 5, "größer": 6},
        "framing": "pad",
        "imgsz": 224,
        "manifest_digest": "c" * 64,
        "metrics": {"val": {"top1": 0.75, "ece": None, "per_class": [{"label": "größer", "f1": 0.5, "n": 2}]}},
        "created_at": NOON,
    }
    return VersionRecord.model_validate({**fields, **changes})


@pytest.fixture
def registry(db) -> Registry:
    return Registry(db)


def test_a_record_comes_back_as_it_was_added(registry):
    added = record(training={"epochs": 50, "libraries": {"torch": "2.15"}}, created_by="ann", run_id="r1")
    registry.add(added)
    assert registry.get("ptvr", added.version) == added
    assert registry.get("ptvr", added.version).created_at.tzinfo is not None


def test_times_are_kept_in_utc_to_the_millisecond(registry):
    pacific = datetime(2026, 3, 1, 4, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-8)))
    added = record(created_at=pacific)
    registry.add(added)
    assert registry.get("ptvr", added.version).created_at == NOON.replace(microsecond=123000) == added.created_at


def test_versions_are_immutable(registry):
    first = record()
    registry.add(first)
    with pytest.raises(InputError, match=f"ptvr/{first.version}.*never change"):
        registry.add(first.model_copy(update={"framing": "crop"}))
    assert registry.get("ptvr", first.version).framing == "pad"


def test_of_many_adding_one_version_at_once_one_gets_through(registry):
    version = new_version(NOON)
    outcomes = race(lambda i: registry.add(record(version=version, created_by=str(i))), 12)
    assert outcomes.count("ok") == 1
    assert len(registry.versions("ptvr")) == 1


def test_versions_are_listed_newest_first_by_model(registry):
    records = [record(created_at=NOON + timedelta(hours=h), version=f"20260301T{h:02}0000_000000") for h in (1, 3, 2)]
    for each in [*records, record("other")]:
        registry.add(each)
    assert [each.version[9:11] for each in registry.versions("ptvr")] == ["03", "02", "01"]
    assert len(registry.versions()) == 4
    assert registry.models() == ["other", "ptvr"]


@pytest.mark.parametrize("name", ["ptvr", "PTVR-2.1_b", "0", "a" * 100])
def test_names_that_uris_folders_and_fields_can_carry_are_taken(registry, name):
    registry.add(record(name))
    assert registry.models() == [name]


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a@b", "..", ".a", "-a", "größe", "a\n", "a" * 101, "$a", "a:b"])
def test_other_names_are_refused_and_the_rule_is_said(name):
    from shared.lineage.registry import check_name

    with pytest.raises(InputError, match="letters a-z and A-Z, digits"):
        check_name(name)
    with pytest.raises(ValueError, match="model"):
        record(name)


@pytest.mark.parametrize("version", ["v1", "20260301T120000", "20260301T120000_ABCDEF", "20260301T120000_abcdef\n"])
def test_other_version_names_are_refused(version):
    with pytest.raises(ValueError, match="version"):
        record(version=version)


def test_new_versions_carry_the_utc_time_and_differ():
    pacific = datetime(2026, 3, 1, 4, tzinfo=timezone(timedelta(hours=-8)))
    names = {new_version(pacific) for _ in range(50)}
    assert len(names) > 45
    assert all(re.fullmatch("20260301T120000_[0-9a-f]{6}", name) for name in names)
    assert new_version().startswith(f"{datetime.now(UTC):%Y%m%d}")


def test_resolve_takes_version_alias_and_bare_name(registry):
    old, new = record(version="20260101T000000_aaaaaa"), record(version="20260201T000000_bbbbbb")
    registry.add(old)
    registry.add(new)
    registry.set_alias("ptvr", "production", old.version)
    registry.set_alias("ptvr", "candidate", new.version)
    assert registry.resolve("ptvr@production") == old
    assert registry.resolve("ptvr") == new
    assert registry.resolve(f" ptvr/{old.version} ") == old
    assert registry.aliases("ptvr") == {"candidate": new.version, "production": old.version}


def message(registry: Registry, name: str) -> str:
    with pytest.raises(InputError) as caught:
        registry.resolve(name)
    return str(caught.value)


def test_resolve_names_the_nearest_and_what_there_is(registry):
    assert "none is registered yet" in message(registry, "ptvr")
    registry.add(record(version="20260101T000000_aaaaaa"))
    registry.add(record("plankton"))
    assert 'did you mean "ptvr"' in (said := message(registry, "ptvt"))
    assert "there is: plankton, ptvr." in said
    assert "did you mean" not in message(registry, "zzzzzz")
    assert "it has none yet" in (said := message(registry, "ptvr"))
    assert 'no alias "candidate"' in said
    assert "20260101T000000_aaaaaa" in said
    registry.set_alias("ptvr", "production", "20260101T000000_aaaaaa")
    assert 'did you mean "production"' in message(registry, "ptvr@prodution")
    assert "did you mean" in (said := message(registry, "ptvr/20260101T000000_aaaaab"))
    assert "it has: 20260101T000000_aaaaaa." in said


@pytest.mark.parametrize("name", ["s3://lab/ptvr.pt", "/data/ptvr.pt", "~/ptvr.pt", "./ptvr", "hf://lab/ptvr"])
def test_a_file_is_no_version(registry, name):
    assert message(registry, name).startswith(f'"{name}" is a file or an address, not a version of the registry')


def test_a_long_list_of_names_is_cut(registry):
    for i in range(14):
        registry.add(record(f"model{i:02}"))
    assert "model09 and 4 more." in message(registry, "zzz")


def test_an_alias_keeps_its_whole_history(registry):
    versions = ["20260101T000000_aaaaaa", "20260102T000000_bbbbbb"]
    for version in versions:
        registry.add(record(version=version))
    registry.set_alias("ptvr", "production", versions[0], by="ann", reason="first", run_id="r1")
    registry.set_alias("ptvr", "production", versions[1], by="bob", reason="better", expected=versions[0])
    registry.set_alias("ptvr", "production", versions[0], by="ann", reason="roll back")
    history = registry.history("ptvr", "production")
    assert [change.version for change in history] == [versions[0], versions[1], versions[0]]
    assert [change.previous for change in history] == [None, versions[0], versions[1]]
    assert (history[0].by, history[0].reason, history[0].run_id) == ("ann", "first", "r1")
    assert history[0].at <= history[1].at <= history[2].at
    assert registry.history("ptvr", "candidate") == []


def test_an_alias_that_holds_the_version_already_is_left_alone(registry):
    registry.add(record(version="20260101T000000_aaaaaa"))
    for _ in range(2):
        registry.set_alias("ptvr", "candidate", "20260101T000000_aaaaaa")
    assert len(registry.history("ptvr", "candidate")) == 1


def test_an_alias_moves_only_from_what_was_expected(registry):
    versions = ["20260101T000000_aaaaaa", "20260102T000000_bbbbbb"]
    for version in versions:
        registry.add(record(version=version))
    with pytest.raises(InputError, match=f"holds nothing now, not {versions[1]}"):
        registry.set_alias("ptvr", "production", versions[0], expected=versions[1])
    registry.set_alias("ptvr", "production", versions[0], expected=None)
    with pytest.raises(InputError, match=f"holds {versions[0]} now, not nothing"):
        registry.set_alias("ptvr", "production", versions[1], expected=None)
    assert registry.aliases("ptvr") == {"production": versions[0]}


def test_an_alias_takes_only_existing_versions_and_usable_names(registry):
    with pytest.raises(InputError, match="none is registered yet"):
        registry.set_alias("ptvr", "production", "20260101T000000_aaaaaa")
    registry.add(record(version="20260101T000000_aaaaaa"))
    with pytest.raises(InputError, match='no version "20260101T000000_aaaaab"'):
        registry.set_alias("ptvr", "production", "20260101T000000_aaaaab")
    with pytest.raises(InputError, match='The alias "a/b" cannot be used'):
        registry.set_alias("ptvr", "a/b", "20260101T000000_aaaaaa")
    assert registry.aliases("ptvr") == {}


def race(action, count: int) -> list[str]:
    """Runs `action(i)` in `count` threads that start together; "ok" or the error's message for each."""
    start, outcomes = threading.Barrier(count), [""] * count

    def one(i: int) -> None:
        start.wait()
        try:
            action(i)
            outcomes[i] = "ok"
        except InputError as error:
            outcomes[i] = str(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


class Simultaneous(Registry):
    """A registry whose first `count` readers of an alias wait for one another before they go on to write."""

    def __init__(self, db, count: int):
        super().__init__(db)
        self.waiting, self.barrier, self.lock = count, threading.Barrier(count), threading.Lock()

    def _held(self, model, alias):
        found = super()._held(model, alias)
        with self.lock:
            self.waiting -= 1
            wait = self.waiting >= 0
        if wait:
            self.barrier.wait()
        return found


@pytest.mark.parametrize("exists", [False, True], ids=["made", "moved"])
def test_of_many_with_one_expectation_one_wins(db, registry, exists):
    versions = [f"20260101T000000_{i:06x}" for i in range(13)]
    for version in versions:
        registry.add(record(version=version))
    before = versions[12] if exists else None
    if exists:
        registry.set_alias("ptvr", "production", versions[12])
    contended = Simultaneous(db, 12)
    outcomes = race(lambda i: contended.set_alias("ptvr", "production", versions[i], expected=before), 12)
    assert outcomes.count("ok") == 1
    assert registry.aliases("ptvr")["production"] == versions[outcomes.index("ok")]
    assert len(registry.history("ptvr", "production")) == 1 + exists


def test_moves_without_expectation_all_get_through_and_none_is_lost(db, registry):
    versions = [f"20260101T000000_{i:06x}" for i in range(12)]
    for version in versions:
        registry.add(record(version=version))
    contended = Simultaneous(db, 12)
    assert set(race(lambda i: contended.set_alias("ptvr", "candidate", versions[i]), 12)) == {"ok"}
    history = registry.history("ptvr", "candidate")
    assert sorted(change.version for change in history) == versions
    assert [change.previous for change in history] == [None, *(change.version for change in history[:-1])]
    assert registry.aliases("ptvr")["candidate"] == history[-1].version


def held_in_turn(registry: Registry, *ends: str) -> list[str]:
    """Registers a version for each of `ends`, and has `production` hold them one after the other."""
    versions = [f"2026010{number}T000000_{end}" for number, end in enumerate(ends, 1)]
    for version in versions:
        registry.add(record(version=version))
        registry.set_alias("ptvr", "production", version)
    return versions


def test_each_rollback_goes_one_further_back(registry):
    first, second, third = held_in_turn(registry, "aaaaaa", "bbbbbb", "cccccc")
    assert registry.before("ptvr", "production") == second
    change = registry.rollback("ptvr", "production", by="ann", reason="misses Pseudo-nitzschia", run_id="r9")
    assert (change.version, change.previous, change.kind) == (second, third, "rollback")
    assert registry.rollback("ptvr", "production").version == first
    assert registry.aliases("ptvr") == {"production": first}
    with pytest.raises(InputError, match=f'"ptvr@production" cannot be rolled back: no version held it before {first}'):
        registry.rollback("ptvr", "production")
    history = registry.history("ptvr", "production")
    assert [entry.version for entry in history] == [first, second, third, second, first]
    assert (history[3].by, history[3].reason, history[3].run_id) == ("ann", "misses Pseudo-nitzschia", "r9")


def test_after_a_rollback_a_new_version_stands_on_the_one_it_went_back_to(registry):
    first, second, third = held_in_turn(registry, "aaaaaa", "bbbbbb", "cccccc")
    registry.rollback("ptvr", "production")
    registry.rollback("ptvr", "production")
    registry.set_alias("ptvr", "production", third)
    assert standing(registry.history("ptvr", "production")) == [first, third]
    assert registry.rollback("ptvr", "production").version == first
    assert second not in registry.aliases("ptvr").values()


def test_a_rollback_of_what_was_never_set_names_what_there_is(registry):
    held_in_turn(registry, "aaaaaa")
    with pytest.raises(InputError, match=r'no alias "staging".*it has: production'):
        registry.rollback("ptvr", "staging")
    with pytest.raises(InputError, match=r'no model "ptrv" .did you mean "ptvr"'):
        registry.rollback("ptrv", "production")


def test_a_promotion_keeps_its_gates(registry):
    first, second = held_in_turn(registry, "aaaaaa", "bbbbbb")
    rows = [{"gate": "golden set", "passed": False, "figure": "0.7"}]
    moved = registry.set_alias("ptvr", "production", first, kind="promote", forced=True, gates=rows, expected=second)
    assert moved == registry.history("ptvr", "production")[-1]
    assert (moved.kind, moved.forced, moved.gates) == ("promote", True, rows)
    assert registry.set_alias("ptvr", "production", first, kind="promote") is None
    assert registry.rollback("ptvr", "production").version == second


def test_of_two_rollbacks_of_one_version_one_wins(db, registry):
    versions = held_in_turn(registry, "aaaaaa", "bbbbbb", "cccccc")
    contended = Simultaneous(db, 2)
    outcomes = race(lambda i: contended.rollback("ptvr", "production", expected=versions[2]), 2)
    assert outcomes.count("ok") == 1
    assert registry.aliases("ptvr") == {"production": versions[1]}


def test_a_rollback_sees_what_happened_since_it_looked(db, registry):
    first, second, third = held_in_turn(registry, "aaaaaa", "bbbbbb", "cccccc")

    class Interrupted(Registry):
        """Between its first look and its write the alias comes to hold the same version, with others before it."""

        interrupted = False

        def _held(self, model, alias):
            found = super()._held(model, alias)
            if not self.interrupted:
                self.interrupted = True
                registry.rollback(model, alias)
                registry.rollback(model, alias)
                registry.set_alias(model, alias, third)
            return found

    assert Interrupted(db).rollback("ptvr", "production").version == first
    assert standing(registry.history("ptvr", "production")) == [first]
    assert second not in registry.aliases("ptvr").values()


CONTENDER = """
import sys, pymongo
from shared.errors import InputError
from shared.lineage.registry import Registry
uri, name, version = sys.argv[1:]
registry = Registry(pymongo.MongoClient(uri)[name])
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.set_alias("ptvr", "production", version, expected=None)
    print("won")
except InputError:
    print("lost")
"""


def test_of_several_processes_with_one_expectation_one_wins(db, registry):
    versions = [f"20260101T000000_{i:06x}" for i in range(3)]
    for version in versions:
        registry.add(record(version=version))
    host, port = db.client.address
    command = [sys.executable, "-c", CONTENDER, f"mongodb://{host}:{port}", db.name]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, version], **pipe) for version in versions]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outcomes = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert sorted(outcomes) == ["lost", "lost", "won"]
    assert registry.aliases("ptvr") == {"production": versions[outcomes.index("won")]}


def test_fields_of_a_newer_suite_are_tolerated(db, registry):
    added = record()
    registry.add(added)
    newer = {"snapshot": {"id": 1}, "files.weights.pt": 1}
    db[VERSIONS].update_one({}, {"$set": {"snapshot": newer}})
    files = {name: {"sha256": info.sha256, "size": info.size, "mtime": 3} for name, info in added.files.items()}
    db[VERSIONS].update_one({}, {"$set": {"files": files}})
    assert registry.resolve(added.name) == added
    registry.set_alias("ptvr", "candidate", added.version)
    db[ALIASES].update_one({}, {"$set": {"history.0.approved_by": "eve"}})
    assert registry.history("ptvr", "candidate")[0].version == added.version


@pytest.mark.parametrize("field", ["classes", "files", "uri"])
def test_a_damaged_record_is_named_and_spoils_no_list(db, registry, field, caplog):
    good, bad = record(), record()
    registry.add(good)
    registry.add(bad)
    db[VERSIONS].update_one({"_id": bad.name}, {"$unset": {field: ""}})
    with pytest.raises(StorageError, match=rf"{bad.name}.*\({field}"):
        registry.get("ptvr", bad.version)
    assert registry.versions() == [good]
    assert bad.name in caplog.text
