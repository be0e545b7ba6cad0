"""The door to the samples of a FiftyOne dataset: plain columns out, plain columns in, always in bulk.

Nothing here loops over `sample` objects. A batch costs one round trip to read and one to write,
and only one batch is in memory, so a million samples need no more of it than ten thousand
(12 bytes a sample for the list of ids apart).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateMany, UpdateOne

from .errors import InputError
from .sync.labels import history_field, label_id, status_field, stored_field

BATCH = 2048
SPLITS = ("train", "val", "test")
UNREADABLE = "unreadable"
SOURCE_ID = "elemental_id"  # where the ids of labels in the database of record are, unless another field is named
OUTLIER = "_outlier"  # how the names of the fields end that say how unlike its cluster an ROI is
HASH_FIELD = "media_sha256"  # written by training, which has the bytes in hand
MODEL = "mbari_model"  # the key of a field's info that says which model wrote it
FIFTYONES_OWN = ("id", "filepath", "created_at", "last_modified_at")
DATED = (fo.DateField, fo.DateTimeField)
SLICED = (fo.StringField, fo.IntField, fo.FloatField, fo.BooleanField, *DATED)  # what has slices, see `slices.values`


def not_samples(view: SampleCollection) -> str | None:
    """Why nothing can be done to what a view shows, if so: patches, clips, frames and groups have ids of their own."""
    if view._is_generated:
        return "This view shows parts of samples; open the samples themselves."
    if view._is_dynamic_groups:
        return "This view shows groups of samples; open the samples themselves."
    return None


def ids(view: SampleCollection) -> np.ndarray:
    """The ids of the view's samples in its order, shape (N,), 12 bytes each."""
    # A cursor instead of `view.values("_id")`, which holds every id as an object: 600 bytes a sample at its peak.
    pipeline = [*view._pipeline(), {"$project": {"_id": 1}}]
    packed = bytearray()
    for found in view._dataset._sample_collection.aggregate(pipeline, allowDiskUse=True, batchSize=10_000):
        packed += found["_id"].binary
    return np.frombuffer(packed, dtype="V12")


def packed(sample_ids: Sequence[str]) -> np.ndarray:
    """Ids as text in the form of `ids`."""
    return np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype="V12")


def batches(view: SampleCollection, columns: Mapping[str, str], size: int = BATCH) -> Iterator[dict[str, list[Any]]]:
    """Reads a view in its order, a bounded number of samples at a time.

    Args:
        view: the samples to read
        columns: name of a column -> path of a field, such as {"label": "ground_truth.label"}; a path
            the dataset does not have gives a column of None
        size: samples a batch

    Yields:
        a dict of equally long lists: "id" (str) and each named column
    """
    for chunk in id_batches(view, size):
        yield _read(view, chunk, columns)


def id_batches(view: SampleCollection, size: int = BATCH) -> Iterator[list[str]]:
    """The ids of the view's samples in its order, as text, so many at a time."""
    order = ids(view)
    for start in range(0, len(order), size):
        yield [str(ObjectId(i.tobytes())) for i in order[start : start + size]]


def _read(view: SampleCollection, chunk: list[str], columns: Mapping[str, str]) -> dict[str, list[Any]]:
    dataset = view._root_dataset
    known = {name: path for name, path in columns.items() if has_path(dataset, path)}
    # Through the view's dataset, not the view: the ids already say which samples, and sorting again
    # for every batch would make the whole quadratic.
    rows = zip(*dataset.select(chunk).values(["id", *known.values()]), strict=True)
    found = {row[0]: row[1:] for row in rows}
    present = [i for i in chunk if i in found]  # a sample deleted since is no longer there
    table: dict[str, list[Any]] = {"id": present}
    for position, name in enumerate(known):
        table[name] = [found[i][position] for i in present]
    for name in columns:
        table.setdefault(name, [None] * len(present))
    return table


def read(view: SampleCollection, columns: Mapping[str, str]) -> dict[str, list[Any]]:
    """Reads whole columns of a view; see `batches`. For tables that the work needs at once."""
    table: dict[str, list[Any]] = {"id": [], **{name: [] for name in columns}}
    for batch in batches(view, columns, size=50_000):
        for name, values in batch.items():
            table[name].extend(values)
    return table


def has_path(dataset: fo.Dataset, path: str) -> bool:
    """Whether the dataset's schema has this field or sub-field."""
    return path in ("id", "filepath", "tags") or dataset.get_field(path) is not None


def state(view: SampleCollection) -> tuple[str, ...]:
    """What a view's samples are at this moment, at the price of a look at two indexes.

    Equal states mean that nobody added, removed or edited a sample in between, so an answer that was
    worked out for one holds for the other.
    """
    dataset = view._root_dataset
    count = dataset._estimated_count()
    newest = dataset._max("last_modified_at") if count else None
    return str(dataset._doc.id), str(view.view()._serialize(include_uuids=False)), str(count), str(newest)


