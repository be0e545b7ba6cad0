"""Predictions of a field against labels, as FiftyOne's own evaluation, for the App's Model Evaluation panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .. import focus_views, labelled, labelling, samples
from ..errors import InputError, SuiteError
from ..operators import Job
from ..sync.store import LabelField, vocabulary
from ..wording import many

if TYPE_CHECKING:
    from ..lineage.registry import VersionRecord

INFO = "mbari_evaluation"  # the key of the info of an evaluation's field: this suite has made it
LEARNED = ("train", "val")  # val chooses the epoch, so it is no judge either


class Params(BaseModel):
    """How predictions are evaluated."""

    model_config = ConfigDict(extra="forbid")

    prediction_field: str = Field(
        title="Prediction field", examples=["pred_demo"], description="A field of 'Apply a classifier'"
    )
    label_field: str = Field("ground_truth", title="Label field", description="What the predictions are held against")
    eval_key: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        title="Evaluation key",
        description="Letters, digits and '_'; left empty, it is named after the prediction field",
    )

    @property
    def key(self) -> str:
        """The evaluation key."""
        return self.eval_key or f"eval_{self.prediction_field}"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation was made on.

    Attributes:
        table: equally long lists of the N samples of the target, see `read`
        learned: which of them the model was trained or chosen on, bool (N,)
        record: the version that predicted; None where that is none of the registry
        remarks: what is not known
        result: the outcome of the operator, JSON-ready
    """

    table: Mapping[str, list[Any]]
    learned: np.ndarray
    record: VersionRecord | None
    remarks: list[str]
    result: dict[str, Any]


def read(job: Job, more: Mapping[str, str] | None = None) -> dict[str, list[Any]]:
    """The columns that an evaluation needs of the target, and more of them by name and path.

    Raises:
        InputError: a field is missing, or the key is somebody else's
    """
    params = job.params
    if problem := refusal(job.dataset, params):
        raise InputError(problem)
    columns = {
        "label": f"{params.label_field}.label",
        "predicted": f"{params.prediction_field}.label",
        "prediction_id": f"{params.prediction_field}.id",
        "confidence": f"{params.prediction_field}.confidence",
        "tags": "tags",
        "sha256": samples.HASH_FIELD,
    }
    return samples.read(job.view, {**columns, **(more or {})})


def evaluate(job: Job, table: Mapping[str, list[Any]]) -> Evaluation:
    """Evaluates the predictions on the labelled samples of the target that were not learned from.

    Left out are samples tagged train or val, and all that the version or one it was fine-tuned from was trained or
    chosen on, whatever their tags say now.

    Args:
        job: whose dataset gets the evaluation
        table: of its target, see `read`

    Raises:
        InputError: no sample can be judged
    """
    dataset, params = job.dataset, job.params
    key = params.key
    complete = np.array([None not in both for both in zip(table["label"], table["predicted"], strict=True)], dtype=bool)
    tagged = np.array([not set(LEARNED).isdisjoint(tags or ()) for tags in table["tags"]], dtype=bool)
    record, known, remarks = learned_from(job, table)
    learned = tagged | known
    count, left = int((complete & ~learned).sum()), int((complete & learned).sum())
    if not count:
        raise InputError(
            f"No ROI of the target has a label, a prediction in {params.prediction_field!r} and neither of the tags "
            f"train and val, and was not learned from ({left:,} have or were): label some new ones, or choose another "
            "view."
        )
    before, since = _before(dataset, key), _since(job, table, learned)
    # By a mark, for a view of a list of ids would not fit the evaluation's document.
    mark = focus_views.leave_out(dataset, key, [table["id"][row] for row in np.flatnonzero(known & ~tagged)])
    judged = job.view.exists(f"{params.label_field}.label").exists(f"{params.prediction_field}.label")
    judged = judged.match_tags(list(LEARNED), bool=False).match(mark)
    job.run.progress(0, 0, f"Evaluating {count:,} predictions")
    if key in dataset.list_evaluations():
        dataset.delete_evaluation(key)
    claim_key(dataset, key)
    judged.evaluate_classifications(params.prediction_field, gt_field=params.label_field, eval_key=key, progress=False)
    rows = np.flatnonzero(complete & ~learned)
    truth, predicted = ([table[name][row] for row in rows] for name in ("label", "predicted"))
    unpredicted = sum(a is not None and b is None for a, b in zip(table["label"], table["predicted"], strict=True))
    result = _result(key, truth, predicted, left, unpredicted)
    changes = _won(before, [table["prediction_id"][row] for row in rows], truth, predicted)
    remarks += _open_corrections(job)
    result["message"] = " ".join(filter(None, [result["message"], changes, since]))
    return Evaluation(table, learned, record, remarks, result)


