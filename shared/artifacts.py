"""The artifact root, a local folder or an S3 prefix: publish a folder whole, fetch it verified.

A published folder is immutable and has an index, `files.json`, that is written last: nobody sees a
folder half published, and publishing again after a kill goes on where it stopped. Single objects
(`put`, `get`) are mutable and replaced at once. Nothing is ever held in memory whole.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from . import disk, s3
from .disk import FileInfo, describe, require_space, scratch, sha256
from .errors import AccessError, InputError, ReadOnlyError, StorageError
from .roots import INDEX, UNFINISHED, LocalRoot, Opened, Root, S3Root, Taken, hidden
from .runs import Monitor

__all__ = ["Artifacts", "FileInfo", "fetch_uri", "open_root", "require_space", "scratch", "sha256"]


def open_root(uri: str, secrets: Mapping[str, str]) -> "Artifacts":
    """The artifact root at a local folder (full path) or `s3://bucket/prefix`; asks nothing of it yet.

    Args:
        uri: the value of the secret `MBARI_ARTIFACTS`
        secrets: where AWS's names are looked up first (see `s3.client`)

    Raises:
        InputError: if it is not set, or neither a full path nor an `s3://` address
        StorageError: if AWS's settings cannot be used
    """
    if not uri:
        raise InputError("There is no artifact root: set the secret MBARI_ARTIFACTS to a folder or s3://bucket/folder.")
    if uri.startswith("s3://"):
        return Artifacts(S3Root(*s3.split_uri(uri), secrets))
    folder = Path(uri).expanduser()
    if not folder.is_absolute():
        raise InputError(f"MBARI_ARTIFACTS is '{uri}': give the full path of a folder, or s3://bucket/folder.")
    return Artifacts(LocalRoot(folder))


class Artifacts:
    """An artifact root. Keys are posix paths below it, such as `models/ptvr/20260301T120000_ab12cd`.

    Every method raises InputError for a key that is no such path, and StorageError, one sentence
    without secrets, when the root or the local disk cannot be reached, read or written.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    def uri(self, key: str) -> str:
        """The full address of a key."""
        return self._root.uri(_checked(key))

    def publish(self, folder: Path, key: str, monitor: Monitor | None = None) -> dict[str, FileInfo]:
        """Stores a whole folder, with what is below it, under `key`; never seen before it is whole.

        Publishing the same content again does nothing. After a kill, what had arrived is not sent again.

        Returns:
            hash and size of each file, by its path inside the folder

        Raises:
            InputError: if the folder is empty, or has a file of a reserved name
            StorageError: if other content is already at `key`
        """
        files = _describe_folder(folder)
        if self.published(key) != files:
            progress = _Progress(monitor, sum(info.size for info in files.values()), f"Publishing {key} (bytes)")
            try:
                self._root.publish(folder, key, files, progress.add)
            except Taken:
                if self.published(key) != files:
                    raise StorageError(
                        f"{self.uri(key)} already holds something else, and what is published is never overwritten: "
                        "choose another name."
                    ) from None
        return files

    def published(self, key: str) -> dict[str, FileInfo] | None:
        """The files of a published folder as its index has them; None if it is not there, or not whole."""
        opened = self._root.open(f"{_checked(key)}/{INDEX}")
        if opened is None:
            return None
        try:
            rows = json.loads(b"".join(opened.chunks))["files"]
            return {name: FileInfo(str(row["sha256"]), int(row["size"])) for name, row in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StorageError(
                f"{self.uri(key)}/{INDEX} is damaged: restore it from a backup, or publish again under another name."
            ) from None

    def fetch(self, key: str, files: Mapping[str, FileInfo], dest: Path, monitor: Monitor | None = None) -> Path:
        """Brings the named files of a published folder into `dest`, each verified by its SHA-256.

        What is there already and right stays; a file that had partly arrived is continued.

        Args:
            key: of the folder
            files: which ones, and what they must be; take it from the version's record
            dest: a local folder, made if need be
            monitor: told the bytes

        Returns:
            `dest`

        Raises:
            StorageError: also if a stored file is missing, truncated or altered; it is named, and does not arrive
        """
        _checked(key)
        with disk.explaining(dest):
            missing = {name: info for name, info in files.items() if not disk.holds(dest / _checked(name), info)}
            parts = sum(min(_size(_part_of(dest / name)), info.size) for name, info in missing.items())
        require_space(dest, sum(info.size for info in missing.values()) - parts, f"Fetching {self.uri(key)}")
        progress = _Progress(monitor, sum(info.size for info in files.values()), f"Fetching {key} (bytes)")
        progress.add(sum(info.size for name, info in files.items() if name not in missing))
        for name, info in missing.items():
            if not _arrived(self._root, f"{key}/{name}", dest / name, info, progress.add):
                raise _nothing(self.uri(f"{key}/{name}"))
        return dest

    def put(self, key: str, path: Path) -> FileInfo:
        """Stores one file under `key`; whoever reads sees what was there before, or all of this."""
        info = describe(path)
        self._root.put(_checked(key), path, info)
        return info

    def get(self, key: str, path: Path) -> bool:
        """Brings the object at `key` to `path`, replacing it at once; False if there is none."""
        return _arrived(self._root, _checked(key), path, None)

    def list(self, prefix: str = "") -> list[str]:
        """The keys of all objects in the folder `prefix` and below, sorted; nothing half published."""
        prefix = prefix.strip("/")
        names = set(self._root.list(_checked(prefix) if prefix else ""))
        # A mark beside an index was left by a kill after the folder had become whole.
        marked = {name.removesuffix(UNFINISHED) for name in names if f"/{name}".endswith(f"/{UNFINISHED}")}
        unfinished = tuple(folder for folder in marked if f"{folder}{INDEX}" not in names)
        seen = sorted(name for name in names if not hidden(name) and not name.startswith(unfinished))
        return [f"{prefix}/{name}" if prefix else name for name in seen]

    def delete(self, key: str) -> None:
        """Removes a single object; that there is none is no error."""
        self._root.delete(_checked(key))

    def check(self) -> None:
        """Writes, lists, reads and deletes a probe, so that what a run will need is known to work.

        Raises:
            ReadOnlyError: if nothing may be written, and what is there can be read
            StorageError: with what does not work
        """
        folder, data = f".check-{uuid.uuid4().hex}{UNFINISHED}", uuid.uuid4().bytes
        try:
            self._root.write(f"{folder}/probe", data)
        except AccessError as error:
            if (there := self.list()) and (opened := self._root.open(there[0])):
                next(opened.chunks, b"")
                raise ReadOnlyError(str(error)) from error
            raise
        try:
            listed = self._root.list(folder)
            opened = self._root.open(f"{folder}/probe")
            read = b"".join(opened.chunks) if opened else b""
            self._root.check_parts(f"{folder}/parts")
        finally:
            self._root.delete(f"{folder}/probe")
        if "probe" not in listed or read != data:
            raise StorageError(f"{self._root.uri('')} does not give back what is written to it: use another store.")


def fetch_uri(uri: str, dest: Path, secrets: Mapping[str, str]) -> Path:
    """A local path to any file or folder, such as somebody's weights.

    Args:
        uri: a local path, which is returned as it is, or `s3://bucket/key` of an object or a folder
        dest: the local folder that gets what comes from S3, under its own name
        secrets: see `s3.client`

    Returns:
        the file, or the folder

    Raises:
        InputError: if the address is not usable
        StorageError: if there is nothing there, or it cannot be read
    """
    if not uri.startswith("s3://"):
        path = Path(uri).expanduser()
        if not uri or not path.exists():
            raise _nothing(f"'{uri}'")
        return path
    bucket, key = s3.split_uri(uri.rstrip("/"))
    if not key:
        raise InputError(f"{uri} is a whole bucket: name a file or a folder in it.")
    parent, _, name = _checked(key).rpartition("/")
    root = S3Root(bucket, parent, secrets)
    if uri.endswith("/") or not _arrived(root, name, dest / name, None):
        _fetch_folder(root, name, dest / name)
    return dest / name


def _fetch_folder(root: S3Root, key: str, dest: Path) -> None:
    uri, sizes = root.uri(key), root.list(key)
    files = Artifacts(root).published(key)
    if files is not None:
        Artifacts(root).fetch(key, files, dest)
    elif UNFINISHED in sizes:
        raise StorageError(f"{uri} is only half published: publish it again, or wait until it is whole.")
    elif not sizes:
        raise _nothing(uri)
    else:
        require_space(dest, sum(sizes.values()), f"Fetching {uri}")
        for name in sizes:
            if not _arrived(root, f"{key}/{name}", dest / _checked(name), None):
                raise _nothing(root.uri(f"{key}/{name}"))


def _arrived(
    root: Root, key: str, path: Path, info: FileInfo | None, sent: Callable[[int], None] = lambda count: None
) -> bool:
    """Downloads an object to `path` at once; False if there is none.

    It is verified against `info`, else against the hash and size that the store knows.
    """
    part = _part_of(path)
    with disk.explaining(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only a hash known beforehand can tell that a part belongs to the object as it is now.
        begun = _size(part) if info else 0
    opened = root.open(key, begun)
    if opened is None:
        return False
    size, digest = (info.size, info.sha256) if info else (opened.size, opened.sha256)
    if opened.size == size:
        with disk.explaining(path):
            try:
                require_space(path.parent, size - opened.start, f"Fetching {root.uri(key)}")
                found = _download(opened, part, sent)
                if found == FileInfo(digest or found.sha256, size):
                    part.replace(path)
                    return True
                part.unlink()
            finally:
                if info is None:  # nobody will go on with it
                    part.unlink(missing_ok=True)
        if opened.start:  # then the part that was there may be what is wrong
            return _arrived(root, key, path, info, sent)
    raise StorageError(
        f"{root.uri(key)} is damaged: it is truncated or was changed after it was stored; restore it, or use another."
    )


def _download(opened: Opened, part: Path, sent: Callable[[int], None]) -> FileInfo:
    """Appends what is read to the first `opened.start` bytes of `part`; hash and size of it all."""
    digest = hashlib.sha256()
    with part.open("r+b" if opened.start else "wb") as file:
        file.truncate(opened.start)
        while chunk := file.read(disk.CHUNK) if opened.start else b"":
            digest.update(chunk)
        sent(opened.start)
        for chunk in opened.chunks:
            file.write(chunk)
            digest.update(chunk)
            sent(len(chunk))
        return FileInfo(digest.hexdigest(), file.tell())


class _Progress:
    """Counts bytes for a monitor, from several threads at once."""

    def __init__(self, monitor: Monitor | None, total: int, what: str) -> None:
        self._monitor, self._total, self._what = monitor or Monitor(), total, what
        self._done, self._lock = 0, threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._monitor.progress(min(self._done, self._total), self._total, self._what)  # a retry counts twice
            # A sign of life; a transfer itself is not stopped, it is soon over and can be continued.
            self._monitor.stopping()


def _checked(key: str) -> str:
    """The key itself, if it is a plain path below the root."""
    if hidden(key) or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InputError(f"'{key}' cannot be the name of something stored: use a plain path such as models/ptvr.")
    return key


def _describe_folder(folder: Path) -> dict[str, FileInfo]:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} to publish.")
    with disk.explaining(folder):
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not names:
        raise InputError(f"There is nothing to publish in {folder}: it has no files.")
    for name in names:
        if name == INDEX or hidden(name):
            raise InputError(f"'{name}' in {folder} cannot be published: the name is reserved; rename it.")
    return {name: describe(folder / name) for name in names}


def _nothing(where: str) -> StorageError:
    return StorageError(f"There is nothing at {where}: check the name.")


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
