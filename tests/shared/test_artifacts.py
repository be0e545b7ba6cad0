"""Both kinds of artifact root through the same tests: a real folder, and a real S3 server over HTTP."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from shared import s3 as suite_s3
from shared.artifacts import Artifacts, FileInfo, fetch_uri, open_root
from shared.errors import InputError, StorageError
from shared.runs import Monitor
from tests.conftest import let_others_in

ROOT = Path(__file__).resolve().parents[2]

# What people call their models and classes; none of it may matter.
KEYS = ["models/Pseudo-nitzschia/1", "a/b c/fecal pellet", "浮游/é~ü", "50%25+x/a&b?c#d=e:f*g\\h'i\"j"]


@dataclass
class Place:
    """An artifact root, and a door behind it."""

    uri: str
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    def open(self) -> Artifacts:
        return open_root(self.uri, self.secrets)

    def _object(self, key: str) -> dict[str, str]:
        bucket, prefix = suite_s3.split_uri(self.uri)
        return {"Bucket": bucket, "Key": f"{prefix}/{key}"}

    def write(self, key: str, data: bytes) -> None:
        if self.is_s3:
            suite_s3.client(self.secrets).put_object(**self._object(key), Body=data)
        else:
            Path(self.uri, key).write_bytes(data)

    def remove(self, key: str) -> None:
        if self.is_s3:
            suite_s3.client(self.secrets).delete_object(**self._object(key))
        else:
            Path(self.uri, key).unlink()

    def everything(self) -> dict[str, object]:
        """Whatever is there, hidden or not, with what tells whether it was written again."""
        if self.is_s3:
            bucket, prefix = suite_s3.split_uri(self.uri)
            listed = suite_s3.client(self.secrets).list_object_versions(Bucket=bucket, Prefix=f"{prefix}/")
            current = [entry for entry in listed.get("Versions", []) if entry["IsLatest"]]
            return {entry["Key"].removeprefix(f"{prefix}/"): entry["VersionId"] for entry in current}
        paths = [path for path in Path(self.uri).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.uri)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "the root"))
    secrets, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
    suite_s3.client(secrets).put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return Place(f"s3://{bucket}/the root", secrets)


@pytest.fixture
def version(tmp_path) -> Path:
    """A folder like a model version's: small and big files (in S3, one of several parts), folders, an empty file."""
    folder = tmp_path / "version"
    (folder / "plots" / "é ü").mkdir(parents=True)
    (folder / "model.json").write_text('{"classes": ["Pseudo-nitzschia"]}')
    (folder / "empty").touch()
    (folder / "plots" / "é ü" / "a b.png").write_bytes(os.urandom(70_000))
    (folder / "weights.pt").write_bytes(os.urandom(18_000_000))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(place: Place, work, *args, **kwargs) -> str:
    """The sentence of the StorageError that `work` ends with; no secret in it."""
    with pytest.raises(StorageError) as caught:
        work(*args, **kwargs)
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert not any(place.secrets.get(f"AWS_{name}", "?") in said for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    return said


class Recorder(Monitor):
    """Keeps what it is told; asks nobody."""

    def __init__(self):
        self.told, self.asked = [], 0

    def progress(self, done, total, what):
        self.told.append((done, total, what))

    def stopping(self):
        self.asked += 1
        return False


# What is published, and how it comes back


@pytest.mark.parametrize("key", KEYS)
def test_a_folder_published_comes_back_equal(place, version, tmp_path, key):
    root, monitor = place.open(), Recorder()
    files = root.publish(version, key, monitor)
    assert files == {
        name: FileInfo(hashlib.sha256(data).hexdigest(), len(data)) for name, data in content(version).items()
    }
    assert root.published(key) == files
    assert root.list() == sorted(f"{key}/{name}" for name in (*files, "files.json"))
    total = sum(info.size for info in files.values())
    assert monitor.told[-1] == (total, total, f"Publishing {key} (bytes)")
    assert monitor.asked

    fetched = root.fetch(key, files, tmp_path / "here", monitor)
    assert fetched == tmp_path / "here"
    assert content(fetched) == content(version)
    assert monitor.told[-1] == (total, total, f"Fetching {key} (bytes)")


def test_only_what_is_asked_for_is_fetched(place, version, tmp_path):
    root = place.open()
    files = root.publish(version, "m/1")
    root.fetch("m/1", {"model.json": files["model.json"]}, tmp_path / "here")
    assert list(content(tmp_path / "here")) == ["model.json"]


def test_a_version_is_named_by_its_address(place):
    assert place.open().uri("m/1") == f"{place.uri}/m/1"


def test_publishing_the_same_again_does_nothing(place, version):
    root = place.open()
    first = root.publish(version, "m/1")
    before = place.everything()
    assert place.open().publish(version, "m/1") == first
    assert place.everything() == before


def test_other_content_under_the_same_key_is_refused(place, version):
    root = place.open()
    root.publish(version, "m/1")
    before = place.everything()
    (version / "model.json").write_text("{}")
    assert refused(place, root.publish, version, "m/1").startswith(f"{place.uri}/m/1 already holds something else")
    (version / "more").touch()
    refused(place, root.publish, version, "m/1")
    assert place.everything() == before


def test_a_folder_of_single_objects_is_not_published_over(place, version, tmp_path):
    root = place.open()
    root.put("m/1/notes", version / "model.json")
    assert "already holds something else" in refused(place, root.publish, version, "m/1")
    assert root.list() == ["m/1/notes"]


def test_several_processes_publish_the_same_at_once(place, version):
    answers, roots = [], [place.open() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda root=root: answers.append(root.publish(version, "m/1"))) for root in roots
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == roots[0].published("m/1") for answer in answers)
    assert set(place.everything()) == {f"m/1/{name}" for name in (*content(version), "files.json")}


