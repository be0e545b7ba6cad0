"""Clustering against the lab's method: seconds, peak memory, and whether the clusters are the same.

All candidates run, each in a process of its own that has imported and compiled beforehand; peak memory is what
comes on top of the inputs and the imports. `MBARI_BENCH_ROWS=200000` measures ours alone on that many rows as
well. Needs Linux.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from tests.benchmarks import _clusters, _common
from tests.benchmarks._clusters import LAB, LAB_WHOLE, OURS, OURS_WHOLE

ROWS, DIMS = 20_000, 384
REAL = _common.DATA / "features" / "pwssc_leaf36_5109x1280_float16.npz"
PATIENCE = 180  # seconds for a candidate that is neither the lab's method nor ours


def run() -> list[dict[str, Any]]:
    """The benchmarks `cluster`, `cluster_memory` and `cluster_agreement`, with the table of candidates."""
    generated = f"generated, {ROWS:,} x {DIMS}"
    with _common.folder() as folder:
        if REAL.exists():
            small, vectors = "real, 5,109 x 1,280", np.load(REAL)["X"].astype(np.float32)
        else:
            small, vectors = "generated, 5,109 x 384", _clusters.plankton(5_109, DIMS, seed=1)
        tables = {
            small: _table(vectors, folder, list(_clusters.WAYS)),
            generated: _table(_clusters.plankton(ROWS, DIMS), folder, list(_clusters.WAYS)),
        }
        if many := int(os.environ.get("MBARI_BENCH_ROWS", 0)):
            ours_alone = _table(_clusters.plankton(many, DIMS), folder, [OURS_WHOLE])
            tables[f"generated, {many:,} x {DIMS}"] = ours_alone
    ours, lab = tables[generated][OURS], tables[generated][LAB]
    agreements = {what: table[OURS]["agreement"] for what, table in tables.items() if OURS in table}
    agreements |= {
        f"{what}, joined and merged": table[OURS_WHOLE]["agreement"] for what, table in tables.items() if OURS in table
    }
    worst = min(agreements, key=lambda what: agreements[what])
    return [
        {
            "name": "cluster",
            "ours": ours["seconds"],
            "peer": lab["seconds"],
            "ratio": round(lab["seconds"] / ours["seconds"], 2),
            "unit": f"seconds, {generated}; the ratio says how many times faster",
            "goal": ">= 4",
            "candidates": tables,
        },
        {
            "name": "cluster_memory",
            "ours": ours["mb"],
            "peer": lab["mb"],
            "ratio": round(lab["mb"] / ours["mb"], 1),
            "unit": f"MB at most beyond the inputs, {generated}; the ratio says how many times less",
            "goal": ">= 10",
        },
        {
            "name": "cluster_agreement",
            "ours": round(agreements[worst], 4),
            "peer": None,
            "ratio": None,
            "unit": f"adjusted Rand index against the lab's method, the lowest: {worst}",
            "goal": ">= 0.95",
            "agreements": agreements,
        },
    ]


def _table(vectors: np.ndarray, folder: Path, ways: list[str]) -> dict[str, dict[str, Any]]:
    """What each way took, and its agreement with the lab's method; printed as it grows."""
    source = folder / "vectors.npy"
    np.save(source, vectors)
    print(f"\n{vectors.shape[0]:,} x {vectors.shape[1]:,}")
    print(f"{'':<32}{'seconds':>9}{'MB':>9}{'clusters':>10}{'noise':>8}{'agreement':>11}", flush=True)
    table: dict[str, dict[str, Any]] = {}
    found: dict[str, np.ndarray] = {}
    for way in ways:
        outcome = _measure(way, source, folder / "labels.npy")
        if "seconds" in outcome:
            found[way] = labels = np.load(folder / "labels.npy")
            outcome |= {"clusters": int(labels.max() + 1), "noise": round(float((labels < 0).mean()), 3)}
            lab = LAB_WHOLE if way in (LAB_WHOLE, OURS_WHOLE) else LAB
            if lab in found:
                outcome["agreement"] = float(adjusted_rand_score(found[lab], labels))
        table[way] = outcome
        _print(way, outcome)
    return table


def _measure(way: str, source: Path, labels: Path) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks._clusters", way, str(source), str(labels)],
            cwd=_common.ROOT,
            capture_output=True,
            text=True,
            timeout=None if way in (LAB, OURS, LAB_WHOLE, OURS_WHOLE) else PATIENCE,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {PATIENCE} s"}
    except subprocess.CalledProcessError as error:
        if way in (LAB, OURS, LAB_WHOLE, OURS_WHOLE):
            raise RuntimeError(error.stderr) from error
        return {"failed": (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]}
    outcome = json.loads(done.stdout.splitlines()[-1])
    return {"failed": f"{outcome['missing']} is not installed"} if "missing" in outcome else outcome


def _print(way: str, outcome: dict[str, Any]) -> None:
    if "failed" in outcome:
        print(f"{way:<32}  {outcome['failed']}", flush=True)
        return
    agreement = f"{outcome['agreement']:.4f}" if "agreement" in outcome else "-"
    print(
        f"{way:<32}{outcome['seconds']:>9.2f}{outcome['mb']:>9,.0f}{outcome['clusters']:>10,}{outcome['noise']:>8.1%}"
        f"{agreement:>11}",
        flush=True,
    )
