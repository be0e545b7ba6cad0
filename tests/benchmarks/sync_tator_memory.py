"""Peak memory of 'Pull labels' of half a million localizations of a Tator server over that of fifty thousand.

Each run takes in the stored label of every sample, in a process of its own; the server is in another one. Needs Linux.
"""

from typing import Any

from tests.benchmarks import _common, _labels

LARGE, SMALL = 500_000, 50_000


def run() -> dict[str, Any]:
    """The benchmark `memory_tator`."""
    large, small = _pulled(LARGE), _pulled(SMALL)
    return {
        "name": "memory_tator",
        "ours": large["mb"],
        "peer": small["mb"],
        "ratio": round(large["mb"] / small["mb"], 3),
        "unit": f"MB at most while pulling {LARGE:,} labels, over {SMALL:,}",
        "goal": "<= 1.5",
        "runs": {f"{LARGE:,}": large, f"{SMALL:,}": small},
    }


def _pulled(count: int) -> dict[str, Any]:
    with _labels.labelled(count, _labels.elemental) as (dataset, store), _labels.in_tator(store) as tator:
        # As if nothing was ever pulled: every sample gets its stored label.
        dataset._sample_collection.update_many({}, {"$unset": {"ground_truth_stored": ""}})
        took = _common.measure("@mbari/sync_back/pull_labels", dataset.name, {"apply": True})
        requests = tator.requests.total()
    assert took["result"]["counts"]["compared"] == count, took
    return {"mb": took["mb"], "mb_before": took["before"], "seconds": took["seconds"], "requests": requests}
