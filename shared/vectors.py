"""The door to vector fields of a FiftyOne dataset: one float32 vector a sample or patch, in bulk.

What a vector was made by is said in the `info` of its field, so that vectors of two backbones are never compared.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from pymongo import UpdateOne

from .errors import InputError

EMBEDDING = "mbari_embedding"  # the key of a vector field's info that says which backbone made it

# How many documents a query brings at a time: of 1,280 numbers each, 25 MB.
CHUNK = 5_000

NPY = b"\x93NUMPY\x01\x00"  # how a file of NumPy's begins, of the version that it writes

RUN = "run 'Compute embeddings'"

# Of these, two fields with the same are alike: their vectors may be mixed and compared.
IDENTITY = ("weights_sha256", "layer", "framing", "imgsz", "dim")


def path_of(name: str, patches_field: str | None = None) -> str:
    """The path of a vector field: on the samples, or on the labels of a `Detections` field."""
    return name if patches_field is None else f"{patches_field}.detections.{name}"


def patches_fields(dataset: fo.Dataset) -> list[str]:
    """Names of the dataset's `Detections` fields."""
    schema = dataset.get_field_schema()
    return [name for name, field in schema.items() if getattr(field, "document_type", None) is fo.Detections]


def require_patches_field(dataset: fo.Dataset, name: str) -> None:
    """Checks that `name` is a `Detections` field of the dataset.

    Raises:
        InputError: if it is missing or of another type
    """
    have = patches_fields(dataset)
    if name not in have:
        said = ", ".join(have) or "none"
        raise InputError(f"The dataset {dataset.name!r} has no Detections field {name!r} (it has: {said}).")


def made_by(dataset: fo.Dataset, path: str) -> Mapping[str, Any] | None:
    """What the `info` of a vector field says of its backbone; None where there is no field, or it does not say."""
    field = dataset.get_field(path)
    return None if field is None else (field.info or {}).get(EMBEDDING)


def refusal(dataset: fo.Dataset, path: str, info: Mapping[str, Any] | None = None) -> str | None:
    """Why vectors must not be written to a field, if they must not.

    Args:
        dataset: the dataset
        path: the field
        info: what the vectors are made by, see `IDENTITY`; None asks whether any may
    """
    field = dataset.get_field(path)
    if field is None:
        return None
    if not isinstance(field, fo.VectorField):
        return f"The field {path!r} exists and is not one of vectors; choose another name."
    known = (field.info or {}).get(EMBEDDING)
    if (info is None and known is not None) or _same(known, info) or not holds_any(dataset, path):
        return None
    if known is None:
        return f"The field {path!r} holds vectors that this suite did not make; choose another name."
    return (
        f"The field {path!r} holds vectors of {describe(known)}; those of {describe(info or {})} cannot be mixed with "
        "them: choose another field, or delete this one first."
    )


def describe(info: Mapping[str, Any]) -> str:
    """A backbone in words, from what a field's `info` says of it."""
    return (
        f"{info.get('backbone')} ({info.get('dim')}-d, {info.get('framing')} to {info.get('imgsz')}, weights "
        f"{str(info.get('weights_sha256'))[:8]})"
    )


def prepare(dataset: fo.Dataset, path: str, info: Mapping[str, Any]) -> None:
    """Makes sure that a vector field exists, and says in its `info` what made its vectors.

    Raises:
        InputError: the field has another type, or holds vectors of something else
    """
    dataset.reload()  # another worker may have made the field since
    if problem := refusal(dataset, path, info):
        raise InputError(problem)
    if dataset.get_field(path) is None:
        dataset.add_sample_field(path, fo.VectorField)
    field = dataset.get_field(path)
    if not _same((field.info or {}).get(EMBEDDING), info):
        field.info = {**(field.info or {}), EMBEDDING: dict(info)}
        field.save()


def _same(known: Mapping[str, Any] | None, info: Mapping[str, Any] | None) -> bool:
    return known is not None and info is not None and all(known.get(key) == info.get(key) for key in IDENTITY)


def holds_any(dataset: fo.Dataset, path: str) -> bool:
    """Whether any sample or patch of the dataset has a vector in a field."""
    return dataset._sample_collection.find_one({path: {"$type": "binData"}}, {"_id": 1}) is not None


