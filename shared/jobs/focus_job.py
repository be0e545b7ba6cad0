"""`evaluate_predictions` between a dataset and `review.focus`: evaluates, ranks what is weak, and has it written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from pydantic import Field

from .. import focus_views, samples, selected, vectors, workspaces
from ..errors import InputError, SuiteError
from ..operators import Job
from ..runs import claim
from . import evaluate_job

if TYPE_CHECKING:
    from ..review.focus import Item, Predictions
    from ..review.wrong_labels import WrongLabels
    from .evaluate_job import Evaluation

OF_THE_LIST = (
    "This is a view of the focus list, which holds little but mistakes: evaluate the dataset, or the view that the "
    "list was made of."
)
LOGITS = 10_000  # samples whose logits are read at a time: of 200 each, 16 MB


class Params(evaluate_job.Params):
    """Parameters of `evaluate_predictions`."""

    slices: list[str] = Field(
        default=[],
        description="Sample fields, such as depth, collection or date: where, alone or two together, the model is weak",
        examples=[["season"]],
    )


def refusal(dataset: fo.Dataset, params: Any) -> str | None:
    """Why an evaluation cannot be made, or its focus list not be written, if so."""
    for name in params.slices:
        if problem := samples.not_sliced(dataset, name):
            return problem
    return evaluate_job.refusal(dataset, params)


def work(job: Job) -> dict[str, Any]:
    """Evaluates the predictions on the target, and says where to look, in a table, in saved views and on the card.

    Raises:
        InputError: a field is missing, not the suite's, or cannot be sliced by; no sample can be judged; or another
            run evaluates on this dataset, which would write the same marks and views
    """
    from ..review import focus

    if problem := refusal(job.dataset, job.params):
        raise InputError(problem)
    if focus_views.is_one(job.view):
        raise InputError(OF_THE_LIST)
    if job.run.id:
        claim(job.db, job.run.id, f"evaluate/{job.dataset._doc.id}")
    dated, remarks = _dated(job)
    columns = {f"slice {name}": name for name in job.params.slices}
    table = evaluate_job.read(job, {**columns, **({"day": dated} if dated else {})})
    cut = _sliced(job, table)
    made = evaluate_job.evaluate(job, table)
    found = _predictions(job, made, cut)
    doubts, said = _wrong_labels(job, made, found)
    remarks += [*_unsure(table), *said]
    if job.run.stopping():
        remarks.append("It was stopped before all labels were looked at: the focus list is as it was.")
        return {**made.result, "remarks": [*made.remarks, *remarks]}
    remarks += _replaced(job)
    job.run.progress(0, 0, "Looking for what is weak")
    suspects = None
    if doubts is not None:
        rows = doubts.indices
        suspects = focus.Suspects(rows, doubts.suggested[rows], doubts.chance[rows])
    items = focus.rank(found, suspects)
    job.run.progress(0, 0, "Saving views")
    views = focus_views.write(
        job.dataset,
        made.table["id"],
        items,
        job.params.prediction_field,
        {} if doubts is None else _doubts(made, found, doubts),
        {
            "eval_key": job.params.key,
            "prediction_field": job.params.prediction_field,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "views": len(items),
        },
    )
    remarks += _keep(job, made, items, remarks)
    workspaces.save(job.dataset, workspaces.REVIEW)
    return _result(made, items, views, remarks)


def _dated(job: Job) -> tuple[str | None, list[str]]:
    """The field that says when each ROI was taken: one to slice by, else the only one; what to say of class mix."""
    have = samples.sliced_fields(job.dataset, *samples.DATED)
    named = [name for name in job.params.slices if name in have]
    if not (named or len(have) == 1):
        which = f"choose one of {', '.join(have)} to slice by" if have else "no field has dates"
        return None, [f"Class mix is not held against that of earlier seasons: {which}."]
    field = (named or have)[0]
    if _kinds(job):
        return field, []
    return field, [
        f"Class mix is held against that of earlier seasons by {field!r}, all collections together: slice by the field "
        "that tells them apart."
    ]


def _kinds(job: Job) -> list[str]:
    """The fields to slice by that tell kinds of images apart, such as the collection."""
    return [name for name in job.params.slices if isinstance(job.dataset.get_field(name), fo.StringField)]


def _sliced(job: Job, table: Mapping[str, list[Any]]) -> dict[str, list[str | None]]:
    """The names of the slices, by field.

    Raises:
        InputError: a field cannot be sliced by
    """
    from .. import slices

    for name in job.params.slices:
        if problem := slices.why_not(table[f"slice {name}"]):
            raise InputError(f"The field {name!r} cannot be sliced by: {problem}.")
    return {name: slices.values(table[f"slice {name}"]) for name in job.params.slices}


def _predictions(job: Job, made: Evaluation, cut: Mapping[str, list[str | None]]) -> Predictions:
    from ..review.focus import Predictions

    table = made.table
    classes = sorted({name for column in ("label", "predicted") for name in table[column] if name is not None})
    return Predictions(
        classes,
        _coded(table["label"], classes),
        _coded(table["predicted"], classes),
        _confidence(table),
        made.learned,
        cut,
        _days(table["day"]) if "day" in table else None,
        _kinds(job),
    )


def _confidence(table: Mapping[str, list[Any]]) -> np.ndarray:
    """The confidences, float64 (N,), NaN where there is none that could be one."""
    given = np.array([np.nan if value is None else value for value in table["confidence"]], dtype=np.float64)
    return np.where((given >= 0) & (given <= 1), given, np.nan)


def _unsure(table: Mapping[str, list[Any]]) -> list[str]:
    """Says how many predictions have no confidence that can be used."""
    unknown = np.isnan(_confidence(table))
    count = sum(name is not None and no for name, no in zip(table["predicted"], unknown, strict=True))
    return [f"{count:,} predictions have no confidence between 0 and 1: it says nothing of them."] if count else []


def _replaced(job: Job) -> list[str]:
    """Says whose list this one takes the place of, if it is another model's."""
    before = focus_views.last(job.dataset).get("prediction_field")
    if before in (None, job.params.prediction_field):
        return []
    return [
        f"It takes the place of the focus list of {before!r} in this dataset; on the card of that version it stays."
    ]


