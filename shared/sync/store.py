"""The door of this package to FiftyOne: corrections out, labels and their history in, always in bulk.

What is read is found through indexes on tags, ids and labels, so that the cost follows the number of corrections and
not the size of the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as odm
from bson import ObjectId
from fiftyone import ViewField
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateMany

from ..errors import InputError, SuiteError
from ..retry import persist
from ..vocabulary import Vocabulary, load
from .corrections import MARKER, SYNCED, Correction, Tags, resolve, sort_tags
from .labels import Event, Move, history_field, status_field, stored_field, stored_only, updates

CHUNK = 20_000  # ids a query names at most
VIEW_TRIES = 5
VIEWS = "sync: "  # how the names of the suite's saved views begin


class LabelField:
    """One label field of a dataset, with what the suite keeps beside it.

    Args:
        dataset: a FiftyOne dataset
        name: one of its `Classification` fields
        id_path: where the source id is: a sample field or an attribute of the label
    """

    def __init__(self, dataset: fo.Dataset, name: str, id_path: str) -> None:
        self.dataset = dataset
        self.name = name
        self.id_path = id_path
        self.stored = stored_field(name)
        self.history = history_field(name)
        self.status = status_field(name)
        self._samples = dataset._sample_collection

    # --- set-up ---

    def check(self) -> None:
        """Checks that the suite's own fields are what they should be, or not there yet.

        Raises:
            InputError: a field of one of these names has another type
        """
        for name, kind in ((self.stored, fo.StringField), (self.history, fo.ListField), (self.status, fo.StringField)):
            field = self.dataset.get_field(name)
            if field is not None and not isinstance(field, kind):
                raise InputError(
                    f"The field {name!r} of dataset {self.dataset.name!r} has another type than the suite's field of "
                    "that name; rename it."
                )

    def prepare(self) -> None:
        """Makes the suite's own fields and the indexes; nothing where they are there.

        Raises:
            InputError: a field of one of these names has another type
        """
        self.check()
        for name, kind, more in (
            (self.stored, fo.StringField, {}),
            (self.history, fo.ListField, {"subfield": fo.DictField}),
            (self.status, fo.StringField, {}),
        ):
            if not self.dataset.has_field(name):
                self.dataset.add_sample_field(name, kind, **more)
        self.index()

    def index(self) -> None:
        """Makes the indexes that reading relies on, for the fields that are there."""
        label = f"{self.name}.label"
        for spec in (["tags"], [f"{self.name}.tags"], [label, self.stored], [self.status], [self.id_path]):
            if all(self.dataset.get_field(path) is not None for path in spec):
                self.dataset.create_index(spec[0] if len(spec) == 1 else [(path, 1) for path in spec])

    # --- corrections ---

    def tags(self, vocabulary: Vocabulary, marker: str = MARKER, prefix: str | None = None) -> Tags:
        """What the tags of all the dataset's samples and labels mean."""
        distinct = {tag for path in ("tags", f"{self.name}.tags") for tag in self._distinct(path)}
        return sort_tags([tag for tag in distinct if isinstance(tag, str)], vocabulary, marker, prefix)

    def corrections(self, view: SampleCollection, vocabulary: Vocabulary, tags: Tags) -> list[Correction]:
        """The corrections of a view's samples, in the order of their ids."""
        rows = self._tagged(tags.relevant)
        inside = self.inside(view, rows["id"])
        if len(inside) < len(rows["id"]):
            keep = [i in inside for i in rows["id"]]
            rows = {name: [v for v, k in zip(values, keep, strict=True) if k] for name, values in rows.items()}
        return resolve(rows, tags, vocabulary)

    def _tagged(self, tags: Sequence[str]) -> dict[str, list[Any]]:
        paths = {
            "source_id": self.id_path,
            "label": f"{self.name}.label",
            "stored": self.stored,
            "tags": "tags",
            "label_tags": f"{self.name}.tags",
        }
        there = {"$in": list(tags)}
        query = {"$or": [{"tags": there}, {paths["label_tags"]: there}]}
        documents = sorted(self._find(query, *paths.values()), key=lambda document: document["_id"])
        columns = {name: [_at(document, path) for document in documents] for name, path in paths.items()}
        return {"id": [str(document["_id"]) for document in documents], **columns}

    def whole(self, view: SampleCollection) -> bool:
        """Whether a view shows every sample of the dataset because nothing was chosen."""
        return isinstance(view, fo.Dataset) or not view._stages

    def inside(self, view: SampleCollection, ids: Sequence[str]) -> Collection[str]:
        """Which of these samples a view has.

        Raises:
            InputError: the view is one of patches, clips or frames
        """
        if view._is_generated:
            raise InputError("This view shows parts of samples; open the samples themselves.")
        if self.whole(view):
            return set(ids)
        found: set[str] = set()
        for chunk in _chunks(ids):
            only = {"$match": {"_id": {"$in": [ObjectId(i) for i in chunk]}}}
            pipeline = [*view._pipeline(), only, {"$project": {"_id": 1}}]
            found.update(str(document["_id"]) for document in self._aggregate(pipeline))
        return found

    def twice(self, source_ids: Iterable[Any]) -> set[Any]:
        """Those of these source ids that several samples of the dataset have."""
        found: set[Any] = set()
        for chunk in _chunks(list({i for i in source_ids if i is not None})):
            group: list[Mapping[str, Any]] = [
                {"$match": {self.id_path: {"$in": chunk}}},
                {"$group": {"_id": f"${self.id_path}", "samples": {"$sum": 1}}},
                {"$match": {"samples": {"$gt": 1}}},
            ]
            found.update(document["_id"] for document in self._aggregate(group))
        return found

    def correct(
        self, ids: Sequence[str], tag: str | None, name: str | None, others: Sequence[str], marker: str = MARKER
    ) -> Counter[str]:
        """Gives samples one correction in place of what they had, or takes theirs back.

        A sample that is labelled so already needs none; where the store is known to hold another label it gets the
        marker tag instead.

        Args:
            ids: some thousand samples
            tag: the tag of the new correction; None takes corrections back
            name: the label it stands for
            others: all the tags that would be a correction
            marker: the marker tag

        Returns:
            how many "samples" there were, how many were "corrected" or "already" so, and how many had an earlier
            correction that was "replaced"
        """
        label, chosen = f"{self.name}.label", {"_id": {"$in": [ObjectId(i) for i in ids]}}
        replaced = self._remove(chosen, [*(other for other in others if other != tag), marker])
        counts = Counter(samples=len(ids), replaced=replaced)
        if tag is not None:
            so, other = {**chosen, label: {"$eq": name}}, {**chosen, label: {"$ne": name}}
            self._remove(so, [tag])
            self._remove(other, [SYNCED])
            self._add({**so, self.stored: {"$nin": [name, None]}}, marker)
            counts["corrected"] = self._add(other, tag)
            counts["already"] = len(ids) - counts["corrected"]
        self.dataset._reload_docs()
        return counts

    def _add(self, chosen: Mapping[str, Any], tag: str) -> int:
        change = {"$addToSet": {"tags": tag}, "$currentDate": {"last_modified_at": True}}
        return persist(lambda: self._samples.update_many(chosen, change).matched_count)

    def _remove(self, chosen: Mapping[str, Any], tags: Sequence[str]) -> int:
        """Takes tags off samples and labels; returns from how many."""
        paths, there = ("tags", f"{self.name}.tags"), {"$in": list(tags)}
        tagged = {**chosen, "$or": [{path: there} for path in paths]}
        count = persist(lambda: self._samples.count_documents(tagged))
        for path in paths:
            change = {"$pullAll": {path: list(tags)}, "$currentDate": {"last_modified_at": True}}
            query = {**chosen, path: there}
            persist(partial(self._samples.update_many, query, change))
        return count

    # --- labels ---

    def move(self, moves: Sequence[Move], event: Event, tagged: bool = False) -> None:
        """Changes labels, each in one conditional update; see `labels.updates`. Making the same moves again is safe."""
        self._write(updates(moves, self.name, event, tagged))

    def settle(self, moves: Sequence[Move], event: Event) -> None:
        """The same for labels that the store took; it is noted also where somebody changed the label meanwhile."""
        if self._write(updates(moves, self.name, event)) < len(moves):
            self._write(stored_only(moves, self.name))

    def _write(self, operations: Sequence[Any]) -> int:
        """Makes updates; returns how many samples met their conditions."""
        if not operations:
            return 0
        made = persist(lambda: self._samples.bulk_write(operations, ordered=False))
        self.dataset._reload_docs()
        return made.matched_count

    def moved(self, ids: Sequence[str], event: Event) -> set[str]:
        """Which of these samples have this event in their history."""
        mine = {self.history: {"$elemMatch": {"run": event.run, "how": event.how}}}
        found: set[str] = set()
        for chunk in _chunks(ids):
            query = {"_id": {"$in": [ObjectId(i) for i in chunk]}, **mine}
            found.update(str(document["_id"]) for document in self._find(query, "_id"))
        return found

    def _find(self, query: Mapping[str, Any], *paths: str) -> list[dict[str, Any]]:
        return persist(lambda: list(self._samples.find(query, dict.fromkeys(paths, 1), batch_size=10_000)))

    def _aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return persist(lambda: list(self._samples.aggregate(pipeline)))

    def _distinct(self, path: str) -> list[Any]:
        return persist(lambda: self._samples.distinct(path))

    def labels(self, ids: Sequence[str]) -> dict[str, str | None]:
        """The labels of samples as they are now, by sample id; samples that are gone are left out."""
        path, found = f"{self.name}.label", {}
        for chunk in _chunks(ids):
            query = {"_id": {"$in": [ObjectId(i) for i in chunk]}}
            for document in self._find(query, path):
                found[str(document["_id"])] = _at(document, path)
        return found

    def changed_by(self, run: str) -> Iterator[dict[str, Any]]:
        """The samples whose label a run changed: id, label, stored, source_id, tags and the history, oldest first."""
        query = {self.history: {"$elemMatch": {"run": run}}}
        paths = (f"{self.name}.label", self.stored, self.id_path, "tags", self.history)
        for document in self._samples.find(query, dict.fromkeys(paths, 1)):
            label, stored, source, tags, history = (_at(document, path) for path in paths)
            yield {
                "id": str(document["_id"]),
                "label": label,
                "stored": stored,
                "source_id": source,
                "tags": tags or [],
                "history": history or [],
            }

    def changed_since(self, then: datetime) -> set[str]:
        """The samples whose label has become another one since a time (UTC, naive), by any run of the suite."""
        documents = self._find({self.history: {"$elemMatch": {"at": {"$gt": then}}}}, self.history)
        return {
            str(document["_id"])
            for document in documents
            if any(
                change["from"] != change["to"] and change["at"].replace(tzinfo=None) > then
                for change in document[self.history]
            )
        }

    def histories(self) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
        """Every change of a label in the dataset, sample by sample, oldest first: sample id, source id, entry."""
        query = {f"{self.history}.0": {"$exists": True}}
        for document in self._samples.find(query, {self.history: 1, self.id_path: 1}).sort("_id"):
            for entry in document[self.history]:
                yield str(document["_id"]), _at(document, self.id_path), entry

    # --- what a plan says, on the samples ---

    def untagged_edits(self, view: SampleCollection, tags: Tags) -> list[dict[str, Any]]:
        """Labels that differ from the stored label and that no correction speaks for: id, label, stored.

        One look into an index for each label: only what differs is read.
        """
        label, relevant = f"{self.name}.label", list(tags.relevant)
        found = []
        for name in self._distinct(label):
            query = {
                label: {"$eq": name},
                self.stored: {"$nin": [name, None]},
                "tags": {"$nin": relevant},
                f"{self.name}.tags": {"$nin": relevant},
            }
            if name is not None:
                found += [
                    {"id": str(document["_id"]), "label": name, "stored": document[self.stored]}
                    for document in self._find(query, self.stored)
                ]
        inside = self.inside(view, [row["id"] for row in found])
        return [row for row in found if row["id"] in inside]

    def set_status(self, view: SampleCollection, reasons: Mapping[str, str]) -> None:
        """Writes why the corrections of a view were not, or would not be, sent; other samples of the view get none."""
        old = [str(document["_id"]) for document in self._find({self.status: {"$gt": ""}}, "_id")]
        gone = [i for i in self.inside(view, old) if i not in reasons]
        alike: dict[str | None, list[str]] = {None: gone}
        for sample_id, reason in reasons.items():
            alike.setdefault(reason, []).append(sample_id)
        now = datetime.now(UTC)
        operations = [
            UpdateMany(
                {"_id": {"$in": [ObjectId(i) for i in chunk]}}, {"$set": {self.status: reason, "last_modified_at": now}}
            )
            for reason, ids in alike.items()
            for chunk in _chunks(ids)
        ]
        self._write(operations)

    def save_views(self, statuses: Mapping[str, str]) -> list[str]:
        """Saves a view for each status that samples have now.

        One that is empty by now stays: the App may have it open, and FiftyOne cannot load a page whose view is gone.

        Args:
            statuses: how the text in the status field begins, and what to call those samples

        Returns:
            the names of the views that have samples
        """
        # A dataset with several label fields has a set of views for each.
        own = "" if self.name == "ground_truth" else f" ({self.name})"
        made = {f"{VIEWS}{name}{own}": begins for begins, name in statuses.items() if self._any(begins)}
        return [name for name, begins in made.items() if self._save_view(name, begins)]

    def _save_view(self, name: str, begins: str) -> bool:
        view = self.dataset.match(ViewField(self.status).starts_with(begins))
        said = "Made by the suite; each plan replaces it"
        for _ in range(VIEW_TRIES):
            # Another run may save or delete the same view between FiftyOne's look and its write.
            with suppress(ValueError):
                persist(partial(self.dataset.save_view, name, view, description=said, overwrite=True))
                return True
        return False

    def _any(self, begins: str) -> bool:
        among = {"$gte": begins, "$lt": f"{begins}\uffff"}
        return self._samples.find_one({self.status: among}, {"_id": 1}) is not None


