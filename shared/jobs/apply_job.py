"""`apply_model` between a dataset and `applying`: reads the media, applies the model, writes its predictions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .. import samples
from ..errors import InputError
from ..lineage.registry import Registry
from ..operators import Job
from ..wording import many

LISTED = 100  # unreadable images listed by name in a result; all of them are tagged


class Params(BaseModel):
    """Parameters of `apply_model`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(
        min_length=1,
        title="Model",
        description="An alias (ptvr@production), a version (ptvr/<version>), the path or s3:// URI of weights, "
        "or hf://owner/name of the Hugging Face hub",
        examples=["demo@candidate"],
    )
    prediction_field: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="Letters, digits and '_'; left empty, it is named after the model version",
    )
    confidence_threshold: float = Field(
        0.0, ge=0, le=1, description="From 0 to 1: less confident predictions are counted, not written"
    )
    store_logits: bool = Field(False, description="Keep the whole distribution, for FiftyOne's brain")
    skip_existing: bool = Field(False, description="Only samples without a prediction of this model")
    batch_size: int | None = Field(None, ge=1, le=4096, description="Left empty, chosen for the hardware")
    runtime: Literal["auto", "torch", "openvino"] = Field("auto", description="auto takes the fastest one here")
    precision: Literal["auto", "full"] = Field("auto", description="full: 32 bits, for exact comparisons")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:<n>")
    framing: Literal["pad", "crop"] | None = Field(None, description="Only for weights that do not say")
    imgsz: int | None = Field(
        None, ge=32, le=1024, title="Image size", description="Pixels; only for weights that do not say"
    )


def work(job: Job) -> dict[str, Any]:
    """Applies the model to the target."""
    from .. import runtimes
    from ..artifacts import scratch
    from ..media import Media
    from ..workflows import applying

    params, run = job.params, job.run
    run.progress(0, 0, f"Loading {params.model}")
    with scratch("apply-") as folder:
        model = applying.find(params.model, folder, job.db, job.secrets, params.framing, params.imgsz)
        field = params.prediction_field or model.field
        _refuse_taken(job, field, model.name)
        view = job.view
        if params.skip_existing and job.dataset.has_sample_field(field):
            view = view.exists(field, False)
        total = view.count()
        if total == 0:
            return _nothing_to_do(job, field)
        runtime = runtimes.build(
            model.classifier,
            runtime=params.runtime,
            precision=params.precision,
            device=params.device,
            batch_size=params.batch_size,
        )
        network = model.classifier
        info = field_info(
            model.name,
            runtime.description,
            network.framing,
            network.imgsz,
            network.names,
            threshold=params.confidence_threshold,
        )
        samples.prepare_label_field(job.dataset, field, info, model.classifier.names)
        tagged = set(job.dataset.match_tags(samples.UNREADABLE).values("id"))

        def write(ids: list, labels: list, confidences: Any, logits: Any, unreadable: list) -> None:
            stored = logits if params.store_logits else None
            samples.write_labels(job.dataset, field, ids, labels, confidences, stored)
            bad = [sample_id for sample_id, _ in unreadable]
            samples.mark_unreadable(job.dataset, bad, [i for i in ids if i in tagged])

        media = Media(job.secrets)
        applied = applying.apply(
            _items(view),
            total,
            model,
            runtime,
            media.read,
            write,
            threshold=params.confidence_threshold,
            monitor=run,
        )
    return _result(job, model, field, runtime.description, applied, total)


def field_info(
    model: str, runtime: str, framing: str, imgsz: int, classes: Sequence[str], *, threshold: float
) -> dict[str, Any]:
    """What the `info` of a prediction field says: which model wrote it, and how."""
    return {
        samples.MODEL: model,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "runtime": runtime,
        "framing": framing,
        "imgsz": imgsz,
        "confidence_threshold": threshold,
        "classes": list(classes),  # in the order of the logits
    }


