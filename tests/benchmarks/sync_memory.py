"""Peak memory of runs on a million labels over that on ten thousand, each in a process of its own.

The runs are those that read or write every sample, or look for corrections among all: 'Pull labels' that takes in the
stored label of every sample, 'Preview a sync' and 'Sync back' of a thousand corrections. Needs Linux.
"""

from typing import Any

from tests.benchmarks import _common, _labels

LARGE, SMALL = 1_000_000, 10_000
CORRECTIONS = 1_000
OPERATORS = {"pull_labels": {"apply": True}, "preview_sync": {}, "sync_back": {}}


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
    took = _common.measure(f"@mbari/sync_back/{name}", dataset, params)
    return {"mb": took["mb"], "seconds": took["seconds"], "message": took["result"]["message"]}
