"""`select_for_review`: the form and what is said; the work is in `shared/select_job.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import fiftyone as fo

from .shared import clustered, samples, select_data, select_job, selected
from .shared.forms import Form
from .shared.operators import Job, Spec, SuiteOperator
from .shared.runs import claim

WHAT = {
    "confident": "spot checks, drawn at random with an equal quota a class",
    "rare": "not confident, perhaps of a class with few examples",
    "novel": "far from all that have a label, or in no cluster",
    "confusing": "two classes are about as likely",
}


class SelectForReview(SuiteOperator):
    """Tags the samples of the target that a person should look at, and says why."""

    spec = Spec(
        name="select_for_review",
        label="Select for review",
        description="Chooses the ROIs that are worth a person's look: spot checks, rare, novel and confusing ones",
        icon="fact_check",
        risk="medium",
    )
    Params = select_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset = form.ctx.dataset
        form.predictions()
        field = form.value("prediction_field")
        form.fields("budget", "confident")
        names = select_job.classes_of(dataset, field) if field in samples.label_fields(dataset) else []
        form.choice("rare_classes", [(name, name) for name in names], several=True)
        form.field("rare_quota")
        form.sample_field("embeddings_field", fo.VectorField)
        have = clustered.fields(dataset)
        if have:
            form.choice("cluster_field", [(name, name) for name in have], free=True)
        if not form.value("embeddings_field"):
            form.notice("Without embeddings nothing is known of novel ROIs, and frames of one animal look different.")
        if form.on_request("More options: label field, ROIs that have a label, rare share, seed"):
            form.fields("label_field", "only_unlabelled", "rare_share", "seed")
        given = [form.value(name) for name in ("prediction_field", "label_field", "cluster_field")]
        if field and (problem := select_job.refusal(dataset, *given)):
            form.error(problem)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Select 500 of 200,000 ROIs for review"."""
        return f"Select {params.budget:,} of {count:,} ROIs for review"

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
            {"kind": kind, "ROIs": chosen[kind], "of": outcome.chosen.candidates[kind], "what": what}
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


def _rare(outcome: select_job.Outcome) -> Counter[str]:
    """How many were chosen because they may be of each rare class, by the one that is likeliest."""
    of, chosen = outcome.table.predictions, outcome.chosen
    counts = Counter({of.classes[number]: 0 for number in of.rare.tolist()})
    for kind, row in zip(chosen.kinds, chosen.rows, strict=True):
        if kind == "rare":
            counts[of.classes[of.rare[int(of.chances_of(row[None])[0].argmax())]]] += 1
    return counts


def _message(outcome: select_job.Outcome, chosen: Counter[str], beyond: int) -> str:
    table, near, found = outcome.table, outcome.near, outcome.scale.measured
    said = [
        f"{len(outcome.chosen.rows):,} of {table.predicted:,} predictions are tagged {selected.TAG!r} for a person to "
        f"look at: {', '.join(f'{count:,} {kind}' for kind, count in chosen.items())}; {beyond:,} are beyond the "
        f"budget. {selected.REASON!r} says why each was chosen. Tag what you have looked at {selected.DONE!r}: it "
        "leaves the views, and is not chosen again."
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
        said.append(f"{unsaid:,} spot checks were reviewed and have no label: they do not count.")
    if near.vectors is None:
        return [*said, "No embeddings were given: frames of one animal may have been chosen together."]
    if near.missing:
        said.append(f"{near.missing:,} have no vector.")
    if near.novelty is None:
        said.append("Too few ROIs with a label have a vector to say which are far from them.")
    return said


def interval(ends: Sequence[float]) -> str:
    """A 95% interval, such as "0.760 to 0.858"."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
