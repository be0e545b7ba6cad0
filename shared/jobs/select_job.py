"""`select_for_review` between a dataset and `review.select`: reads predictions and vectors, chooses, has it written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .. import clustered, samples, selected
from ..errors import InputError
from ..operators import Job
from . import select_data

if TYPE_CHECKING:
    from ..review.precision import Precision
    from ..review.select import Selection
    from .select_data import Checked, Near, Scale, Table


class Params(BaseModel):
    """Parameters of `select_for_review`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prediction_field: str = Field(
        min_length=1, title="Predictions", description="A field of 'Apply a classifier'", examples=["pred_demo"]
    )
    budget: int = Field(500, ge=1, le=20_000, description="How many ROIs a person will look at", examples=[200])
    confident: float = Field(
        0.9, gt=0, le=1, description="From 0 to 1, calibrated: more confident predictions get spot checks alone"
    )
    rare_classes: list[str] = Field(
        default=[], title="Rare classes", description="Left empty, those with less than the rare share of all labels"
    )
    rare_quota: int | None = Field(
        None, ge=0, title="Rare quota", description="How many ROIs of the budget at most; left empty, three tenths"
    )
    embeddings_field: str | None = Field(
        None,
        title="Embeddings",
        description="For novel ROIs, and so that frames of one animal are not chosen together",
        examples=["embeddings"],
    )
    cluster_field: str | None = Field(None, title="Clusters", description="ROIs in no cluster count as novel")
    label_field: str = Field("ground_truth", min_length=1, title="Label field", description="What is known already")
    only_unlabelled: bool = Field(
        True,
        title=selected.UNLABELLED,
        description="Otherwise ROIs that have a label can be chosen as well",
        examples=[False],
    )
    rare_share: float = Field(0.01, ge=0, le=1, title="Rare share", description="From 0 to 1, of all labels")
    seed: int = Field(51, description="The source of chance of spot checks")


@dataclass(frozen=True)
class Outcome:
    """A selection that was written: from what, how, and the names of its saved views."""

    table: Table
    chosen: Selection
    scale: Scale
    precision: list[Precision]
    before: Checked
    near: Near
    examples: Mapping[str, int]
    views: list[str]


def refusal(dataset: Any, predictions: str, label_field: str, clusters: str | None) -> str | None:
    """Why a selection cannot be made from these fields, or must not be written; None where it can."""
    have = samples.label_fields(dataset)
    if predictions not in have:
        return f"The dataset has no Classification field {predictions!r} (it has: {', '.join(have) or 'none'})."
    if label_field not in have and dataset.has_sample_field(label_field):
        return f"The field {label_field!r} is not a Classification field; choose another one."
    if predictions == label_field:
        return "The predictions are in the label field itself; choose the field that a classifier wrote."
    if clusters and clusters not in clustered.fields(dataset):
        return f"The field {clusters!r} has no clusters of this suite: run 'Cluster embeddings' first."
    return selected.refusal(dataset)


def all_labelled(view: Any, label_field: str) -> str | None:
    """Why nothing unlabelled can be chosen from a view, if so."""
    label = f"{label_field}.label"
    if not samples.has_path(view._root_dataset, label) or view.exists(label, False).limit(1).count():
        return None
    return f"All ROIs of the target have a label in {label_field!r}: {selected.UNTICK}, or choose another target."


def classes_of(dataset: Any, field: str) -> list[str]:
    """The classes of a prediction field, in the order of its logits where that is known."""
    return in_order(dataset, field) or sorted(dataset.distinct(f"{field}.label"))


def in_order(dataset: Any, field: str) -> list[str]:
    """The classes in the order of the logits, as this suite says it with the predictions; none where it is not said."""
    return list((dataset.get_field(field).info or {}).get("classes") or [])


def work(job: Job) -> Outcome | None:
    """Chooses what a person should look at from the target; None if it was stopped, and then nothing is written.

    `job.params` are `Params`; the dataset is not changed before all is chosen.

    Raises:
        InputError: a field is missing or somebody else's, or there is nothing to choose from
    """
    from ..review import precision, select

    dataset, params, run = job.dataset, job.params, job.run
    dataset.reload()
    if problem := refusal(dataset, params.prediction_field, params.label_field, params.cluster_field):
        raise InputError(problem)
    run.progress(0, 0, "Calibrating")
    classes = classes_of(dataset, params.prediction_field)
    scale = select_data.calibrate(dataset, job.view, params, in_order(dataset, params.prediction_field))
    known = select_data.labels(dataset, params.label_field)
    counts = known or job.view.count_values(f"{params.prediction_field}.label")
    rare = select.rare_classes(classes, counts, params.rare_classes, params.rare_share)
    try:
        table = select_data.read(job, classes, scale, rare)
    except select_data.Unfit as why:
        scale = select_data.unfit(params.prediction_field, str(why))
        table = select_data.read(job, classes, scale, rare)
    if table is None:
        return None
    of = table.predictions
    before = select_data.spot_checks(dataset, params, of.classes, scale)
    near = select_data.near(job, table) if params.embeddings_field else select_data.Near()
    if run.stopping():
        return None
    run.progress(0, 0, "Choosing")
    chosen = select.choose(
        of,
        params.budget,
        confident=params.confident,
        rare_quota=params.rare_quota,
        examples=np.array([known.get(name, 0) for name in of.classes]),
        checked=before.checked,
        novelty=near.novelty,
        unclustered=table.unclustered,
        vectors=near.vectors,
        seen=near.seen,
        seed=params.seed,
    )
    if run.stopping():
        return None
    kinds = [kind for kind in select.KINDS if kind in chosen.kinds]
    reasons = dict(zip(table.ids_of(chosen.rows), chosen.reasons, strict=True))
    views = selected.write(dataset, params.prediction_field, params.confident, reasons, kinds)
    drawn = of.predicted[chosen.rows[np.array(chosen.kinds) == "confident"]]
    by_class = precision.by_class(
        of.classes,
        of.predicted,
        of.confidence,
        params.confident,
        np.bincount(drawn, minlength=len(of.classes)),
        before.checked,
        before.right,
    )
    return Outcome(table, chosen, scale, by_class, before, near, known, views)
