"""That demo and App keep to their own folders and their own database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from scripts import surroundings
from scripts.surroundings import LABELS, ROIS
from shared.sync.stores import open_store
from tests.mongod import Mongod

ROOT = Path(__file__).resolve().parents[2]
# Says which datasets there are, makes one, and stays until its input is closed.
CLIENT = """
import sys
from pathlib import Path
import surroundings
surroundings.prepare(Path(sys.argv[1]))
surroundings.own_database()
import fiftyone as fo
print("THERE", fo.list_datasets(), flush=True)
fo.Dataset(sys.argv[2], persistent=True)
print("MADE", flush=True)
import fiftyone.core.odm as odm
sys.path.insert(0, str(surroundings.ROOT))
from shared.sync.stores import open_store
records = odm.get_db_conn().client[surroundings.LABELS][surroundings.ROIS]
records.update_one({"elemental_id": sys.argv[1]}, {"$setOnInsert": {"label": sys.argv[2]}}, upsert=True)
store = open_store(surroundings.own_label_store())
print("STORE", store.name, store.read([sys.argv[1]])[sys.argv[1]].label, records.database.client.address[1], flush=True)
sys.stdin.read()
"""


def client(home: Path, dataset: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_")}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(home), dataset],
        cwd=ROOT / "scripts",
        env=kept,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise AssertionError(f"the process ended without saying {word}")


def close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(60)


def test_settings_that_are_set_already_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"FIFTYONE_DATABASE_URI": "mongodb://db", "FIFTYONE_PLUGINS_DIR": "/mine"})
    surroundings.prepare(tmp_path)
    assert os.environ["FIFTYONE_PLUGINS_DIR"] == "/mine"
    assert "FIFTYONE_DATABASE_DIR" not in os.environ
    monkeypatch.setattr(os, "environ", {"FIFTYONE_PRIVATE_DATABASE_PORT": "1"})
    surroundings.prepare(tmp_path)
    assert os.environ["FIFTYONE_DATABASE_DIR"] == str(tmp_path / "mongo")
    assert os.environ["MBARI_ARTIFACTS"] == str(tmp_path / "artifacts")
    assert "FIFTYONE_PRIVATE_DATABASE_PORT" not in os.environ
    assert not [value for value in os.environ.values() if str(Path.home() / ".fiftyone") in value]


def test_a_database_of_another_folder_is_never_joined_and_what_is_kept_stays(tmp_path: Path) -> None:
    one = client(tmp_path / "one", "first")
    assert answer(one, "THERE") == "[]"
    answer(one, "MADE")
    other = client(tmp_path / "other", "second")
    assert answer(other, "THERE") == "[]", "it joined the other's MongoDB"
    answer(other, "MADE")
    store, label, port = answer(other, "STORE").split()
    together = client(tmp_path / "one", "third")
    assert answer(together, "THERE") == "['first']", "two processes on one folder share it"
    for process in (one, other, together):
        close(process)
    later = client(tmp_path / "other", "fourth")
    assert answer(later, "THERE") == "['second']"
    again = answer(later, "STORE").split()
    # Runs find what was sent by the store's name.
    assert again[:2] == [store, label] == ["mbari-demo/mbari-demo-labels.rois", "second"]
    assert again[2] != port
    close(later)


def test_the_label_store_is_on_the_server_of_a_database_that_is_set(tmp_path: Path, monkeypatch) -> None:
    with Mongod(tmp_path / "guarded", "--auth") as server:
        with server.client() as client:  # the first user may be made without being one
            client.admin.command("createUser", "ana", pwd="p@ss:/", roles=["root"])
        place = f"127.0.0.1:{server.port}"
        with MongoClient(f"mongodb://ana:p%40ss%3A%2F@{place}") as client:
            client["fiftyone"].command("createUser", "bea", pwd="b", roles=[{"role": "readWrite", "db": LABELS}])
            client[LABELS][ROIS].insert_one({"elemental_id": "a", "label": "Calanus"})
        for uri in (
            f"mongodb://ana:p%40ss%3A%2F@{place}",
            f"ana:p%40ss%3A%2F@{place}/",
            f"mongodb://ana:p%40ss%3A%2F@{place}/fiftyone?authSource=admin&directConnection=true",
            f"mongodb://ana:p%40ss%3A%2F@{place}/admin?authMechanism=SCRAM-SHA-256",
            f"mongodb://bea:b@{place}/fiftyone?tls=false",
        ):
            monkeypatch.setenv("FIFTYONE_DATABASE_URI", uri)
            store = open_store(surroundings.own_label_store())
            assert store.read(["a"])["a"].label == "Calanus", uri
            assert store.name == f"mbari-demo/{LABELS}.{ROIS}"
            store.close()
