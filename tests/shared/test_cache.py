"""The folder of downloaded files: bounded, whole entries only, and never in anybody's way."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared import cache as module
from shared.cache import DiskCache

KIB = 1024


def used(folder: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.iterdir())


def content(number: int, size: int = 20 * KIB) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def test_what_was_put_is_got_by_every_later_cache(tmp_path):
    folder = tmp_path / "not" / "there yet"
    cache = DiskCache(folder, 1024 * KIB)
    assert cache.get("a") is None
    cache.put("a", b"first")
    cache.put("b", b"")
    cache.put("a", b"second")
    for one in (cache, DiskCache(folder, 1024 * KIB)):
        assert one.get("a") == b"second"
        assert one.get("b") == b""
        assert one.get("c") is None
    assert folder.stat().st_mode & 0o077 == 0


def test_any_key_is_a_key(tmp_path):
    cache = DiskCache(tmp_path, 1024 * KIB)
    keys = ["../../etc/passwd", "s3://b/" + "x" * 4000, "é/\udcff", "a\nb", ""]
    for number, key in enumerate(keys):
        cache.put(key, content(number))
    assert [cache.get(key) for key in keys] == [content(number) for number in range(len(keys))]
    assert {file.parent for file in tmp_path.iterdir()} == {tmp_path}


def test_it_stays_within_its_bound_and_keeps_what_is_used(tmp_path):
    cache = DiskCache(tmp_path, 1024 * KIB)
    for number in range(300):
        cache.put(str(number), content(number))
        assert cache.get("0") == content(0)
        assert used(tmp_path) <= 1024 * KIB
    assert used(tmp_path) > 512 * KIB
    assert cache.get("299") == content(299)
    assert cache.get("150") is None


def test_the_bound_counts_what_earlier_processes_left(tmp_path):
    earlier = DiskCache(tmp_path, 4096 * KIB)
    for number in range(100):
        earlier.put(str(number), content(number))
    DiskCache(tmp_path, 512 * KIB).put("new", content(1))
    assert used(tmp_path) <= 512 * KIB


def test_small_entries_are_counted_by_the_space_they_take(tmp_path):
    cache = DiskCache(tmp_path, 256 * KIB)
    for number in range(200):
        cache.put(str(number), b"x")
    assert used(tmp_path) <= 256 * KIB


def test_one_large_file_does_not_empty_the_cache(tmp_path):
    cache = DiskCache(tmp_path, 1024 * KIB)
    cache.put("small", b"x")
    cache.put("large", bytes(900 * KIB))
    assert cache.get("large") is None
    assert cache.get("small") == b"x"


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_bytes(bytes(900 * KIB))
    cache = DiskCache(tmp_path, 256 * KIB)
    for number in range(50):
        cache.put(str(number), content(number))
    assert (tmp_path / "thesis.tex").exists()


def test_what_is_old_is_not_trusted(tmp_path):
    cache = DiskCache(tmp_path, 1024 * KIB)
    cache.put("a", b"old")
    (file,) = tmp_path.iterdir()
    yesterday = file.stat().st_mtime - module.MAX_AGE_SECONDS - 60
    os.utime(file, (yesterday, yesterday))
    assert cache.get("a") is None
    cache.put("a", b"new")
    assert cache.get("a") == b"new"


def test_reading_does_not_make_an_entry_younger(tmp_path):
    cache = DiskCache(tmp_path, 1024 * KIB)
    cache.put("a", b"x")
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime - 1000
    os.utime(file, (written - 5000, written))
    assert cache.get("a") == b"x"
    assert file.stat().st_mtime == pytest.approx(written, abs=1)
    assert file.stat().st_atime > written


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: bytes(len(data))])
def test_a_damaged_entry_is_a_miss(tmp_path, damage):
    cache = DiskCache(tmp_path, 1024 * KIB)
    cache.put("a", content(7))
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("a") is None
    cache.put("a", content(8))
    assert cache.get("a") == content(8)


def test_a_folder_that_cannot_be_made_or_vanishes_is_a_miss(tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    cache = DiskCache(tmp_path / "file" / "cache", 1024 * KIB)
    cache.put("a", b"x")
    assert cache.get("a") is None
    vanishing = DiskCache(tmp_path / "cache", 1024 * KIB)
    vanishing.put("a", b"x")
    shutil.rmtree(tmp_path / "cache")
    assert vanishing.get("a") is None
    vanishing.put("a", b"y")
    assert vanishing.get("a") == b"y"


def test_it_keeps_away_from_a_nearly_full_disk(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path, 1024 * KIB)
    monkeypatch.setattr(module, "KEEP_FREE_BYTES", shutil.disk_usage(tmp_path).free * 2)
    cache.put("a", b"x")
    assert cache.get("a") is None
    assert list(tmp_path.iterdir()) == []


_LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from shared.cache import DiskCache
cache = DiskCache(Path(sys.argv[2]), 8 << 20)
cache.put("before", b"kept")
# The kernel refuses to write more than this to any file, as a full disk would.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
cache.put("large", bytes(500_000))
assert cache.get("large") is None
assert cache.get("before") == b"kept"
"""


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path):
    root = Path(module.__file__).parent.parent
    subprocess.run([sys.executable, "-c", _LIMITED, str(root), str(tmp_path)], check=True, timeout=60)
    assert len(list(tmp_path.iterdir())) == 1


def _use(folder: str, first: int) -> None:
    cache = DiskCache(Path(folder), 2048 * KIB)
    wrong = []

    def work(offset: int) -> None:
        for turn in range(150):
            number = (first + offset + turn * 7) % 200
            got = cache.get(str(number))
            if got is None:
                cache.put(str(number), content(number))
            elif got != content(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(31 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(bool(wrong))


def test_threads_and_processes_share_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_use, args=(str(tmp_path), 50 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert 0 < used(tmp_path) <= 2048 * KIB
    cache = DiskCache(tmp_path, 2048 * KIB)
    assert any(cache.get(str(number)) == content(number) for number in range(200))
