"""`train_classifier` between a dataset and `training`: reads rows, trains, keeps on the samples what belongs there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import fiftyone as fo
from fiftyone.core.collections import SampleCollection
from pydantic import BaseModel, ConfigDict, Field

from .. import events, labelled, runs, samples, slices, training_data, workspaces
from ..errors import InputError, SuiteError
from ..labelling import OwnLabelField
from ..lineage import store
from ..lineage.registry import VersionRecord
from ..operators import Job
from ..sync.store import vocabulary
from ..workflows import repeating

if TYPE_CHECKING:
    import pyarrow as pa

    from ..lineage.card import Context

LONG = 20  # values of a view stage's argument that are spelt out


class Params(BaseModel):
    """Parameters of `train_classifier`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        title="Model name",
        description="Letters, digits, '-', '_' and '.'; each training adds a version to the model of this name",
        examples=["demo"],
    )
    label_field: OwnLabelField = "ground_truth"
    base_weights: str = Field(
        "yolov8n-cls.pt",
        title="Start from",
        description="A pretrained network, a registered model (ptvr@production), a file or s3:// URI, "
        "or yolov8n-cls.yaml to start from scratch",
        examples=["demo@candidate"],
    )
    epochs: int = Field(
        50,
        ge=1,
        le=10_000,
        description="Passes over the images; training ends earlier when it no longer gets better",
        examples=[10],
    )
    imgsz: int = Field(224, ge=32, le=1024, multiple_of=32, title="Image size", description="Pixels, a multiple of 32")
    batch: int = Field(-1, ge=-1, le=4096, title="Batch size", description="-1 fits it to the memory")
    framing: Literal["pad", "crop"] = Field("pad", description="pad keeps the whole ROI; crop cuts long ones")
    augmentation: Literal["default", "rotations", "none"] = Field(
        "default", description="rotations turns and flips ROIs freely, for animals that float in any direction"
    )
    balance: Literal["none", "oversample"] = Field("none", description="oversample shows rare classes more often")
    min_per_class: int = Field(5, ge=1, title="Least images of a class", description="Smaller ones are left out")
    classes: list[str] | None = Field(None, description="Left empty: all")
    extra_views: list[str] | None = Field(
        None, title="Train on these as well", description="Each one a dataset, or dataset/saved view"
    )
    patience: int = Field(10, ge=0, description="Epochs without progress after which training ends; 0 means never")
    seed: int = Field(51, description="The source of chance of a training")
    device: str = Field("auto", description="auto, cpu, or the number of a GPU")
    store_predictions: bool = Field(True, description="Keep the predictions for val and test on the samples")
    resume: bool = Field(True, description="Go on from where an earlier run of the same training ended")
    slices: list[str] | None = Field(
        None,
        title="Measure by",
        description="Fields such as instrument, month or depth: the card says how good the model is for each value",
    )
    repeat: str | None = Field(
        None,
        title="Repeat a version",
        description="Train on what this version was trained on, as it was then: its rows, labels and arguments count",
    )


def work(job: Job) -> dict[str, Any]:
    """Reads the rows, trains, and keeps on the samples what belongs there."""
    from ..artifacts import open_root
    from ..media import Media
    from ..workflows import training

    params, run = job.params, job.run
    root = open_root(job.secrets.get("MBARI_ARTIFACTS", ""), job.secrets)
    where = training.Surroundings(
        root,
        job.db,
        Media(job.secrets).read,
        job.secrets,
        run_id=run.id,
        by=job.user,
        dataset=job.dataset.name,
        dataset_id=str(job.dataset._doc.id),
        label_field=params.label_field,
        extra_views=tuple(params.extra_views or ()),
    )
    run.progress(0, 0, "Reading labels")
    if params.repeat:
        rows, options, where = repeating.rows_and_options(params, where)
        datasets = training_data.find(rows["dataset_id"].unique().to_pylist())
    else:
        views = [job.view, *(samples.open_view(name) for name in params.extra_views or ())]
        rows = _rows(views, params)
        wanted = params.model_dump()
        options = training.Options(
            **{k: wanted[k] for k in training.Options.__dataclass_fields__ if k != "classes"},
            classes=tuple(params.classes or ()),
        )
        where = replace(where, context=_context(job, rows))
        datasets = {str(view._root_dataset._doc.id): view._root_dataset for view in views}
    outcome = training.run(rows, options, where, run)
    _keep_on_samples(datasets, outcome, params.store_predictions)
    if outcome.record is not None and outcome.card is not None:
        for dataset in datasets.values():
            store.link(dataset, outcome.card, outcome.record.uri)
    if outcome.record is not None:
        workspaces.save(job.dataset, workspaces.TRAIN)
    said = _result(outcome, params)
    if outcome.record is None:
        return said
    if where.repeats is not None:
        said["message"] += f" {_repeated(where.repeats, outcome.record)}"
    lost = _tell(job, outcome.record, said)
    return {**said, "message": f"{said['message']} {lost}"} if lost else said


