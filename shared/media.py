"""From a sample's file path to pixels: reading bytes wherever they are (decoding them: `images`).

The bytes of a medium come from a local file, from FiftyOne Enterprise's media cache where that
SDK runs, or from `s3://` through a bounded local cache. Whatever is wrong with one image is an
`ImageError` with the reason, so that a run can skip it, count it and go on.
"""

import errno
import os
import stat
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from . import s3
from .cache import DiskCache
from .enterprise import media_cache
from .errors import ImageError, InputError, StorageError
from .images import decode

__all__ = ["CACHE_BYTES", "MAX_BYTES", "Media", "decode", "map_threads", "read_workers"]

# No image that `decode` accepts is larger, however badly compressed: 64 Mi pixels of 8 bytes.
MAX_BYTES = 2**29

# On workers with 1 GiB of scratch disk a training set has to fit beside it.
CACHE_BYTES = 256 * 2**20

# Local disks that fail as a whole, not for one file (network mounts that went away, broken disks).
_DISK_FAILS = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE}

_BODY_ATTEMPTS = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


class Media:
    """Reads media by path or URI; safe to share between threads."""

    def __init__(
        self,
        secrets: Mapping[str, str] = MappingProxyType({}),
        cache_dir: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Nothing is opened or asked for yet.

        Args:
            secrets: AWS's names, as `s3.client` takes them.
            cache_dir: a folder for downloaded files; by default a private one in the system's
                temporary folder, which later runs of the same user find again.
            cache_bytes: bound of that folder; 0 keeps nothing.
        """
        self._secrets = secrets
        self._cache_dir = cache_dir
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._s3: tuple[Any, DiskCache | None] | None = None
        self._answering: set[str] = set()  # buckets that have given an object

    def read(self, uri: str) -> bytes:
        """The bytes of one medium.

        Args:
            uri: a local path or `s3://bucket/key`; with FiftyOne Enterprise whatever that reads.

        Raises:
            ImageError: if this file is missing, empty, may not be read, or is too large.
            StorageError: if the store as a whole cannot be reached or refuses.
        """
        if "://" not in uri:
            data = _read_file(uri, uri)
        elif fetch := media_cache.fetcher():
            data = _read_file(fetch(uri), uri)
        elif uri.startswith("s3://"):
            data = self._read_s3(uri)
        else:
            raise ImageError(
                f"'{uri}' cannot be read: open-source FiftyOne reads local files and s3:// here, FiftyOne "
                "Enterprise also other clouds."
            )
        if not data:
            raise ImageError(f"The file {uri} is empty.")
        return data

    def _read_s3(self, uri: str) -> bytes:
        try:
            bucket, key = s3.split_uri(uri)
        except InputError as error:
            raise ImageError(str(error)) from error
        if not key:
            raise ImageError(f"'{uri}' names a bucket but no file.")
        client, cache = self._open_s3()
        # The same address means another file at another endpoint, and maybe to other credentials.
        entry = "\n".join((client.meta.endpoint_url, self._secrets.get("AWS_ACCESS_KEY_ID") or "", uri))
        data = cache.get(entry) if cache else None
        if data is None:
            data = self._download(client, bucket, key, uri)
            if cache:
                cache.put(entry, data)
        return data

    def _open_s3(self) -> tuple[Any, DiskCache | None]:
        with self._lock:
            if self._s3 is None:
                folder = Path(self._cache_dir) if self._cache_dir else _private_folder()
                cache = DiskCache(folder, self._cache_bytes) if folder and self._cache_bytes else None
                self._s3 = s3.client(self._secrets), cache
            return self._s3

    def _download(self, client: Any, bucket: str, key: str, uri: str) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            data = _get_object(client, bucket, key, uri)
        except (BotoCoreError, ClientError) as error:
            if s3.is_missing(error):
                raise ImageError(f"There is no file at {uri}.") from error
            code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code")
            # S3 also answers so for a missing key, to those who may not list the bucket.
            if code in ("AccessDenied", "403") and bucket in self._answering:
                raise ImageError(f"There is no file at {uri}, or it may not be read.") from error
            raise s3.explain(error, uri) from error
        self._answering.add(bucket)
        return data


def _get_object(client: Any, bucket: str, key: str, uri: str) -> bytes:
    """One object, whole; boto3 repeats requests by itself, but not a body that breaks off."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    for attempt in range(_BODY_ATTEMPTS):
        answer = client.get_object(Bucket=bucket, Key=key)
        # Not `with answer["Body"]`: that gives the raw stream, whose errors are urllib3's.
        with closing(answer["Body"]) as body:
            _check_length(answer["ContentLength"], uri)
            try:
                return body.read()
            except (HTTPClientError, IncompleteReadError):
                if attempt == _BODY_ATTEMPTS - 1:
                    raise
    raise AssertionError("unreachable")


def _check_length(length: int, uri: str) -> None:
    if length > MAX_BYTES:
        raise ImageError(f"The file {uri} has {length:,} bytes; at most {MAX_BYTES:,} are read.")


def _read_file(path: str, uri: str) -> bytes:
    """A local file's bytes; messages name `uri`, which differs where `path` is in a cache."""
    try:
        info = Path(path).stat()
        # A pipe or a device would never end.
        if not stat.S_ISREG(info.st_mode):
            raise ImageError(f"{uri} is not a file.")
        _check_length(info.st_size, uri)
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"There is no file at {uri}.") from error
    except PermissionError as error:
        raise ImageError(f"Not allowed to read {uri}: change its permissions.") from error
    except OSError as error:
        if error.errno in _DISK_FAILS:
            raise StorageError(f"The disk of {uri} cannot be read ({error.strerror}): try again later.") from error
        raise ImageError(f"{uri} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ImageError("The path of the file has a character that no path can have.") from error


def _private_folder() -> Path | None:
    """A folder that only this user can write to, or None; others must not slip images in."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"mbari-media-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(info.st_mode) and info.st_uid == user and not info.st_mode & 0o022
    return folder if private else None


def read_workers(uri: str) -> int:
    """A good number of threads to read and decode media like `uri` with.

    Decoding local files keeps a core busy; remote ones are mostly waited for.
    """
    cores = os.cpu_count() or 1
    return max(16, cores) if "://" in uri else cores


def map_threads(fn: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Generator[Result]:
    """Applies `fn` to the items in threads and gives the results in their order.

    The items are taken by the consumer's thread, so they may come from a database cursor. When
    the consumer stops early (closes the iterator) no further item is begun, and the threads are
    gone before it goes on.

    Args:
        fn: called in several threads at once.
        items: taken only as far as needed, so it may be endless.
        workers: number of threads.
        ahead: bound on the results that are waiting or being made; at least `workers`.

    Raises:
        Exception: whatever `fn` raised, in its item's place; whatever `items` raised, at once.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="mbari-media")
    try:
        for item in items:
            waiting.append(pool.submit(fn, item))
            if len(waiting) >= max(ahead, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
