"""`evaluate_predictions`: the form; the work is in `shared/jobs/focus_job.py`."""

from typing import Any

from .shared import focus_views, samples
from .shared.forms import Form
from .shared.jobs import focus_job
from .shared.operators import Job, Spec, SuiteOperator, target_view
from .shared.wording import many


class EvaluatePredictions(SuiteOperator):
    """Says how good predictions are, and where to look first."""

    spec = Spec(
        name="evaluate_predictions",
        label="Evaluate predictions",
        description="Accuracy, confusion, metrics; where a model is weak; each wrong label or mistake, to review",
        icon="troubleshoot",
        writes="fiftyone",
    )
    Params = focus_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        dataset = form.ctx.dataset
        # The newest, for those of the last list have been evaluated.
        form.predictions(free=True, default=next(iter(samples.predictions(dataset)), None))
        form.label_field()
        form.field("eval_key")
        form.slices()
        if focus_views.is_one(target_view(form.ctx)):
            form.error(focus_job.OF_THE_LIST)
        if form.value("prediction_field"):
            params = focus_job.Params(**{name: form.value(name) for name in focus_job.Params.model_fields})
            if problem := focus_job.refusal(dataset, params):
                form.error(problem)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Evaluate pred_ptvr_a1b2c3 on 1,144 ROIs"."""
        return f"Evaluate {params.prediction_field} on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Evaluates, and says where to look."""
        return focus_job.work(job)
