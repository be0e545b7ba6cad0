"""`show_training_data`: a thin layer between FiftyOne and `shared/lineage/drift.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .shared import samples, training_data
from .shared.errors import InputError
from .shared.forms import Form
from .shared.lineage import freshness
from .shared.lineage.registry import Registry, VersionRecord
from .shared.operators import Job, Spec, SuiteOperator, secrets
from .shared.runs import claim

if TYPE_CHECKING:
    import pyarrow as pa

    from .shared.lineage.drift import Drift

MANY = 5_000  # images that are better read by a worker
MANIFEST = "manifest.parquet"
# The counts of `Drift` in words.
WORDS = {
    "used": "it was made of",
    "changed": "changed in any way that counts",
    "deleted": "deleted",
    "relabelled": "labelled otherwise, or no more",
    "unlabelled": "of these, labelled no more",
    "moved": "in another split",
    "reimaged": "with other bytes",
    "unchecked": "images not looked at",
    "unreadable": "images that cannot be read",
    "new": "new: labelled with its classes, not trained on",
}


class ShowTrainingData(SuiteOperator):
    """Shows what a version was trained on, and what became of it since."""

    spec = Spec(
        name="show_training_data",
        label="Show training data",
        description="Provenance: open the ROIs that a model version learned from, and see what has changed since",
        icon="history_edu",
        writes="fiftyone",
        quick=True,
        target=False,
        needs_dataset=False,
        button=True,
    )

    class Params(BaseModel):
        """Parameters of `show_training_data`."""

        model_config = ConfigDict(extra="forbid", protected_namespaces=())

        model: str = Field(
            min_length=1, description="A model's version or alias, such as ptvr@production", examples=["demo@candidate"]
        )
        splits: list[Literal["train", "val", "test"]] = Field(
            list(samples.SPLITS), min_length=1, description="Which of them the view shows that opens"
        )
        check_images: bool = Field(
            True, title="Read the images", description="To find those whose bytes are not what they were"
        )

    def form(self, form: Form) -> None:
        """Draws the inputs, and says what is known already and how many images would be read."""
        form.version()
        form.choice("splits", [(split, split) for split in samples.SPLITS], several=True)
        form.field("check_images")
        if not secrets(form.ctx).get("MBARI_ARTIFACTS"):
            form.warning("MBARI_ARTIFACTS is not set here: only a worker that has it can fetch what a version learned.")
        record = form.registered(form.value("model"))
        if record is None:
            return
        if problem := _refusal(record):
            form.error(problem)
        known = freshness.read(form.db, [record.name]).get(record.name)
        if known:
            form.notice(f"On {known.at:%Y-%m-%d} it was found {known.verdict}. {known.rule}")
        if form.value("check_images"):
            _say_how_long(form, record)

    def run_name(self, params: Any, count: int | None) -> str:
        """Such as "Show the training data of ptvr@production"."""
        return f"Show the training data of {params.model}"

    def work(self, job: Job) -> dict[str, Any]:
        """Compares the manifest with the datasets it names, marks their samples, and saves views."""
        from .shared.lineage import drift

        params, run = job.params, job.run
        record = Registry(job.db).resolve(params.model)
        if problem := _refusal(record):
            raise InputError(problem)
        claim(job.db, run.id, f"training_data/{record.name}")
        rows = _manifest(record, job)
        used = drift.used(rows)
        found = training_data.find(_distinct(used["dataset_id"]))
        if problems := [problem for d in found.values() if (problem := training_data.refusal(d, record))]:
            raise InputError(" ".join(problems))
        now = training_data.read(found, record, used, run)
        why_not = None
        if params.check_images:
            now, why_not = training_data.with_images(used, now, job.secrets, run)
        if run.stopping():
            return {"message": "It was stopped before anything was marked."}
        changed = drift.compare(rows, now, record.classes)
        saved = {}
        for name, dataset in found.items():
            training_data.write(dataset, record, changed.marks, run)
            saved[name] = training_data.save_views(dataset, record, params.splits)
        freshness.save(job.db, record.name, changed.verdict, changed.rule, changed.counts, job.user)
        parts, main = _parts(used, found), training_data.view_name(record)
        opened = str(job.dataset._doc.id) if job.dataset is not None else None
        return {
            "message": _message(record, changed, parts, why_not, any(saved.values())),
            "verdict": changed.verdict,
            "counts": [{"what": WORDS[name], "ROIs": count} for name, count in changed.counts.items()],
            "relabelled": changed.labels,
            "moved": changed.splits,
            "per_class": changed.classes,
            "datasets": parts,
            "saved_views": sorted({view for views in saved.values() for view in views}),
            "field": training_data.field_of(record),
            "open_view": main if main in saved.get(opened, ()) else None,
        }


def _refusal(record: VersionRecord) -> str | None:
    """Why a version's training data cannot be shown, as far as a form can tell."""
    if MANIFEST not in record.files:
        return f"The version {record.name} was published without its manifest: nobody knows what it was trained on."
    main = training_data.find([record.dataset_id]) if record.dataset_id else {}
    return next((problem for dataset in main.values() if (problem := training_data.refusal(dataset, record))), None)


def _say_how_long(form: Form, record: VersionRecord) -> None:
    """How many images would be read."""
    parts = [score.get("n", 0) for split, score in record.metrics.items() if split in samples.SPLITS]
    images = sum(record.class_counts.values()) + sum(n for n in parts if isinstance(n, int))
    if images > MANY:
        form.warning(f"About {images:,} images are read: better schedule it, or untick 'Read the images'.")
    else:
        form.notice(f"About {images:,} images are read.")


def _manifest(record: VersionRecord, job: Job) -> pa.Table:
    """The rows that the version was made of, and those that were left out."""
    from .shared.artifacts import open_root, scratch
    from .shared.lineage import manifest

    root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
    with scratch("training-data-") as folder:
        return manifest.read(root.fetch(record.key, {MANIFEST: record.files[MANIFEST]}, folder) / MANIFEST)


def _parts(used: pa.Table, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each dataset: its name now, how many of its ROIs were used, and whether it is still there."""
    names = ["dataset_id", "dataset"] if "dataset" in used.column_names else ["dataset_id"]
    rows = []
    for part in used.group_by(names).aggregate([([], "count_all")]).to_pylist():
        identity = part["dataset_id"]
        then = part.get("dataset") or identity
        now = found[identity].name if identity in found else then
        state = "deleted" if identity not in found else "there" if now == then else f"was called {then}"
        rows.append({"dataset": now, "ROIs": part["count_all"], "state": state})
    return sorted(rows, key=lambda row: -row["ROIs"])


def _distinct(column: pa.ChunkedArray) -> list[str]:
    return [str(value) for value in column.unique().to_pylist() if value is not None]


def _message(
    record: VersionRecord, changed: Drift, parts: list[dict[str, Any]], why_not: str | None, views: bool
) -> str:
    said = [f"The training data of {record.name}. {changed.rule}"]
    said += [f"The dataset {part['dataset']!r} is gone." for part in parts if part["state"] == "deleted"]
    if changed.moved:
        said.append(f"{changed.moved:,} ROIs are in another split now.")
    if changed.unreadable:
        said.append(f"{changed.unreadable:,} images cannot be read any more.")
    if why_not:
        said.append(f"{changed.unchecked:,} images were not looked at: {why_not}")
    if views:
        said.append(f"The saved views that begin with {training_data.view_name(record)!r} show them.")
    return " ".join(said)
