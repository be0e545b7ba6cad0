"""Local disks: hashes, scratch folders, space checked first, and one sentence for what goes wrong."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import AccessError, StorageError

CHUNK = 1 << 18  # bytes read at a time, so that memory does not grow with the file

_SCRATCH = "mbari-"
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class FileInfo:
    """What a file must be: its SHA-256 in hexadecimal digits, and its size in bytes."""

    sha256: str
    size: int


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        StorageError: if it cannot be read
    """
    with explaining(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> FileInfo:
    """Hash and size of a file.

    Raises:
        StorageError: if it cannot be read
    """
    with explaining(path):
        return FileInfo(sha256=sha256(path), size=path.stat().st_size)


def holds(path: Path, info: FileInfo) -> bool:
    """Whether `path` is a file with exactly this content."""
    return path.is_file() and path.stat().st_size == info.size and sha256(path) == info.sha256


def require_space(folder: Path, needed: int, what: str) -> None:
    """Makes sure that `folder` (which need not exist yet) has `needed` bytes free.

    Args:
        folder: where the bytes shall go
        needed: bytes
        what: what needs them, as the start of a sentence, such as "Training on 60,000 ROIs"

    Raises:
        StorageError: with both figures, if there is less
    """
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    if needed > free:
        have = f"{size_text(free)} are free" if free else "nothing is free"
        raise StorageError(
            f"{what} needs {size_text(needed)} of disk in {folder}, where {have}: free some space or use a larger disk."
        )


def size_text(size: float) -> str:
    """A number of bytes as a person reads it, such as "340 MiB" or "1.25 GiB"."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A private temporary folder under TMPDIR, removed at the end.

    Folders that a killed process left behind are removed first: on a worker with little scratch disk
    they would keep the repeated run from starting. A folder in use is known by its lock, which
    the system drops when the process ends in whatever way.

    Raises:
        StorageError: if no folder can be made there
    """
    parent = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    _remove_orphans(parent)
    with explaining(parent):
        folder, lock = _locked_folder(parent, f"{_SCRATCH}{prefix}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Another process may take it for an orphan before it is locked; then make another one.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a disk without locks: no cleaning up after the killed
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_SCRATCH}*"):
        # Not ours, in use (its lock is held), or gone by now: leave it alone.
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file, alone among processes and threads; the system drops the lock of the killed.

    On a disk that knows no locks, nothing is held.

    Raises:
        OSError: if the file cannot be made
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_still(path, lock):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(lock)


def _is_still(path: Path, lock: int) -> bool:
    """Whether the locked file is still the one at `path`; whoever held it before may have removed it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(lock))
    return False


@contextlib.contextmanager
def explaining(where: Path | str) -> Iterator[None]:
    """Makes every OSError raised inside a StorageError of one sentence about `where`, one of access an AccessError."""
    try:
        yield
    except OSError as error:
        kind = AccessError if error.errno in _REFUSED else StorageError
        raise kind(_sentence(error, where)) from error


def _sentence(error: OSError, where: Path | str) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"The disk is full, or limits the size of files, at {where}: free some space or use a larger disk."
        case refused if refused in _REFUSED:
            return f"Not allowed to use {where}: ask for access to it, or choose another folder."
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            return f"{where} cannot be used: on its path a file stands where a folder is needed, or the reverse."
        case errno.ENOENT:
            return f"There is nothing at {where}: check the name."
        case errno.ENAMETOOLONG:
            return f"{where} cannot be used: the name is too long for this disk."
        case _:
            return f"The disk failed at {where} ({error.strerror or type(error).__name__}): check it, then try again."
