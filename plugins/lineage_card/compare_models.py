"""`compare_models`: a thin layer between FiftyOne and `shared/workflows/comparing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fiftyone import ViewField
from pydantic import BaseModel, ConfigDict, Field

from .shared import samples
from .shared.errors import InputError, SuiteError
from .shared.forms import Form
from .shared.jobs import apply_job
from .shared.lineage.gates import FEWEST
from .shared.lineage.registry import PRODUCTION, Registry, VersionRecord
from .shared.operators import Job, Spec, SuiteOperator
from .shared.runs import claim
from .shared.wording import many

if TYPE_CHECKING:
    from .shared.workflows.comparing import Comparison, Measured, Rows, Together

FIELD = "comparison"  # what is said of each sample that was compared
INFO = "mbari_comparison"  # the key of that field's info: which versions were compared
VIEWS = "compare: "  # how the names of the suite's saved views begin
SAID = "Made by the suite; each comparison replaces it"
LISTED = 100  # unreadable images listed by name in a result


class Params(BaseModel):
    """Parameters of `compare_models`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[str] = Field(
        min_length=1,
        description="Aliases (ptvr@production) or versions (ptvr/<version>); the others are compared with the first, "
        "and one alone with the version in production",
        examples=[["demo@candidate", "demo@production"]],
    )
    label_field: str = Field("ground_truth", min_length=1, title="Label field", description="The true labels")
    slices: list[str] = Field(
        default=[], description="Sample fields, such as depth or date: figures for each of their values as well"
    )


class CompareModels(SuiteOperator):
    """Puts versions side by side on samples that none of them has learned from."""

    spec = Spec(
        name="compare_models",
        label="Compare models",
        description="Versions side by side on the same labelled ROIs: overall, by class, and where they disagree",
        icon="balance",
        writes="fiftyone",
    )

    Params = Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.version("models", several=True)
        named = [record for name in form.value("models") or [] if (record := chosen(form, name))]
        records = alone_with_production(named, Registry(form.db)) if len(named) == 1 else named
        form.label_field()
        form.slices()
        if problem := refusal(form.ctx.dataset, records, form.value("slices")):
            form.error(problem)
        elif len(records) == 1:
            form.notice("It is compared with none: name another, or promote one to production first.")
        elif records:
            form.notice(f"Compared with {records[0].name}: {', '.join(record.name for record in records[1:])}.")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Compare ptvr@candidate, ptvr@production on 1,144 ROIs"."""
        return f"Compare {', '.join(params.models)} on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Compares, unless another run does on this dataset: both would write the same fields and views."""
        claim(job.db, job.run.id, f"compare/{job.dataset._doc.id}")
        return work(job)


def chosen(form: Form, name: str | None) -> VersionRecord | None:
    """The version that a name means; what is wrong with the name is said in the form."""
    try:
        return Registry(form.db).resolve(name) if name else None
    except SuiteError as error:
        form.error(str(error))
        return None


def alone_with_production(named: list[VersionRecord], registry: Registry) -> list[VersionRecord]:
    """A version, after the one in production of its model where there is another."""
    held = registry.aliases(named[0].model).get(PRODUCTION)
    return named if held in (None, named[0].version) else [registry.get(named[0].model, held), *named]


def refusal(dataset: Any, records: Sequence[VersionRecord], sliced: Sequence[str]) -> str | None:
    """Why a comparison must not be written, or cannot be made; None where it can."""
    for record in records:
        field = record.prediction_field
        if problem := apply_job.taken(dataset, field):
            return f"The predictions of {record.name} go to {field!r}. {problem}"
        if samples.writer(dataset, field) not in (None, record.name):
            return f"The field {field!r} was written by {samples.writer(dataset, field)}: rename it."
    found = dataset.get_field(FIELD)
    if found is not None and INFO not in (found.info or {}):
        return f"The field {FIELD!r} exists and no comparison of this suite made it: rename it."
    for field in sliced:
        if problem := samples.not_sliced(dataset, field):
            return problem
    return None


