"""The set of packages for workers, and the Dockerfile that installs it."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from shared import __version__

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OF_THE_IMAGE = {"fiftyone", "torch", "torchvision"}


def pins(lock: Path) -> dict[str, set[str]]:
    """The pinned versions of each package, all markers alike; not what a marker switches off."""
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^[A-Za-z0-9_.-]+==.*", lock.read_text(), re.MULTILINE):
        if "sys_platform == 'never'" not in line:
            name, _, rest = line.partition("==")
            found.setdefault(name, set()).add(rest.split(" ")[0])
    return found


def asked() -> set[str]:
    lines = "\n".join(path.read_text() for path in (ROOT / "plugins").glob("*/requirements.txt"))
    return set(re.findall(r"^([\w-]+)>=", lines, re.MULTILINE))


def test_the_set_has_what_the_plugins_ask_for_and_nothing_of_fiftyones_own() -> None:
    ours = pins(DEPLOY / "worker.lock")
    assert asked() - OF_THE_IMAGE <= ours.keys()
    assert not {name for name in ours if name.startswith(("fiftyone", "voxel51", "torch", "triton", "nvidia-c"))}
    assert not {"pytest", "moto", "ruff", "mypy", "starlette", "mongoengine"} & ours.keys()


def test_the_set_is_a_part_of_what_is_tested_here() -> None:
    tested = pins(ROOT / "requirements.lock")
    for name, versions in pins(DEPLOY / "worker.lock").items():
        assert versions <= tested[name], name


def test_the_dockerfile_brings_every_plugins_requirements() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for plugin in (ROOT / "plugins").glob("*/requirements.txt"):
        assert f"COPY plugins/{plugin.parent.name}/requirements.txt /opt/mbari/{plugin.parent.name}.txt" in text
    for path in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / part).is_file() for part in path.split())
    assert re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE) == [("${BASE_IMAGE}", "cpu"), ("cpu", "gpu")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("numpy>=99", "numpy is "),
        ("no-such-package>=1", "no-such-package is missing (the plugins ask for no-such-package>=1)"),
    ],
)
def test_an_image_that_lacks_something_is_not_built(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "made_up.txt").write_text(f"# ours\nnumpy>=1\n{line}\n")
    (tmp_path / "worker.lock").write_text("no-such-package==1\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert says in done.stderr


def check(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "check_image.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def test_packages_that_do_not_go_together_are_found(tmp_path: Path) -> None:
    (tmp_path / "made_up.txt").write_text("numpy>=1\n")
    (tmp_path / "worker.lock").write_text((DEPLOY / "worker.lock").read_text() + "made-up==1\n")
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr
    (installed := tmp_path / "site" / "made_up-1.dist-info").mkdir(parents=True)
    asks = "Requires-Dist: numpy<1\nRequires-Dist: numpy<1; extra == 'x'\n"
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up\nVersion: 1\n{asks}")
    done = check(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 1
    assert done.stderr.count("(made-up asks for numpy<1)") == 1


def test_the_image_is_labelled_with_the_release_and_gets_what_it_copies() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert f'LABEL org.mbari.suite="{__version__}"\n' in text
    let_in = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    for path in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all(any(fnmatchcase(part, pattern) for pattern in let_in) for part in path.split())
