"""Datasets with labels, the label stores that they came from, and corrections, of any size in little time."""

import os
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from tests import labels

CLASSES = [f"Taxon {letter}" for letter in "abcdefghijklmnopqrst"]
WEIGHTS = [1 / rank for rank in range(1, len(CLASSES) + 1)]  # few common, many rare, as plankton is
PLUGIN = "@mbari/sync_back"
PRIME = 7_919  # neighbours in a range of samples lie far apart in the dataset

Naming = Callable[[int], str]


def short(number: int) -> str:
    """The source id of a sample by its number."""
    return f"e{number}"


def elemental(number: int) -> str:
    """The same as a UUID, as Tator has them."""
    return str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))


@contextmanager
def labelled(count: int, naming: Naming = short) -> Iterator[tuple[Any, Any]]:
    """A dataset of so many labelled samples and its store, which knows the same labels; both are dropped afterwards.

    The stored labels are on the samples, as after 'Pull labels'. The suite's own fields are there, its indexes are not.
    """
    import fiftyone as fo
    import fiftyone.core.odm as odm

    name = f"bench-{uuid.uuid4().hex[:8]}"
    dataset, store = fo.Dataset(name), odm.get_db_conn().client[name]["rois"]
    try:
        _fill(dataset, store, count, naming)
        yield dataset, store
    finally:
        dataset.delete()
        store.database.client.drop_database(name)


def _fill(dataset: Any, store: Any, count: int, naming: Naming) -> None:
    """One sample through FiftyOne, which makes the schema; the others are documents of the same shape."""
    import fiftyone as fo
    from bson import ObjectId

    draw, now = random.Random(0), datetime.now(UTC)
    first = labels.fill(dataset, [CLASSES[0]], ground_truth_stored=CLASSES[0])
    dataset.add_sample_field("ground_truth_history", fo.ListField, subfield=fo.DictField)
    dataset.add_sample_field("ground_truth_sync", fo.StringField)
    dataset.classes["ground_truth"] = CLASSES
    dataset.save()
    samples = dataset._sample_collection
    pattern = samples.find_one()
    samples.delete_one({"_id": ObjectId(first[0])})
    names = draw.choices(CLASSES, WEIGHTS, k=count)
    made = (
        {
            **pattern,
            "_id": ObjectId(),
            "filepath": f"/rois/{dataset.name}-{number}.png",
            "tags": [],
            "_rand": draw.random(),
            "elemental_id": naming(number),
            "ground_truth": {**pattern["ground_truth"], "_id": ObjectId(), "label": name},
            "ground_truth_stored": name,
            "created_at": now,
            "last_modified_at": now,
        }
        for number, name in enumerate(names)
    )
    records = ({"elemental_id": naming(number), "label": name} for number, name in enumerate(names))
    for collection, documents in ((samples, made), (store, records)):
        while batch := list(islice(documents, 20_000)):
            collection.insert_many(batch, ordered=False)
    store.create_index("elemental_id", unique=True)
    dataset.reload()


def correct(dataset: Any, samples: range, naming: Naming = short, others: int = len(CLASSES) - 1) -> None:
    """Gives samples a tag with another name than their label; equal ranges are equal samples, all over the dataset.

    Each class is mistaken for so many others.
    """
    wrong: dict[str, list[Any]] = {}
    for document in _some(dataset, samples, naming):
        name = _other(document, others)
        wrong.setdefault(name, []).append(document["_id"])
    for name, ids in wrong.items():
        dataset._sample_collection.update_many({"_id": {"$in": ids}}, {"$push": {"tags": name}})


def edit(dataset: Any, samples: range) -> None:
    """Changes labels without a tag."""
    for document in _some(dataset, samples, short):
        dataset._sample_collection.update_one(
            {"_id": document["_id"]}, {"$set": {"ground_truth.label": _other(document)}}
        )


def _some(dataset: Any, samples: range, naming: Naming) -> Any:
    total = dataset._sample_collection.estimated_document_count()
    ids = [naming(number * PRIME % total) for number in samples]
    return dataset._sample_collection.find({"elemental_id": {"$in": ids}}, {"elemental_id": 1, "ground_truth.label": 1})


def _other(document: Any, others: int = len(CLASSES) - 1) -> str:
    """One of so many names other than a sample's label, the same each time."""
    at = CLASSES.index(document["ground_truth"]["label"])
    names = sorted((CLASSES[at + 1 :] + CLASSES[:at])[:others])
    return random.Random(document["elemental_id"]).choice(names)


@contextmanager
def secrets(**values: str) -> Iterator[None]:
    """Lets the operators find these secrets."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def store_of(store: Any) -> AbstractContextManager[None]:
    """Lets the operators find this store."""
    return secrets(MBARI_LABEL_STORE=labels.store_uri(store.database.name))


@contextmanager
def in_tator(store: Any, delay: float = 0.0, more: str = "") -> Iterator[Any]:
    """A stand-in Tator server with the labels of a store, which the operators find; yields it."""
    from tests.tator.server import Tator

    with Tator() as tator:
        tator.project()
        tator.put((record["elemental_id"], record["label"]) for record in store.find())
        tator.delay = delay
        uri = f"tator+http://127.0.0.1:{tator.port}/7?version=Baseline&type=Boxes&attribute=Label{more}"
        with secrets(MBARI_LABEL_STORE=uri, MBARI_LABEL_STORE_TOKEN=tator.token()):
            yield tator


def operate(name: str, dataset: Any, **params: Any) -> Any:
    """The result of one of the plugin's operators on the whole dataset."""
    import fiftyone.operators as foo

    return foo.execute_operator(f"{PLUGIN}/{name}", {"dataset": dataset, "params": params}).result
