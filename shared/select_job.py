"""`select_for_review` between a dataset and `review.select`: reads predictions and vectors, chooses, has it written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from . import clustered, evaluate_job, samples, selected, vectors
from .errors import InputError
from .operators import Job
from .sync.corrections import OWN_TAGS

if TYPE_CHECKING:
    from .review.calibration import Calibration
    from .review.novelty import Novelty
    from .review.precision import Precision
    from .review.select import Predictions, Selection

MODEL_KNOWS = "learned from (train, val)"
SIZE = 10_000  # samples read at a time: of 200 logits each, 16 MB
MOST_VAL = 20_000  # predictions that the temperature is found with


class Params(BaseModel):
    """Parameters of `select_for_review`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prediction_field: str = Field(min_length=1, title="Predictions", description="A field of 'Apply a classifier'")
    budget: int = Field(500, ge=1, le=20_000, description="How many ROIs a person will look at")
    confident: float = Field(
        0.9, gt=0, le=1, description="From 0 to 1: more confident predictions get spot checks alone"
    )
    rare_classes: list[str] = Field(
        default=[], title="Rare classes", description="Left empty, those with less than the rare share of all labels"
    )
    rare_quota: int | None = Field(
        None, ge=0, title="Rare quota", description="How many ROIs of the budget at most; left empty, three tenths"
    )
    embeddings_field: str | None = Field(
        None, title="Embeddings", description="For novel ROIs, and against five frames of the same animal"
    )
    cluster_field: str | None = Field(None, title="Clusters", description="ROIs in no cluster count as novel")
    label_field: str = Field("ground_truth", min_length=1, title="Label field", description="What is known already")
    only_unlabelled: bool = Field(True, description="Otherwise ROIs that have a label can be chosen as well")
    rare_share: float = Field(0.01, ge=0, le=1, title="Rare share", description="From 0 to 1, of all labels")
    seed: int = Field(51, description="The source of chance of spot checks")


@dataclass(frozen=True)
class Scale:
    """How logits become probabilities.

    Attributes:
        temperature: what the logits are divided by; None where the confidences are used as they are
        measured: how far the probabilities could be believed before and after, where that is known
        why_not: why nothing was calibrated, as a sentence
    """

    temperature: float | None = None
    measured: Calibration | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Table:
    """The target's predictions: N sample ids, what is said of them, which may be chosen, and why others may not.

    `remarks` are sentences about what is not known.
    """

    ids: list[str]
    predictions: Predictions
    open_: np.ndarray
    unclustered: np.ndarray | None
    left_out: Counter[str]
    remarks: list[str]


@dataclass(frozen=True)
class Checked:
    """Spot checks of earlier selections: how many of each class were reviewed, how many were right, both (C,).

    `unsaid` were reviewed and have no label.
    """

    checked: np.ndarray
    right: np.ndarray
    unsaid: int = 0


@dataclass(frozen=True)
class Near:
    """Who looks like whom: unit rows of the target and of what was reviewed, and what is far from all labels.

    `missing` of the target's predictions have no vector.
    """

    vectors: np.ndarray | None = None
    seen: np.ndarray | None = None
    novelty: Novelty | None = None
    missing: int = 0


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


def classes_of(dataset: Any, field: str) -> list[str]:
    """The classes of a prediction field, in the order of its logits where that is known."""
    info = dataset.get_field(field).info or {}
    return list(info.get("classes") or dataset.classes.get(field) or sorted(dataset.distinct(f"{field}.label")))


def work(job: Job) -> Outcome | None:
    """Chooses what a person should look at from the target; None if it was stopped, and then nothing is written.

    `job.params` are `Params`; the dataset is not changed before all is chosen.

    Raises:
        InputError: a field is missing or somebody else's, or there is nothing to choose from
    """
    from .review import precision, select

    dataset, params, run = job.dataset, job.params, job.run
    dataset.reload()
    if problem := refusal(dataset, params.prediction_field, params.label_field, params.cluster_field):
        raise InputError(problem)
    run.progress(0, 0, "Calibrating")
    classes = classes_of(dataset, params.prediction_field)
    scale = _calibrate(dataset, job.view, params, classes)
    known = _labels(dataset, params.label_field)
    counts = known or job.view.count_values(f"{params.prediction_field}.label")
    rare = select.rare_classes(classes, counts, params.rare_classes, params.rare_share)
    table = _read(job, classes, scale, rare)
    if not table.open_.any():
        raise InputError(f"There is nothing to choose from: {because(table.left_out)}.")
    before = _checked(dataset, params, table.predictions.classes, scale)
    near = _embedded(job, table) if params.embeddings_field else Near()
    run.progress(0, 0, f"Choosing {params.budget:,} ROIs")
    chosen = select.choose(
        table.predictions,
        params.budget,
        confident=params.confident,
        open_=table.open_,
        rare_quota=params.rare_quota,
        examples=np.array([known.get(name, 0) for name in table.predictions.classes]),
        checked=before.checked,
        novelty=near.novelty,
        unclustered=table.unclustered,
        vectors=near.vectors,
        seen=near.seen,
        seed=params.seed,
    )
    if run.stopping():
        return None
    ids = [table.ids[row] for row in chosen.rows.tolist()]
    kinds = [kind for kind in select.KINDS if kind in chosen.kinds]
    views = selected.write(
        dataset, params.prediction_field, params.confident, dict(zip(ids, chosen.reasons, strict=True)), kinds
    )
    of = table.predictions
    drawn = of.predicted[chosen.rows[np.array(chosen.kinds) == "confident"]]
    # Of what may be chosen alone: the model is better on what it has learned from.
    by_class = precision.by_class(
        of.classes,
        of.predicted[table.open_],
        of.confidence[table.open_],
        params.confident,
        np.bincount(drawn, minlength=len(of.classes)),
        before.checked,
        before.right,
    )
    return Outcome(table, chosen, scale, by_class, before, near, known, views)