def work(job: Job) -> dict[str, Any]:
    """Compares versions on the target, and writes predictions and verdicts to the samples.

    `job.params` are `Params`; the dataset is not changed before all versions have been applied.
    """
    from .shared.artifacts import open_root, scratch
    from .shared.media import Media
    from .shared.workflows import ancestry, comparing

    params, registry = job.params, Registry(job.db)
    named = list({record.name: record for record in map(registry.resolve, params.models)}.values())
    records = alone_with_production(named, registry) if len(named) == 1 else named
    if problem := refusal(job.dataset, records, params.slices):
        raise InputError(problem)
    rows, unlabelled = labelled(job.view, params.label_field, params.slices)
    root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
    with scratch("compare-") as folder:
        job.run.progress(0, 0, "Looking up what the versions were trained on")
        known = ancestry.seen(records, registry, root, folder)
        both = comparing.together(records, rows, known, Media(job.secrets).read, root, folder, job.run)
    if both.stopped:
        return {"message": "It was stopped before all versions were applied: nothing was written."}
    samples.mark_unreadable(job.dataset, [sample_id for sample_id, _ in both.unreadable])
    if not len(both.rows):
        raise InputError(
            f"There is nothing to compare on: of {len(rows) + unlabelled:,} ROIs {unlabelled:,} have no label in "
            f"{params.label_field!r}. {both.left_out()} Choose other samples."
        )
    job.run.progress(0, 0, "Comparing")
    compared = comparing.compare(both.rows, both.measured)
    for record, one in zip(records, both.measured, strict=True):
        _write_predictions(job.dataset, record, both.rows, one)
    views = _write_verdicts(job.dataset, both.rows, compared)
    held = [", ".join(a for a, v in registry.aliases(one.model).items() if v == one.version) for one in records]
    return _result(records, held, both, compared, unlabelled, [*known.unknown, *_outside(known.outside)], views)


def labelled(view: Any, label_field: str, sliced: Sequence[str] = ()) -> tuple[Rows, int]:
    """The samples of a view that have a label, and how many have none.

    Raises:
        InputError: there is no such label field, or a field cannot be sliced by
    """
    from .shared import slices
    from .shared.workflows.comparing import Rows

    dataset = view._root_dataset
    samples.require_label_field(dataset, label_field)
    columns = {"uri": "filepath", "label": f"{label_field}.label"}
    table = samples.read(view, {**columns, **{f"slice {name}": name for name in sliced}})
    have = [row for row, label in enumerate(table["label"]) if label]
    columns = {name: [values[row] for row in have] for name, values in table.items()}
    cut = {}
    for name in sliced:
        column = columns[f"slice {name}"]
        if problem := slices.why_not(column):
            raise InputError(f"The field {name!r} cannot be sliced by: {problem}.")
        cut[name] = slices.values(column)
    rows = Rows(str(dataset._doc.id), columns["id"], columns["uri"], columns["label"], cut)
    return rows, len(table["id"]) - len(have)


def _outside(names: Sequence[str]) -> list[str]:
    return [f"What {name} had been trained on before is not known here." for name in names]


# Writing


def _write_predictions(dataset: Any, record: VersionRecord, rows: Rows, measured: Measured) -> None:
    """Stores a version's predictions; those that say the same already stay as they are, with their logits."""
    field = record.prediction_field
    if samples.writer(dataset, field) is None:
        info = apply_job.field_info(
            record.name, measured.runtime, measured.framing, measured.imgsz, measured.classes, threshold=0.0
        )
        samples.prepare_label_field(dataset, field, info, measured.classes)
    labels = measured.labels()
    for start in range(0, len(rows), samples.BATCH):
        part = slice(start, start + samples.BATCH)
        ids = rows.ids[part]
        before = dict(zip(*dataset.select(ids).values(["id", f"{field}.label"]), strict=True))
        new = [
            (sample_id, label, confidence)
            for sample_id, label, confidence in zip(ids, labels[part], measured.confidence[part].tolist(), strict=True)
            if before.get(sample_id) != label
        ]
        if new:
            samples.write_labels(dataset, field, *map(list, zip(*new, strict=True)))


def _write_verdicts(dataset: Any, rows: Rows, compared: Comparison) -> list[str]:
    """Says on each sample who is right, in place of the last comparison, and saves views; returns their names."""
    from .shared.workflows.comparing import ALL_WRONG, RIGHT, WRONG_APART, verdict

    before = dataset.exists(FIELD).values("id") if dataset.has_sample_field(FIELD) else []
    others = sorted(set(before) - set(rows.ids))
    samples.write_values(dataset, FIELD, others, [None] * len(others))
    samples.write_values(dataset, FIELD, rows.ids, compared.verdicts())
    field = dataset.get_field(FIELD)
    field.info = {INFO: {"models": compared.names, "at": datetime.now(UTC).isoformat(timespec="seconds")}}
    field.save()
    for name in dataset.list_saved_views():
        if name.startswith(VIEWS) and dataset.get_saved_view_info(name)["description"] == SAID:
            dataset.delete_saved_view(name)
    found = ViewField(FIELD)
    views = {f"{VIEWS}all wrong": found.is_in([ALL_WRONG, WRONG_APART])}
    if len(compared.names) > 1:
        views[f"{VIEWS}disagree"] = found.starts_with(RIGHT) | (found == WRONG_APART)
        for name in compared.names:
            views[f"{VIEWS}only {name} right"] = found == verdict([name], len(compared.names))
    for name, condition in views.items():
        dataset.save_view(name, dataset.match(condition), description=SAID, overwrite=True)
    return list(views)


