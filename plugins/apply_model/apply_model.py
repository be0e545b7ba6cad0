"""`apply_model`: the form; the work is in `shared/jobs/apply_job.py`."""

from typing import Any

from .shared.forms import Form
from .shared.jobs import apply_job
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many


class ApplyModel(SuiteOperator):
    """Gives every sample of a view the top class of a model, with its confidence."""

    spec = Spec(
        name="apply_model",
        label="Apply a classifier",
        description="Label ROIs with a trained model: a version of the registry, a .pt file or a Hugging Face folder",
        icon="auto_awesome",
        risk="medium",
        distributed=True,
    )
    Params = apply_job.Params

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        models = form.models()
        form.choice("model", models, free=True)
        if not models and not form.value("model"):
            form.notice("No model is registered yet: train one with 'Train a classifier', or give the path of weights.")
        record = form.registered(form.value("model"))
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
