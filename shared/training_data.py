"""The door to a version's training data in FiftyOne: read as it is now, marked on the samples, shown in saved views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.core.utils as fou
import numpy as np
from bson import ObjectId
from fiftyone import ViewField
from pymongo import UpdateMany

from . import samples
from .errors import ImageError, StorageError
from .media import Media, map_threads, read_workers
from .runs import Monitor

if TYPE_CHECKING:
    import pyarrow as pa

    from .lineage.registry import VersionRecord

INFO = "mbari_training_data"  # the key of a field's info: the version whose data it marks
SAID = "Made by the suite; showing the training data again replaces it"
LONGEST = 100  # characters of a saved view's name that FiftyOne takes
CHUNK = 20_000  # samples that a query or an update names at most
# What a sample's marks say beside the split, and what the saved view of it is called.
VIEWS = {"relabelled": "relabelled", "moved": "moved", "reimaged": "re-imaged", "new": "new"}


def field_of(record: VersionRecord) -> str:
    """The sample field that marks a version's training data."""
    return f"data_{record.prediction_field.removeprefix('pred_')}"


def view_name(record: VersionRecord, what: str | None = None) -> str:
    """What the saved view of a version's training data is called, or that of a part of it."""
    end = f"/{record.version}" + (f": {what}" if what else "")
    start = f"training data {record.model}"
    room = LONGEST - len(f"/{record.version}: ") - max(map(len, VIEWS.values()))
    return (start if len(start) <= room else f"{start[: room - 1]}…") + end


def find(dataset_ids: Sequence[str]) -> dict[str, fo.Dataset]:
    """The datasets of these ids that are there, whatever they are called now; one that was deleted is missing."""
    wanted = [ObjectId(i) for i in dataset_ids if ObjectId.is_valid(i)]
    there = odm.get_db_conn().datasets.find({"_id": {"$in": wanted}}, {"name": 1})
    return {str(found["_id"]): fo.load_dataset(found["name"], reload=True) for found in there}


def refusal(dataset: fo.Dataset, record: VersionRecord) -> str | None:
    """Why the training data of a version cannot be shown in a dataset, if they cannot."""
    if record.label_field not in samples.label_fields(dataset):
        return (
            f"The dataset {dataset.name!r} has no Classification field {record.label_field!r} any more, from which "
            f"{record.name} learned its labels: give the field its old name again."
        )
    field = field_of(record)
    if dataset.has_sample_field(field) and (dataset.get_field(field).info or {}).get(INFO) != record.name:
        return f"The dataset {dataset.name!r} has a field {field!r} that is not the suite's: rename it first."
    ours = {fou.to_slug(view_name(record, what)) for what in (None, *VIEWS.values())}
    for saved in dataset._doc.get_saved_views():
        if saved.slug in ours and saved.description != SAID:
            return f"The dataset {dataset.name!r} has a saved view {saved.name!r} of its own: rename it first."
    return None


