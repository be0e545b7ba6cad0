"""The card of a model version: what it is, what it learned from, how good it is and what it cost.

The card is a record of its own, `card.json`, made once from the other records of a training and published with the
version; what people read (`render`) is made from it. The same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import limits
from .schema import (
    Ancestor,
    Card,
    Changes,
    ClassScore,
    Cost,
    Data,
    Evaluation,
    Figure,
    MetricChange,
    Relabelled,
    SliceScore,
    Snapshot,
    Sync,
    Training,
    Vocabulary,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Ancestor",
    "Card",
    "Changes",
    "ClassScore",
    "Context",
    "Cost",
    "Data",
    "Evaluation",
    "Figure",
    "MetricChange",
    "Relabelled",
    "SliceScore",
    "Snapshot",
    "Sync",
    "Training",
    "Vocabulary",
    "build",
]

SPLITS = ("train", "val", "test")  # as a card counts them
MEASURED = ("test", "val")  # as a card shows them: the one that nothing was chosen by comes first
LICENCE = "agpl-3.0"  # of everything that is fine-tuned from Ultralytics' weights or architectures
COMPARED = ("top1", "macro_f1")  # with the previous version


@dataclass(frozen=True)
class Context:
    """What a card says that stands in no file of the version.

    Attributes:
        class_counts: class -> split -> ROIs used
        view: the stages of the view trained on, as FiftyOne serializes them
        saved_view: its name, where it was a saved one
        vocabulary: the names that labels could have
        synced: earlier runs that had sent corrections to the label store
        snapshot: the snapshot of the dataset, or why there is none
        group_field: the field whose groups the splits kept together
        groups_across_splits: groups that stand in several splits nevertheless
        identical_across_splits: groups of identical images that stood in several splits
        identical_other_label: groups of identical images with different labels
        left_out: reason -> rows that were not used
        base: what it was fine-tuned from, the nearest first
        previous: card, metrics and manifest rows of the version before
        why_no_previous: why these cannot be had, where there is such a version
        price_per_hour: of the worker, where it is known
    """

    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    view: Sequence[Mapping[str, Any]] = ()
    saved_view: str | None = None
    vocabulary: Vocabulary | None = None
    synced: Sequence[Sync] = ()
    snapshot: Snapshot = field(default_factory=Snapshot)
    group_field: str | None = None
    groups_across_splits: int = 0
    identical_across_splits: int = 0
    identical_other_label: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    base: Sequence[Ancestor] = ()
    previous: tuple[Card, Mapping[str, Any], pa.Table] | None = None
    why_no_previous: str | None = None
    price_per_hour: float | None = None


def build(model: Mapping[str, Any], metrics: Mapping[str, Any], rows: pa.Table, context: Context) -> Card:
    """Makes the card from the records of a training.

    Args:
        model: what `model.json` says
        metrics: what `metrics.json` says: by split, as `classifier.metrics.evaluate` gives them
        rows: of the manifest
        context: the rest

    Returns:
        the card; it depends on the arguments' values only, not on the order of their keys
    """
    model, metrics = _plain(model), _plain(metrics)
    evaluation = [_evaluation(split, metrics[split]) for split in _ordered(metrics, MEASURED)]
    data = _data(model, rows, context)
    return Card(
        model=model["model"],
        version=model["version"],
        created_at=model["created_at"],
        created_by=model.get("created_by"),
        run_id=model.get("run_id"),
        intended_use=limits.intended_use(model["classes"], data),
        limitations=limits.limitations(model["classes"], data, evaluation),
        classes=model["classes"],
        framing=model["framing"],
        imgsz=model["imgsz"],
        weights_sha256=model["weights_sha256"],
        licence=model.get("licence") or LICENCE,
        data=data,
        training=Training(
            options=model.get("options", {}),
            arguments=model.get("training_args", {}),
            epochs_done=model.get("epochs_done", 0),
            libraries=model.get("libraries", {}),
            python=model.get("python"),
            suite=model.get("suite"),
            repeats=model.get("repeats"),
        ),
        base=list(context.base),
        evaluation=evaluation,
        changes=_changes(model["classes"], metrics, rows, data.digest, context),
        cost=Cost(
            device=model.get("device"),
            seconds=model.get("training_seconds", 0.0),
            price_per_hour=context.price_per_hour,
        ),
    )


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same as it is after it was written as JSON and read again, keys sorted: so the order of keys is no matter."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def _ordered(names: Mapping[str, Any], first: Sequence[str]) -> list[str]:
    """The keys, those of `first` in its order, then any others sorted."""
    return [name for name in first if name in names] + sorted(set(names) - set(first))


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _figure(value: float, interval: Sequence[float] | None) -> Figure:
    low, high = interval or (None, None)
    return Figure(value=value, low=low, high=high)


def _evaluation(split: str, scores: Mapping[str, Any]) -> Evaluation:
    intervals = scores.get("intervals") or {}
    return Evaluation(
        split=split,
        n=scores["n"],
        top1=_figure(scores["top1"], intervals.get("top1")),
        top5=scores["top5"],
        macro_precision=scores["macro_precision"],
        macro_recall=scores["macro_recall"],
        macro_f1=_figure(scores["macro_f1"], intervals.get("macro_f1")),
        ece=scores["ece"],
        runtime=scores.get("runtime"),
        per_class=[
            ClassScore(
                label=row["label"],
                n=row["n"],
                precision=row["precision"],
                recall=_figure(row["recall"], row.get("recall_interval")),
                f1=_figure(row["f1"], row.get("f1_interval")),
            )
            for row in scores["per_class"]
        ],
        slices=[
            SliceScore(
                field=row["field"],
                value=row["value"],
                n=row["n"],
                top1=_figure(row["top1"], row.get("top1_interval")),
                macro_f1=_figure(row["macro_f1"], row.get("macro_f1_interval")),
            )
            for row in scores.get("slices") or []
        ],
    )


def _data(model: Mapping[str, Any], rows: pa.Table, context: Context) -> Data:
    from . import manifest  # it needs pyarrow, which takes long to import; who only reads cards does not

    counts = {
        label: {split: row.get(split, 0) for split in SPLITS}
        for label in model["classes"]
        if (row := context.class_counts.get(label)) is not None
    }
    return Data(
        digest=model.get("manifest_digest") or manifest.digest(rows),
        dataset=model.get("dataset"),
        dataset_id=model.get("dataset_id"),
        label_field=model.get("label_field") or "ground_truth",
        view=[_plain(stage) for stage in context.view],
        saved_view=context.saved_view,
        extra_views=model.get("extra_views", []),
        group_field=context.group_field,
        counts={split: sum(row[split] for row in counts.values()) for split in SPLITS},
        classes=counts,
        left_out=_most_first(context.left_out),
        identical_across_splits=context.identical_across_splits,
        identical_other_label=context.identical_other_label,
        groups_across_splits=context.groups_across_splits,
        provenance=_most_first(_provenance(rows)),
        vocabulary=context.vocabulary,
        synced=list(context.synced),
        snapshot=context.snapshot,
    )


def _provenance(rows: pa.Table) -> dict[str, int]:
    """Where the labels of the used rows came from -> ROIs; empty for a manifest that does not say."""
    import pyarrow.compute as pc

    if "provenance" not in rows.column_names:
        return {}
    said = pc.fill_null(rows.filter(rows["used"])["provenance"], limits.UNKNOWN)
    return {row["values"]: row["counts"] for row in pc.value_counts(said).to_pylist()}


def _changes(
    classes: Sequence[str], metrics: Mapping[str, Any], rows: pa.Table, digest: str, context: Context
) -> Changes:
    from . import changes

    if context.previous is None:
        return Changes(why_not=context.why_no_previous)
    card, before, old_rows = context.previous
    found = changes.between(old_rows, rows)
    return Changes(
        previous=card.name,
        same_data=card.data.digest == digest,
        metrics=[
            MetricChange(
                split=split,
                metric=metric,
                before=before[split][metric],
                after=metrics[split][metric],
                same_rois=split in found.same_splits,
            )
            for split in _ordered(metrics, MEASURED)
            for metric in COMPARED
            if metric in before.get(split, {})  # a version may have been measured on other splits
        ],
        classes_added=[label for label in classes if label not in card.classes],
        classes_removed=[label for label in card.classes if label not in classes],
        added=found.added,
        removed=found.removed,
        moved=found.moved,
        reimaged=found.reimaged,
        relabelled=[Relabelled(before=old, after=new, n=n) for old, new, n in found.relabelled],
    )