def _repeated(before: VersionRecord, record: VersionRecord) -> str:
    """How a repetition compares with what it repeats."""
    if record.manifest_digest == before.manifest_digest:
        return f"It repeats {before.name} on exactly the same data."
    return (
        f"It repeats {before.name}, but no longer on the same data: images have been replaced, are gone or cannot be "
        "read. Its card says how many."
    )


def _tell(job: Job, record: VersionRecord, said: Mapping[str, Any]) -> str | None:
    """Posts that there is a new version; returns why that could not be done, if so."""
    return events.post(
        job.secrets,
        events.VERSION_CREATED,
        said["message"],
        version=record.name,
        dataset=record.dataset,
        data_digest=record.manifest_digest,
        metrics=said["metrics"],
        by=record.created_by,
        uri=record.uri,
    )


def _rows(views: Sequence[SampleCollection], params: Params) -> pa.Table:
    """One row a sample of the views; a sample that is in several of them counts once."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    sliced = slice_fields(views[0]._root_dataset, params.slices)
    for view in views:
        group_field = samples.recall(view._root_dataset, "group_field")
        for name, values in labelled.rows(view, params.label_field, group_field, sliced).items():
            columns.setdefault(name, []).extend(values)
    for name in sliced:
        values = columns[f"slice:{name}"]
        if why_not := slices.why_not(values):
            raise InputError(f"The model cannot be measured by slices of {name!r}: {why_not}.")
        columns[f"slice:{name}"] = slices.values(values)
    rows = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
    pairs = list(zip(columns["dataset_id"], columns["sample_id"], strict=True))
    first = {pair: row for row, pair in reversed(list(enumerate(pairs)))}
    return rows.filter(pa.array([first[pair] == row for row, pair in enumerate(pairs)]))


def labels_digest(view: SampleCollection, params: Params) -> str:
    """What would be trained on, as far as it is in FiftyOne: SHA-256 of ids, labels and splits of all samples."""
    found = hashlib.sha256()
    for part in [view, *(samples.open_view(name) for name in params.extra_views or ())]:
        columns = {"label": f"{params.label_field}.label", "tags": "tags", "filepath": "filepath"}
        for batch in samples.batches(part.sort_by("id"), columns, size=50_000):
            splits = map(samples.split_of, batch["tags"])
            rows = zip(batch["id"], batch["label"], splits, batch["filepath"], strict=True)
            found.update(json.dumps(list(rows)).encode())
    return found.hexdigest()


def slice_fields(dataset: fo.Dataset, named: Sequence[str] | None) -> list[str]:
    """The fields by whose values a model is measured apart.

    Raises:
        InputError: the dataset has no such field
    """
    for name in named or ():
        if not dataset.has_sample_field(name):
            raise InputError(f"The dataset {dataset.name!r} has no field {name!r} to measure slices by.")
    return list(dict.fromkeys(named or ()))


def _context(job: Job, rows: pa.Table) -> Context:
    """What the card says of the data beyond its rows."""
    from ..lineage.card import Context, Vocabulary

    dataset, view = job.dataset, job.view.view()
    try:
        words = vocabulary(dataset, job.params.label_field, job.secrets)
        names = Vocabulary(origin=words.origin, names=list(words.names))
    except SuiteError:  # `sync_back` says what is wrong with it; a training does not need it
        names = None
    price = job.secrets.get("MBARI_PRICE_PER_HOUR", "")
    return Context(
        view=_stages(view),
        saved_view=view.name,
        vocabulary=names,
        synced=_synced(job.db, dataset.name),
        snapshot=store.snapshot(dataset, f"Training data of {job.params.model_name}"),
        group_field=samples.recall(dataset, "group_field"),
        groups_across_splits=_cut(rows),
        price_per_hour=float(price) if re.fullmatch(r"[0-9]+([.][0-9]+)?", price) else None,
    )


def _stages(view: SampleCollection) -> list[dict[str, Any]]:
    """The stages of the view, without lists of ids: the manifest has every sample."""
    said = []
    for stage in view._serialize():
        arguments = dict(stage.get("kwargs") or ())
        short = {
            name: f"{len(value):,} values" if isinstance(value, list) and len(value) > LONG else value
            for name, value in arguments.items()
        }
        said.append({"stage": stage["_cls"].rpartition(".")[2], **json.loads(json.dumps(short, default=str))})
    return said


def _synced(db: Any, dataset: str) -> list[Any]:
    """The runs that had sent corrections of the dataset to the label store."""
    from ..lineage.card import Sync

    query = {"operator": {"$regex": "/sync_back$"}, "dataset": dataset, "result.updated": {"$gt": 0}}
    found = db[runs.COLLECTION].find(query, {"started_at": 1, "by": 1, "result.updated": 1}).sort("started_at", 1)
    return [
        Sync(
            run=str(record["_id"]),
            at=f"{record['started_at']:%Y-%m-%dT%H:%M:%SZ}",
            by=record.get("by"),
            updated=record["result"]["updated"],
        )
        for record in found
    ]


def _cut(rows: pa.Table) -> int:
    """How many groups stand in several splits."""
    splits: dict[str, set[str]] = {}
    for group, split, label in zip(*(rows[name].to_pylist() for name in ("group", "split", "label")), strict=True):
        if group is not None and split is not None and label is not None:
            splits.setdefault(group, set()).add(split)
    return sum(len(found) > 1 for found in splits.values())


def _keep_on_samples(datasets: Mapping[str, Any], outcome: Any, store_predictions: bool) -> None:
    """Hashes, unreadable ones, and the predictions for val and test."""
    rows = outcome.training_set.rows
    columns = {name: rows[name].to_pylist() for name in ("dataset_id", "sample_id", "sha256", "why_left_out")}
    for dataset_id, dataset in datasets.items():
        mine = [i for i, d in enumerate(columns["dataset_id"]) if d == dataset_id]
        hashed = [i for i in mine if columns["sha256"][i]]
        samples.write_values(
            dataset,
            samples.HASH_FIELD,
            [columns["sample_id"][i] for i in hashed],
            [columns["sha256"][i] for i in hashed],
        )
        own = {columns["sample_id"][i] for i in mine}
        samples.mark_unreadable(dataset, [i for i, _ in outcome.training_set.unreadable if i in own])
        record = outcome.record
        if record is None or not store_predictions:
            continue
        predictions = [p[1:] for p in outcome.predictions if p[0] == dataset_id]
        if predictions:
            ids, labels, confidences = zip(*predictions, strict=True)
            field = record.prediction_field
            info = {samples.MODEL: record.name, "framing": record.framing, "imgsz": record.imgsz}
            samples.prepare_label_field(dataset, field, info, record.classes)
            samples.write_labels(dataset, field, ids, labels, confidences)


def _result(outcome: Any, params: Any) -> dict[str, Any]:
    training_set, trained, record = outcome.training_set, outcome.trained, outcome.record
    result: dict[str, Any] = {"left_out": _left_out(training_set)}
    if record is None:
        done = trained.epochs_done if trained else 0
        again = " Schedule the same training again to go on from there." if done and params.resume else ""
        return {"message": f"Stopped after {done} of {params.epochs} epochs; no version was made.{again}", **result}
    split = "test" if "test" in outcome.metrics else "val"
    scores = outcome.metrics[split]
    learned = sum(row["train"] for row in training_set.counts.values())
    return {
        "message": f"{record.name}: top-1 {scores['top1']:.3f}, macro F1 {scores['macro_f1']:.3f} on "
        f"{scores['n']:,} ROIs of {split}; it is now {record.model}@candidate.",
        "version": record.name,
        "top1": scores["top1"],
        "macro_f1": scores["macro_f1"],
        "metrics": [{"split": s, **record.metrics[s]} for s in outcome.metrics],
        "per_class": [{"split": split, **row} for row in scores["per_class"]],
        **result,
        "classes_left_out": [{"class": label, "why": why} for label, why in training_set.skipped_classes.items()],
        "notes": [{"note": note} for note in [*trained.notes, *_notes(training_set)]],
        "epochs_done": trained.epochs_done,
        "device": trained.device,
        "seconds": outcome.seconds,
        "images_learned": learned * trained.epochs_done,
        "seconds_per_image_epoch": trained.seconds / max(1, learned * trained.epochs_done),
        "files": record.uri,
    }


def _notes(training_set: Any) -> list[str]:
    """What the bytes of the images said that nobody had seen before."""
    said = []
    if training_set.leaks:
        said.append(f"{len(training_set.leaks)} images stand in several splits; their copies in train were left out.")
    if training_set.conflicts:
        some = "; ".join(" and ".join(group) for group in training_set.conflicts[:3])
        said.append(f"{len(training_set.conflicts)} images have two labels at once: look at the samples {some}.")
    if training_set.unreadable:
        said.append(f"{len(training_set.unreadable)} images could not be read; they are tagged 'unreadable'.")
    return said


def _left_out(training_set: Any) -> list[dict[str, Any]]:
    """How many rows were not used, by reason."""
    counts: dict[str, int] = {}
    for why in training_set.rows["why_left_out"].to_pylist():
        if why:
            counts[why] = counts.get(why, 0) + 1
    return [{"why": why, "ROIs": n} for why, n in sorted(counts.items(), key=lambda item: -item[1])]