# Saying


def _result(
    records: Sequence[VersionRecord],
    held: Sequence[str],
    both: Together,
    compared: Comparison,
    unlabelled: int,
    remarks: Sequence[str],
    views: list[str],
) -> dict[str, Any]:
    names = compared.names
    return {
        "message": _message(both, compared, unlabelled, remarks, views),
        "models": names,
        "counts": {
            "compared": len(both.rows),
            "without label": unlabelled,
            "trained on": both.by_id,
            "same image as one trained on": both.by_bytes,
            "unreadable": len(both.unreadable),
        },
        "overall": [
            {
                "version": record.name,
                "aliases": aliases,
                "top-1": interval(score["top1"], score["intervals"]["top1"]),
                "macro F1": interval(score["macro_f1"], score["intervals"]["macro_f1"]),
                "unknown labels": unknown,
                "images/s": round(one.rate, 1),
                "MB": round(one.size / 1e6, 1),
                "runs on": one.runtime,
                "predictions": record.prediction_field,
            }
            for record, aliases, one, score, unknown in zip(
                records, held, both.measured, compared.scores, compared.unknown_labels, strict=True
            )
        ],
        "differences": [
            {"version": name, "less": names[0], "top-1": signed(found["top1"]), "macro F1": signed(found["macro_f1"])}
            for name, found in zip(names[1:], compared.differences, strict=True)
        ],
        "by_class": [
            {"class": of_one[0]["label"], "n": of_one[0]["n"]}
            | {f"F1 {name}": interval(row["f1"], row["f1_interval"]) for name, row in zip(names, of_one, strict=True)}
            for of_one in zip(*(score["per_class"] for score in compared.scores), strict=True)
            if of_one[0]["n"]
        ],
        "by_slice": [
            {"field": of_one[0]["field"], "value": of_one[0]["value"], "n": of_one[0]["n"]}
            | {
                f"top-1 {name}": interval(row["top1"], row["top1_interval"])
                for name, row in zip(names, of_one, strict=True)
            }
            | {f"macro F1 {name}": round(row["macro_f1"], 3) for name, row in zip(names, of_one, strict=True)}
            for of_one in zip(*(score.get("slices", []) for score in compared.scores), strict=True)
        ],
        "unreadable": [{"sample": i, "reason": reason} for i, reason in both.unreadable[:LISTED]],
        "saved_views": views,
    }


def _message(
    both: Together, compared: Comparison, unlabelled: int, remarks: Sequence[str], views: Sequence[str]
) -> str:
    scores = ", ".join(
        f"{name} {100 * score['top1']:.1f} %" for name, score in zip(compared.names, compared.scores, strict=True)
    )
    said = [f"On {len(both.rows):,} ROIs top-1 is {scores}."]
    for name, found in zip(compared.names[1:], compared.differences, strict=True):
        _, low, high = found["top1"]
        how = "is better than" if low > 0 else "is worse than" if high < 0 else "cannot be told apart from"
        if len(both.rows) < FEWEST:
            how = f"cannot be held, on fewer than {FEWEST} ROIs, against"
        said.append(f"{name} {how} {compared.names[0]} (top-1 {signed(found['top1'])}).")
    for name, count in zip(compared.names, compared.unknown_labels, strict=True):
        if count:
            said.append(f"{name} does not know the labels of {count:,} of them, which count as wrong.")
    if unlabelled:
        said.append(f"{unlabelled:,} ROIs have no label.")
    said += [both.left_out(), *remarks, f"See the saved views {', '.join(map(repr, views))}."]
    return " ".join(filter(None, said))


def interval(value: float, ends: Sequence[float]) -> str:
    """A figure with its 95% interval, such as "0.812 (0.760 to 0.858)"."""
    return f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def signed(difference: Sequence[float]) -> str:
    """A difference with its 95% interval, such as "+0.012 (-0.004 to +0.030)"."""
    value, low, high = difference
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
