"""Predictions of a field against labels, as FiftyOne's own evaluation, for the App's Model Evaluation panel."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from pydantic import BaseModel, ConfigDict, Field

from . import samples
from .errors import InputError
from .operators import Job

LEARNED = ("train", "val")  # val chooses the epoch, so it is no judge either


class Params(BaseModel):
    """How predictions are evaluated."""

    model_config = ConfigDict(extra="forbid")

    prediction_field: str = Field(title="Prediction field")
    label_field: str = Field("ground_truth", title="Label field")
    eval_key: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        title="Evaluation key",
        description="Letters, digits and '_'; left empty, it is named after the prediction field",
    )


def work(job: Job) -> dict[str, Any]:
    """Evaluates the predictions on the labelled samples of the target that were not learned from.

    Raises:
        InputError: a field is missing, the key is somebody else's, or no sample can be judged
    """
    from sklearn.metrics import f1_score

    dataset, params = job.dataset, job.params
    for field in (params.prediction_field, params.label_field):
        samples.require_label_field(dataset, field)
    key = params.eval_key or f"eval_{params.prediction_field}"
    if problem := taken(dataset, key):
        raise InputError(problem)
    labelled = job.view.exists(f"{params.label_field}.label").exists(f"{params.prediction_field}.label")
    judged = labelled.match_tags(list(LEARNED), bool=False)
    count, learned = judged.count(), labelled.match_tags(list(LEARNED)).count()
    if not count:
        raise InputError(
            f"No ROI of the target has a label, a prediction in {params.prediction_field!r} and neither of the tags "
            f"train and val ({learned:,} have): label some new ones, or choose another view."
        )
    job.run.progress(0, 0, f"Evaluating {count:,} predictions")
    if key in dataset.list_evaluations():
        dataset.delete_evaluation(key)
    judged.evaluate_classifications(params.prediction_field, gt_field=params.label_field, eval_key=key, progress=False)
    truth, predicted = judged.values([f"{params.label_field}.label", f"{params.prediction_field}.label"])
    # Over the classes that are there, as everywhere in the suite; FiftyOne's own counts those only predicted as well.
    macro_f1 = f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)
    top1 = sum(t == p for t, p in zip(truth, predicted, strict=True)) / count
    return {
        "message": f"{count:,} ROIs that were not learned from: top-1 {top1:.3f}, macro F1 {macro_f1:.3f}; the Model "
        f"Evaluation panel shows it as {key!r}. {learned:,} that were learned from are left out.",
        "top1": top1,
        "macro_f1": float(macro_f1),
        "eval_key": key,
        "counts": {"evaluated": count, "learned_from": learned},
    }


def taken(dataset: fo.Dataset, key: str) -> str | None:
    """Why an evaluation must not go under a key, if it must not."""
    if key in dataset.list_evaluations():
        field = getattr(dataset.get_evaluation_info(key).config, "pred_field", None)
        if field is None or samples.writer(dataset, field) is None:
            return f"The evaluation {key!r} is none of this suite's: choose another key."
    elif dataset.has_sample_field(key):
        return f"The dataset has a field {key!r} already: choose another evaluation key."
    return None
