"""Planning a sync in a large dataset and in a small one, with the same number of corrections in each.

Measured is the operator 'Preview a sync' as it comes: the corrections, what the store holds, the labels that were
edited without a tag, the status of each sample and the saved views. Both datasets have their indexes already; what
making them takes, and what they add to FiftyOne's own writes, are among the details.
"""

import statistics
import time
from typing import Any

from tests.benchmarks import _labels

LARGE, SMALL = 1_000_000, 20_000
CORRECTIONS, EDITS = 1_000, 200
ROUNDS = 7
WRITES = 5_000


def run() -> dict[str, Any]:
    """The benchmark `sync_scan`."""
    seconds: dict[int, list[float]] = {LARGE: [], SMALL: []}
    scans: dict[int, list[float]] = {LARGE: [], SMALL: []}
    with _labels.labelled(LARGE) as large, _labels.labelled(SMALL) as small:
        both = {LARGE: large, SMALL: small}
        plain = _write_seconds(small[0])
        indexes = {count: _index_seconds(dataset) for count, (dataset, _) in both.items()}
        indexed = _write_seconds(small[0])
        for dataset, _ in both.values():
            _labels.correct(dataset, range(CORRECTIONS))
            _labels.edit(dataset, range(CORRECTIONS, CORRECTIONS + EDITS))
        for number in range(1 + ROUNDS):
            for count, (dataset, store) in both.items():
                whole, scan = _preview(dataset, store), _scan(dataset)
                if number:  # the first one writes the statuses, and fills caches
                    seconds[count].append(whole)
                    scans[count].append(scan)
    ours, peer = (statistics.median(seconds[count]) for count in (LARGE, SMALL))
    return {
        "name": "sync_scan",
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 3),
        "unit": f"seconds for {CORRECTIONS:,} corrections in {LARGE:,} samples, over {SMALL:,}",
        "goal": "<= 1.5",
        "rounds": {f"{count:,}": [round(s, 4) for s in some] for count, some in seconds.items()},
        "reading_corrections_and_edits_seconds": {
            f"{count:,}": round(statistics.median(some), 4) for count, some in scans.items()
        },
        "making_indexes_seconds": {f"{count:,}": round(some, 2) for count, some in indexes.items()},
        "fiftyones_own_label_writes_with_indexes_over_without": round(indexed / plain, 2),
    }


def _preview(dataset: Any, store: Any) -> float:
    with _labels.store_of(store):
        began = time.perf_counter()
        counts = _labels.operate("preview_sync", dataset)["counts"]
        spent = time.perf_counter() - began
    assert counts["would_change"] == counts["corrections"] == CORRECTIONS, counts
    assert counts["edited_not_tagged"] == EDITS, counts
    return spent


def _field(dataset: Any) -> Any:
    from shared.sync.store import LabelField

    return LabelField(dataset, "ground_truth", "elemental_id")


def _scan(dataset: Any) -> float:
    """The part of a preview that might grow with the dataset, by itself."""
    from shared.sync.store import vocabulary

    field = _field(dataset)
    began = time.perf_counter()
    words = vocabulary(dataset, "ground_truth", {})
    tags = field.tags(words)
    found = field.corrections(dataset.view(), words, tags), field.untagged_edits(dataset.view(), tags)
    spent = time.perf_counter() - began
    assert [len(some) for some in found] == [CORRECTIONS, EDITS]
    return spent


def _index_seconds(dataset: Any) -> float:
    began = time.perf_counter()
    _field(dataset).index()
    return time.perf_counter() - began


def _write_seconds(dataset: Any) -> float:
    """Labels written by FiftyOne's own bulk way, some thousand of them, the better of three rounds."""
    view = dataset.limit(WRITES)
    names = view.values("ground_truth.label")
    spent = []
    for _ in range(3):
        for some in ([f"{name} again" for name in names], names):
            began = time.perf_counter()
            view.set_values("ground_truth.label", some)
            spent.append(time.perf_counter() - began)
    return min(spent)
