"""Maps and similarity indexes as FiftyOne's brain keeps them, where the App's panels find them.

A new run is written whole under a key of its own and then takes the old one's place in a single update of the
dataset's document: whatever is killed, whoever opens the key finds the old run or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId

from ..errors import InputError
from .layout import Layout

MARK = "mbari"  # the part of a run's config that says that the suite made it, when, and with what
UNFINISHED = "__unfinished"  # ends the key that a run has until it is whole

CHUNK = 20_000  # ids a query, far from the 16 MB of a MongoDB document

KINDS = {"visualization": "a map", "similarity": "a similarity index"}


def taken(dataset: fo.Dataset, key: str, kind: str) -> str | None:
    """Why a run of this kind ("visualization" or "similarity") must not get this brain key, if it must not."""
    if not key.isidentifier() or key.endswith(UNFINISHED):
        return f"The brain key {key!r} cannot be used: letters, digits and '_', and no digit first."
    if not dataset.has_brain_run(key):
        return None
    config = dataset._doc.brain_methods[key].config or {}
    if MARK not in config:
        return f"The brain key {key!r} is in use, and not by this suite; choose another one, or delete that run."
    if config.get("type") != kind:
        holds = KINDS.get(str(config.get("type")), "something else")
        return f"The brain key {key!r} holds {holds}, which {KINDS[kind]} cannot replace; choose another one."
    return None


def register_map(
    dataset: fo.Dataset,
    key: str,
    layout: Layout,
    ids: Sequence[str],
    *,
    embeddings_field: str,
    patches_field: str | None = None,
    backbone: str | None = None,
) -> int:
    """Makes points the map that the App's Embeddings panel shows under `key`, in place of our earlier one.

    The run belongs to the whole dataset and names its samples, so views of any size can be laid out.

    Args:
        dataset: the dataset
        key: the brain key
        layout: N points
        ids: the ids of the N samples, or of the N labels of the patches field
        embeddings_field: where the vectors came from
        patches_field: a `Detections` field whose labels have the vectors, instead of the samples
        backbone: what made the vectors; the panel shows it

    Returns:
        how many points were left out because their samples or labels have been deleted since

    Raises:
        InputError: the key is in use by others, or all samples are gone
    """
    from fiftyone.brain.visualization import PCAVisualizationConfig, UMAPVisualizationConfig, VisualizationResults

    _refuse_taken(dataset, key, "visualization")
    owners = _samples_of(dataset, ids, patches_field)
    kept = [row for row, identity in enumerate(ids) if identity in owners]
    if not kept:
        raise InputError("None of the ROIs is left in the dataset: they were deleted while the map was computed.")
    points, sample_ids = layout.points[kept], np.array([owners[ids[row]] for row in kept])
    label_ids = np.array([ids[row] for row in kept]) if patches_field else None
    make = UMAPVisualizationConfig if layout.method == "umap" else PCAVisualizationConfig
    fields = {"embeddings_field": embeddings_field, "patches_field": patches_field}
    config = make(model=backbone, **{MARK: _mark(layout.ran)}, **fields, **layout.parameters)

    def write(unfinished: str) -> None:
        method = config.build()
        method.register_run(dataset, unfinished)
        results = VisualizationResults(dataset, config, unfinished, points, sample_ids, label_ids)
        method.save_run_results(dataset, unfinished, results, cache=False)

    _replace(dataset, key, write)
    return len(ids) - len(kept)


def register_similarity(dataset: fo.Dataset, key: str, embeddings_field: str, patches_field: str | None = None) -> int:
    """Makes an index for the App's sort by similarity (cosine) under `key`, in place of our earlier one.

    It reads the vectors from the field whenever it is opened: always those of the whole dataset, as they are then.
    FiftyOne takes their mean away before it compares directions.

    Returns:
        how many samples, or labels of the patches field, it covers now

    Raises:
        InputError: the key is in use by others, or vectors of the dataset cannot be compared
    """
    import fiftyone.brain as fob

    _refuse_taken(dataset, key, "similarity")
    fields = {"embeddings": embeddings_field, "patches_field": patches_field}
    options = {**fields, "backend": "sklearn", "metric": "cosine", MARK: _mark("FiftyOne's sklearn index")}
    size = 0

    def write(unfinished: str) -> None:
        nonlocal size
        try:
            index = fob.compute_similarity(dataset, brain_key=unfinished, **options)
        except ValueError as error:  # numpy's: vectors of uneven length make no matrix
            raise InputError(
                f"No similarity index can be made: it covers the whole dataset, where {embeddings_field!r} has vectors "
                "of different lengths; compute those embeddings again."
            ) from error
        finally:
            dataset._brain_cache.pop(unfinished, None)
        bad = int(np.count_nonzero(~np.isfinite(index.embeddings).all(axis=1)))
        if bad:
            raise InputError(
                f"No similarity index can be made: it covers the whole dataset, where {bad:,} vectors in "
                f"{embeddings_field!r} hold NaN or infinity; compute those embeddings again."
            )
        size = index.total_index_size

    _replace(dataset, key, write)
    return size


def forget_replaced(dataset: fo.Dataset) -> None:
    """Drops runs of ours that this process has in memory and another process has replaced since.

    FiftyOne keeps up to five for as long as a process has the dataset open, so an App would go on showing the map
    that it had read before a worker made a new one.
    """
    for key, results in list(dataset._brain_cache.items()):
        made = getattr(results.config, MARK, None)
        run = dataset._doc.brain_methods.get(key)
        if made and (run is None or (run.config or {}).get(MARK) != made):
            dataset._brain_cache.pop(key, None)


def _mark(ran: str) -> dict[str, str]:
    return {"made_by": "@mbari/custom_embeddings", "made_at": datetime.now(UTC).isoformat(), "with": ran}


def _refuse_taken(dataset: fo.Dataset, key: str, kind: str) -> None:
    dataset.reload()  # computing took its time, and others register runs as well
    if problem := taken(dataset, key, kind):
        raise InputError(problem)


def _samples_of(dataset: fo.Dataset, ids: Sequence[str], patches_field: str | None) -> dict[str, str]:
    """The sample of each id, of samples or of labels, that the dataset has."""
    collection = dataset._sample_collection
    found: dict[str, str] = {}
    if patches_field is None:
        for start in range(0, len(ids), CHUNK):
            chunk = [ObjectId(identity) for identity in ids[start : start + CHUNK]]
            for document in collection.find({"_id": {"$in": chunk}}, {"_id": 1}):
                found[str(document["_id"])] = str(document["_id"])
        return found
    wanted, labels = set(ids), f"{patches_field}.detections._id"
    for document in collection.find({labels: {"$exists": True}}, {labels: 1}, batch_size=CHUNK):
        for label in (document.get(patches_field) or {}).get("detections") or ():
            if str(label["_id"]) in wanted:
                found[str(label["_id"])] = str(document["_id"])
    return found


def _replace(dataset: fo.Dataset, key: str, write: Callable[[str], None]) -> None:
    """Writes a run under an unfinished key, then puts it in the place of the old one, if there is one."""
    unfinished = key + UNFINISHED
    _clear_leftovers(dataset, key)
    try:
        write(unfinished)
        old = _swap(dataset, unfinished, key)
    except BaseException:
        _clear_leftovers(dataset, key)
        raise
    _delete(old)


def _swap(dataset: fo.Dataset, unfinished: str, key: str) -> Any:
    """Gives a finished run its key; returns the document of the run that had it, or None."""
    runs = dataset._doc.brain_methods
    new, old = runs[unfinished], runs.get(key)
    new.key = key
    new.save()
    del runs[unfinished]
    runs[key] = new
    dataset.save()  # both changes in one update, so there is no moment without a run
    dataset._brain_cache.pop(key, None)
    return old


def _clear_leftovers(dataset: fo.Dataset, key: str) -> None:
    """Removes what a killed run left: an unfinished run, and the old one if it was replaced but not yet deleted."""
    from fiftyone.core.odm.runs import RunDocument

    dataset.reload()
    unfinished = key + UNFINISHED
    if dataset.has_brain_run(unfinished):
        dataset.delete_brain_run(unfinished)
    current = dataset._doc.brain_methods.get(key)
    for run in RunDocument.objects(dataset_id=dataset._doc.id, key=key):
        if MARK in (run.config or {}) and (current is None or run.id != current.id):
            _delete(run)


def _delete(run: Any) -> None:
    """Deletes a run that the dataset does not name any more, with its results."""
    if run is None:
        return
    if run.results:
        run.results.delete()
    run.delete()
