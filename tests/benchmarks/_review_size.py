"""How long the review takes, and how much memory, on real datasets of generated predictions.

Each operator runs in a process of its own on a dataset in MongoDB: `evaluate_predictions` with all samples labelled,
then `select_for_review` with about half of them. Needs Linux.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tests.benchmarks import _clusters, _common

ROWS, DIMS = 200_000, 384
CLASSES = [f"Taxon {number:02d}" for number in range(40)]
SLICES = {"camera": 5, "depth": 12, "collection": 30}
SECONDS = 120
BATCH = 10_000


def run() -> list[dict[str, Any]]:
    """The benchmarks `review_time` and `review_memory`; `MBARI_BENCH_ROWS` sets another number of predictions."""
    rows = int(os.environ.get("MBARI_BENCH_ROWS", 0)) or ROWS
    few, many = (_operate(count) for count in (rows // 10, rows))
    took = {name: one["seconds"] for name, one in many.items()}
    peaks = {name: [one["mb"] for one in (few[name], many[name])] for name in many}
    low, high = peaks["select_for_review"]
    return [
        {
            "name": "review_time",
            "ours": round(sum(took.values()), 1),
            "peer": None,
            "ratio": None,
            "unit": f"seconds for focus list and selection of {rows:,} predictions",
            "goal": f"<= {SECONDS}",
            "seconds": took,
        },
        {
            "name": "review_memory",
            "ours": high,
            "peer": low,
            "ratio": round(high / low, 3),
            "unit": f"MB at most to select from {rows:,} predictions, over {rows // 10:,}",
            "goal": "<= 1.5",
            "peaks": peaks,
            "runs": {f"{count:,}": runs for count, runs in ((rows // 10, few), (rows, many))},
        },
    ]


def _operate(rows: int) -> dict[str, dict[str, Any]]:
    """What each operator takes on so many predictions."""
    with _predicted(rows) as dataset:
        given = {"prediction_field": "pred"}
        listed = _common.measure(
            "@mbari/apply_model/evaluate_predictions", dataset.name, {**given, "slices": list(SLICES)}
        )
        dataset._sample_collection.update_many({"_rand": {"$lt": 0.5}}, {"$unset": {"ground_truth": ""}})
        chosen = _common.measure(
            "@mbari/apply_model/select_for_review", dataset.name, {**given, "embeddings_field": "embeddings"}
        )
    runs = {"evaluate_predictions": listed, "select_for_review": chosen}
    return {
        name: {**{key: one[key] for key in ("before", "mb", "seconds")}, "message": one["result"]["message"]}
        for name, one in runs.items()
    }


@contextmanager
def _predicted(rows: int) -> Iterator[Any]:
    """A dataset of so many predictions with logits, labels, vectors and slices; a tenth is tagged val."""
    import fiftyone as fo

    from shared import samples, vectors

    dataset = fo.Dataset(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        info = {"backbone": "generated", "layer": "-", "weights_sha256": "-", "framing": "pad", "imgsz": 224}
        for field in SLICES:
            dataset.add_sample_field(field, fo.StringField)
        dataset.add_sample_field("collected", fo.DateTimeField)
        samples.ensure_label_field(dataset, "ground_truth")
        samples.prepare_label_field(dataset, "pred", {samples.MODEL: "generated/1", "classes": CLASSES}, CLASSES)
        vectors.prepare(dataset, "embeddings", {**info, "dim": DIMS})
        _fill(dataset, rows)
        yield dataset
    finally:
        dataset.delete()


def _fill(dataset: Any, rows: int) -> None:
    """Documents as FiftyOne makes them; a linear model of the vectors says the truth, and predicts it as often."""
    import fiftyone as fo
    from bson import ObjectId

    from shared import samples, vectors

    random, made = np.random.default_rng(0), _clusters.plankton(rows, DIMS)
    head = random.standard_normal((DIMS, len(CLASSES)), dtype=np.float32)
    unequal = 0.5 * np.log(1 / np.arange(1, len(CLASSES) + 1, dtype=np.float32))
    dataset.add_sample(fo.Sample(filepath="/rois/first.png"))
    pattern = dataset._sample_collection.find_one_and_delete({})
    for start in range(0, rows, BATCH):
        some = made[start : start + BATCH]
        logits = some @ head + unequal
        truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
        best = logits.argmax(axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        confidence = 1 / powers.sum(axis=1)
        cut = {name: random.integers(count, size=len(some)) for name, count in SLICES.items()}
        days = random.integers(1_500, size=len(some)).tolist()
        ids = [ObjectId() for _ in some]
        dataset._sample_collection.insert_many(
            {
                **pattern,
                "_id": identity,
                "filepath": f"/rois/{start + row}.png",
                "tags": ["val"] if (start + row) % 10 == 0 else [],
                "_rand": random.random(),
                "ground_truth": {
                    "_id": ObjectId(), "_cls": "Classification", "tags": [], "label": CLASSES[truth[row]],
                },
                "embeddings": vectors.encode(some[row]),
                "collected": datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days[row]),
                **{name: f"{name} {values[row]}" for name, values in cut.items()},
            }
            for row, identity in enumerate(ids)
        )  # fmt: skip
        names = [CLASSES[number] for number in best]
        samples.write_labels(dataset, "pred", [str(i) for i in ids], names, confidence, logits)
