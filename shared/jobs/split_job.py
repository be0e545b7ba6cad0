"""`assign_splits` between a dataset and `splits`: reads labels and groups, and tags the samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection
from pydantic import BaseModel, ConfigDict, Field

from .. import samples, splits, vectors, workspaces
from ..errors import InputError
from ..operators import Job
from ..runs import Monitor

SIMILARITIES = (0.95, 0.97, 0.98, 0.99, 0.995)  # of which the effect is shown
LARGE = 0.1  # the share of all ROIs from which a group of look-alikes is worth a word


class Params(BaseModel):
    """Parameters of `assign_splits`."""

    model_config = ConfigDict(extra="forbid")

    label_field: str = Field(
        "ground_truth",
        title="Label field",
        description="The 'Classification' field with the labels: shares hold in each class",
    )
    train: float = Field(0.7, ge=0, le=1, title="Share for training", description="From 0 to 1; the three add up to 1")
    val: float = Field(0.15, ge=0, le=1, title="Share for validation", description="From 0 to 1")
    test: float = Field(0.15, ge=0, le=1, title="Share for testing", description="From 0 to 1; 0 for none")
    group_field: str | None = Field(
        None,
        title="Keep together by",
        description="A field such as the day or the dive: no group is ever cut",
        examples=["capture_day"],
    )
    group_embeddings: str | None = Field(
        None,
        title="Keep look-alikes together by",
        description="A field of vectors: near-duplicates, such as one animal in neighbouring frames, stay together",
    )
    group_similarity: float = Field(
        0.99,
        gt=0,
        le=1,
        title="Similarity of look-alikes",
        description="Cosine of their vectors, up to 1: the lower, the larger the groups",
    )
    seed: int = Field(51, description="The same seed gives the same splits")
    overwrite: bool = Field(False, description="Also move samples that have a split already")


def work(job: Job) -> dict[str, Any]:
    """Assigns the splits and tags the samples."""
    job.run.progress(0, 0, "Reading labels and groups")
    plan = plan_for(job.view, job.params, job.run)
    table, split = plan.splits.table, plan.splits.split
    job.run.progress(0, 0, f"Tagging {len(plan.ids):,} samples")
    samples.set_tags(job.dataset, plan.ids, split, samples.SPLITS)
    workspaces.save(job.dataset, workspaces.TRAIN)
    samples.remember(job.dataset, "group_field", job.params.group_field)
    counts = {name: sum(row.get(name, 0) for row in table.values()) for name in samples.SPLITS}
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    changed = sum(old != new for old, new in zip(plan.before, split, strict=True))
    message = f"{sum(counts.values()):,} labelled ROIs have a split: {said}; {changed:,} are new or moved."
    if not changed and not job.params.overwrite:
        message += " All had one already; 'Overwrite' assigns them anew."
    if plan.without_vector:
        message += f" {plan.without_vector:,} ROIs have no vector, so their look-alikes are not known."
    return {
        "message": " ".join([message, *plan.warnings, *problems_of(plan.splits)]),
        "counts": {**counts, "without_label": sum(name is None for name in split)},
        "splits": table_of(table),
        "look_alikes": plan.look_alikes,
        "changed": changed,
    }


@dataclass(frozen=True)
class Plan:
    """What would become of a view's samples.

    Attributes:
        ids: N samples
        splits: theirs to be
        before: theirs as they are
        look_alikes: what each similarity would hold together, as rows of a table
        without_vector: samples whose look-alikes are not known
        warnings: sentences about look-alikes
    """

    ids: list[str]
    splits: splits.Splits
    before: list[str | None]
    look_alikes: list[dict[str, Any]]
    without_vector: int
    warnings: list[str]


def plan_for(view: SampleCollection, params: Any, monitor: Monitor | None = None) -> Plan:
    """Reads the view and splits it; writes nothing."""
    dataset = view._root_dataset
    samples.require_label_field(dataset, params.label_field)
    if params.group_field and not samples.has_path(dataset, params.group_field):
        raise InputError(f"The dataset {dataset.name!r} has no field {params.group_field!r} to keep together by.")
    columns = {"label": f"{params.label_field}.label", "tags": "tags", "hash": _hash_field(dataset)}
    if params.group_field:
        columns["group"] = params.group_field
    table = samples.read(view, columns)
    if not any(table["label"]):
        raise InputError(f"No ROI of this view has a label in {params.label_field!r}; label some first.")
    before = [samples.split_of(tags) for tags in table["tags"]]
    near, look_alikes, missing = _look_alikes(view, params, monitor or Monitor())
    warned = [_chained(row, len(table["id"])) for row in look_alikes if row["chosen"]]
    plan = splits.assign(
        table["label"],
        {name: getattr(params, name) for name in samples.SPLITS},
        groups=[None if g is None else str(g) for g in table["group"]] if params.group_field else None,
        hashes=table["hash"],
        existing=None if params.overwrite else before,
        seed=params.seed,
        near=[near.get(i) for i in table["id"]] if near else None,
    )
    return Plan(table["id"], plan, before, look_alikes, missing, [text for text in warned if text])


def _chained(row: Mapping[str, Any], count: int) -> str | None:
    """What to know of a group so large that no split can be what was asked for."""
    if row["largest group"] <= LARGE * count:
        return None
    return (
        f"One group of look-alikes has {row['largest group']:,} of {count:,} ROIs, which all go to one split: a higher "
        "similarity makes smaller groups."
    )


def _look_alikes(
    view: SampleCollection, params: Any, monitor: Monitor
) -> tuple[dict[str, str], list[dict[str, Any]], int]:
    """Each sample's group of look-alikes, what other similarities would give, and the number without a vector."""
    if not params.group_embeddings:
        return {}, [], 0
    from ..embeddings import spanning

    ids, found, missing = vectors.read(view, params.group_embeddings)
    edges, weights = spanning.minimum_spanning_tree(found, min_samples=0, monitor=monitor)
    rows, near = [], {}
    for similarity in sorted({*SIMILARITIES, params.group_similarity}):
        group = spanning.groups_at(edges, weights, len(ids), similarity)
        sizes = np.bincount(group)
        alike = sizes[sizes > 1]
        rows.append(
            {
                "similarity": similarity,
                "chosen": similarity == params.group_similarity,
                "groups": len(alike),
                "ROIs in groups": int(alike.sum()),
                "largest group": int(sizes.max()),
            }
        )
        if similarity == params.group_similarity:
            first = dict(zip(group[::-1].tolist(), ids[::-1], strict=True))  # the first sample of each group names it
            near = {i: f"of ROI {first[g]}" for i, g in zip(ids, group.tolist(), strict=True) if sizes[g] > 1}
    return near, rows, missing


def _hash_field(dataset: fo.Dataset) -> str:
    """Where content hashes are: what training wrote, else what FiftyOne's duplicate search did."""
    return samples.HASH_FIELD if dataset.has_sample_field(samples.HASH_FIELD) else "filehash"


def table_of(table: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Labelled ROIs by class and split, as rows of a table."""
    return [{"class": label, **{name: row.get(name, 0) for name in samples.SPLITS}} for label, row in table.items()]


def problems_of(plan: splits.Splits) -> Sequence[str]:
    """What a person should know of these splits, as sentences."""
    small = [f"{label}: {reason}" for label, reason in plan.too_small.items()]
    return [*([f"Too small for a split of each kind: {'; '.join(small)}."] if small else []), *plan.problems]
