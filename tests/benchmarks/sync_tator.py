"""Corrections sent to a stand-in Tator server in which every answer takes 5 ms, against one read and one write per row.

Ours is the operator from FiftyOne's executor to its result: finding the corrections, the plan, journal and lease, the
conditional writes, the looks after them, the samples with their history, the saved views. The peer is the loop that
people write for Tator's REST interface: over one connection it looks one localization up, compares, changes it, and
saves one sample; it keeps neither journal nor history, and does not look whether the change stands. Each has a dataset
and a server of its own, equal ones.

A write is one request for each pair of labels, so how many pairs there are is part of the result: here each class is
mistaken for three others. `every_pair` is the worst there can be, each class mistaken for each other.
"""

import time
from collections import Counter
from typing import Any

from tests.benchmarks import _labels

SAMPLES, CORRECTIONS = 50_000, 10_000
LOOK_ALIKES = 3  # classes that a class is mistaken for; the number of pairs of labels decides the number of writes
DELAY = 0.005  # seconds


def run() -> dict[str, Any]:
    """The benchmark `sync_tator`."""
    ours = _measured(_send)
    peer = _measured(_peer)
    assert ours.pop("held") == peer.pop("held")
    every = _measured(_send, others=len(_labels.CLASSES) - 1)
    return {
        "name": "sync_tator",
        "ours": ours["requests"],
        "peer": peer["requests"],
        "ratio": round(peer["requests"] / ours["requests"], 1),
        "unit": f"requests for {CORRECTIONS:,} corrections of {ours['pairs']} pairs of labels, end to end",
        "goal": ">= 50",
        "ours_seconds": ours["seconds"],
        "peer_seconds": peer["seconds"],
        "ratio_of_seconds": round(peer["seconds"] / ours["seconds"], 1),
        "ours_by_kind": ours["kinds"],
        "peer_by_kind": peer["kinds"],
        # The peer asks twice for each row, whatever the labels.
        "every_pair": {
            "pairs": every["pairs"],
            "requests": every["requests"],
            "ratio": round(peer["requests"] / every["requests"], 1),
            "seconds": every["seconds"],
        },
    }


def _measured(send: Any, others: int = LOOK_ALIKES) -> dict[str, Any]:
    """Requests and seconds for sending corrections, and what the server then holds."""
    naming = _labels.elemental
    with _labels.labelled(SAMPLES, naming) as (dataset, store), _labels.in_tator(store, DELAY) as tator:
        _labels.operate("preview_sync", dataset)  # makes the indexes, as the first preview or pull does
        _labels.correct(dataset, range(CORRECTIONS), naming, others)
        before = {record["elemental_id"]: record["label"] for record in store.find()}
        tator.requests.clear()
        began = time.perf_counter()
        sent = send(dataset, tator)
        seconds = time.perf_counter() - began
        held = {row.elemental_id: row.attributes["Label"] for row in tator.data.rows.values()}
        kinds: Counter[str] = Counter()
        for asked, count in tator.requests.items():
            kinds[asked.replace(" /rest/", " ").split("/")[0]] += count
    assert sent == CORRECTIONS, sent
    return {
        "requests": kinds.total(),
        "seconds": round(seconds, 2),
        "kinds": dict(kinds),
        "held": held,
        "pairs": len({(before[i], label) for i, label in held.items() if before[i] != label}),
    }


def _send(dataset: Any, tator: Any) -> int:
    done = _labels.operate("sync_back", dataset)
    return int(done["updated"])


def _peer(dataset: Any, tator: Any) -> int:
    """Sends the tags of a dataset as a script does; returns how many."""
    import httpx

    names, sent = set(_labels.CLASSES), 0
    with httpx.Client(base_url=f"{tator.url}/rest", headers=tator.auth()) as client:
        for sample in dataset.match_tags(_labels.CLASSES):
            (label,) = names.intersection(sample.tags)
            there = client.get(f"/Localization/31/{sample.elemental_id}").raise_for_status().json()
            if there["attributes"].get("Label") != sample.ground_truth.label:
                continue
            change = {"attributes": {"Label": label}, "in_place": 1}
            client.patch(f"/Localization/31/{sample.elemental_id}", json=change).raise_for_status()
            sample.ground_truth.label = label
            sample.tags = [tag for tag in sample.tags if tag != label]
            sample.save()
            sent += 1
    return sent
