"""`make compat` says plainly which Python it needs, and asks for the oldest FiftyOne that every plugin allows."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import compat

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "compat.py"), *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """What stands in the PATH under the name of a Python that is not there."""
    path = tmp_path / "python3.12"
    path.write_text("#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
    path.chmod(0o755)
    return path


def test_a_python_that_is_not_there(shim: Path) -> None:
    for name in (str(shim), "/nowhere/python3.12"):
        done = run("--python", "3.12", PYTHON_3_12=name)
        assert done.returncode == 1
        assert done.stdout == ""
        said = f"'{name}' does not run; install Python 3.12, or name it with make compat PYTHON_3_12=..."
        assert done.stderr == f"compat failed: {said}\n"


def test_a_python_of_another_version(tmp_path: Path) -> None:
    other = tmp_path / "python3.12"
    other.write_text("#!/bin/sh\necho 3.9\n")
    other.chmod(0o755)
    assert "is Python 3.9; install Python 3.12" in run("--python", "3.12", PYTHON_3_12=str(other)).stderr


def test_a_python_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setenv(f"PYTHON_{running.replace('.', '_')}", sys.executable)
    assert compat.interpreter(running) == sys.executable


def test_the_oldest_fiftyone_is_the_one_that_the_project_asks_for() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"fiftyone>={compat.oldest()}" in dependencies


def test_a_run_sees_nothing_of_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://lab")
    monkeypatch.setenv("MBARI_LABEL_STORE", "mongodb://lab/rois")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    seen = compat.surroundings(compat.Combination("3.12", "oldest"))
    assert "FIFTYONE_DATABASE_URI" not in seen
    assert "MBARI_LABEL_STORE" not in seen
    assert seen["HTTPS_PROXY"] == "http://proxy"
    assert seen["MBARI_BUILD"] == str(ROOT / "build" / "compat" / "python3.12-oldest" / "build")


def test_the_outcomes_are_a_table() -> None:
    assert compat.table([{"python": "3.12.1", "tests": "9 passed"}, {"python": "3.11.7", "tests": "8 passed"}]) == (
        "| python | tests |\n| --- | --- |\n| 3.12.1 | 9 passed |\n| 3.11.7 | 8 passed |\n"
    )