def _nothing_to_do(job: Job, field: str) -> dict[str, Any]:
    if job.params.skip_existing and job.view.count():
        return {
            "message": f"Every sample already has a prediction of this model in {field!r}: nothing was to do.",
            "prediction_field": field,
            "counts": {"samples": 0, "written": 0, "below_threshold": 0, "unreadable": 0},
        }
    raise InputError("There is no sample in the chosen view; choose another target.")


def _items(view: Any) -> Any:
    for batch in samples.batches(view, {"filepath": "filepath"}):
        yield from zip(batch["id"], batch["filepath"], strict=True)


def taken(dataset: Any, field: str) -> str | None:
    """Why predictions must not go into a field, if they must not."""
    if not dataset.has_sample_field(field):
        return None
    if field not in samples.label_fields(dataset):
        return f"The field {field!r} exists and is not a Classification field; choose another name."
    if samples.writer(dataset, field) is None and dataset.exists(field).limit(1).count():
        return f"The field {field!r} holds labels that no model of this suite wrote; choose another name."
    return None


def _refuse_taken(job: Job, field: str, model: str) -> None:
    problem = taken(job.dataset, field)
    if problem:
        raise InputError(problem)
    writer = samples.writer(job.dataset, field)
    if writer in (None, model):
        return
    if job.params.skip_existing:
        raise InputError(
            f"{field!r} was written by {writer}: skipping what it has would mix two models; choose another field."
        )
    if job.dataset.exists(field).count() > job.view.exists(field).count():
        raise InputError(
            f"{field!r} was written by {writer}, for samples outside the target too: the field would mix two models; "
            "choose another field or the whole dataset."
        )


def _result(job: Job, model: Any, field: str, runtime: str, applied: Any, total: int) -> dict[str, Any]:
    from ..workflows import applying

    mixes = {model.name: applied.mix}
    notes = []
    if model.record is not None:
        if model.record.class_counts:
            mixes["training"] = model.record.class_counts
        production = Registry(job.db).aliases(model.record.model).get("production")
        if production and production != model.record.version:
            known = _field_of(job.dataset, f"{model.record.model}/{production}")
            if known:
                mixes["in production"] = job.view.count_values(f"{known}.label")
                mixes["in production"].pop(None, None)
            else:
                notes.append(f"The model in production ({production}) has not been applied to this dataset.")
    below = sum(applied.below.values())
    done = len(applied.unreadable) + applied.written + below
    rate = done / applied.seconds if applied.seconds else 0.0
    of = many(total, "ROI")
    message = f"{model.name} labelled {applied.written:,} of {of} in {field!r} ({runtime}, {rate:,.0f} images/s)."
    if job.view.count() > total:
        message += f" {job.view.count() - total:,} had a prediction of this model already."
    if below:
        message += f" {below:,} were below the confidence threshold; the class mix counts them too."
    if applied.unreadable:
        message += f" {len(applied.unreadable):,} could not be read; they are tagged {samples.UNREADABLE!r}."
    if applied.stopped:
        message += f" It was stopped: {total - done:,} are left; run it again with 'skip existing' to go on."
    return {
        "message": " ".join([message, *notes]),
        "model": model.name,
        "prediction_field": field,
        "runtime": runtime,
        "images_per_second": round(rate, 1),
        "counts": {
            "samples": total,
            "written": applied.written,
            "below_threshold": below,
            "unreadable": len(applied.unreadable),
        },
        "class_mix": applying.mix_table(mixes),
        "below_threshold": [{"class": c, "images": n} for c, n in applied.below.most_common()],
        "unreadable": [{"sample": i, "reason": reason} for i, reason in applied.unreadable[:LISTED]],
    }


def _field_of(dataset: Any, model: str) -> str | None:
    """The prediction field that a model version wrote, if there is one."""
    for name in samples.label_fields(dataset):
        if samples.writer(dataset, name) == model:
            return name
    return None