def refusal(dataset: fo.Dataset, params: Any) -> str | None:
    """Why predictions cannot be evaluated, if so."""
    for field in (params.prediction_field, params.label_field):
        try:
            samples.require_label_field(dataset, field)
        except InputError as error:
            return str(error)
    if params.prediction_field == params.label_field:
        return f"The field {params.label_field!r} cannot be held against itself: choose a field of predictions."
    return taken(dataset, params.key) or focus_views.refusal(dataset)


def taken(dataset: fo.Dataset, key: str) -> str | None:
    """Why an evaluation must not go under a key, if it must not."""
    field = dataset.get_field(key)
    if field is not None and INFO in (field.info or {}):
        return None
    if key in dataset.list_evaluations():
        return f"The evaluation {key!r} is none of this suite's: choose another key."
    return None if field is None else f"The dataset has a field {key!r} already: choose another evaluation key."


def claim_key(dataset: fo.Dataset, key: str) -> None:
    """Makes the field of an evaluation before that is made: however it ends, it is known whose it is."""
    if dataset.get_field(key) is None:
        dataset.add_sample_field(key, fo.BooleanField)
    field = dataset.get_field(key)
    field.info = {**(field.info or {}), INFO: {}}
    field.save()


# What was learned from


def learned_from(job: Job, table: Mapping[str, list[Any]]) -> tuple[VersionRecord | None, np.ndarray, list[str]]:
    """Which samples the version that wrote the predictions, or one that it came from, has learned from.

    Args:
        job: whose parameters name the prediction field
        table: the columns "id" and "sha256" of N samples

    Returns:
        the version, None where that is none of the registry; bool (N,); and what is not known, in sentences
    """
    record, known, remarks = learned(job)
    return record, known(table), remarks


def learned(job: Job) -> tuple[VersionRecord | None, Callable[[Mapping[str, list[Any]]], np.ndarray], list[str]]:
    """The same as `learned_from` for tables that come one after another: it is looked up once."""
    record, remarks = _record(job)
    job.run.progress(0, 0, "Looking up what the model was trained on")
    return record, _known(job, record, remarks), remarks


def _record(job: Job) -> tuple[VersionRecord | None, list[str]]:
    """The version that wrote the predictions, and a remark where there is none."""
    from ..lineage.registry import Registry, is_registered

    field = job.params.prediction_field
    name = samples.writer(job.dataset, field)
    why = "they are not of this suite" if name is None else f"{name} is no version of the registry"
    if name is not None and is_registered(name):
        try:
            return Registry(job.db).resolve(name), []
        except SuiteError as error:
            why = str(error).rstrip(".")
    return None, [
        f"What the predictions in {field!r} were learned from is known by the tags train and val only: {why}."
    ]


def _known(
    job: Job, record: VersionRecord | None, remarks: list[str]
) -> Callable[[Mapping[str, list[Any]]], np.ndarray]:
    """Says which samples the version, or one that it came from, has learned from; what is not known is a remark."""
    from ..artifacts import open_root, scratch
    from ..lineage.registry import Registry
    from ..workflows import ancestry

    def nothing(table: Mapping[str, list[Any]]) -> np.ndarray:
        return np.zeros(len(table["id"]), dtype=bool)

    if record is None:
        return nothing
    try:
        root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
        with scratch("evaluate-") as folder:
            seen = ancestry.seen([record], Registry(job.db), root, folder)
    except SuiteError as error:
        remarks.append(f"What {record.name} was trained on is known by the tags train and val only: {error}")
        return nothing
    remarks += seen.unknown
    remarks += [f"What {name} had been trained on before is not known here." for name in seen.outside]
    return lambda table: seen.by_id(str(job.dataset._doc.id), table["id"]) | seen.by_bytes(table["sha256"])


