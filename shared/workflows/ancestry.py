"""What model versions have learned from, their ancestors included; without FiftyOne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..artifacts import Artifacts
from ..errors import InputError, StorageError
from ..lineage import manifest
from ..lineage.registry import Registry, VersionRecord, is_registered

if TYPE_CHECKING:
    import pyarrow as pa

LEARNED_FROM = ("train", "val")  # `val` chooses the epoch; `test` has no say in what a version becomes


@dataclass(frozen=True)
class Seen:
    """What versions, and all that they were fine-tuned from, were trained or chosen on.

    Attributes:
        keys: "<dataset id>/<sample id>" of each image
        hashes: the SHA-256 of each image
        versions: those whose training data is known
        unknown: a sentence on each whose is not
        outside: base weights that are of no version of the registry; nobody here can know more of them
    """

    keys: pa.ChunkedArray
    hashes: pa.ChunkedArray
    versions: tuple[str, ...]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]

    def by_id(self, dataset_id: str, ids: Sequence[str]) -> np.ndarray:
        """Which of N samples are among them, bool (N,)."""
        return _among([f"{dataset_id}/{i}" for i in ids], self.keys)

    def by_bytes(self, hashes: Sequence[str | None]) -> np.ndarray:
        """Which of N images, given by their SHA-256, have the very bytes of one among them, bool (N,)."""
        return _among(hashes, self.hashes)

    def with_(self, other: Seen) -> Seen:
        """What either of two has."""
        return Seen(
            _joined([self.keys, other.keys]),
            _joined([self.hashes, other.hashes]),
            tuple(dict.fromkeys(self.versions + other.versions)),
            tuple(dict.fromkeys(self.unknown + other.unknown)),
            tuple(dict.fromkeys(self.outside + other.outside)),
        )


def _among(values: Sequence[str | None], known: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(pa.array(values, pa.string()), value_set=known, skip_nulls=True).to_numpy(zero_copy_only=False)


def seen(records: Sequence[VersionRecord], registry: Registry, root: Artifacts, folder: Path) -> Seen:
    """Looks up what versions and their ancestors have learned from.

    Args:
        records: the versions
        registry: where their ancestors are found
        root: the artifact root, which has their manifests
        folder: for files that are fetched
    """
    keys, hashes = [], []
    known, unknown, outside = [], [], []
    waiting, met = list(records), set()
    while waiting:
        record = waiting.pop(0)
        if record.name in met:
            continue
        met.add(record.name)
        try:
            of_rows = _learned_from(record, root, folder)
        except (InputError, StorageError) as error:
            unknown.append(f"What {record.name} was trained on is not known: {error}")
        else:
            known.append(record.name)
            keys.append(of_rows[0])
            hashes.append(of_rows[1])
        try:
            base = _base(record, registry)
        except (InputError, StorageError) as error:
            unknown.append(f"What {record.name} was fine-tuned from is not known: {error}")
            continue
        if base is not None:
            waiting.append(base)
        elif record.base and "/" in record.base:
            outside.append(record.base)
    return Seen(_joined(keys), _joined(hashes), tuple(known), tuple(unknown), tuple(dict.fromkeys(outside)))


def _joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())


def _learned_from(record: VersionRecord, root: Artifacts, folder: Path) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The keys and hashes of the rows that a version was trained or chosen on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name = "manifest.parquet"
    if name not in record.files:
        raise StorageError("it was published without a manifest.")
    path = root.fetch(record.key, {name: record.files[name]}, folder / "manifests" / record.name) / name
    rows = manifest.read(path)
    path.unlink()  # one may have many megabytes, and many ancestors
    kept = pc.is_in(rows["split"], value_set=pa.array(LEARNED_FROM))
    if "used" in rows.column_names:
        kept = pc.and_(kept, pc.fill_null(rows["used"], True))
    rows = rows.select(["dataset_id", "sample_id", "sha256"]).filter(kept)
    keys = pc.binary_join_element_wise(
        pc.fill_null(rows["dataset_id"], ""), rows["sample_id"], "/", null_handling="skip"
    )
    return keys, rows["sha256"]


def _base(record: VersionRecord, registry: Registry) -> VersionRecord | None:
    """The version that another was fine-tuned from; None where it was none of the registry."""
    if record.base_version:
        return registry.resolve(record.base_version)
    if not record.base_sha256:
        return None
    # By its bytes: a version's file that somebody copied, or a name that was not yet written down.
    for other in registry.versions():
        file = other.files.get("weights.pt")
        if file is not None and file.sha256 == record.base_sha256 and other.name != record.name:
            return other
    if record.base and is_registered(record.base):
        raise InputError(f"which version {record.base!r} stood for was not written down.")
    return None
