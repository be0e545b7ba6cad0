"""The suite on the other versions of Python and FiftyOne that it allows, each in an environment below `build/compat`.

`make test` runs on one Python with the newest FiftyOne. Here the tests and the demo, with its delegated worker, run on
the oldest FiftyOne that `pyproject.toml` allows, and on Python 3.12. Its interpreter is `python3.12`, or what the
variable `PYTHON_3_12` names.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPAT = ROOT / "build" / "compat"
LOCK = "requirements.lock"
# Whether the zips load, with all their operators, in FiftyOne's process and worker; the demo then goes round the loop.
TESTS = ["tests/test_layout.py", "tests/test_zips.py"]
DEMO = ["--count", "400", "--epochs", "6"]
# With newer ones the server of the App of FiftyOne 1.12 does not start, though that FiftyOne allows them.
OLD_APP = ("starlette<1", "strawberry-graphql<0.292")
# FiftyOne's packages, whose versions tell one environment from another.
TOLD = ("fiftyone", "fiftyone-brain", "torch", "numpy", "pymongo")


class CompatError(Exception):
    """Nothing can be run; the message is one sentence."""


@dataclass(frozen=True)
class Combination:
    """One environment: a Python such as "3.12", and the "oldest" or "newest" FiftyOne."""

    python: str
    fiftyone: str

    @property
    def folder(self) -> Path:
        return COMPAT / f"python{self.python}-{self.fiftyone}"


COMBINATIONS = [Combination("3.11", "oldest"), Combination("3.12", "oldest"), Combination("3.12", "newest")]


def main() -> int:
    options = parse()
    chosen = [c for c in COMBINATIONS if options.python in (None, c.python) and options.fiftyone in (None, c.fiftyone)]
    outcomes, all_well = [], True
    try:
        interpreters = {each.python: interpreter(each.python) for each in chosen}
        for each in chosen:
            print(f"\n=== Python {each.python}, the {each.fiftyone} FiftyOne", flush=True)
            python = environment(each, interpreters[each.python])
            (tested, tests_well), (shown, demo_well) = tests(each, python, options.tests), demo(each, python)
            outcomes.append({**versions(python), "tests": tested, "demo": shown})
            all_well &= tests_well and demo_well
    except CompatError as error:
        print(f"compat failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(outcomes)}")
    return int(not all_well)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", choices=sorted({each.python for each in COMBINATIONS}), help="this one only")
    parser.add_argument("--fiftyone", choices=("oldest", "newest"), help="this one only")
    parser.add_argument("tests", nargs="*", default=TESTS, help="arguments for pytest; options after a --")
    return parser.parse_args()


def interpreter(version: str) -> str:
    """The interpreter of a version of Python.

    Raises:
        CompatError: when there is none, or another version answers to its name
    """
    variable = f"PYTHON_{version.replace('.', '_')}"
    name = os.environ.get(variable) or f"python{version}"
    ask = [name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        # Not only whether it is there: what stands in the PATH may be a shim without a Python behind it.
        said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        said = None
    if said != version:
        why = f"is Python {said}" if said else "does not run"
        raise CompatError(f"'{name}' {why}; install Python {version}, or name it with make compat {variable}=...")
    return name


def oldest() -> str:
    """The oldest FiftyOne that the project allows, such as "1.12"."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(found[1] for line in asked if (found := re.fullmatch(r"fiftyone>=([\d.]+)", line)))


def environment(combination: Combination, python: str) -> Path:
    """Makes or renews an environment with `scripts/setup.sh`; returns its interpreter.

    That of the oldest FiftyOne holds what `requirements.lock` holds, but for what that FiftyOne asks for otherwise.

    Raises:
        CompatError: when the environment cannot be made; why is printed
    """
    lock, told = LOCK, os.environ | {"PYTHON": python}
    if combination.fiftyone == "oldest":
        lock = f"build/compat/fiftyone-{oldest()}.lock"
        COMPAT.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / LOCK, ROOT / lock)
        asked = ["--group", "dev", "--universal", "--generate-hashes", "--no-header", "--quiet", "--output-file", lock]
        other = [word for name in (f"fiftyone=={oldest()}", *OLD_APP) for word in ("--upgrade-package", name)]
        setup(told, "uv", "pip", "compile", "pyproject.toml", *asked, *other)
    setup(told, str(combination.folder.relative_to(ROOT)), lock)
    return combination.folder / "bin" / "python"


def setup(told: dict[str, str], *words: str) -> None:
    if subprocess.run(["sh", "scripts/setup.sh", *words], cwd=ROOT, env=told).returncode:
        raise CompatError("an environment could not be made; look above")


def versions(python: Path) -> dict[str, str]:
    """What an environment holds: of Python and of the packages in `TOLD`."""
    ask = "import json, platform, sys; from importlib.metadata import version as of; "
    ask += "print(json.dumps({'python': platform.python_version(), **{n: of(n) for n in sys.argv[1:]}}))"
    return json.loads(subprocess.run([python, "-c", ask, *TOLD], check=True, capture_output=True).stdout)


def tests(combination: Combination, python: Path, chosen: list[str]) -> tuple[str, bool]:
    """Runs the tests; returns what became of them, in words, and whether all is well."""
    result = combination.folder / "tests.xml"
    result.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "--numprocesses", "logical", "--maxprocesses", "4", "--dist", "loadfile"]
    done = subprocess.run([*command, f"--junitxml={result}", *chosen], cwd=ROOT, env=surroundings(combination))
    if not result.is_file():
        return "did not start", False
    counts = xml.parse(result).getroot()[0].attrib
    failed, skipped = int(counts["failures"]) + int(counts["errors"]), int(counts["skipped"])
    named = {"passed": int(counts["tests"]) - failed - skipped, "failed": failed, "skipped": skipped}
    return ", ".join(f"{n} {name}" for name, n in named.items() if n), done.returncode == 0


def demo(combination: Combination, python: Path) -> tuple[str, bool]:
    """Runs the demo at a small size; returns what became of it, in words, and whether all is well."""
    log, own = combination.folder / "demo.log", surroundings(combination)
    print(f"The demo, which writes to {os.path.relpath(log)}", flush=True)
    with log.open("w") as output:
        done = subprocess.run(
            [python, "scripts/demo.py", *DEMO], cwd=ROOT, env=own, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        print("".join(f"    {line}\n" for line in log.read_text().splitlines()[-15:]), file=sys.stderr)
        return "failed", False
    report = json.loads(Path(own["MBARI_BUILD"], "demo", "report.json").read_text())
    return f"{report['seconds']['total']:.0f} s, top-1 {report['top1']:.2f}", True


def surroundings(combination: Combination) -> dict[str, str]:
    """The environment variables of a run: nothing of the user's FiftyOne, label store or artifacts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIFTYONE_", "MBARI_"))}
    return kept | {"MBARI_BUILD": str(combination.folder / "build")}


def table(outcomes: list[dict[str, str]]) -> str:
    """The outcomes as a Markdown table."""
    lines = [list(outcomes[0]), ["---"] * len(outcomes[0]), *(list(outcome.values()) for outcome in outcomes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
