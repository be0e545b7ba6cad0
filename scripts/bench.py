"""Runs the benchmarks of `tests/benchmarks/`, all or those named, and holds their ratios to the goals.

A benchmark is a module with `run()`, which returns one or several dicts with `name`, `ours`, `peer`, `ratio`, `unit`
and `goal`; further keys are details. A goal is a string such as ">= 5" or "<= 0.5" and speaks of the ratio where
there is a peer, else of `ours`.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import surroundings

BENCHMARKS = surroundings.ROOT / "tests" / "benchmarks"
RESULTS = surroundings.BUILD / "bench"


def main() -> int:
    there = sorted(path.stem for path in BENCHMARKS.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(there)}; all by default")
    names = parser.parse_args().names or there
    if unknown := [name for name in names if name not in there]:
        print(f"There is no benchmark {', '.join(unknown)}; there are {', '.join(there)}.", file=sys.stderr)
        return 2

    surroundings.prepare(RESULTS / "home")
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(surroundings.ROOT / "plugins")
    surroundings.own_database()
    sys.path.insert(0, str(surroundings.ROOT))
    results = []
    for name in names:
        print(f"== {name}", flush=True)
        for result in run(name):
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{result['name']}.json").write_text(json.dumps(result, indent=1) + "\n")
            results.append(result)
    print_table(results)
    return 0 if all(met(result) for result in results) else 1


def run(name: str) -> list[dict[str, Any]]:
    """The results of one benchmark module, each with the machine it ran on."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = module.run()
    return [{**result, "machine": machine()} for result in (results if isinstance(results, list) else [results])]


def met(result: dict[str, Any]) -> bool:
    """Whether a result reaches its goal."""
    relation, bound = result["goal"].split()
    figure = result["ratio"] if result["ratio"] is not None else result["ours"]
    return figure >= float(bound) if relation == ">=" else figure <= float(bound)


def machine() -> str:
    """The machine in words: processor, cores, GPU."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", ", ")
    except (OSError, subprocess.CalledProcessError):
        gpu = "no GPU"
    return f"{cpu}, {os.cpu_count()} cores, {gpu}"


def print_table(results: list[dict[str, Any]]) -> None:
    print(f"\n{'benchmark':<20}{'ours':>12}{'peer':>12}{'ratio':>9}  {'goal':<9}{'':<8}unit")
    for result in results:
        ours, peer, ratio = (_figure(result[key]) for key in ("ours", "peer", "ratio"))
        verdict = "met" if met(result) else "MISSED"
        print(f"{result['name']:<20}{ours:>12}{peer:>12}{ratio:>9}  {result['goal']:<9}{verdict:<8}{result['unit']}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


if __name__ == "__main__":
    raise SystemExit(main())