def fields(dataset: fo.Dataset, *types: type) -> list[str]:
    """Names of the dataset's own fields of these types (`fo.StringField`, `fo.Classification`, ...)."""
    found = []
    for name, field in dataset.get_field_schema().items():
        document = getattr(field, "document_type", None)
        if isinstance(field, tuple(t for t in types if issubclass(t, fo.Field))) or document in types:
            found.append(name)
    return found


def sliced_fields(dataset: fo.Dataset, *types: type) -> list[str]:
    """Names of the fields, of these types or all of `SLICED`, that say something about the samples themselves.

    FiftyOne's own are left out, ids of labels, those that this suite has written, and those of evaluations.
    """
    others = _written(dataset)
    return [name for name in fields(dataset, *(types or SLICED)) if name not in others]


def not_sliced(dataset: fo.Dataset, name: str) -> str | None:
    """Why a field is none to slice by, whatever its values are; None where it may be one."""
    if not has_path(dataset, name):
        return f"The dataset has no field {name!r} to slice by."
    root = name.partition(".")[0]
    if root in label_fields(dataset):
        return f"The field {name!r} cannot be sliced by: it is part of a label or a prediction, not of the sample."
    if root in _written(dataset):
        return f"The field {name!r} cannot be sliced by: it is an id, or was written by FiftyOne or this suite."
    return None


def _written(dataset: fo.Dataset) -> set[str]:
    """Names of fields that say nothing about a sample that was known before: FiftyOne's, ids, and what runs wrote."""
    schema = dataset.get_field_schema()
    ours = {name for name, field in schema.items() if any(key.startswith("mbari_") for key in field.info or ())}
    beside = {made(name) for name in label_fields(dataset) for made in (stored_field, history_field, status_field)}
    beside |= {f"{name}{OUTLIER}" for name in ours}
    return {*FIFTYONES_OWN, SOURCE_ID, HASH_FIELD, *ours, *beside, *dataset.list_evaluations()}


def label_fields(dataset: fo.Dataset) -> list[str]:
    """Names of the dataset's `Classification` fields."""
    return fields(dataset, fo.Classification)


def require_label_field(dataset: fo.Dataset, name: str) -> None:
    """Checks that `name` is a `Classification` field of the dataset.

    Raises:
        InputError: if it is missing or of another type
    """
    if name in label_fields(dataset):
        return
    have = ", ".join(label_fields(dataset)) or "none"
    what = "is not a Classification field" if dataset.has_sample_field(name) else "does not exist"
    raise InputError(f"The field {name!r} {what} in dataset {dataset.name!r}; its Classification fields: {have}.")


def ensure_label_field(dataset: fo.Dataset, name: str) -> None:
    """Makes a `Classification` field where there is none.

    Raises:
        InputError: if a field of that name has another type
    """
    if not dataset.has_sample_field(name):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    require_label_field(dataset, name)


def source_path(dataset: fo.Dataset, label_field: str, id_field: str = SOURCE_ID) -> str:
    """Where the id of the label in the database of record is: a sample field, else a label attribute."""
    return id_field if dataset.has_sample_field(id_field) else f"{label_field}.{id_field}"