# Reading


def _labels(dataset: Any, field: str) -> dict[str, int]:
    """How many samples have each label; none where the field is not there yet."""
    found = dataset.count_values(f"{field}.label") if dataset.has_sample_field(field) else {}
    return {label: count for label, count in found.items() if label is not None}


def _calibrate(dataset: Any, view: Any, params: Any, classes: Sequence[str]) -> Scale:
    """The temperature of the logits, found on the labelled ROIs of val; or why the confidences are used as they are."""
    from .review import calibration

    field = params.prediction_field
    predicted = view.exists(f"{field}.label").count()
    stored = view.exists(f"{field}.logits").count()
    if stored < predicted:
        return Scale(
            why_not=f"Not calibrated: {field!r} has logits of {stored:,} of {predicted:,} predictions, so the "
            "confidences are used as they are; 'Apply a classifier' stores all of them where 'store logits' is ticked."
        )
    val = dataset.match_tags("val").exists(f"{field}.logits").take(MOST_VAL, seed=params.seed)
    rows = samples.read(val, {"label": f"{params.label_field}.label", "logits": f"{field}.logits"})
    number = {name: i for i, name in enumerate(classes)}
    have = [i for i, label in enumerate(rows["label"]) if label in number and len(rows["logits"][i]) == len(classes)]
    if not have:
        return Scale(1.0, why_not="Not calibrated: no ROI that is tagged val has a label and logits.")
    labels = np.array([number[rows["label"][i]] for i in have])
    found = calibration.calibrate(np.stack([rows["logits"][i] for i in have]), labels)
    return Scale(found.temperature, found)


def _read(job: Job, classes: list[str], scale: Scale, rare: np.ndarray) -> Table:
    """The predictions of the target, batch by batch, so that the logits are never all in memory."""
    from .review import select

    params, total = job.params, job.view.count()
    columns = _columns(params, scale)
    if params.cluster_field:
        columns["cluster"] = f"{params.cluster_field}.label"
    number = {name: i for i, name in enumerate(classes)}
    ids: list[str] = []
    open_: list[bool] = []
    unclustered: list[bool] = []
    hashes: list[Any] = []
    parts: list[dict[str, np.ndarray]] = []
    left_out: Counter[str] = Counter()
    done = 0
    for batch in samples.batches(job.view, columns, SIZE):
        have = [i for i, name in enumerate(batch["predicted"]) if name is not None]
        done += len(batch["id"])
        left_out["without a prediction"] += len(batch["id"]) - len(have)
        if have:
            ids += [batch["id"][i] for i in have]
            said = [_why_not(batch["tags"][i], batch["label"][i], params) for i in have]
            left_out.update(why for why in said if why)
            open_ += [why is None for why in said]
            hashes += [batch["sha256"][i] for i in have]
            if params.cluster_field:
                unclustered += [batch["cluster"][i] is None for i in have]
            parts.append(_part(batch, have, number, scale.temperature, rare))
        job.run.progress(done, total, "Reading predictions")
    if not ids:
        raise InputError(
            f"No ROI of the target has a prediction in {params.prediction_field!r}: run 'Apply a classifier' first."
        )
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    predictions = select.Predictions(list(number), rare=rare, **joined)
    loose = np.array(unclustered) if params.cluster_field else None
    free = np.array(open_)
    remarks: list[str] = []
    if not params.only_unlabelled:  # the model may have learned from ROIs whose tags have changed since
        _, learned, remarks = evaluate_job.learned_from(job, {"id": ids, "sha256": hashes})
        left_out[MODEL_KNOWS] += int((free & learned).sum())
        free &= ~learned
    return Table(ids, predictions, free, loose, +left_out, remarks)


def _columns(params: Any, scale: Scale) -> dict[str, str]:
    field = params.prediction_field
    columns = {"predicted": f"{field}.label", "confidence": f"{field}.confidence", "tags": "tags"}
    columns |= {"label": f"{params.label_field}.label", "sha256": samples.HASH_FIELD}
    return columns if scale.temperature is None else {**columns, "logits": f"{field}.logits"}


