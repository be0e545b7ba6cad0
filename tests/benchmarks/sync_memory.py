"""Peak memory of runs on a million labels over that on ten thousand, each in a process of its own.

The runs are those that read or write every sample, or look for corrections among all: 'Pull labels' that takes in the
stored label of every sample, 'Preview a sync' and 'Sync back' of a thousand corrections. Needs Linux.
"""

import json
import os
import subprocess
import sys
from typing import Any

from tests.benchmarks import _common, _labels

LARGE, SMALL = 1_000_000, 10_000
CORRECTIONS = 1_000
OPERATORS = {"pull_labels": {"apply": True}, "preview_sync": {}, "sync_back": {}}
MEASURE = r"""
import json, re, sys, time
from pathlib import Path
import fiftyone as fo
import fiftyone.operators as foo
name, dataset, params = sys.argv[1:]
began = time.perf_counter()
given = {"dataset": fo.load_dataset(dataset), "params": json.loads(params)}
done = foo.execute_operator(f"@mbari/sync_back/{name}", given).result
spent = time.perf_counter() - began
# Not ru_maxrss: that of a new process begins with its parent's.
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"mb": round(peak, 1), "seconds": round(spent, 2), "message": done["message"]}))
"""


def run() -> dict[str, Any]:
    """The benchmark `memory_sync`: the largest of the ratios."""
    runs: dict[str, dict[str, Any]] = {name: {} for name in OPERATORS}
    for count in (SMALL, LARGE):
        with _labels.labelled(count) as (dataset, store), _labels.store_of(store):
            # As if nothing was ever pulled: every sample gets its stored label.
            dataset._sample_collection.update_many({}, {"$unset": {"ground_truth_stored": ""}})
            for name, params in OPERATORS.items():
                if name == "preview_sync":
                    _labels.correct(dataset, range(CORRECTIONS))
                runs[name][f"{count:,}"] = _measure(name, dataset.name, params)
    ratios = {name: _of(some, LARGE) / _of(some, SMALL) for name, some in runs.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    return {
        "name": "memory_sync",
        "ours": _of(runs[worst], LARGE),
        "peer": _of(runs[worst], SMALL),
        "ratio": round(ratios[worst], 3),
        "unit": f"MB at most at {LARGE:,} samples, over {SMALL:,}: {worst}",
        "goal": "<= 1.5",
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "runs": runs,
    }


def _of(some: dict[str, Any], count: int) -> float:
    return some[f"{count:,}"]["mb"]


def _measure(name: str, dataset: str, params: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, name, dataset, json.dumps(params)],
        cwd=_common.ROOT,
        env=os.environ | {"FIFTYONE_PLUGINS_DIR": str(_common.ROOT / "plugins")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