def read(found: Mapping[str, fo.Dataset], record: VersionRecord, used: pa.Table, monitor: Monitor) -> pa.Table:
    """The samples as they are now: those that were used, and those with a label of the version's classes.

    Args:
        found: datasets by their ids
        record: of the version
        used: the rows of its manifest that were used
        monitor: told the progress; where it asks to stop, the rest is not read

    Returns:
        strings dataset_id, sample_id, label, split, filepath; a used sample that is not there has no row
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ("dataset_id", "sample_id", "label", "split", "filepath")
    schema = pa.schema([(name, pa.string()) for name in names])
    tables = [schema.empty_table()]
    for name, dataset in found.items():
        label = f"{record.label_field}.label"
        labelled = list(_rows(dataset, dataset.match(ViewField(label).is_in(record.classes)), label, schema, monitor))
        seen = pa.concat_tables([schema.empty_table(), *labelled])["sample_id"]
        mine = used["sample_id"].filter(pc.equal(used["dataset_id"], name))
        rest = mine.filter(pc.invert(pc.is_in(mine, value_set=seen)))
        tables += labelled
        for start in range(0, len(rest), CHUNK):
            chosen = [i for i in rest.slice(start, CHUNK).to_pylist() if ObjectId.is_valid(i)]
            tables += _rows(dataset, dataset.select(chosen), label, schema, monitor)
    return pa.concat_tables(tables)


def _rows(dataset: fo.Dataset, view: Any, label: str, schema: pa.Schema, monitor: Monitor) -> Iterator[pa.Table]:
    import pyarrow as pa

    identity, done = str(dataset._doc.id), 0
    for batch in samples.batches(view, {"label": label, "tags": "tags", "filepath": "filepath"}, CHUNK):
        split = [samples.split_of(tags) for tags in batch["tags"]]
        values = [[identity] * len(split), batch["id"], batch["label"], split, batch["filepath"]]
        yield pa.table(values, schema=schema)
        done += len(split)
        monitor.progress(done, 0, f"Reading {done:,} labels of {dataset.name}")
        if monitor.stopping():  # whoever asked does not go on with this
            return


def with_images(
    used: pa.Table, now: pa.Table, secrets: Mapping[str, str], monitor: Monitor
) -> tuple[pa.Table, str | None]:
    """Adds to the samples as they are now the hashes of those images that were used.

    Args:
        used: the rows of the manifest that were used; only images whose hash it knows are looked at
        now: as `read` gives it
        secrets: for media on S3
        monitor: told the progress; where it asks to stop, the remaining images are not looked at

    Returns:
        `now` with sha256 (null where the image was not looked at) and unreadable; and the error of the media's store
        for which the remaining ones were not looked at, or None
    """
    import pyarrow as pa

    key = ["dataset_id", "sample_id"]
    known = used.select([*key, "sha256"]).drop_null().select(key)
    there = known.join(now.select([*key, "filepath"]), key, join_type="inner")
    media = Media(secrets, cache_bytes=0)  # what was kept of an earlier time would hide that an image is another one
    sha256, why_not = hashes(there["filepath"], media.read, monitor)
    left = there.num_rows - len(sha256)
    unreadable = [digest is None for digest in sha256] + [False] * left
    found = there.select(key).append_column("sha256", pa.array(sha256 + [None] * left, pa.string()))
    found = found.append_column("unreadable", pa.array(unreadable, pa.bool_()))
    return now.join(found, key, join_type="left outer"), why_not


def hashes(
    paths: pa.ChunkedArray, read_bytes: Callable[[str], bytes], monitor: Monitor
) -> tuple[list[str | None], str | None]:
    """The SHA-256 of images' bytes as they are now, None for one that cannot be read.

    Args:
        paths: paths or URIs
        read_bytes: the bytes of one; raises ImageError for one that cannot be read, StorageError when none can
        monitor: told the progress, and asked whether to stop

    Returns:
        the hashes of the first images, of all if nothing came between; and the StorageError, if it was that
    """

    def look(path: str | None) -> str | None:
        try:
            return hashlib.sha256(read_bytes(path or "")).hexdigest()
        except ImageError:
            return None

    found: list[str | None] = []
    workers = read_workers(next(_texts(paths), None) or "")
    with closing(map_threads(look, _texts(paths), workers, ahead=4 * workers)) as results:
        try:
            for digest in results:
                found.append(digest)
                monitor.progress(len(found), len(paths), "Reading images")
                if monitor.stopping():
                    break
        except StorageError as error:
            return found, str(error)
    return found, None


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    for start in range(0, len(column), CHUNK):
        yield from column.slice(start, CHUNK).to_pylist()


def write(dataset: fo.Dataset, record: VersionRecord, marks: pa.Table, monitor: Monitor) -> None:
    """Says on each sample what it was to a version, and what became of it; other samples lose such a mark.

    Args:
        dataset: the dataset
        record: of the version
        marks: as in `lineage.drift.Drift`; those of other datasets are left alone
        monitor: told the progress
    """
    import pyarrow.compute as pc

    field = field_of(record)
    if not dataset.has_sample_field(field):
        dataset.add_sample_field(field, fo.ListField, subfield=fo.StringField)
    declared = dataset.get_field(field)
    declared.info = {**(declared.info or {}), INFO: record.name}
    declared.save()

    marks = marks.filter(pc.equal(marks["dataset_id"], str(dataset._doc.id)))
    kinds = marks.group_by(["split", *VIEWS]).aggregate([]).to_pylist()
    had, kept, done = samples.ids(dataset.exists(field)), [np.empty(0, "V12")], 0
    for kind in kinds:
        which = pc.equal(pc.fill_null(marks["split"], ""), kind["split"] or "")
        for name in VIEWS:
            which = pc.and_(which, pc.equal(marks[name], kind[name]))
        values = [value for value in (kind["split"], *(name for name in VIEWS if kind[name])) if value]
        chosen = _packed(marks["sample_id"].filter(which))
        kept.append(chosen)
        _set(dataset, field, chosen, values)
        done += len(chosen)
        monitor.progress(done, marks.num_rows, "Marking ROIs")
    _set(dataset, field, np.setdiff1d(had.view("S12"), np.concatenate(kept).view("S12")).view("V12"), None)


def save_views(dataset: fo.Dataset, record: VersionRecord, splits: Sequence[str]) -> list[str]:
    """Saves views of what is marked, in place of those of an earlier time; what holds no sample has none.

    Args:
        dataset: the dataset, marked by `write`
        record: of the version
        splits: those of the first view

    Returns:
        the names of the views
    """
    marked = ViewField(field_of(record))
    views = {view_name(record): dataset.match(marked.contains(list(splits)))}
    views |= {view_name(record, what): dataset.match(marked.contains(mark)) for mark, what in VIEWS.items()}
    saved = []
    for name, view in views.items():
        if view.limit(1).count():
            dataset.save_view(name, view, description=SAID, overwrite=True)
            saved.append(name)
        elif dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    return saved


def _packed(sample_ids: pa.ChunkedArray) -> np.ndarray:
    """Ids as `samples.ids` gives them, 12 bytes each."""
    packed = bytearray()
    for start in range(0, len(sample_ids), CHUNK):
        packed += bytes.fromhex("".join(sample_ids.slice(start, CHUNK).to_pylist()))
    return np.frombuffer(packed, dtype="V12")


def _set(dataset: fo.Dataset, field: str, chosen: np.ndarray, values: list[str] | None) -> None:
    """Gives the samples these values of a field, where they have others."""
    change = {"$set": {field: values, "last_modified_at": datetime.now(UTC)}}
    for start in range(0, len(chosen), CHUNK):
        ids = [ObjectId(i.tobytes()) for i in chosen[start : start + CHUNK]]
        dataset._bulk_write([UpdateMany({"_id": {"$in": ids}, field: {"$ne": values}}, change)])
