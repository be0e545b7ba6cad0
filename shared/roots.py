"""The two kinds of artifact root, a local folder and an S3 prefix, with the same few methods.

Both know keys (posix paths relative to the root) and bytes; what is the same for both is in
`artifacts.py`.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from . import s3
from .disk import CHUNK, FileInfo, explaining, holds, locked, require_space

INDEX = "files.json"  # of a published folder; whoever finds it knows that the folder is whole
UNFINISHED = ".incoming"  # an S3 folder that holds this and no index is half published

_PART = 16 << 20  # bytes of one part of a big upload
_LEFTOVER_AFTER = 24 * 3600.0  # seconds after which another process's half-written file counts as forgotten


class Taken(Exception):
    """Something else is already where a folder shall be published."""


class Opened(NamedTuple):
    """A stored object being read: bytes from `start` on of `size`; its hash where it is known."""

    start: int
    size: int
    sha256: str | None
    chunks: Iterator[bytes]


class Root(Protocol):
    """What a kind of root can do; every failure is a StorageError of one sentence."""

    def uri(self, key: str) -> str:
        """The full address of a key."""

    def open(self, key: str, start: int = 0) -> Opened | None:
        """Begins to read an object at byte `start` (at 0 if it is shorter); None if there is none."""

    def list(self, folder: str) -> dict[str, int]:
        """Sizes of all objects below a folder ("" for the root), by their path inside it."""

    def put(self, key: str, path: Path, info: FileInfo) -> None:
        """Stores a file, replacing at once what was there."""

    def write(self, key: str, data: bytes) -> None:
        """Stores a few bytes, replacing at once what was there."""

    def delete(self, key: str) -> None:
        """Removes an object; that there is none is no error."""

    def check_parts(self, key: str) -> None:
        """Tries to begin and to give up an upload in parts, which big files need; nothing stays."""

    def publish(self, folder: Path, key: str, files: Mapping[str, FileInfo], sent: Callable[[int], None]) -> None:
        """Stores a folder and then its index; goes on with what an earlier, killed attempt stored.

        Raises:
            Taken: if something is at `key` already that no unfinished publication left
        """


def hidden(name: str) -> bool:
    """Whether a name is of something still being written."""
    return any(part.startswith(".") and part.endswith(UNFINISHED) for part in name.split("/"))


def index_bytes(files: Mapping[str, FileInfo]) -> bytes:
    """The index of a published folder: JSON, the same bytes for the same files."""
    rows = {name: {"sha256": info.sha256, "size": info.size} for name, info in sorted(files.items())}
    return json.dumps({"files": rows}, indent=1, ensure_ascii=False).encode()


class LocalRoot:
    """A folder, which may be shared over the network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def uri(self, key: str) -> str:
        """See `Root`."""
        return str(self.folder / key)

    def open(self, key: str, start: int = 0) -> Opened | None:
        """See `Root`."""
        path = self.folder / key
        with explaining(path):
            if not path.is_file():
                return None
            file = path.open("rb")
            size = os.fstat(file.fileno()).st_size
        start = start if start <= size else 0
        return Opened(start, size, None, self._chunks(file, path, start))

    @staticmethod
    def _chunks(file: Any, path: Path, start: int) -> Iterator[bytes]:
        with file, explaining(path):
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk

    def list(self, folder: str) -> dict[str, int]:
        """See `Root`."""
        top, sizes = self.folder / folder, {}
        with explaining(top):
            for place, folders, names in os.walk(top, onerror=_unless_missing):
                folders[:] = [name for name in folders if not hidden(name)]
                for path in (Path(place, name) for name in names if not hidden(name)):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        sizes[path.relative_to(top).as_posix()] = path.stat().st_size
        return sizes

    def put(self, key: str, path: Path, info: FileInfo) -> None:
        """See `Root`."""
        with self._replacing(key) as incoming:
            _copy(path, incoming)

    def write(self, key: str, data: bytes) -> None:
        """See `Root`."""
        with self._replacing(key) as incoming:
            incoming.write_bytes(data)

    @contextlib.contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        """A file to write, which takes the place of `key` once it is whole and on the disk."""
        target = self.folder / key
        incoming = target.with_name(f".{_digest(target.name)}-{uuid.uuid4().hex[:8]}{UNFINISHED}")
        with explaining(target):
            _touch(incoming)
            try:
                yield incoming
                _sync(incoming)
                incoming.replace(target)
                _sync(target.parent)
            finally:
                incoming.unlink(missing_ok=True)
            for leftover in target.parent.glob(f".{_digest(target.name)}-*{UNFINISHED}"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - leftover.stat().st_mtime > _LEFTOVER_AFTER:
                        leftover.unlink()

    def delete(self, key: str) -> None:
        """See `Root`; folders that become empty go as well, as in S3 there are none."""
        target = self.folder / key
        with explaining(target):
            if target.is_file():
                target.unlink(missing_ok=True)
        for folder in itertools.takewhile(lambda parent: parent != self.folder, target.parents):
            try:
                folder.rmdir()
            except OSError:
                return  # not empty

    def check_parts(self, key: str) -> None:
        """See `Root`: files are stored in one piece here."""

    def publish(self, folder: Path, key: str, files: Mapping[str, FileInfo], sent: Callable[[int], None]) -> None:
        """See `Root`: copied into a hidden sibling, which is renamed when it is whole and on the disk."""
        target = self.folder / key
        with explaining(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Two processes in one staging folder would write into what the quicker one publishes.
            with locked(target.with_name(f".{_digest(target.name)}{UNFINISHED}")):
                if target.is_file() or (target.is_dir() and any(target.iterdir())):
                    raise Taken
                self._stage(folder, target, files, sent).rename(target)
                _sync(target.parent)
                for leftover in target.parent.glob(f".{_digest(target.name)}-*{UNFINISHED}"):
                    shutil.rmtree(leftover, ignore_errors=True)

    @staticmethod
    def _stage(folder: Path, target: Path, files: Mapping[str, FileInfo], sent: Callable[[int], None]) -> Path:
        index = index_bytes(files)
        # Named by key and content: only a publication of the very same folder goes on with it.
        staging = target.with_name(f".{_digest(target.name)}-{_digest(index)}{UNFINISHED}")
        staging.mkdir(exist_ok=True)
        missing = {name: info for name, info in files.items() if not holds(staging / name, info)}
        sent(sum(info.size for name, info in files.items() if name not in missing))
        require_space(staging, sum(info.size for info in missing.values()), f"Publishing {target.name}")
        for name in missing:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(folder / name, staging / name, sent)
        (staging / INDEX).write_bytes(index)
        for place, _, names in os.walk(staging):
            for path in (Path(place), *(Path(place, name) for name in names)):
                _sync(path)
        return staging


class S3Root:
    """A bucket, or a prefix in it."""

    def __init__(self, bucket: str, prefix: str, secrets: Mapping[str, str]) -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.client = s3.client(secrets)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": "/".join(part for part in (self.prefix, key) if part)}

    def uri(self, key: str) -> str:
        """See `Root`."""
        return f"s3://{self.bucket}/{self._at(key)['Key']}"

    def open(self, key: str, start: int = 0) -> Opened | None:
        """See `Root`; a transfer that breaks off goes on where it was."""
        answer = self._get(key, Range=f"bytes={start}-") if start else self._get(key)
        if answer is None and start:  # shorter than that, or missing
            return self.open(key)
        if answer is None:
            return None
        size = start + answer["ContentLength"]
        return Opened(start, size, answer["Metadata"].get("sha256"), self._chunks(key, answer, start))

    def _get(self, key: str, **how: str) -> Any:
        from botocore.exceptions import ClientError

        with s3.explaining(self.uri(key)):
            try:
                return self.client.get_object(**self._at(key), **how)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if s3.is_missing(error) or code in ("InvalidRange", "416"):
                    return None
                # What S3 also says of a missing object, to those who may list a prefix only.
                if code == "AccessDenied" and not self._is_listed(key):
                    return None
                raise

    def _is_listed(self, key: str) -> bool:
        at = self._at(key)
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=at["Key"], MaxKeys=1).get("Contents", [])
        return any(entry["Key"] == at["Key"] for entry in found)

    def _chunks(self, key: str, answer: Any, at: int) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        failed = 0
        while True:
            body = answer["Body"]
            try:
                for chunk in body.iter_chunks(CHUNK):
                    at, failed = at + len(chunk), 0
                    yield chunk
                return
            except BotoCoreError as error:
                failed += 1
                if failed == s3.ATTEMPTS:
                    raise s3.explain(error, self.uri(key)) from error
            finally:
                body.close()
            # Of the same object: never the start of one and the end of another.
            with s3.explaining(self.uri(key)):
                answer = self.client.get_object(**self._at(key), Range=f"bytes={at}-", IfMatch=answer["ETag"])

    def list(self, folder: str) -> dict[str, int]:
        """See `Root`."""
        top = f"{self._at(folder)['Key']}/".lstrip("/")
        sizes = {}
        with s3.explaining(self.uri(folder)):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=top):
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):  # consoles mark empty folders with such objects
                        sizes[entry["Key"].removeprefix(top)] = entry["Size"]
        return sizes

    def put(self, key: str, path: Path, info: FileInfo, sent: Callable[[int], None] = lambda count: None) -> None:
        """See `Root`; big files go in parts, of which S3 shows nothing before the last."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(
            multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4, preferred_transfer_client="classic"
        )
        extra = {"Metadata": {"sha256": info.sha256}}
        # In this order, because some of botocore's errors are OSErrors too.
        with explaining(path), s3.explaining(self.uri(key)):
            self.client.upload_file(str(path), **self._at(key), ExtraArgs=extra, Callback=sent, Config=config)

    def write(self, key: str, data: bytes) -> None:
        """See `Root`."""
        with s3.explaining(self.uri(key)):
            self.client.put_object(**self._at(key), Body=data, Metadata={"sha256": hashlib.sha256(data).hexdigest()})

    def delete(self, key: str) -> None:
        """See `Root`."""
        with s3.explaining(self.uri(key)):
            self.client.delete_object(**self._at(key))

    def check_parts(self, key: str) -> None:
        """See `Root`."""
        with s3.explaining(self.uri(key)):
            begun = self.client.create_multipart_upload(**self._at(key))
            self.client.abort_multipart_upload(**self._at(key), UploadId=begun["UploadId"])

    def publish(self, folder: Path, key: str, files: Mapping[str, FileInfo], sent: Callable[[int], None]) -> None:
        """See `Root`: uploaded under a mark that it is unfinished; the index makes it whole.

        Parts of a big file whose upload was killed stay invisible in the bucket; a lifecycle rule of
        the bucket (AbortIncompleteMultipartUpload) clears them.
        """
        there = self.list(key)
        if there and (UNFINISHED not in there or INDEX in there):
            raise Taken
        self.write(f"{key}/{UNFINISHED}", b"")
        for name, info in files.items():
            if there.get(name) == info.size and self._hash(f"{key}/{name}") == info.sha256:
                sent(info.size)
            else:
                self.put(f"{key}/{name}", folder / name, info, sent)
        for name in there.keys() - files.keys() - {UNFINISHED}:
            self.delete(f"{key}/{name}")
        self.write(f"{key}/{INDEX}", index_bytes(files))
        self.delete(f"{key}/{UNFINISHED}")

    def _hash(self, key: str) -> str | None:
        with s3.explaining(self.uri(key)):
            return self.client.head_object(**self._at(key))["Metadata"].get("sha256")


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _digest(name: str | bytes) -> str:
    return hashlib.sha256(name.encode() if isinstance(name, str) else name).hexdigest()[:12]


def _touch(path: Path) -> None:
    for _ in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder may have become empty, and so have been removed, by another process just now.
        with contextlib.suppress(FileNotFoundError):
            path.touch()
            return


def _copy(source: Path, target: Path, sent: Callable[[int], None] = lambda count: None) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            sent(len(chunk))


def _sync(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
