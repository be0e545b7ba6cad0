"""`apply_model`: the form; the work is in `shared/jobs/apply_job.py`."""

from typing import Any

from .shared.forms import Form
from .shared.jobs import apply_job
from .shared.lineage.registry import CANDIDATE, PRODUCTION
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many


def _usual(models: list[str]) -> str | None:
    """The model that most people want, of those registered: one in production, else a candidate."""
    ends = (f"@{PRODUCTION}", f"@{CANDIDATE}")
    return next((name for end in ends for name in models if name.endswith(end)), None)


class ApplyModel(SuiteOperator):
    """Gives every sample of a view the top class of a model, with its confidence."""

    spec = Spec(
        name="apply_model",
        label="Apply a classifier",
        description="Predict (inference): classify ROIs, or run a model of the registry, a file or Hugging Face folder",
        icon="auto_awesome",
        writes="fiftyone",
        distributed=True,
        button=True,
    )
    Params = apply_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        models = form.models()
        usual = _usual([name for name, _ in models])
        form.choice("model", models, free=True, default=usual)
        model = form.value("model") or usual
        if not model:
            form.notice("No model is registered yet: train one with 'Train a classifier', or give the path of weights.")
        record = form.registered(model)
        form.field("prediction_field")
        chosen = form.value("prediction_field") or (record and record.prediction_field)
        problem = chosen and apply_job.taken(form.ctx.dataset, chosen)
        if problem:
            form.error(problem)
        elif chosen:
            form.notice(f"The predictions go to {chosen!r}.")
        form.fields("confidence_threshold", "skip_existing")
        if form.on_request("More options: logits, runtime, precision, device, batch size, framing"):
            form.fields("store_logits", "runtime", "precision", "device", "batch_size", "framing", "imgsz")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Apply ptvr@production on 1,144 ROIs"."""
        return f"Apply {params.model} on {many(count, 'ROI')}"

    def work(self, job: Job) -> dict[str, Any]:
        """Applies the model to the target."""
        return apply_job.work(job)