def open_field(dataset_id: str, label_field: str) -> LabelField | None:
    """The label field of a dataset by the dataset's id, which outlives its name; None when the dataset is gone."""
    document = odm.get_db_conn()["datasets"].find_one({"_id": ObjectId(dataset_id)}, {"name": 1})
    if document is None:
        return None
    return LabelField(fo.load_dataset(document["name"]), label_field, "id")


def vocabulary(dataset: fo.Dataset, label_field: str, secrets: Mapping[str, str]) -> Vocabulary:
    """The names that labels of a field may have: those of the secret, else the field's classes, else its labels.

    Args:
        dataset: a FiftyOne dataset
        label_field: one of its `Classification` fields
        secrets: `MBARI_VOCABULARY` and what it takes to read that address

    Raises:
        InputError, StorageError: the list cannot be read
    """
    if uri := secrets.get("MBARI_VOCABULARY"):
        try:
            return load(uri, secrets)
        except SuiteError as error:
            raise type(error)(f"The list of names in MBARI_VOCABULARY cannot be used: {error}") from error
    classes = dataset.classes.get(label_field) or dataset.default_classes
    if classes:
        return Vocabulary(tuple(classes), f"the classes of {label_field!r}")
    distinct = dataset._sample_collection.distinct(f"{label_field}.label")
    return Vocabulary(tuple(sorted(n for n in distinct if isinstance(n, str) and n)), f"the labels in {label_field!r}")


def add_class(dataset: fo.Dataset, label_field: str, names: Sequence[str]) -> None:
    """Makes these the classes of a label field."""
    dataset.classes[label_field] = list(names)
    dataset.save()


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _chunks(ids: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(ids), CHUNK):
        yield list(ids[start : start + CHUNK])