def prepare_label_field(dataset: fo.Dataset, name: str, info: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Makes sure that a `Classification` field exists, and says in its `info` who wrote it.

    Raises:
        InputError: if a field of that name has another type
    """
    ensure_label_field(dataset, name)
    field = dataset.get_field(name)
    field.info = {**(field.info or {}), **info}
    field.save()
    # FiftyOne's brain reads the order of stored logits from the classes of the field.
    if dataset.classes.get(name) != list(classes):
        dataset.classes[name] = list(classes)
        dataset.save()


def writer(dataset: fo.Dataset, field: str) -> str | None:
    """The model that wrote a prediction field, as its `info` says; None for any other field, or none."""
    return (dataset.get_field(field).info or {}).get(MODEL) if dataset.has_sample_field(field) else None


def predictions(dataset: fo.Dataset) -> list[str]:
    """Names of the fields with predictions of a model, as their `info` says, the newest field first."""
    made = {name: dataset.get_field(name).created_at for name in label_fields(dataset) if writer(dataset, name)}
    # Fields older than FiftyOne 0.25 have no date.
    return sorted(made, key=lambda name: made[name].timestamp() if made[name] else 0, reverse=True)


def write_labels(
    dataset: fo.Dataset,
    field: str,
    sample_ids: Sequence[str],
    labels: Sequence[str | None],
    confidences: Sequence[float],
    logits: np.ndarray | None = None,
) -> None:
    """Writes one `Classification` a sample; a label of None takes the field's value away.

    Writing the same twice, or in other batches, leaves the same documents: a label's id is derived
    from the sample and the field.

    Args:
        dataset: the dataset
        field: an existing `Classification` field
        sample_ids: N sample ids
        labels: N labels
        confidences: N confidences between 0 and 1
        logits: shape (N, C), stored with each label when given
    """
    from fiftyone.core.fields import ArrayField

    encode = ArrayField().to_mongo
    now = datetime.now(UTC)
    operations = []
    for row, (sample_id, label, confidence) in enumerate(zip(sample_ids, labels, confidences, strict=True)):
        document = None
        if label is not None:
            document = {
                "_id": label_id(sample_id, field),
                "_cls": "Classification",
                "tags": [],
                "label": label,
                "confidence": float(confidence),
            }
            if logits is not None:
                document["logits"] = encode(logits[row])
        change = {"$set": {field: document, "last_modified_at": now}}
        operations.append(UpdateOne({"_id": ObjectId(sample_id)}, change))
    if operations:
        dataset._bulk_write(operations)


def set_tags(dataset: fo.Dataset, sample_ids: Sequence[str], tags: Sequence[str | None], among: Sequence[str]) -> None:
    """Gives each sample one tag of a closed set (or none of it), leaving its other tags alone.

    Args:
        dataset: the dataset
        sample_ids: N sample ids
        tags: N tags, each of `among` or None
        among: the closed set, such as ("train", "val", "test")
    """
    now = datetime.now(UTC)
    groups: dict[str | None, list[ObjectId]] = {}
    for sample_id, tag in zip(sample_ids, tags, strict=True):
        groups.setdefault(tag, []).append(ObjectId(sample_id))
    for tag, members in groups.items():
        for start in range(0, len(members), 20_000):
            chosen = {"_id": {"$in": members[start : start + 20_000]}}
            others = [other for other in among if other != tag]
            operations = [
                UpdateMany({**chosen, "tags": {"$in": others}}, {"$pullAll": {"tags": others}}),
            ]
            change: dict[str, Any] = {"$set": {"last_modified_at": now}}
            if tag is not None:
                change["$addToSet"] = {"tags": tag}
            operations.append(UpdateMany(chosen, change))
            dataset._bulk_write(operations, ordered=True)


def mark_unreadable(dataset: fo.Dataset, sample_ids: Sequence[str], readable: Sequence[str] = ()) -> None:
    """Tags samples whose media cannot be read, and takes the tag from those that can be again."""
    set_tags(dataset, [*sample_ids, *readable], [UNREADABLE] * len(sample_ids) + [None] * len(readable), (UNREADABLE,))


def split_of(tags: Sequence[str] | None) -> str | None:
    """The split that a sample's tags say: exactly one of train, val, test; else None."""
    named = [tag for tag in SPLITS if tag in (tags or ())]
    return named[0] if len(named) == 1 else None


def open_view(name: str) -> SampleCollection:
    """The samples that `dataset` or `dataset/saved view` names.

    Raises:
        InputError: there is no such dataset or saved view, or it shows no samples
    """
    if fo.dataset_exists(name):
        return fo.load_dataset(name).view()
    dataset_name, _, view_name = name.rpartition("/")
    if not dataset_name or not fo.dataset_exists(dataset_name):
        raise InputError(f"There is no dataset {name!r}; give the name of a dataset, or dataset/saved view.")
    dataset = fo.load_dataset(dataset_name)
    if not dataset.has_saved_view(view_name):
        have = ", ".join(dataset.list_saved_views()) or "none"
        raise InputError(f"The dataset {dataset_name!r} has no saved view {view_name!r} (it has: {have}).")
    view = dataset.load_saved_view(view_name)
    if problem := not_samples(view):
        raise InputError(f"{name}: {problem}")
    return view


def write_values(
    dataset: fo.Dataset,
    field: str,
    sample_ids: Sequence[str],
    values: Sequence[Any],
    kind: type[fo.Field] = fo.StringField,
) -> None:
    """Writes N plain values to a field, which is made where there is none.

    Raises:
        InputError: the field exists with another type
    """
    if not dataset.has_sample_field(field):
        dataset.add_sample_field(field, kind)
    elif not isinstance(dataset.get_field(field), kind):
        what = {fo.StringField: "strings", fo.FloatField: "numbers"}.get(kind, kind.__name__)
        raise InputError(f"The field {field!r} of dataset {dataset.name!r} is not one of {what}; rename it.")
    now = datetime.now(UTC)
    for start in range(0, len(sample_ids), BATCH):
        pairs = zip(sample_ids[start : start + BATCH], values[start : start + BATCH], strict=True)
        dataset._bulk_write(
            [UpdateOne({"_id": ObjectId(i)}, {"$set": {field: v, "last_modified_at": now}}) for i, v in pairs]
        )


def remember(dataset: fo.Dataset, key: str, value: Any) -> None:
    """Keeps a small fact about the dataset under the suite's own key of its `info`."""
    dataset.info["mbari"] = {**dataset.info.get("mbari", {}), key: value}
    dataset.save()


def recall(dataset: fo.Dataset, key: str) -> Any:
    """What `remember` kept, or None."""
    return (dataset.info or {}).get("mbari", {}).get(key)