def _coded(names: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    """Names as positions among the classes, int64 (N,); -1 for any other, and for None."""
    number = {name: i for i, name in enumerate(classes)}
    return np.fromiter((-1 if name is None else number.get(name, -1) for name in names), np.int64, len(names))


def _days(values: Sequence[date | None]) -> np.ndarray:
    return np.array([None if v is None else v.isoformat()[:10] for v in values], dtype="datetime64[D]")


# Wrong labels


def _wrong_labels(job: Job, made: Evaluation, found: Predictions) -> tuple[WrongLabels | None, list[str]]:
    """Labels that look wrong, of all that are labelled, learned from or not; and a line on how they were looked for.

    What a person has reviewed is not doubted again.
    """
    from ..review import wrong_labels

    labelled = job.view.exists(f"{job.params.label_field}.label")
    place = {identity: row for row, identity in enumerate(made.table["id"])}
    remarks: list[str] = []
    result = None
    if field := vectors.first(job.dataset):
        try:
            features = _features(job, field, samples.packed(made.table["id"]), found.truth >= 0)
        except InputError as error:
            remarks.append(str(error))
        else:
            result = wrong_labels.find(found.truth, features, None, len(found.classes), monitor=job.run)
            remarks.append(f"Wrong labels were looked for by the vectors in {field!r}, in all that are labelled.")
    elif (logits := _logits(job, labelled, place)) is not None:
        names, probabilities = logits
        given = _coded(made.table["label"], names)
        result = _renamed(wrong_labels.find(given, None, probabilities, len(names), monitor=job.run), names, found)
        remarks.append(
            "Wrong labels were looked for by the stored logits, which find few among those that were learned from: run "
            "'Compute embeddings' for more."
        )
    else:
        remarks.append("Wrong labels were not looked for: there are no vectors; run 'Compute embeddings' first.")
    if result is None:
        return None, remarks
    seen = np.array([selected.DONE in (tags or ()) for tags in made.table["tags"]], dtype=bool)
    return replace(result, indices=result.indices[~seen[result.indices]]), remarks


def _features(job: Job, field: str, ids: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The vectors of the labelled among N samples, float32 (N, D), zeros where there is none.

    Raises:
        InputError: none has one, or they differ in length
    """
    read = vectors.reader(job.dataset, field)
    rows = np.flatnonzero(labelled)
    features = np.zeros((len(ids), read(ids[:0]).shape[1]), dtype=np.float32)
    for start in range(0, len(rows), vectors.CHUNK):
        job.run.progress(start, len(rows), "Reading embeddings")
        some = rows[start : start + vectors.CHUNK]
        features[some] = read(ids[some])
    if not features.any():
        raise InputError(f"No labelled ROI of the target has a vector in {field!r}: {vectors.RUN} first.")
    return features


def _logits(job: Job, view: Any, place: Mapping[str, int]) -> tuple[list[str], np.ndarray] | None:
    """The model's classes and the probabilities (N, C) of all samples, NaN where none is stored; None without any."""
    from scipy.special import softmax

    field = job.params.prediction_field
    names = (job.dataset.get_field(field).info or {}).get("classes")
    if not names:
        return None
    found = np.full((len(place), len(names)), np.nan, dtype=np.float32)
    some = False
    for batch in samples.batches(view, {"logits": f"{field}.logits"}, LOGITS):
        rows = [
            (place[identity], logits)
            for identity, logits in zip(batch["id"], batch["logits"], strict=True)
            if identity in place and logits is not None and len(logits) == len(names)
        ]
        if rows:
            some = True
            found[[row for row, _ in rows]] = softmax(np.array([logits for _, logits in rows], np.float32), axis=1)
    return (list(names), found) if some else None


def _renamed(result: WrongLabels | None, names: Sequence[str], found: Predictions) -> WrongLabels | None:
    """The same with what is suggested as positions among the classes of the list; what is not there is left out."""
    if result is None:
        return None
    position = np.append(_coded(names, found.classes), -1)  # -1 stays -1
    suggested = position[result.suggested]
    return replace(result, indices=result.indices[suggested[result.indices] >= 0], suggested=suggested)


def _doubts(made: Evaluation, found: Predictions, doubts: WrongLabels) -> dict[str, tuple[float, str]]:
    """For each sample whose label looks wrong how well it fits, and what it looks like instead."""
    return {
        made.table["id"][row]: (float(doubts.quality[row]), found.classes[doubts.suggested[row]])
        for row in doubts.indices.tolist()
    }


# Keeping and saying


def _keep(job: Job, made: Evaluation, items: Sequence[Item], remarks: Sequence[str]) -> list[str]:
    """Stores the list beside the model version and renders its card anew; returns what should be said of that."""
    from ..artifacts import open_root
    from ..lineage import focus_list
    from ..workflows import describing

    record = made.record
    if record is None:
        return []
    try:
        root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
        focus_list.add(root, record.name, _list(job, made, items, remarks))
        if describing.refusal(record):
            return [f"The list is kept beside {record.name}."]
        described = describing.describe(record, root)
    except SuiteError as error:
        return [f"The list could not be kept beside {record.name}: {error}"]
    return [f"The list is on the card of {record.name} as well ({described.uri})."]


def _list(job: Job, made: Evaluation, items: Sequence[Item], remarks: Sequence[str]) -> Any:
    from ..lineage.focus_list import FocusItem, FocusList

    result = made.result
    return FocusList(
        at=datetime.now(UTC),
        by=job.user,
        dataset=job.dataset.name,
        dataset_id=str(job.dataset._doc.id),
        label_field=job.params.label_field,
        prediction_field=job.params.prediction_field,
        eval_key=job.params.key,
        evaluated=result["counts"]["evaluated"],
        learned_from=result["counts"]["learned_from"],
        top1=result["top1"],
        macro_f1=result["macro_f1"],
        remarks=[*made.remarks, *remarks],
        items=[
            FocusItem(
                number=number,
                kind=item.kind,
                name=item.name,
                sentence=item.sentence,
                count=item.count,
                labels=item.labels,
                top1=item.top1,
                macro_f1=item.macro_f1,
                p=item.p,
            )
            for number, item in enumerate(items, start=1)
        ],
    )


def _result(made: Evaluation, items: Sequence[Item], views: Sequence[str], remarks: Sequence[str]) -> dict[str, Any]:
    said = [made.result["message"]]
    if items:
        said.append(f"Look first into {items[0].name!r}; each item of the list has a saved view 'focus ...'.")
    else:
        said.append("Nothing stands out that would be worth a look.")
    result = {**made.result, "message": " ".join(said)}
    result["focus"] = [
        {
            "number": number,
            "where to look": item.name,
            "what was found": item.sentence,
            "ROIs": item.count,
            "labels to win": round(item.labels, 1),
            "score to win": f"top-1 +{item.top1:.3f}, macro F1 +{item.macro_f1:.3f}",
        }
        for number, item in enumerate(items, start=1)
    ]
    result["remarks"] = [*made.remarks, *remarks]
    result["saved_views"] = list(views)
    if views:
        result["open_view"] = views[0]
    return result