def because(left_out: Mapping[str, int]) -> str:
    """Why ROIs were left out, as part of a sentence."""
    return ", ".join(f"{count:,} {why}" for why, count in sorted(left_out.items(), key=lambda item: -item[1]))


def _why_not(tags: Sequence[str], label: str | None, params: Any) -> str | None:
    """Why an ROI must not be chosen, if it must not."""
    tagged = set(tags or ())
    if selected.DONE in tagged:
        return "reviewed before"
    if tagged & set(evaluate_job.LEARNED):
        return MODEL_KNOWS
    if samples.UNREADABLE in tagged:
        return "unreadable"
    return "labelled before" if params.only_unlabelled and label else None


def _part(
    batch: Mapping[str, list[Any]],
    have: Sequence[int],
    number: dict[str, int],
    temperature: float | None,
    rare: np.ndarray,
) -> dict[str, np.ndarray]:
    """The columns of `Predictions` of a batch; a class that nobody named gets the next number."""
    from .review import calibration, select

    predicted = np.array([number.setdefault(batch["predicted"][i], len(number)) for i in have], np.int64)
    if temperature is None:
        given = [batch["confidence"][i] for i in have]
        confidence = np.array([1.0 if value is None else value for value in given], np.float32)
        return {"predicted": predicted, "confidence": confidence}
    logits = [batch["logits"][i] for i in have]
    lengths = {0 if row is None else len(row) for row in logits}
    if len(lengths) > 1 or predicted.max() >= max(lengths):
        raise InputError(
            "The stored logits do not fit the classes that are predicted: apply the classifier again, to a new field."
        )
    probabilities = calibration.apply(np.stack(logits), temperature)
    return {"predicted": predicted, **select.summarise(probabilities, predicted, rare)}


def _checked(dataset: Any, params: Any, classes: Sequence[str], scale: Scale) -> Checked:
    """What the reviewed spot checks of earlier selections from the same predictions have shown."""
    checked, right = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    if not selected.goes_on(dataset, params.prediction_field, params.confident):
        return Checked(checked, right)
    unsaid = 0
    view = selected.reviewed(dataset, "confident")
    columns = _columns(params, scale)
    number = {name: i for i, name in enumerate(classes)}
    for batch in samples.batches(view, columns, SIZE):
        have = [i for i, name in enumerate(batch["predicted"]) if name in number]
        if scale.temperature is not None:
            have = [i for i in have if batch["logits"][i] is not None]
        if not have:
            continue
        part = _part(batch, have, number, scale.temperature, np.zeros(0, np.int64))
        for i, of, confidence in zip(have, part["predicted"], part["confidence"], strict=True):
            said = [
                tag for tag in batch["tags"][i] or () if tag in number and tag not in OWN_TAGS
            ]  # a correction that is not applied yet
            truth = said[0] if len(said) == 1 else batch["label"][i]
            if truth is None:
                unsaid += 1
            elif confidence >= params.confident:
                checked[of] += 1
                right[of] += truth == batch["predicted"][i]
    return Checked(checked, right, unsaid)


def _embedded(job: Job, table: Table) -> Near:
    from .review import novelty, spread

    dataset, params, field = job.dataset, job.params, job.params.embeddings_field
    job.run.progress(0, 0, "Reading embeddings")
    row = {identity: i for i, identity in enumerate(table.ids)}
    ids, found, _ = vectors.read(job.view, field)
    rows = np.array([row.get(identity, -1) for identity in ids])
    unit = np.zeros((len(table.ids), found.shape[1]), np.float32)
    unit[rows[rows >= 0]] = spread.unit_rows(found[rows >= 0])
    del found
    seen = _of(dataset.match_tags(selected.DONE), field, unit.shape[1], set())
    may_be_chosen = {identity for identity, open_ in zip(table.ids, table.open_, strict=True) if open_}
    label = f"{params.label_field}.label"
    labelled = (
        _of(dataset.exists(label), field, unit.shape[1], may_be_chosen) if samples.has_path(dataset, label) else None
    )
    job.run.progress(0, 0, "Looking for what no label speaks for")
    far = None if labelled is None else novelty.novelty(unit, labelled, seed=params.seed)
    return Near(unit, seen, far, int((~unit.any(axis=1)).sum()))


def _of(view: Any, field: str, length: int, without: set[str]) -> np.ndarray | None:
    """Unit rows of the samples of a view that have a vector; None where none has."""
    from .review import spread

    view = view.exists(field)
    if not view.limit(1).count():
        return None
    ids, found, _ = vectors.read(view, field)
    if found.shape[1] != length:
        raise InputError(
            f"The vectors in {field!r} differ in length ({length:,} in the target, {found.shape[1]:,} elsewhere): they "
            "are of different backbones and cannot be compared. Compute them anew in another field."
        )
    keep = np.array([identity not in without for identity in ids])
    return spread.unit_rows(found if keep.all() else found[keep])