def first(dataset: fo.Dataset) -> str | None:
    """The field of the samples' vectors that comes first where nobody chose one: one of this suite before any other."""
    schema = dataset.get_field_schema(ftype=fo.VectorField)
    have = [name for name in schema if holds_any(dataset, name)]
    return min(have, key=lambda name: (made_by(dataset, name) is None, name), default=None)


def without(view: SampleCollection, name: str) -> SampleCollection:
    """The samples of a view that have no vector in a field of theirs."""
    return view.exists(name, False) if view._dataset.has_sample_field(name) else view


def patches(view: SampleCollection, field: str, lacking: str | None = None) -> Iterator[tuple[str, str, str, Any]]:
    """The patches of a view: sample id, label id, path of the image, and box (left, top, width, height; 0 to 1).

    Args:
        view: the samples, of which those without a detection give nothing
        field: a `Detections` field
        lacking: only patches without a vector in this field of theirs
    """
    labels = f"{field}.detections"
    shape = {"filepath": 1, f"{labels}._id": 1, f"{labels}.bounding_box": 1}
    if lacking:
        shape[f"{labels}.{lacking}"] = 1
    pipeline = [*view._pipeline(), {"$project": shape}]
    for document in view._dataset._sample_collection.aggregate(pipeline, allowDiskUse=True, batchSize=CHUNK):
        for label in (document.get(field) or {}).get("detections") or ():
            if not (lacking and label.get(lacking) is not None):
                yield str(document["_id"]), str(label["_id"]), document["filepath"], label.get("bounding_box")


def write(
    dataset: fo.Dataset,
    name: str,
    ids: Sequence[Any],
    vectors: np.ndarray,
    patches_field: str | None = None,
) -> None:
    """Writes one vector a sample, or a patch, in one go; those that are gone since are passed over.

    Args:
        dataset: the dataset
        name: an existing vector field
        ids: n sample ids; for patches n pairs (sample id, label id)
        vectors: float32 (n, D)
        patches_field: the `Detections` field whose labels get them
    """
    now = datetime.now(UTC)
    operations = []
    for key, vector in zip(ids, np.asarray(vectors, np.float32), strict=True):
        if patches_field is None:
            change = {"$set": {name: encode(vector), "last_modified_at": now}}
            operations.append(UpdateOne({"_id": ObjectId(key)}, change))
        else:
            sample, label = (ObjectId(part) for part in key)
            path = f"{patches_field}.detections.$[patch].{name}"
            change = {"$set": {path: encode(vector), "last_modified_at": now}}
            operations.append(UpdateOne({"_id": sample}, change, array_filters=[{"patch._id": label}]))
    if operations:
        dataset._bulk_write(operations)


def encode(vector: np.ndarray) -> bytes:
    """A vector as FiftyOne stores it; its own way, but for the level of compression, which random digits defy."""
    with io.BytesIO() as file:
        np.save(file, vector, allow_pickle=False)
        return zlib.compress(file.getvalue(), level=1)


def decode(stored: Any) -> np.ndarray | None:
    """A stored vector as float32 (D,); None for anything else."""
    try:
        if isinstance(stored, bytes):
            packed = zlib.decompress(stored)
            if not packed.startswith(NPY):
                return None
            end = len(NPY) + 2 + int.from_bytes(packed[len(NPY) : len(NPY) + 2], "little")
            dtype, shape = _header(packed[len(NPY) : end])
            stored = np.frombuffer(packed, dtype, offset=end).reshape(shape)
        vector = np.asarray(stored, np.float32)
    except (zlib.error, ValueError, TypeError):
        return None
    return vector if vector.ndim == 1 and vector.size else None


@lru_cache(64)
def _header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """What the header of an .npy file says; kept, for to parse it takes longer than all else, and all have the same."""
    shape, _, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    return dtype, shape


