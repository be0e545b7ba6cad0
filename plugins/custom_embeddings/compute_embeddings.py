"""`compute_embeddings`: a thin layer between FiftyOne and `shared/workflows/embedding.py`."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .shared import samples, vectors
from .shared.embeddings.names import SHORT_NAMES
from .shared.errors import InputError
from .shared.forms import Form
from .shared.lineage.registry import Registry, is_registered
from .shared.memo import cached
from .shared.operators import Job, Spec, SuiteOperator
from .shared.wording import many

LISTED = 100  # unreadable images listed by name in a result; all of them are tagged

USUAL = (
    ("dino_vits8", "dino_vits8: DINO, 8-pixel patches, 384 numbers; sees the detail of small ROIs"),
    ("dino_vits16", "dino_vits16: DINO, 16-pixel patches, 384 numbers; four times as fast"),
    ("dino_vitb8", "dino_vitb8: DINO, 8-pixel patches, 768 numbers; slower"),
    ("dinov2_vits14", "dinov2_vits14: DINOv2, 14-pixel patches, 384 numbers"),
    ("dinov3_vits16", "dinov3_vits16: DINOv3, 16-pixel patches, 384 numbers"),
)


class ComputeEmbeddings(SuiteOperator):
    """Gives every ROI of a view, or every patch in it, a vector that says what it looks like."""

    spec = Spec(
        name="compute_embeddings",
        label="Compute embeddings",
        description="Features of ROIs or patches, by DINO, another backbone or a trained model, to map and cluster",
        icon="scatter_plot",
        writes="fiftyone",
        distributed=True,
    )

    class Params(BaseModel):
        """Parameters of `compute_embeddings`."""

        model_config = ConfigDict(extra="forbid", protected_namespaces=())

        model: str = Field(
            "dino_vits8",
            min_length=1,
            title="Backbone",
            description="A DINO network, any model of timm, a trained model (ptvr@production), the path or URI of a "
            ".pt file or a Hugging Face folder",
            examples=["demo@candidate"],
        )
        weights: str | None = Field(
            None,
            description="File or s3:// URI of the backbone's weights, for workers without a way to the hub; left "
            "empty, they come from there",
        )
        embeddings_field: str = Field(
            "embeddings",
            pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
            title="Embeddings field",
            description="Letters, digits and '_'",
            examples=["demo_vectors"],
        )
        patches_field: str | None = Field(
            None, title="Patches field", description="Vectors of the boxes in it, instead of whole ROIs"
        )
        framing: Literal["pad", "crop"] = Field(
            "pad", description="How an ROI becomes a square; a trained model of the registry has its own"
        )
        imgsz: int = Field(224, ge=32, le=2048, title="Image size", description="Pixels; a multiple of the patches'")
        skip_existing: bool = Field(False, description="Only ROIs that have no vector yet")
        precision: Literal["auto", "full"] = Field("auto", description="full: 32 bits, for exact comparisons")
        batch_size: int | None = Field(None, ge=1, le=4096, description="Left empty, chosen for the hardware")
        device: str = Field("auto", description="auto, cpu, cuda or cuda:<n>")

    def form(self, form: Form) -> None:
        """Draws the inputs."""
        form.choice("model", [*USUAL, *_models(form)], free=True)
        registered = _in_registry(form)
        form.field("weights")
        form.field("embeddings_field")
        dataset, patches = form.ctx.dataset, vectors.patches_fields(form.ctx.dataset)
        if patches or form.value("patches_field"):
            form.choice("patches_field", [(name, name) for name in patches], free=True)
        _say_field(form, dataset, patches)
        form.field("skip_existing")
        if registered:
            form.notice("Vectors are those of the layer before the classes; framing and size are the model's own.")
        if form.on_request("More options: framing, size, precision, device, batch size"):
            form.fields("framing", "imgsz", "precision", "device", "batch_size")

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Embed 1,144 ROIs with dino_vits8"."""
        return f"Embed {many(count, 'ROI')} with {params.model}"

    def work(self, job: Job) -> dict[str, Any]:
        """Computes the vectors of the target."""
        from .shared.artifacts import scratch
        from .shared.media import Media
        from .shared.workflows import embedding

        params = job.params
        path = vectors.path_of(params.embeddings_field, params.patches_field)
        if params.patches_field:
            vectors.require_patches_field(job.dataset, params.patches_field)
        if problem := vectors.refusal(job.dataset, path):
            raise InputError(problem)  # before anything is fetched
        if job.view.count() == 0:
            raise InputError("There is no sample in the chosen view; choose another target.")
        job.run.progress(0, 0, f"Loading {params.model}")
        with scratch("embed-") as folder:
            backbone = embedding.find(
                params.model,
                folder,
                job.db,
                job.secrets,
                weights=params.weights,
                framing=params.framing,
                imgsz=params.imgsz,
            )
            info = embedding.info(backbone)
            if problem := vectors.refusal(job.dataset, path, info):
                raise InputError(problem)
            items, total = _items(job)
            if total == 0:
                return _nothing_to_do(job, path)
            runtime = embedding.runtime(
                backbone, precision=params.precision, device=params.device, batch_size=params.batch_size
            )
            written_at = datetime.now(UTC).isoformat(timespec="seconds")
            vectors.prepare(job.dataset, path, {**info, "runtime": runtime.description, "written_at": written_at})
            write = _writer(job)
            embedded = embedding.embed(items, total, backbone, runtime, Media(job.secrets).read, write, monitor=job.run)
        return _result(job, path, info, runtime.description, embedded, total)


