"""A dataset as it is after months of work, of any size: labels, splits, predictions, vectors, clusters, lists, maps."""

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

CLASSES = [f"Genus{number:02d}_species{number % 7}" for number in range(100)]
WEIGHTS = [1 / rank for rank in range(1, len(CLASSES) + 1)]  # few common, many rare, as plankton is
SPLITS = ["train"] * 70 + ["val"] * 15 + ["test"] * 15
PREDICTIONS = "pred_bench_a1b2c3"
CLUSTERS = [f"Unknown C{number}" for number in range(300)]
VECTORS = 200  # different ones, of 384 numbers, which the samples share


@contextmanager
def worked_on(count: int, version: str) -> Iterator[Any]:
    """A dataset of so many samples, deleted afterwards; the predictions are those of this version.

    None of the suite's own indexes is there, as in a dataset that was made by other means.
    """
    import fiftyone as fo

    dataset = fo.Dataset(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        _declare(dataset, version)
        _fill(dataset, count)
        _save_views(dataset)
        _map(dataset)
        yield dataset
    finally:
        dataset.delete()


def _declare(dataset: Any, version: str) -> None:
    """The fields, and what the suite keeps in their `info`."""
    import fiftyone as fo

    from shared import clustered, focus_views, samples, selected, vectors

    labels = {"ftype": fo.EmbeddedDocumentField, "embedded_doc_type": fo.Classification}
    for name in ("ground_truth", PREDICTIONS, "cluster"):
        dataset.add_sample_field(name, **labels)
    dataset.add_sample_field("ground_truth_history", fo.ListField, subfield=fo.DictField)
    dataset.add_sample_field("embeddings", fo.VectorField)
    dataset.add_sample_field(focus_views.FIELD, fo.ListField, subfield=fo.StringField)
    plain = {fo.FloatField: ("depth", "cluster_outlier", "focus_quality"), fo.DateField: ("day",)}
    texts = ("elemental_id", "ground_truth_stored", "ground_truth_sync", "dive", "focus_suggested", selected.REASON)
    for kind, names in {**plain, fo.StringField: texts}.items():
        for name in names:
            dataset.add_sample_field(name, kind)
    focus = {"eval_key": "eval", "prediction_field": PREDICTIONS, "views": 20, "likely_wrong": 40.0}
    said = {
        PREDICTIONS: {samples.MODEL: version, "classes": CLASSES},
        "cluster": {clustered.INFO: {"complete": True}},
        "embeddings": {vectors.EMBEDDING: {"backbone": "vit_small_patch8_224.dino", "dim": 384}},
        selected.REASON: {selected.INFO: {"model": version, "field": PREDICTIONS, "confident": 0.9}},
        **{name: {focus_views.INFO: focus} for name in focus_views.KINDS},
    }
    for name, info in said.items():
        field = dataset.get_field(name)
        field.info = info
        field.save()
    dataset.classes = {"ground_truth": CLASSES, PREDICTIONS: CLASSES}
    dataset.save()
    samples.remember(dataset, "group_field", "dive")


def _fill(dataset: Any, count: int) -> None:
    """One sample through FiftyOne, which gives the shape of a document; the others are inserted in bulk."""
    import fiftyone as fo
    import numpy as np

    from shared import vectors

    draw, now, first_day = random.Random(0), datetime.now(UTC), datetime(2024, 1, 1)
    rows = np.random.default_rng(0).standard_normal((VECTORS, 384)).astype(np.float32)
    packed = [vectors.encode(row) for row in rows]
    dataset.add_sample(
        fo.Sample(filepath="/rois/pattern.png", day=date(2024, 1, 1), ground_truth=fo.Classification(label="a"))
    )
    samples = dataset._sample_collection
    pattern = samples.find_one_and_delete({})
    names = draw.choices(CLASSES, WEIGHTS, k=count)

    def document(number: int, name: str) -> dict[str, Any]:
        label = None if number % 5 == 0 else _label(name)
        predicted = name if draw.random() < 0.8 else draw.choice(CLASSES)
        tags = [draw.choice(SPLITS)] if label else []
        if number % 100 == 1:
            tags.append(draw.choice(CLASSES))  # a correction
        return {
            **pattern,
            "_id": _id(),
            "filepath": f"/rois/{dataset.name}-{number}.png",
            "tags": tags,
            "_rand": draw.random(),
            "elemental_id": str(uuid.UUID(int=number)),
            "ground_truth": label,
            "ground_truth_stored": name if label else None,
            PREDICTIONS: {**_label(predicted), "confidence": draw.random()},
            "cluster": {**_label(CLUSTERS[number % 300]), "confidence": 1.0} if number % 3 else None,
            "embeddings": packed[number % VECTORS],
            "focus": [f"{number % 20:02d}"] if number % 500 == 0 else None,
            "focus_suggested": draw.choice(CLASSES) if number % 500 == 0 else None,
            "review_reason": "confusing: 0.02" if number % 1000 == 0 else None,
            "dive": f"dive {number * 500 // count}",
            "depth": draw.random() * 500,
            "day": first_day + timedelta(days=number * 700 // count),
            "created_at": now,
            "last_modified_at": now,
        }

    made = (document(number, name) for number, name in enumerate(names))
    while batch := list(islice(made, 10_000)):
        samples.insert_many(batch, ordered=False)
    dataset.reload()


def _label(name: str) -> dict[str, Any]:
    return {"_id": _id(), "_cls": "Classification", "tags": [], "label": name, "logits": None}


def _id() -> Any:
    from bson import ObjectId

    return ObjectId()


def _save_views(dataset: Any) -> None:
    from fiftyone import ViewField

    for number in range(20):
        dataset.save_view(f"focus {number:02d}: some classes", dataset.match({"focus": f"{number:02d}"}))
    for kind in ("confident", "rare", "novel", "confusing"):
        dataset.save_view(f"review: {kind}", dataset.match(ViewField("review_reason").starts_with(f"{kind}: ")))


def _map(dataset: Any) -> None:
    """A map of some of the samples: a form looks at a run, not at its points."""
    import numpy as np

    from shared.embeddings import store
    from shared.embeddings.layout import Layout

    ids = dataset.limit(1_000).values("id")
    points = np.random.default_rng(0).standard_normal((len(ids), 2))
    layout = Layout(points=points, method="umap", ran="UMAP", parameters={})
    store.register_map(dataset, "embeddings_map", layout, ids, embeddings_field="embeddings")