def read(view: SampleCollection, name: str, patches_field: str | None = None) -> tuple[list[str], np.ndarray, int]:
    """The vectors of a view, in its order.

    Args:
        view: the samples
        name: a vector field of theirs (a list of numbers will do as well), or of the labels of `patches_field`
        patches_field: a `Detections` field

    Returns:
        N ids (of labels where there is a patches field, else of samples), vectors float32 (N, D), and how many have
        none that can be compared: it is missing, not of numbers, or zero throughout

    Raises:
        InputError: there is no such field, no vector in it, or they differ in length
    """
    path = path_of(name, patches_field)
    if patches_field:
        require_patches_field(view._root_dataset, patches_field)
    require(view._root_dataset, path)
    ids: list[str] = []
    packed, lengths, missing = bytearray(), Counter[int](), 0
    for identity, stored in _stored(view, name, patches_field):
        vector = _usable(stored)
        if vector is None:
            missing += 1
            continue
        ids.append(str(identity))
        lengths[len(vector)] += 1
        packed += vector.tobytes()
    if not ids:
        raise InputError(f"No ROI of the target has a vector in {path!r}: {RUN} first.")
    if len(lengths) > 1:
        raise _differ(path, ", ".join(f"{count:,} of {length:,}" for length, count in lengths.most_common(5)))
    return ids, np.frombuffer(packed, np.float32).reshape(len(ids), -1), missing


def reader(dataset: fo.Dataset, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """What reads the vectors of samples by their ids, shape (n,) as `samples.ids` gives them, as often as asked.

    It returns float32 (n, D), a row of zeros where a sample has none that can be compared, and raises an InputError
    where they differ in length.

    Args:
        dataset: the dataset
        name: a vector field of it, or one with lists of numbers

    Raises:
        InputError: there is no such field, or no vector in it
    """
    require(dataset, name)
    first = dataset._sample_collection.find_one({name: {"$type": ["binData", "array"]}}, {name: 1}) or {}
    length = 0 if (vector := decode(first.get(name))) is None else len(vector)
    if not length:
        raise InputError(f"No ROI of the dataset {dataset.name!r} has a vector in {name!r}: {RUN} first.")

    def read_some(ids: np.ndarray) -> np.ndarray:
        found = np.zeros((len(ids), length), np.float32)
        for start in range(0, len(ids), CHUNK):
            row = {ObjectId(identity): start + i for i, identity in enumerate(ids[start : start + CHUNK].tolist())}
            for document in dataset._sample_collection.find({"_id": {"$in": list(row)}}, {name: 1}):
                vector = _usable(document.get(name))
                if vector is None:
                    continue
                if len(vector) != length:
                    raise _differ(name, f"{length:,} and {len(vector):,}")
                found[row[document["_id"]]] = vector
        return found

    return read_some


def require(dataset: fo.Dataset, path: str) -> None:
    """Checks that a field is there and can hold vectors.

    Raises:
        InputError: if not
    """
    field = dataset.get_field(path)
    if field is None:
        raise InputError(f"The dataset {dataset.name!r} has no field {path!r}: {RUN} first.")
    if not isinstance(field, (fo.VectorField, fo.ListField, fo.ArrayField)):
        raise InputError(f"The field {path!r} of dataset {dataset.name!r} is not one of vectors; choose another one.")


def _usable(stored: Any) -> np.ndarray | None:
    """A stored vector that can be compared; None where it is missing, not of numbers, or zero throughout."""
    vector = None if stored is None else decode(stored)
    return None if vector is None or not np.isfinite(vector).all() or not vector.any() else vector


def _differ(path: str, said: str) -> InputError:
    return InputError(
        f"The vectors in {path!r} differ in length ({said}): they are of different backbones and cannot be compared. "
        "Compute them anew in another field."
    )


def _stored(view: SampleCollection, name: str, patches_field: str | None) -> Iterator[tuple[Any, Any]]:
    """The id and what is stored, of each sample or patch of a view, in its order."""
    if patches_field is None:
        shape: dict[str, Any] = {name: 1}
    else:
        shape = {"_id": 0, f"{patches_field}.detections._id": 1, f"{patches_field}.detections.{name}": 1}
    pipeline = [*view._pipeline(), {"$project": shape}]
    found = view._dataset._sample_collection.aggregate(pipeline, allowDiskUse=True, batchSize=CHUNK)
    for document in found:
        if patches_field is None:
            yield document["_id"], document.get(name)
        else:
            for label in (document.get(patches_field) or {}).get("detections") or ():
                yield label["_id"], label.get(name)
