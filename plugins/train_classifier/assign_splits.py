"""`assign_splits`: which ROIs a model learns from, and which ones judge it."""

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection
from pydantic import BaseModel, ConfigDict, Field

from .shared import samples, splits
from .shared.errors import InputError
from .shared.forms import Form, cached
from .shared.operators import Job, Spec, SuiteOperator, target_view

HASH_FIELD = "media_sha256"  # written by training, which has the bytes in hand


class AssignSplits(SuiteOperator):
    """Tags samples `train`, `val` and `test`: stratified, and never cutting through a group."""

    spec = Spec(
        name="assign_splits",
        label="Assign train, val and test",
        description="Stratified splits that keep groups (a day, a dive) and identical images on one side",
        icon="call_split",
        risk="medium",
        quick=True,
    )

    class Params(BaseModel):
        """Parameters of `assign_splits`."""

        model_config = ConfigDict(extra="forbid")

        label_field: str = Field("ground_truth", title="Label field")
        train: float = Field(0.7, ge=0, le=1, title="Share for training")
        val: float = Field(0.15, ge=0, le=1, title="Share for validation")
        test: float = Field(0.15, ge=0, le=1, title="Share for testing")
        group_field: str | None = Field(
            None, title="Keep together by", description="A field such as the day or the dive: no group is ever cut"
        )
        seed: int = Field(51, description="The same seed gives the same splits")
        overwrite: bool = Field(False, description="Also move samples that have a split already")

    def form(self, form: Form) -> None:
        """Draws the inputs and, when asked, the table that would result."""
        label_field = form.label_field()
        form.sample_field("group_field", fo.StringField, fo.IntField, fo.DateField, fo.DateTimeField, fo.BooleanField)
        form.fields("train", "val", "test", "seed", "overwrite")
        shares = {name: form.value(name) for name in samples.SPLITS}
        if abs(sum(shares.values()) - 1) > 1e-6:
            form.error(f"The three shares must add up to 1; they add up to {sum(shares.values()):.3g}.")
        elif label_field and form.on_request("Show the table that this would give"):
            values = {name: form.value(name) for name in self.Params.model_fields}
            view = target_view(form.ctx)
            key = ("assign_splits", *samples.state(view), str(values))
            _, plan, _ = cached(key, lambda: _plan(view, self.Params(**values)))
            form.table(_table(plan.table), "Splits")
            for problem in _problems(plan):
                form.warning(problem)

    def work(self, job: Job) -> dict[str, Any]:
        """Assigns the splits and tags the samples."""
        job.run.progress(0, 0, "Reading labels and groups")
        ids, plan, before = _plan(job.view, job.params)
        job.run.progress(0, 0, f"Tagging {len(ids):,} samples")
        samples.set_tags(job.dataset, ids, plan.split, samples.SPLITS)
        samples.remember(job.dataset, "group_field", job.params.group_field)
        counts = {name: sum(row.get(name, 0) for row in plan.table.values()) for name in samples.SPLITS}
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        changed = sum(old != new for old, new in zip(before, plan.split, strict=True))
        message = f"{sum(counts.values()):,} labelled ROIs have a split: {said}; {changed:,} are new or moved."
        if not changed and not job.params.overwrite:
            message += " All had one already; 'Overwrite' assigns them anew."
        return {
            "message": " ".join([message, *_problems(plan)]),
            "counts": {**counts, "without_label": sum(split is None for split in plan.split)},
            "splits": _table(plan.table),
            "changed": changed,
        }


def _plan(view: SampleCollection, params: Any) -> tuple[list[str], splits.Splits, list[str | None]]:
    """The ids of the view's samples, their splits to be, and the splits they have."""
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
    plan = splits.assign(
        table["label"],
        {name: getattr(params, name) for name in samples.SPLITS},
        groups=[None if g is None else str(g) for g in table["group"]] if params.group_field else None,
        hashes=table["hash"],
        existing=None if params.overwrite else before,
        seed=params.seed,
    )
    return table["id"], plan, before


def _hash_field(dataset: fo.Dataset) -> str:
    """Where content hashes are: what training wrote, else what FiftyOne's duplicate search did."""
    return HASH_FIELD if dataset.has_sample_field(HASH_FIELD) else "filehash"


def _table(table: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    return [{"class": label, **{name: row.get(name, 0) for name in samples.SPLITS}} for label, row in table.items()]


def _problems(plan: splits.Splits) -> Sequence[str]:
    small = [f"{label}: {reason}" for label, reason in plan.too_small.items()]
    return [*([f"Too small for a split of each kind: {'; '.join(small)}."] if small else []), *plan.problems]
