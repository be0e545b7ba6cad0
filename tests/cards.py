"""Records of an imagined training, from which tests make cards; cheap, and the same in every process."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from shared.classifier import metrics
from shared.lineage.card import Ancestor, Card, Context, Snapshot, Sync, Vocabulary, build

CLASSES = ["Akashiwo", "Detonula_Cerataulina_Lauderia", "Pseudo-nitzschia", "rare"]
SPLITS = ("train", "train", "val", "test")


def rows(n: int = 240, classes: Sequence[str] = CLASSES, **columns: list[Any]) -> pa.Table:
    """A manifest: of four rows two train, one val, one test; of the last class there are two rows, both in train."""
    label = [classes[(i // 4) % (len(classes) - 1)] for i in range(n)]
    label[0] = label[1] = classes[-1]
    made = {
        "dataset": ["pwssc"] * n,
        "dataset_id": ["d" * 24] * n,
        "sample_id": [f"s{i}" for i in range(n)],
        "label": label,
        "split": [SPLITS[i % 4] for i in range(n)],
        "sha256": [f"{i:064x}" for i in range(n)],
        "used": [True] * n,
        "why_left_out": [None] * n,
        "provenance": ["tag" if i % 3 else None for i in range(n)],
    }
    return pa.table({**made, **columns})


def counts(table: pa.Table, classes: Sequence[str] = CLASSES) -> dict[str, dict[str, int]]:
    """Class -> split -> used rows."""
    found = {label: dict.fromkeys(("train", "val", "test"), 0) for label in classes}
    for row in table.to_pylist():
        if row["used"]:
            found[row["label"]][row["split"]] += 1
    return found


def scores(table: pa.Table, split: str, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Metrics of predictions that are often right, with two slices; each split has figures of its own."""
    rng = np.random.default_rng(len(split))
    labels = [r["label"] for r in table.to_pylist() if r["used"] and r["split"] == split]
    truth = np.array([classes.index(label) for label in labels])
    probs = rng.random((len(truth), len(classes)))
    probs[np.arange(len(truth)), truth] += 0.5
    depth = ["0 to 10" if i % 2 else "10 to 25" for i in range(len(truth))]
    found = metrics.evaluate(truth, probs / probs.sum(axis=1, keepdims=True), classes, {"depth": depth})
    return {**found, "runtime": "torch, CPU, float32"}


def model(classes: Sequence[str] = CLASSES, version: str = "20260301T120000_ab12cd") -> dict[str, Any]:
    """What `model.json` says."""
    return {
        "name": f"ptvr/{version}",
        "model": "ptvr",
        "version": version,
        "classes": list(classes),
        "framing": "pad",
        "imgsz": 224,
        "base_weights": "yolov8n-cls.pt",
        "weights_sha256": "f" * 64,
        "options": {"epochs": 12, "seed": 51, "classes": [], "model_name": "ptvr"},
        "training_args": {"lr0": 0.01, "optimizer": "auto", "freeze": None},
        "epochs_done": 12,
        "device": "cpu (2 threads)",
        "training_seconds": 331.0,
        "python": "3.11.9",
        "libraries": {"torch": "2.15.0", "ultralytics": "8.4.190"},
        "dataset": "pwssc",
        "dataset_id": "d" * 24,
        "label_field": "ground_truth",
        "extra_views": [],
        "created_at": "2026-03-01T12:00:00.000+00:00",
        "created_by": "ann@example.org",
        "run_id": "65f0c0ffee",
        "suite": "0.1.0",
    }


def context(table: pa.Table, classes: Sequence[str] = CLASSES, **more: Any) -> Context:
    """The rest."""
    made: dict[str, Any] = {
        "class_counts": counts(table, classes),
        "view": [{"_cls": "fiftyone.core.stages.MatchTags", "kwargs": [["tags", ["good"]]]}],
        "vocabulary": Vocabulary(origin="the file names.txt", names=sorted(classes)),
        "synced": [Sync(run="65f0", at="2026-02-27T08:00:00+00:00", by="bob", updated=31)],
        "snapshot": Snapshot(why_not="the open-source FiftyOne has none"),
        "left_out": {"no label": 3, "in no split": 7},
        "base": [Ancestor(name="yolov8n-cls.pt", sha256="a" * 64, licence="agpl-3.0")],
        "price_per_hour": 3.06,
    }
    return Context(**{**made, **more})


def made(
    table: pa.Table | None = None,
    classes: Sequence[str] = CLASSES,
    splits: Sequence[str] = ("val", "test"),
    version: str = "20260301T120000_ab12cd",
    metrics: Mapping[str, Any] | None = None,
    **more: Any,
) -> Card:
    """A card of these rows; `more` goes into the context."""
    table = rows(classes=classes) if table is None else table
    if metrics is None:
        metrics = {split: scores(table, split, classes) for split in splits}
    return build(model(classes, version), metrics, table, context(table, classes, **more))