def _models(form: Form) -> list[tuple[str, str]]:
    """Trained models of the registry, by their aliases."""

    def look() -> list[tuple[str, str]]:
        registry = Registry(form.db)
        return [
            (f"{model}@{alias}", f"{model}@{alias} ({version})")
            for model in registry.models()
            for alias, version in registry.aliases(model).items()
        ]

    return cached("compute_embeddings/models", look, seconds=5)


def _in_registry(form: Form) -> bool:
    """Whether the chosen model is one of the registry; the form says so if there is no such version."""
    name = form.value("model")
    known = cached("compute_embeddings/names", lambda: Registry(form.db).models(), seconds=5)
    if not is_registered(name) or not ("@" in name or "/" in name or name in known):
        return False
    return form.registered(name) is not None


def _say_field(form: Form, dataset: Any, patches: list[str]) -> None:
    """Says where the vectors go, or why they cannot go there."""
    chosen, name = form.value("patches_field"), form.value("embeddings_field")
    if chosen and chosen not in patches:
        form.error(f"The dataset has no Detections field {chosen!r} (it has: {', '.join(patches) or 'none'}).")
        return
    path = vectors.path_of(name, chosen)
    made = vectors.made_by(dataset, path)
    if problem := vectors.refusal(dataset, path):
        form.error(problem)
    elif made and vectors.holds_any(dataset, path) and not _is_of(form, made):
        form.error(
            f"{path!r} holds vectors of {vectors.describe(made)}, and others cannot be mixed with them: choose another "
            "field, or delete this one first."
        )
    elif made:
        form.notice(f"{path!r} holds vectors of {vectors.describe(made)}; only more of the same can go there.")


def _is_of(form: Form, made: Mapping[str, Any]) -> bool:
    """Whether a field's vectors are those of the chosen model, as far as names tell; the run compares the weights."""
    name, backbone = form.value("model"), str(made.get("backbone"))
    if record := form.registered(name) if _in_registry(form) else None:
        return backbone == record.name
    # Timm adds the name of the pretraining to a bare name.
    expected = SHORT_NAMES.get(name, Path(name).name)
    # A Hugging Face folder may say its own.
    alike = "/" in name or all(form.value(key) == made.get(key) for key in ("framing", "imgsz"))
    return alike and (backbone == expected or backbone.startswith(f"{expected}."))


def _items(job: Job) -> tuple[Iterator[tuple[Any, Any]], int]:
    """The ROIs or patches to compute, and how many there are."""
    from .shared.pipeline import Patch

    name, patches_field = job.params.embeddings_field, job.params.patches_field
    if patches_field is None:
        view = vectors.without(job.view, name) if job.params.skip_existing else job.view
        return _whole(view), view.count()
    lacking = name if job.params.skip_existing else None
    total = sum(1 for _ in vectors.patches(job.view, patches_field, lacking))
    found = vectors.patches(job.view, patches_field, lacking)
    return (((sample, label), Patch(path, box)) for sample, label, path, box in found), total


def _whole(view: Any) -> Iterator[tuple[str, str]]:
    for batch in samples.batches(view, {"filepath": "filepath"}):
        yield from zip(batch["id"], batch["filepath"], strict=True)


def _writer(job: Job) -> Any:
    """Takes batches of vectors, and keeps the tag of unreadable media right."""
    name, patches_field = job.params.embeddings_field, job.params.patches_field
    tagged = set(job.dataset.match_tags(samples.UNREADABLE).values("id"))

    def write(ids: list[Any], found: Any, bad: list[tuple[Any, str]]) -> None:
        vectors.write(job.dataset, name, ids, found, patches_field)
        if patches_field is None:
            samples.mark_unreadable(job.dataset, [i for i, _ in bad], [i for i in ids if i in tagged])

    return write


def _nothing_to_do(job: Job, path: str) -> dict[str, Any]:
    counts = {"rois": 0, "written": 0, "unreadable": 0}
    if job.params.skip_existing:
        message = f"Every ROI of the target has a vector in {path!r} already: nothing was to do."
        return {"message": message, "embeddings_field": path, "counts": counts}
    raise InputError(f"No sample of the target has a box in {job.params.patches_field!r}.")


def _result(job: Job, path: str, info: dict[str, Any], runtime: str, embedded: Any, total: int) -> dict[str, Any]:
    what = "patches" if job.params.patches_field else "ROIs"
    done = embedded.written + len(embedded.unreadable)
    rate = done / embedded.seconds if embedded.seconds else 0.0
    left = job.params.skip_existing  # of those that others were not left out of
    if not embedded.written and embedded.unreadable and not embedded.stopped and not left:
        _, reason = embedded.unreadable[0]
        raise InputError(f"None of {total:,} {what} could be read, so there are no vectors. The first one: {reason}")
    message = (
        f"{embedded.written:,} of {total:,} {what} have vectors of {vectors.describe(info)} in {path!r} "
        f"({runtime}, {rate:,.1f} images/s)."
    )
    if embedded.unreadable:
        message += f" {len(embedded.unreadable):,} could not be read"
        message += "." if job.params.patches_field else f"; they are tagged {samples.UNREADABLE!r}."
    if embedded.stopped:
        message += f" It was stopped: {total - done:,} are left; run it again with 'skip existing' to go on."
    else:
        message += " 'Visualize embeddings' makes a map of them, 'Cluster embeddings' finds what belongs together."
    return {
        "message": message,
        "embeddings_field": path,
        "backbone": info,
        "runtime": runtime,
        "images_per_second": round(rate, 1),
        "counts": {"rois": total, "written": embedded.written, "unreadable": len(embedded.unreadable)},
        "unreadable": [{"roi": _id(i), "reason": reason} for i, reason in embedded.unreadable[:LISTED]],
    }


def _id(key: Any) -> str:
    return key if isinstance(key, str) else key[1]
