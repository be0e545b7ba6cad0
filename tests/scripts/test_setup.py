"""A set-up that cannot work says in one line what failed and what to do, and leaves nothing that looks finished."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What set-up needs of a checkout, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "scripts/setup.sh", "scripts/uv.txt"):
        shutil.copy(ROOT / name, folder / name)
    # Stands in for the build, which needs the environment.
    (folder / "scripts" / "build_zips.py").write_text("print('built')\n")
    return folder


def make(tree: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "zips", *words], cwd=tree, env=inherited | environment, capture_output=True, text=True, timeout=120
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("set-up failed: ")]
    assert len(lines) == 1, done.stderr
    assert done.returncode != 0
    assert "built" not in done.stdout
    return lines[0].removeprefix("set-up failed: ")


def test_a_python_that_is_too_old(tree: Path) -> None:
    old = tree / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    message = said(make(tree, PYTHON=str(old)))
    assert message == "Python 3.8.1 is too old; install Python 3.11 or newer, or name one with make PYTHON=..."
    assert not (tree / ".venv" / ".set-up").exists()


def test_no_python_at_all(tree: Path) -> None:
    assert "there is no 'python-nowhere'; install Python 3.11" in said(make(tree, "PYTHON=python-nowhere"))


def test_no_network(tree: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    done = make(tree, f"PYTHON={sys.executable}", PIP_INDEX_URL=nowhere, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull)
    assert "pip could not install uv; look above: is there a network" in said(done)
    assert not (tree / ".venv" / ".set-up").exists()


@pytest.fixture
def uv(tree: Path) -> Path:
    """A tree whose uv is there already; it is a stand-in that a test gives its behaviour."""
    folder = tree / "build" / "uv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    return folder / "uv"


def write_uv(path: Path, on_sync: str) -> None:
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{on_sync}\n')
    path.chmod(0o755)


def test_a_package_that_differs_from_the_lock(tree: Path, uv: Path) -> None:
    write_uv(uv, 'echo "Hash mismatch for timm==1.0.19" >&2; exit 1')
    done = make(tree, f"PYTHON={sys.executable}")
    assert said(done).startswith("a downloaded package differs from requirements.lock")
    assert "Hash mismatch for timm==1.0.19" in done.stderr
    assert not (tree / ".venv" / ".set-up").exists()


def test_a_failed_set_up_takes_an_older_stamp_along(tree: Path, uv: Path) -> None:
    stamp = tree / ".venv" / ".set-up"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))  # older than the lock
    write_uv(uv, "echo unreachable >&2; exit 2")
    assert said(make(tree, f"PYTHON={sys.executable}")).startswith("uv could not install requirements.lock")
    assert not stamp.exists()


def test_pips_index_is_handed_to_uv_unless_uv_has_its_own(tree: Path, uv: Path) -> None:
    write_uv(uv, f'echo "$UV_DEFAULT_INDEX" > "{tree}/index"; exit 1')
    make(tree, f"PYTHON={sys.executable}", PIP_INDEX_URL="http://pip.example/simple")
    assert (tree / "index").read_text() == "http://pip.example/simple\n"
    mine = {"PIP_INDEX_URL": "http://pip.example/simple", "UV_DEFAULT_INDEX": "http://uv.example/simple"}
    make(tree, f"PYTHON={sys.executable}", **mine)
    assert (tree / "index").read_text() == "http://uv.example/simple\n"


def test_nothing_is_set_up_again_when_nothing_changed(tree: Path) -> None:
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tree / ".venv" / ".set-up").touch()
    done = make(tree, "PYTHON=python-nowhere")  # would fail if it were asked
    assert done.returncode == 0, done.stderr
    assert done.stdout == "built\n"
