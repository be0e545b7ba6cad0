"""Corrections sent to a label store and settled in FiftyOne, against the loop that people write for it.

Ours is the operator from FiftyOne's executor to its result: finding the corrections, the plan, the conditional writes
with their journal, the samples with their history, the saved views. The peer looks one record up, changes it and saves
one sample at a time, and keeps neither journal nor history. Each has a dataset and a store of its own, equal ones.
"""

import time
from datetime import UTC, datetime
from typing import Any

from tests.benchmarks import _labels

SAMPLES, CORRECTIONS = 200_000, 10_000
ROUNDS = 3  # the best of these, in turn, since neighbours on the machine only ever slow things down


def run() -> dict[str, Any]:
    """The benchmark `sync`."""
    with _labels.labelled(SAMPLES) as (dataset, store), _labels.labelled(SAMPLES) as (other, its_store):
        with _labels.store_of(store):
            began = time.perf_counter()
            _labels.operate("preview_sync", dataset)  # makes the indexes, as the first preview or pull does
            indexes = time.perf_counter() - began
            ours, peer = [], []
            for number in range(ROUNDS):
                samples = range(number * CORRECTIONS, (number + 1) * CORRECTIONS)
                _labels.correct(dataset, samples)
                _labels.correct(other, samples)
                began = time.perf_counter()
                done = _labels.operate("sync_back", dataset)
                ours.append(CORRECTIONS / (time.perf_counter() - began))
                assert done["updated"] == done["corrections"] == CORRECTIONS, done
                began = time.perf_counter()
                sent = _peer(other, its_store)
                peer.append(CORRECTIONS / (time.perf_counter() - began))
                assert sent == CORRECTIONS, sent
        assert _held(store) == _held(its_store)
    return {
        "name": "sync",
        "ours": round(max(ours)),
        "peer": round(max(peer)),
        "ratio": round(max(ours) / max(peer), 1),
        "unit": f"corrections/s, end to end, {CORRECTIONS:,} in {SAMPLES:,} samples",
        "goal": ">= 20",
        "ours_rounds": [round(rate) for rate in ours],
        "peer_rounds": [round(rate) for rate in peer],
        "first_preview_with_indexes_seconds": round(indexes, 2),
    }


def _peer(dataset: Any, store: Any) -> int:
    """Sends the tags of a dataset as a script does; returns how many."""
    names = set(_labels.CLASSES)
    sent = 0
    for sample in dataset.match_tags(_labels.CLASSES):
        (label,) = names.intersection(sample.tags)
        record = store.find_one({"elemental_id": sample.elemental_id})
        if record is None or record["label"] != sample.ground_truth.label:
            continue
        change = {"label": label, "modified": datetime.now(UTC), "modified_by": "bench"}
        store.update_one({"elemental_id": sample.elemental_id}, {"$set": change})
        sample.ground_truth.label = label
        sample.tags = [tag for tag in sample.tags if tag != label]
        sample.save()
        sent += 1
    return sent


def _held(store: Any) -> dict[str, str]:
    return {record["elemental_id"]: record["label"] for record in store.find()}