@pytest.mark.parametrize("name", ["files.json", ".incoming", "plots/.x.incoming"])
def test_reserved_names_are_refused_before_any_work(place, version, name):
    (version / name).touch()
    with pytest.raises(InputError, match="reserved"):
        place.open().publish(version, "m/1")
    assert place.everything() == {}


def test_nothing_to_publish(place, tmp_path):
    (tmp_path / "empty" / "within").mkdir(parents=True)
    for folder, said in [("empty", "it has no files"), ("none", "There is no folder")]:
        with pytest.raises(InputError, match=said):
            place.open().publish(tmp_path / folder, "m/1")


@pytest.mark.parametrize("key", ["", "/", "/m", "m/", "m//1", "..", "m/../../1", "./m", "m/\0", ".x.incoming/m"])
def test_keys_stay_below_the_root(place, version, tmp_path, key):
    root = place.open()
    for work in (
        lambda: root.publish(version, key),
        lambda: root.fetch(key, {}, tmp_path / "here"),
        lambda: root.fetch("m/1", {key: FileInfo("", 0)}, tmp_path / "here"),
        lambda: root.put(key, version / "model.json"),
        lambda: root.get(key, tmp_path / "here"),
        lambda: root.delete(key),
        lambda: root.uri(key),
    ):
        with pytest.raises(InputError, match="cannot be the name of something stored"):
            work()
    assert place.everything() == {}


# Killed in the middle

_KILLED = """
import json, os, signal, sys
from pathlib import Path
from shared.artifacts import FileInfo, open_root
from shared.runs import Monitor

uri, secrets, work, folder, files, at = json.loads(sys.stdin.read())

class Killer(Monitor):
    def progress(self, done, total, what):
        if done and done >= at * total:
            os.kill(os.getpid(), signal.SIGKILL)

root = open_root(uri, secrets)
if work == "publish":
    root.publish(Path(folder), "m/1", Killer())
else:
    root.fetch("m/1", {name: FileInfo(*info) for name, info in files.items()}, Path(folder), Killer())
"""


