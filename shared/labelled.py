"""The door to labelled samples: the rows that a model learns from, and how many samples have which label and tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fiftyone.core.collections import SampleCollection

from . import samples
from .sync.labels import history_field, origin, stored_field


def rows(
    view: SampleCollection, label_field: str, group_field: str | None, slices: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """The columns that training needs: one row a sample, whether labelled or not.

    Returns:
        equally long lists: dataset, dataset_id, sample_id, source_id, filepath, label, label_id, split, group,
        provenance (where the label came from, see `sync.labels.origin`), and as `slice:<field>` each field of `slices`,
        as it is
    """
    dataset = view._root_dataset
    samples.require_label_field(dataset, label_field)
    columns = {
        "filepath": "filepath",
        "label": f"{label_field}.label",
        "label_id": f"{label_field}.id",
        "source_id": samples.source_path(dataset, label_field),
        "tags": "tags",
        "stored": stored_field(label_field),
        "history": history_field(label_field),
        **{f"slice {name}": name for name in slices},
    }
    if group_field:
        columns["group"] = group_field
    table = samples.read(view, columns)
    count = len(table["id"])
    return {
        "dataset": [dataset.name] * count,
        "dataset_id": [str(dataset._doc.id)] * count,
        "sample_id": table["id"],
        "source_id": [_text(v) for v in table["source_id"]],
        "filepath": table["filepath"],
        "label": table["label"],
        "label_id": table["label_id"],
        "split": [samples.split_of(tags) for tags in table["tags"]],
        "group": [_text(v) for v in table.get("group", [None] * count)],
        "provenance": list(map(origin, table["label"], table["stored"], table["history"])),
        **{f"slice:{name}": table[f"slice {name}"] for name in slices},
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


class Alike(NamedTuple):
    """Samples of one label and the same tags."""

    label: str | None
    tags: tuple[str, ...]
    label_tags: tuple[str, ...]
    n: int


def alike(view: SampleCollection, label_field: str) -> list[Alike]:
    """How many samples of a view have which label and tags, counted by the database in one reading of the view."""
    key = {"label": f"${label_field}.label", "tags": "$tags", "label_tags": f"${label_field}.tags"}
    pipeline = [*view._pipeline(), {"$group": {"_id": key, "n": {"$sum": 1}}}]
    return [
        Alike(
            found["_id"].get("label"),
            tuple(found["_id"].get("tags") or ()),
            tuple(found["_id"].get("label_tags") or ()),
            found["n"],
        )
        for found in view._dataset._sample_collection.aggregate(pipeline)
    ]


def by_split(counted: Iterable[Alike]) -> dict[str, dict[str, int]]:
    """Labelled samples by class and split, by name of the class; `none` is having no split tag, or several."""
    table: dict[str, dict[str, int]] = {}
    for label, tags, _, n in counted:
        if label is not None:
            row = table.setdefault(label, dict.fromkeys((*samples.SPLITS, "none"), 0))
            row[samples.split_of(tags) or "none"] += n
    return dict(sorted(table.items()))
