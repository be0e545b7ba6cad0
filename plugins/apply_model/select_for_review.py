"""`select_for_review`: the form and what is said; the work is in `shared/jobs/select_job.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import numpy as np

from .shared import clustered, samples, selected, vectors
from .shared.forms import Form
from .shared.jobs import select_data, select_job
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, target_view
from .shared.review import select
from .shared.runs import claim
from .shared.wording import many

WHAT = {
    "confident": "spot checks, drawn at random with an equal quota a class",
    "rare": "not confident, perhaps of a class with few examples",
    "novel": "far from all that have a label, or in no cluster",
    "confusing": "not confident",
}


class SelectForReview(SuiteOperator):
    """Tags the samples of the target that a person should look at, and says why."""

    spec = Spec(
        name="select_for_review",
        label="Select for review",
        description="Active learning: choose the ROIs worth a look: spot checks, rare, novel and confusing ones",
        icon="fact_check",
        writes="fiftyone",
    )
    Params = select_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset = form.ctx.dataset
        form.predictions()
        field = form.value("prediction_field")
        form.fields("budget", "confident")
        form.field("only_unlabelled")
        if form.value("only_unlabelled") and field != form.value("label_field"):
            view, label = target_view(form.ctx), form.value("label_field")
            key = ("all labelled", label, *samples.state(view))
            if problem := cached(key, lambda: select_job.all_labelled(view, label)):
                form.error(problem)
        names = select_job.classes_of(dataset, field) if field in samples.label_fields(dataset) else []
        form.choice("rare_classes", [(name, name) for name in names], several=True)
        if names and (problem := select.unknown(names, form.value("rare_classes"))):
            form.error(problem)
        form.field("rare_quota")
        embeddings = vectors.first(dataset)
        form.sample_field("embeddings_field", fo.VectorField, default=embeddings)
        have = clustered.fields(dataset)
        if have:
            form.choice("cluster_field", [(name, name) for name in have], free=True)
        if not form.value("embeddings_field", embeddings):
            form.notice("Without embeddings no novel ROIs are found, and several frames of one animal may be chosen.")
        if form.on_request("More options: label field, rare share, seed"):
            form.fields("label_field", "rare_share", "seed")
        given = [form.value(name) for name in ("prediction_field", "label_field", "cluster_field")]
        if field and (problem := select_job.refusal(dataset, *given)):
            form.error(problem)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Select up to 500 of 200,000 ROIs for review"."""
        return f"Select up to {params.budget:,} of {many(count, 'ROI')} for review"

    def work(self, job: Job) -> dict[str, Any]:
        """Chooses from the target, tags and saves views."""
        claim(job.db, job.run.id, f"review/{job.dataset._doc.id}")  # two would write the same tags and views
        outcome = select_job.work(job)
        if outcome is None:
            return {"message": "It was stopped before all was chosen: nothing was written."}
        return result(outcome)


def result(outcome: select_job.Outcome) -> dict[str, Any]:
    """What a selection says."""
    chosen, table = Counter(outcome.chosen.kinds), outcome.table
    beyond = len(table.ids) - len(outcome.chosen.rows)
    left_out = {**table.left_out, "beyond the budget": beyond}
    found = outcome.scale.measured
    return {
        "message": _message(outcome, chosen, beyond),
        "chosen": [
            {
                "kind": kind,
                "ROIs": chosen[kind],
                "of": outcome.chosen.candidates[kind],
                "what": what + (_doubt(outcome) if kind == "confusing" else ""),
            }
            for kind, what in WHAT.items()
        ],
        "not_chosen": [{"why": why, "ROIs": count} for why, count in left_out.items() if count],
        "calibration": []
        if found is None
        else [
            {
                "temperature": round(found.temperature, 3),
                "val ROIs": found.images,
                "calibration error before": round(found.before, 3),
                "after": round(found.after, 3),
            }
        ],
        "precision_by_class": [
            {
                "class": row.name,
                "to choose from": row.predictions,
                "confident": row.confident,
                "expected precision": None if row.expected is None else round(row.expected, 3),
                "to check": row.to_check,
                "interval after that": interval(row.after) if row.to_check + row.checked else None,
                "checked": row.checked,
                "right": row.right,
                "interval shown": interval(row.shown) if row.checked else None,
            }
            for row in outcome.precision
        ],
        "rare_classes": [
            {"class": name, "labelled": outcome.examples.get(name, 0), "chosen": count}
            for name, count in _rare(outcome).items()
        ],
        "saved_views": outcome.views,
        "open_view": outcome.views[0],
    }


def _doubt(outcome: select_job.Outcome) -> str:
    """How much in doubt those are that were chosen as confusing."""
    of, chosen = outcome.table.predictions, outcome.chosen
    rows = chosen.rows[np.array(chosen.kinds) == "confusing"]
    said = "; the least confident first" if of.margin is None else "; the two likeliest classes nearest to a tie first"
    if not len(rows):
        return said
    figures = (of.confidence if of.margin is None else of.margin)[rows]
    return f"{said}: {figures.min():.2f} to {figures.max():.2f}{'' if of.margin is None else ' apart'}"


def _rare(outcome: select_job.Outcome) -> Counter[str]:
    """How many were chosen because they may be of each rare class, by the one that is likeliest."""
    of, chosen = outcome.table.predictions, outcome.chosen
    counts = Counter({of.classes[number]: 0 for number in of.rare.tolist()})
    for kind, row in zip(chosen.kinds, chosen.rows, strict=True):
        if kind == "rare":
            counts[of.classes[of.rare[int(of.chances_of(row[None])[0].argmax())]]] += 1
    return counts


def _message(outcome: select_job.Outcome, chosen: Counter[str], beyond: int) -> str:
    table, near, found, count = outcome.table, outcome.near, outcome.scale.measured, len(outcome.chosen.rows)
    said = [
        f"{count:,} of {table.predicted:,} predictions {'is' if count == 1 else 'are'} tagged {selected.TAG!r} for a "
        f"person to look at: {', '.join(f'{of_kind:,} {kind}' for kind, of_kind in chosen.items())}; beyond the "
        f"budget: {beyond:,}. {selected.REASON!r} says why each was chosen. Tag what you have looked at "
        f"{selected.DONE!r}: it leaves the views, and is not chosen again."
    ]
    if table.left_out:
        said.append(f"Left out: {select_data.because(table.left_out)}.")
    if found is not None and not outcome.scale.why_not:
        said.append(
            f"Calibrated on {found.images:,} ROIs of val: temperature {found.temperature:.2f}, calibration error "
            f"{100 * found.before:.1f} % before and {100 * found.after:.1f} % after. The bound and the reasons speak "
            "of calibrated confidences, not of those in the field."
        )
    said.append(outcome.scale.why_not)
    said += table.remarks
    if not len(table.predictions.rare):
        said.append("No class counts as rare: name some, or raise the rare share.")
    said += _unknown(near, outcome.before.unsaid)
    return " ".join(filter(None, said))


def _unknown(near: select_data.Near, unsaid: int) -> Sequence[str]:
    said = []
    if unsaid:
        said.append(f"Of the reviewed spot checks {unsaid:,} without a label do not count.")
    if near.vectors is None:
        return [*said, "No embeddings were given: several frames of one animal may have been chosen."]
    if near.missing:
        said.append(f"Without a vector: {near.missing:,}.")
    if near.novelty is None:
        said.append("Too few ROIs with a label have a vector to say which are far from them.")
    return said


def interval(ends: Sequence[float]) -> str:
    """A 95% interval, such as "0.760 to 0.858"."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
