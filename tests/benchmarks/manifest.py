"""A manifest of a million rows: its digest, and what became of its rows, each in a process of its own. Needs Linux.

Peak memory is what comes on top of the rows themselves (and of the imports). Of the rows two in a hundred are gone,
three are relabelled, one has other bytes, and there are five new ones for every hundred.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import _common

ROWS = int(os.environ.get("MBARI_BENCH_ROWS", 1_000_000))
CLASSES = [f"Taxon {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
DATASET = "65a1b2c3d4e5f60718293a4b"
GOAL = "<= 10"


def run() -> list[dict[str, Any]]:
    """The benchmarks `manifest_digest` and `manifest_drift`, in seconds, with megabytes beside them."""
    results = []
    for what in ("digest", "drift"):
        command = [sys.executable, "-m", "tests.benchmarks.manifest", what]
        done = subprocess.run(command, cwd=_common.ROOT, stdout=subprocess.PIPE, text=True, check=True)
        took = json.loads(done.stdout.splitlines()[-1])
        results.append(
            {
                "name": f"manifest_{what}",
                "ours": took["seconds"],
                "peer": None,
                "ratio": None,
                "unit": f"seconds for {ROWS:,} rows; {took['mb']:,.0f} MB at most beyond the rows",
                "goal": GOAL,
                **took,
            }
        )
    return results


def _rows(count: int) -> Any:
    """Rows as a manifest has them, with a path, ids and a hash each."""
    import pyarrow as pa

    draw = np.random.default_rng(0)
    numbers = range(count)
    splits = draw.choice(3, count, p=[0.7, 0.15, 0.15])
    columns = {
        "dataset": pa.repeat("plankton", count),
        "dataset_id": pa.repeat(DATASET, count),
        "sample_id": pa.array(f"{number:024x}" for number in numbers),
        "source_id": pa.array(f"e{number}" for number in numbers),
        "filepath": pa.array(f"s3://rois/2026/day-{number // 5_000}/roi-{number:09}.png" for number in numbers),
        "label": pa.array(CLASSES, pa.string()).take(pa.array(draw.integers(0, len(CLASSES), count))),
        "label_id": pa.array(f"{number:024x}" for number in numbers),
        "split": pa.array(["train", "val", "test"], pa.string()).take(pa.array(splits)),
        "group": pa.array(f"day {number // 5_000}" for number in numbers),
        "sha256": pa.array(f"{number * 2_654_435_761 % 2**64:064x}" for number in numbers),
        "used": pa.repeat(True, count),
        "why_left_out": pa.nulls(count, pa.string()),
    }
    return pa.table(columns)


def _now(rows: Any) -> Any:
    """The samples of a manifest some time later, in another order."""
    import pyarrow as pa

    count = rows.num_rows
    draw = np.random.default_rng(1)
    order = draw.permutation(count)
    columns = {name: rows[name].to_pylist() for name in ("label", "sha256")}
    for place in range(0, count, 33):
        columns["label"][place] = CLASSES[(CLASSES.index(columns["label"][place]) + 1) % len(CLASSES)]
    for place in range(0, count, 100):
        columns["sha256"][place] = "0" * 64
    kept = {name: rows[name] for name in ("dataset_id", "sample_id", "split")}
    later = pa.table({**kept, **{name: pa.array(values, pa.string()) for name, values in columns.items()}})
    later = later.take(pa.array(order[: int(count * 0.98)]))
    more = count // 20
    new = {
        "dataset_id": pa.repeat(DATASET, more),
        "sample_id": pa.array(f"{count + number:024x}" for number in range(more)),
        "split": pa.nulls(more, pa.string()),
        "label": pa.array([CLASSES[number % len(CLASSES)] for number in range(more)]),
        "sha256": pa.nulls(more, pa.string()),
    }
    return pa.concat_tables([later, pa.table(new)]).combine_chunks()


def _peak() -> float:
    """The most memory that this process had so far, MB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def _forget_peak() -> None:
    """Lets the kernel count this process's most memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def _measure(what: str) -> dict[str, Any]:
    import pyarrow as pa

    from shared.lineage import drift, manifest

    rows = _rows(ROWS)
    now = _now(rows) if what == "drift" else None
    drift.compare(_rows(100), _now(_rows(100)), CLASSES)  # what is loaded when first needed
    pa.default_memory_pool().release_unused()
    _forget_peak()
    before, began = _peak(), time.perf_counter()
    if now is None:
        outcome: Any = manifest.digest(rows)
    else:
        outcome = drift.compare(rows, now, CLASSES).counts
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "mb": round(_peak() - before, 1),
        "rows_mb": round((rows.nbytes + (now.nbytes if now is not None else 0)) / 2**20, 1),
        "outcome": outcome,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
