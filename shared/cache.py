"""A bounded folder of downloaded files that any number of threads and processes may share.

It only ever saves time: whatever goes wrong with it (full disk, no write access, damaged entry,
somebody emptying the folder) is a miss, never an error.
"""

import hashlib
import os
import shutil
import tempfile
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

# An object that is overwritten in the store is seen anew after this long at the latest. Asking the
# store each time would cost as much as fetching so small a file.
MAX_AGE_SECONDS = 24 * 3600

# Never fill the disk for others: a training on the same worker needs it more.
KEEP_FREE_BYTES = 128 * 2**20

_SUFFIX = ".media"
_BLOCK = 4096
_CHECKSUM_BYTES = 4


class DiskCache:
    """Bytes by key on a local disk; when full, what was used longest ago goes first.

    Every process counts what it writes and, each sixteenth of the bound, brings the folder down to
    three quarters of it: so up to four processes that fill it at once stay within the bound.
    """

    def __init__(self, folder: Path, limit_bytes: int, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        """Uses `folder` (made at the first write) for at most `limit_bytes`.

        Files in it that are not the cache's own are left alone.
        """
        self._folder = folder
        self._limit = limit_bytes
        self._max_age = max_age_seconds
        self._lock = threading.Lock()
        # As if full: the first write looks at what earlier processes have left.
        self._since_trim = limit_bytes

    def get(self, key: str) -> bytes | None:
        """The bytes stored under `key`, or None."""
        path = self._path(key)
        try:
            stored = path.read_bytes()
            written = path.stat().st_mtime_ns
        except OSError:
            return None
        now = time.time_ns()
        data = stored[_CHECKSUM_BYTES:]
        # A power cut may leave an entry with a good name and wrong contents.
        if abs(now - written) > self._max_age * 1e9 or stored[:_CHECKSUM_BYTES] != _checksum(data):
            return None
        with suppress(OSError):
            # Set by hand, because disks are often mounted without access times.
            os.utime(path, ns=(now, written))
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keeps `data` under `key` if there is room; an entry appears whole or not at all."""
        size = _blocks(len(data) + _CHECKSUM_BYTES)
        if size > self._limit // 8:
            return
        with self._lock:
            self._since_trim += size
            due = self._since_trim > self._limit // 16
            if due:
                self._since_trim = size
        part = None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if due:
                self._trim()
            if shutil.disk_usage(self._folder).free < KEEP_FREE_BYTES + size:
                return
            handle, part = tempfile.mkstemp(dir=self._folder, suffix=_SUFFIX)
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(data) + data)
            Path(part).replace(self._path(key))
        except OSError:
            if part is not None:
                with suppress(OSError):
                    Path(part).unlink()

    def _trim(self) -> None:
        """Deletes what was used longest ago until three quarters of the bound are left.

        Parts that a killed process left behind age and go in the same way.
        """
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with suppress(OSError):
                        info = entry.stat(follow_symlinks=False)
                        found.append((info.st_atime_ns, _blocks(info.st_size), entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit * 3 // 4:
                return
            total -= size
            with suppress(OSError):
                Path(path).unlink()

    def _path(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest() + _SUFFIX)


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def _blocks(size: int) -> int:
    """The space that a file of `size` bytes takes on the disk; ROIs are often smaller than a block."""
    return -(-size // _BLOCK) * _BLOCK
