"""Hashes, space and scratch folders, on real disks and with real processes."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared import disk
from shared.errors import StorageError

ROOT = Path(__file__).resolve().parents[2]


def test_sha256_and_describe(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(1_000_001))
    assert disk.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert disk.describe(path) == disk.FileInfo(disk.sha256(path), 1_000_001)
    assert disk.holds(path, disk.describe(path))
    assert not disk.holds(path, disk.FileInfo("0" * 64, 1_000_001))
    assert not disk.holds(tmp_path, disk.FileInfo("0" * 64, 0))
    with pytest.raises(StorageError, match="There is nothing at"):
        disk.sha256(tmp_path / "none")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (350 << 20, "350 MiB"), (5 << 28, "1.25 GiB"), (1 << 60, "1.05e+06 TiB")],
)
def test_sizes_as_a_person_reads_them(size, text):
    assert disk.size_text(size) == text


def test_space_is_checked_with_both_figures(tmp_path):
    disk.require_space(tmp_path / "not" / "made" / "yet", 1000, "Training")
    with pytest.raises(StorageError) as caught:
        disk.require_space(tmp_path / "not" / "made", 1 << 60, "Training on 60,000 ROIs")
    said = str(caught.value)
    assert said.startswith(
        f"Training on 60,000 ROIs needs {disk.size_text(1 << 60)} of disk in {tmp_path}/not/made, where "
    )
    free = os.statvfs(tmp_path)
    unit = disk.size_text(free.f_bavail * free.f_frsize).split()[1]
    assert f"{unit} are free" in said
    assert not (tmp_path / "not").exists()


def test_scratch_honours_tmpdir_and_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with disk.scratch("train-") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("mbari-train-")
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "a").mkdir()
        (folder / "a" / "b").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), disk.scratch("train-"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_scratch_on_no_disk(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place, said in [("none", "There is nothing at"), ("file", "a file stands where a folder is needed")]:
        monkeypatch.setenv("TMPDIR", str(tmp_path / place))
        with pytest.raises(StorageError, match=said), disk.scratch("train-"):
            pass


def test_scratch_of_the_killed_is_removed_and_of_the_living_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = """
import sys
from shared.disk import scratch
with scratch("train-") as folder:
    (folder / "images").mkdir()
    (folder / "images" / "a").write_bytes(b"1" * 1000)
    print(folder.name, flush=True)
    sys.stdin.read()
"""
    start = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT, "text": True}
    with (
        subprocess.Popen([sys.executable, "-c", code], **start) as killed,
        subprocess.Popen([sys.executable, "-c", code], **start) as living,
    ):
        dead, alive = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (tmp_path / "mbari-notes.txt").touch()
        (tmp_path / "mbari-link").symlink_to(ROOT)
        assert (tmp_path / dead / "images" / "a").exists()
        with disk.scratch("apply-") as ours:
            assert {path.name for path in tmp_path.iterdir()} == {alive, ours.name, "mbari-notes.txt", "mbari-link"}
            assert (tmp_path / alive / "images" / "a").exists()
        living.stdin.close()
        assert living.wait() == 0
    assert (ROOT / "shared").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"mbari-notes.txt", "mbari-link"}