def killed(place: Place, work: str, folder: Path, files: Mapping[str, FileInfo], at: float) -> None:
    """Runs `work` in a process that is killed once that share of the bytes is through."""
    plain = {name: (info.sha256, info.size) for name, info in files.items()}
    said = json.dumps([place.uri, dict(place.secrets), work, str(folder), plain, at])
    done = subprocess.run([sys.executable, "-c", _KILLED], input=said, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_a_killed_publication_is_invisible_and_the_next_goes_on(place, version, tmp_path, at):
    root = place.open()
    root.put("other/notes", version / "model.json")
    killed(place, "publish", version, {}, at)
    assert len(place.everything()) > 1, "the process was killed before it had begun"
    assert root.published("m/1") is None
    assert root.list() == ["other/notes"]
    assert not root.get("m/1/files.json", tmp_path / "index")
    if place.is_s3:
        half = refused(place, fetch_uri, f"{place.uri}/m/1", tmp_path / "here", place.secrets)
        assert "only half published" in half
    else:
        assert not Path(place.uri, "m/1").exists()
    there = place.everything()

    files = place.open().publish(version, "m/1")
    assert root.published("m/1") == files
    assert content(root.fetch("m/1", files, tmp_path / "here")) == content(version)
    after = place.everything()
    assert set(after) == {"other/notes", *(f"m/1/{name}" for name in (*files, "files.json"))}
    if at:  # what had arrived was not sent again
        assert len(set(there.values()) & set(after.values())) >= 4


_KILLED_AT_THE_END = """
import json, os, signal, sys
from pathlib import Path
from shared.artifacts import open_root

uri, secrets, folder = json.loads(sys.stdin.read())
root = open_root(uri, secrets)

def kill_if(last_step):
    if last_step:
        os.kill(os.getpid(), signal.SIGKILL)

if secrets:
    sends = "before-send.s3.PutObject"
    root._root.client.meta.events.register(sends, lambda request, **_: kill_if(request.url.endswith("files.json")))
else:
    sys.addaudithook(lambda event, args: kill_if(event == "os.rename"))
root.publish(Path(folder), "m/1")
"""


def test_killed_just_before_it_would_become_visible(place, version, tmp_path):
    said = json.dumps([place.uri, dict(place.secrets), str(version)])
    done = subprocess.run([sys.executable, "-c", _KILLED_AT_THE_END], input=said, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    root, there = place.open(), place.everything()
    assert len(there) > len(content(version))
    assert root.published("m/1") is None
    assert root.list() == []
    files = root.publish(version, "m/1")
    assert root.published("m/1") == files
    assert content(root.fetch("m/1", files, tmp_path / "here")) == content(version)
    # Not one file was sent twice.
    assert len(set(there.values()) & set(place.everything().values())) >= len(files)


def test_a_killed_publication_of_other_content_leaves_nothing(place, version, tmp_path):
    killed(place, "publish", version, {}, 0.9)
    (version / "weights.pt").write_bytes(os.urandom(100))
    (version / "model.json").write_text((version / "model.json").read_text().swapcase())  # of the same size
    (version / "plots" / "é ü" / "a b.png").unlink()
    files = place.open().publish(version, "m/1")
    assert set(place.everything()) == {f"m/1/{name}" for name in (*files, "files.json")}
    assert content(place.open().fetch("m/1", files, tmp_path / "here")) == content(version)


def test_a_mark_left_after_the_index_hides_nothing(s3, bucket, version, tmp_path):
    place = Place(f"s3://{bucket}/root", s3)
    files = place.open().publish(version, "m/1")
    place.write("m/1/.incoming", b"")
    assert place.open().list("m") == sorted(f"m/1/{name}" for name in (*files, "files.json"))
    assert content(fetch_uri(f"{place.uri}/m/1", tmp_path / "here", s3)) == content(version)
    assert place.open().publish(version, "m/1") == files


@pytest.mark.parametrize("part", ["as it is", "damaged", "too long"])
def test_a_killed_fetch_goes_on_where_it_was(place, version, tmp_path, part):
    root, here = place.open(), tmp_path / "here"
    files = root.publish(version, "m/1")
    killed(place, "fetch", here, files, 0.5)
    arrived = here / "weights.pt.part"
    begun = arrived.stat().st_size
    assert 1_000_000 < begun < files["weights.pt"].size
    assert not (here / "weights.pt").exists()
    if part == "damaged":
        arrived.write_bytes(bytes(begun))
    elif part == "too long":
        arrived.write_bytes(bytes(files["weights.pt"].size + 1))
    before, monitor = (here / "model.json").stat().st_ino, Recorder()
    root.fetch("m/1", files, here, monitor)
    assert content(here) == content(version)
    assert (here / "model.json").stat().st_ino == before
    if part == "as it is":
        # First what was there, then one message a chunk: only the rest was transferred.
        counts = [done for done, _, _ in monitor.told]
        assert max(after - before for before, after in pairwise(counts)) >= begun
        assert len(counts) < 10 + (files["weights.pt"].size - begun) / 100_000


# Damage


@pytest.mark.parametrize("damage", ["truncated", "longer", "altered", "gone"])
def test_a_damaged_file_is_named_and_does_not_arrive(place, version, tmp_path, damage):
    root, here = place.open(), tmp_path / "here"
    files = root.publish(version, "m/1")
    data = (version / "weights.pt").read_bytes()
    changed = {"truncated": data[:-1], "longer": data + b"1", "altered": data[:9_000_000] + b"?" + data[9_000_001:]}
    if damage == "gone":
        place.remove("m/1/weights.pt")
    else:
        place.write("m/1/weights.pt", changed[damage])
    said = refused(place, root.fetch, "m/1", files, here)
    assert f"{place.uri}/m/1/weights.pt" in said
    assert ("There is nothing at" if damage == "gone" else "is damaged") in said
    assert not (here / "weights.pt").exists()


def test_a_damaged_file_in_the_way_is_replaced(place, version, tmp_path):
    root, here = place.open(), tmp_path / "here"
    files = root.publish(version, "m/1")
    shutil.copytree(version, here)
    (here / "model.json").write_text('{"classes": ["Pseudo-nitzschiA"]}')
    assert content(root.fetch("m/1", files, here)) == content(version)


@pytest.mark.parametrize("index", [b"", b"[]", b'{"files": {"a": {}}}', b'{"files": []}', b"\xff"])
def test_a_damaged_index_is_named(place, version, index):
    root = place.open()
    root.publish(version, "m/1")
    place.write("m/1/files.json", index)
    assert f"{place.uri}/m/1/files.json is damaged" in refused(place, root.published, "m/1")
    refused(place, root.publish, version, "m/1")


# Single objects


@pytest.mark.parametrize("key", KEYS)
def test_single_objects_are_replaced(place, tmp_path, key):
    root, file, back = place.open(), tmp_path / "last.pt", tmp_path / "new" / "back.pt"
    assert root.get(key, back) is False
    assert root.list() == []
    for data in (os.urandom(17_000_000), b"", b"short"):
        file.write_bytes(data)
        assert root.put(key, file) == FileInfo(hashlib.sha256(data).hexdigest(), len(data))
        assert root.get(key, back) is True
        assert back.read_bytes() == data
        assert set(place.everything()) == {key}
    assert root.list() == [key]
    root.delete(key)
    root.delete(key)
    assert root.get(key, back) is False
    assert root.list() == []
    assert list(back.parent.iterdir()) == [back]


def test_list_is_of_a_folder(place, version):
    root = place.open()
    for key in ("runs/a/last.pt", "runs/a b/last.pt", "runs/ab", "other"):
        root.put(key, version / "model.json")
    assert root.list("runs") == ["runs/a b/last.pt", "runs/a/last.pt", "runs/ab"]
    assert root.list("runs/a") == ["runs/a/last.pt"]
    assert root.list("runs/a/") == ["runs/a/last.pt"]
    assert root.list("run") == root.list("runs/ab") == root.list("none") == []


def test_list_of_many(place, version):
    root = place.open()
    if not place.is_s3:
        Path(place.uri, "many").mkdir(parents=True)
    client = suite_s3.client(place.secrets) if place.is_s3 else None
    for number in range(1005):  # S3 lists 1,000 at a time
        if client:
            client.put_object(**place._object(f"many/{number:04}"), Body=b"")
        else:
            place.write(f"many/{number:04}", b"")
    assert root.list("many") == [f"many/{number:04}" for number in range(1005)]


def test_deleting_does_not_touch_a_published_folder(place, version):
    root = place.open()
    files = root.publish(version, "m/1")
    root.delete("m/1")
    root.delete("m")
    assert root.published("m/1") == files
    assert len(root.list()) == len(files) + 1


def test_an_object_altered_in_the_store_is_not_taken(s3, bucket, tmp_path):
    place = Place(f"s3://{bucket}/root", s3)
    (tmp_path / "a").write_bytes(b"content")
    info = place.open().put("a", tmp_path / "a")
    suite_s3.client(s3).put_object(**place._object("a"), Body=b"CONTENT", Metadata={"sha256": info.sha256})
    assert "root/a is damaged" in refused(place, place.open().get, "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_forgotten_file_is_removed_but_not_one_being_written(tmp_path):
    root, file = open_root(str(tmp_path / "root"), {}), tmp_path / "file"
    file.touch()
    root.put("a", file)
    with root._root._replacing("a") as being_written:
        forgotten = being_written.with_name(being_written.name.replace(".incoming", "0.incoming"))
        forgotten.touch()
        os.utime(forgotten, (0, 0))
        root.put("a", file)
        assert {path.name for path in (tmp_path / "root").iterdir()} == {"a", being_written.name}
        assert root.list() == ["a"]


# Addresses that people type


def test_fetch_uri_gives_local_files_as_they_are(version, tmp_path, monkeypatch):
    assert fetch_uri(str(version), tmp_path / "here", {}) == version
    assert fetch_uri(str(version / "weights.pt"), tmp_path / "here", {}) == version / "weights.pt"
    monkeypatch.setenv("HOME", str(version))
    assert fetch_uri("~/weights.pt", tmp_path / "here", {}) == version / "weights.pt"
    assert not (tmp_path / "here").exists()
    for uri in ("", str(version / "none.pt")):
        with pytest.raises(StorageError, match=f"There is nothing at '{uri}': check the name"):
            fetch_uri(uri, tmp_path / "here", {})


def test_fetch_uri_from_s3(s3, bucket, version, tmp_path):
    place, here = Place(f"s3://{bucket}/the root", s3), tmp_path / "here"
    root = place.open()
    root.publish(version, "published/é 1")
    for name in content(version):
        place.write(f"plain/é 2/{name}", (version / name).read_bytes())
    place.write("plain/é 2/", b"")  # as consoles mark a folder
    assert fetch_uri(f"{place.uri}/plain/é 2/weights.pt", here, s3) == here / "weights.pt"
    assert (here / "weights.pt").read_bytes() == (version / "weights.pt").read_bytes()
    for uri in (f"{place.uri}/published/é 1", f"{place.uri}/plain/é 2", f"{place.uri}/plain/é 2/"):
        folder = fetch_uri(uri, here, s3)
        assert folder == here / uri.rstrip("/").rpartition("/")[2]
        assert content(folder) == content(version)
    place.write("published/é 1/model.json", b"{}")
    shutil.rmtree(here)
    assert "é 1/model.json is damaged" in refused(place, fetch_uri, f"{place.uri}/published/é 1", here, s3)
    assert f"nothing at s3://{bucket}/none" in refused(place, fetch_uri, f"s3://{bucket}/none", here, s3)
    with pytest.raises(InputError, match="whole bucket"):
        fetch_uri(f"s3://{bucket}/", here, s3)


def test_an_object_may_not_choose_a_place_outside(s3, bucket, tmp_path):
    suite_s3.client(s3).put_object(Bucket=bucket, Key="weights/../../escaped", Body=b"1")
    with pytest.raises(InputError, match="cannot be the name"):
        fetch_uri(f"s3://{bucket}/weights", tmp_path / "here" / "there", s3)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("uri", ["", None])
def test_no_artifact_root(uri):
    with pytest.raises(InputError, match="set the secret MBARI_ARTIFACTS"):
        open_root(uri, {})


@pytest.mark.parametrize(
    "uri", ["artifacts", "./artifacts", "gs://bucket/a", "https://host/a", "s3:/bucket", "s3:///a"]
)
def test_artifact_roots_that_cannot_be(uri):
    with pytest.raises(InputError, match=r"full path|not an S3 address"):
        open_root(uri, {})


# What the surroundings may do


def test_check_leaves_nothing(place):
    place.open().check()
    assert place.everything() == {}


def test_check_without_a_network(s3):
    place = Place("s3://models/root", dict(s3) | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    for work in (place.open().check, place.open().list):
        assert "Cannot reach http://127.0.0.1:1 for s3://models/root" in refused(place, work)


def test_check_with_wrong_settings(s3, guarded_s3, version, tmp_path):
    place = Place("s3://no-such-bucket/root", s3)
    for work in (
        lambda: place.open().check(),
        lambda: place.open().publish(version, "m"),
        lambda: place.open().list(),
        lambda: place.open().put("m", version / "weights.pt"),
        lambda: place.open().get("m", tmp_path / "m"),
    ):
        assert "There is no bucket 'no-such-bucket'" in refused(place, work)
    place = Place("s3://guarded/root", dict(guarded_s3) | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert "does not accept the credentials" in refused(place, place.open().check)


def test_a_root_that_may_only_be_read(guarded_s3, version, tmp_path):
    place = Place("s3://guarded", guarded_s3)
    assert place.open().get("models/a.txt", tmp_path / "a")
    for work in (
        place.open().check,
        lambda: place.open().publish(version, "m"),
        lambda: place.open().put("m", version / "weights.pt"),
        lambda: place.open().delete("models/a.txt"),
    ):
        assert "Not allowed to" in refused(place, work)


def local_failures(uri: str, version: Path, said: str) -> None:
    place = Place(uri)
    root = place.open()
    for work in (root.check, lambda: root.publish(version, "m"), lambda: root.put("m", version / "weights.pt")):
        assert said in refused(place, work)


def test_a_file_where_the_root_should_be(version, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    for uri in (tmp_path / "file", tmp_path / "file" / "root"):
        local_failures(str(uri), version, "a file stands where a folder is needed")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_file_where_a_fetch_should_go(place, version, tmp_path):
    files = place.open().publish(version, "m/1")
    (tmp_path / "file").write_bytes(b"1")
    for dest in (tmp_path / "file", tmp_path / "file" / "here"):
        said = "a file stands where a folder is needed"
        assert said in refused(place, place.open().fetch, "m/1", files, dest)
        assert said in refused(place, place.open().get, "m/1/model.json", dest / "model.json")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a file system that nobody may write to")
def test_a_root_where_even_an_administrator_may_not_write(version):
    local_failures("/sys/kernel/mbari", version, "Not allowed to use /sys/kernel/mbari")


def test_a_folder_of_somebody_else(version, tmp_path):
    (tmp_path / "root").mkdir(mode=0o755)
    if os.geteuid():
        (tmp_path / "root").chmod(0o555)
    code = """
import os, sys
from shared.artifacts import open_root
from shared.errors import StorageError
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    open_root(sys.argv[1], {}).check()
except StorageError as error:
    print(f"{type(error).__name__}: {error}")
"""
    let_others_in(tmp_path / "root")
    run = [sys.executable, "-c", code, str(tmp_path / "root")]

    def said():
        return subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert said().startswith(f"AccessError: Not allowed to use {tmp_path}/root")
    assert said().endswith("choose another folder.\n")
    (tmp_path / "root").chmod(0o755)
    (tmp_path / "root" / "model").write_bytes(b"1")
    (tmp_path / "root" / "model").chmod(0o444)
    if os.geteuid():
        (tmp_path / "root").chmod(0o555)
    assert said().startswith("ReadOnlyError: ")  # what is there can be read


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A real disk of 4 MiB."""
    disk = tmp_path / "small disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_is_found_out_before_any_work(place, version, small_disk):
    files = place.open().publish(version, "m/1")
    said = refused(place, place.open().fetch, "m/1", files, small_disk / "here")
    assert said.startswith(
        f"Fetching {place.uri}/m/1 needs 17.2 MiB of disk in {small_disk}/here, where 4 MiB are free"
    )
    assert list(small_disk.iterdir()) == []
    place.open().put("w", version / "weights.pt")
    assert "needs 17.2 MiB" in refused(place, place.open().get, "w", small_disk / "w")
    assert list(small_disk.iterdir()) == []
    small = Place(str(small_disk))
    said = refused(small, small.open().publish, version, "m/1")
    assert said.startswith("Publishing 1 needs 17.2 MiB of disk in")
    assert "4 MiB are free" in said
    assert small.open().list() == []


def test_no_space_for_a_fetch_of_any_size(place, tmp_path):
    said = refused(place, place.open().fetch, "m", {"a": FileInfo("0" * 64, 1 << 60)}, tmp_path / "here")
    assert "needs 1.05e+06 TiB" in said
    assert not (tmp_path / "here").exists()


def test_a_disk_that_fills_up_meanwhile(place, tmp_path, small_disk):
    """Another process takes the space after it was checked; once there is some again, the fetch goes on."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a").write_bytes(os.urandom(3_000_000))
    files, others = place.open().publish(tmp_path / "v", "m"), small_disk / "others"

    class Greedy(Monitor):
        def progress(self, done, total, what):
            if done > 1_000_000 and not others.exists():
                with others.open("wb") as file, suppress(OSError):
                    while True:
                        os.write(file.fileno(), bytes(4096))

    said = refused(place, place.open().fetch, "m", files, small_disk / "here", Greedy())
    assert said.startswith(f"The disk is full, or limits the size of files, at {small_disk}/here/a: ")
    assert not (small_disk / "here" / "a").exists()
    others.unlink()
    assert content(place.open().fetch("m", files, small_disk / "here")) == content(tmp_path / "v")


def test_an_object_outlives_a_full_disk(tmp_path, small_disk):
    place, file = Place(str(small_disk)), tmp_path / "last.pt"
    file.write_bytes(b"1" * 1_000_000)
    place.open().put("last.pt", file)
    file.write_bytes(b"2" * 4_000_000)
    assert "The disk is full" in refused(place, place.open().put, "last.pt", file)
    assert (small_disk / "last.pt").read_bytes() == b"1" * 1_000_000
    assert len(list(small_disk.iterdir())) == 1


def test_a_limit_on_the_size_of_files(version, tmp_path):
    """As a full disk, where mounting one is not permitted."""
    code = """
import resource, sys
from pathlib import Path
from shared.artifacts import open_root
from shared.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
root = open_root(sys.argv[1], {})
for work in (lambda: root.publish(Path(sys.argv[2]), "m"), lambda: root.put("w", Path(sys.argv[2], "weights.pt"))):
    try:
        work()
    except StorageError as error:
        print(error)
print(root.list())
"""
    run = [sys.executable, "-c", code, str(tmp_path / "root"), str(version)]
    said = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.partition(" at ")[0] for line in said[:2]] == ["The disk is full, or limits the size of files,"] * 2
    assert said[2:] == ["[]"]


# A network that breaks


class Cutting(BaseHTTPRequestHandler):
    """An S3 server with one object, whose answers break off after some bytes."""

    def do_GET(self):
        server, data = self.server, self.server.data
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        server.asked.append((start, self.headers.get("If-Match")))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(data[start : start + server.bytes_each])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def cutting(s3) -> Iterator[tuple[ThreadingHTTPServer, Place]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cutting)
    server.asked, server.data, server.bytes_each = [], os.urandom(3_000_000), 1_100_000
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, Place("s3://models/root", dict(s3) | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"})
    server.shutdown()
    server.server_close()


def test_a_transfer_that_breaks_off_goes_on(cutting, tmp_path):
    server, place = cutting
    files = {"a": FileInfo(hashlib.sha256(server.data).hexdigest(), len(server.data))}
    assert content(place.open().fetch("m", files, tmp_path)) == {"a": server.data}
    starts = [start for start, _ in server.asked]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert len(starts) in (3, 4)
    # The rest must be of the same object as the start.
    assert {match for start, match in server.asked if start} == {'"one"'}


def test_a_transfer_that_never_gets_on_ends(cutting, tmp_path):
    server, place = cutting
    server.bytes_each = 0
    files = {"a": FileInfo("0" * 64, len(server.data))}
    said = refused(place, place.open().fetch, "m", files, tmp_path)
    assert said.startswith("Cannot reach the store for s3://models/root/m/a")
    assert len(server.asked) == suite_s3.ATTEMPTS


# Memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the peak memory that Linux tells")
def test_memory_does_not_grow_with_the_files(place, tmp_path):
    size = 120_000_000
    (tmp_path / "v").mkdir()
    with (tmp_path / "v" / "a").open("wb") as file:
        file.truncate(size)
    code = """
import json, sys
from pathlib import Path
from shared.artifacts import open_root
def peak():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
uri, secrets, folder = json.loads(sys.stdin.read())
root, folder = open_root(uri, secrets), Path(folder)
(folder / "small").mkdir()
(folder / "small" / "a").write_bytes(b"1")
root.fetch("small", root.publish(folder / "small", "small"), folder / "small back")
before = peak()
root.fetch("m", root.publish(folder / "v", "m"), folder / "back")
root.put("a", folder / "v" / "a")
root.get("a", folder / "back" / "b")
print(peak() - before)
"""
    said = json.dumps([place.uri, dict(place.secrets), str(tmp_path)])
    run = [sys.executable, "-c", code]
    grown = subprocess.run(run, input=said, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert int(grown) < size / 3
    assert (tmp_path / "back" / "b").stat().st_size == size


def test_importing_is_cheap():
    code = "import sys; from shared import artifacts; assert not {'boto3', 'botocore', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
