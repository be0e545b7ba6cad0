"""`assign_splits`: which ROIs a model learns from, and which ones judge it."""

from typing import Any

import fiftyone as fo

from .shared import samples
from .shared.forms import Form
from .shared.jobs import split_job
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator, target_view

MOST_IN_FORM = 20_000  # ROIs whose look-alikes a form looks for; a run has the time


class AssignSplits(SuiteOperator):
    """Tags samples `train`, `val` and `test`: stratified, and never cutting through a group."""

    spec = Spec(
        name="assign_splits",
        label="Assign train, val and test",
        description="Split for training, validation, testing: no leak between groups (a dive) or identical images",
        icon="call_split",
        writes="fiftyone",
        quick=True,
    )
    Params = split_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs and, when asked, the table that would result."""
        label_field = form.label_field()
        form.sample_field("group_field", fo.StringField, fo.IntField, fo.DateField, fo.DateTimeField, fo.BooleanField)
        form.sample_field("group_embeddings", fo.VectorField)
        if form.value("group_embeddings"):
            form.field("group_similarity")
        form.fields("train", "val", "test", "seed", "overwrite")
        shares = {name: form.value(name) for name in samples.SPLITS}
        if abs(sum(shares.values()) - 1) > 1e-6:
            form.error(f"The three shares must add up to 1; they add up to {sum(shares.values()):.3g}.")
        elif label_field and form.on_request("Show the table that this would give"):
            values = {name: form.value(name) for name in self.Params.model_fields}
            view = target_view(form.ctx)
            if form.value("group_embeddings") and view.count() > MOST_IN_FORM:
                form.notice(f"For more than {MOST_IN_FORM:,} ROIs with look-alikes the result shows the tables.")
                return
            key = ("assign_splits", *samples.state(view), str(values))
            plan = cached(key, lambda: split_job.plan_for(view, self.Params(**values)))
            form.table(split_job.table_of(plan.splits.table), "Splits")
            form.table(plan.look_alikes, "Look-alikes, by similarity")
            for problem in [*plan.warnings, *split_job.problems_of(plan.splits)]:
                form.warning(problem)

    def work(self, job: Job) -> dict[str, Any]:
        """Assigns the splits and tags the samples."""
        return split_job.work(job)
