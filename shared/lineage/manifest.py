"""The manifest of a model version: the rows it was trained on, and a digest that is their identity."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError, StorageError

# What makes a row of training data what it is. A path is not part of it (the image's hash is), nor are names
# that people change (of the dataset, of a group) without changing what was learned.
IDENTITY = ("dataset_id", "sample_id", "sha256", "label", "split")
HEADER = "mbari manifest 1: " + " ".join(IDENTITY) + "\n"
ROWS = 65_536  # handled at a time


def write(rows: pa.Table, path: Path) -> None:
    """Writes the rows, all columns of them and in their order, as Parquet."""
    pq.write_table(_plain(rows), path, compression="zstd", row_group_size=ROWS)


def read(path: Path) -> pa.Table:
    """The rows of a manifest; StorageError when the file is missing or damaged."""
    try:
        rows = _plain(pq.read_table(path))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f'The manifest "{path}" cannot be read ({error}): fetch the model version again.') from None
    missing = [name for name in IDENTITY if name not in rows.column_names]
    if missing:
        raise StorageError(f'The file "{path}" is not a manifest of training rows: it has no {", ".join(missing)}.')
    return rows


def digest(rows: pa.Table) -> str:
    """The identity of the training data, 64 hexadecimal digits.

    It is the SHA-256 of `HEADER` followed by the sorted SHA-256 of every row that was used (every row, where the
    table has no column `used`). A row's bytes are its values of `IDENTITY`, each as "-" for null, else as its
    length in UTF-8 bytes, a colon, and the bytes: no separator inside a value can be mistaken. So neither the
    order of rows nor the way the table is cut, encoded or stored counts; any changed value does, and so does a
    row more, even an equal one.

    Raises:
        InputError: a column of `IDENTITY` is missing.
    """
    missing = [name for name in IDENTITY if name not in rows.column_names]
    if missing:
        raise InputError(f"These rows have no {', '.join(missing)}: a digest needs {', '.join(IDENTITY)}.")
    hashes = pa.chunked_array(_row_hashes(rows), pa.binary(32))
    order = pc.sort_indices(hashes)
    whole = hashlib.sha256(HEADER.encode())
    for start in range(0, len(order), ROWS):
        whole.update(b"".join(hashes.take(order.slice(start, ROWS)).to_pylist()))
    return whole.hexdigest()


def _row_hashes(rows: pa.Table) -> Iterator[pa.Array]:
    """The SHA-256 of each used row, in pieces, so that memory stays at these 32 bytes a row."""
    used = ("used",) if "used" in rows.column_names else ()
    for batch in rows.select([*IDENTITY, *used]).to_batches(max_chunksize=ROWS):
        parts = [_sized(batch[name].cast(pa.string())) for name in IDENTITY]
        lines = pc.binary_join_element_wise(*parts, "").cast(pa.binary())
        kept = lines.filter(batch["used"]) if used else lines
        yield pa.array([hashlib.sha256(line).digest() for line in kept.to_pylist()], pa.binary(32))


def _sized(values: pa.Array) -> pa.Array:
    """Each string as "<bytes>:<string>", null as "-"."""
    sized = pc.binary_join_element_wise(pc.binary_length(values).cast(pa.string()), values, ":")
    return pc.fill_null(sized, "-")


def _plain(rows: pa.Table) -> pa.Table:
    """The same rows with every kind of string as a plain one, and without other programs' notes."""
    fields = []
    for field in rows.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind)
        fields.append(pa.field(field.name, pa.string() if text else kind))
    return rows.cast(pa.schema(fields))