# Saying


def _result(key: str, truth: list[str], predicted: list[str], left: int, unpredicted: int) -> dict[str, Any]:
    from sklearn.metrics import f1_score

    # Over the classes that are there, as everywhere in the suite; FiftyOne's own counts those only predicted as well.
    macro_f1 = f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)
    count = len(truth)
    top1 = sum(t == p for t, p in zip(truth, predicted, strict=True)) / count
    without = f", and {unpredicted:,} with a label and no prediction" if unpredicted else ""
    return {
        "message": f"{many(count, 'ROI')} not learned from: top-1 {top1:.3f}, macro F1 {macro_f1:.3f}; the Model "
        f"Evaluation panel shows it as {key!r}. {left:,} learned from are left out{without}.",
        "top1": top1,
        "macro_f1": float(macro_f1),
        "eval_key": key,
        "counts": {"evaluated": count, "learned_from": left, "without_prediction": unpredicted},
    }


def _since(job: Job, table: Mapping[str, list[Any]], learned: np.ndarray) -> str:
    """How many labels of the target have changed since the last evaluation under the key, in a sentence."""
    dataset, field = job.dataset, job.params.label_field
    if job.params.key not in dataset.list_evaluations():
        return ""
    then = dataset.get_evaluation_info(job.params.key).timestamp.replace(tzinfo=None)
    changed = LabelField(dataset, field, samples.source_path(dataset, field)).changed_since(then)
    rows = [row for row, identity in enumerate(table["id"]) if identity in changed]
    if not rows:
        return ""
    return (
        f"Labels of the target that were changed since the last evaluation: {len(rows):,}, of ROIs that were learned "
        f"from {int(learned[rows].sum()):,}; train again to make use of these."
    )


def _open_corrections(job: Job) -> list[str]:
    """Says how many of the target have a correction that their label does not show yet."""
    try:
        words = vocabulary(job.dataset, job.params.label_field, job.secrets)
        count = labelling.not_applied(labelled.alike(job.view, job.params.label_field), words)
    except SuiteError as error:
        return [f"Whether corrections are open is not known: {error}"]
    if not count:
        return []
    return [
        f"{count:,} have a correction that is not applied, and are judged by the label as it stands: run 'Apply "
        "corrections' first."
    ]


def _before(dataset: fo.Dataset, key: str) -> dict[str, tuple[str, bool]]:
    """The label at the last evaluation under a key, and whether the prediction was that, by the prediction's id."""
    if key not in dataset.list_evaluations():
        return {}
    try:
        last = dataset.load_evaluation_results(key)
        columns = zip(last.ypred_ids, last.ytrue, last.ypred, strict=True)
    except (ValueError, AttributeError, TypeError):  # it was never finished, or is of another kind
        return {}
    return {str(identity): (str(truth), truth == said) for identity, truth, said in columns}


def _won(before: Mapping[str, tuple[str, bool]], ids: list[str], truth: list[str], predicted: list[str]) -> str:
    """What became of the ROIs that the last evaluation was made on, in a sentence; empty where nothing did."""
    then = [before.get(i) for i in ids]
    both = [(old, new, said) for old, new, said in zip(then, truth, predicted, strict=True) if old is not None]
    changed = sum(old[0] != new for old, new, _ in both)
    first, now = sum(old[1] for old, _, _ in both), sum(new == said for _, new, said in both)
    if not changed and first == now:
        return ""
    return (
        f"Of the {len(both):,} ROIs that were in the last evaluation as well, {changed:,} have another label now; "
        f"{first:,} were right then, {now:,} are now."
    )
