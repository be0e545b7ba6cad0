"""The manifest: what its digest is, what it does not depend on, and what changes it."""

import hashlib
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InputError, StorageError
from shared.lineage import manifest

TEXT = ("dataset", "dataset_id", "sample_id", "source_id", "filepath", "label", "label_id", "split", "group", "sha256")


def table(lines: list[dict], **columns) -> pa.Table:
    made = {name: pa.array([line.get(name) for line in lines], pa.string()) for name in TEXT}
    used = pa.array([line.get("used", True) for line in lines], pa.bool_())
    return pa.table({**made, "used": used, **columns})


def lines(count: int) -> list[dict]:
    return [
        {
            "dataset": "curated",
            "dataset_id": "65a1",
            "sample_id": f"s{i}",
            "source_id": None if i % 3 else f"e{i}",
            "filepath": f"/data/größe {i}.png",
            "label": ["Pseudo-nitzschia", "fecal_pellet", "größer/als", ""][i % 4],
            "split": ["train", "val", "test"][i % 3],
            "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
        }
        for i in range(count)
    ]


def by_the_book(made: list[dict]) -> str:
    """The digest as its documentation says, written without this suite's code."""

    def sized(value):
        return b"-" if value is None else str(len(value.encode())).encode() + b":" + value.encode()

    names = ["dataset_id", "sample_id", "sha256", "label", "split"]
    hashes = [hashlib.sha256(b"".join(sized(line.get(n)) for n in names)).digest() for line in made]
    header = b"mbari manifest 1: dataset_id sample_id sha256 label split\n"
    return hashlib.sha256(header + b"".join(sorted(hashes))).hexdigest()


def test_the_digest_is_what_its_documentation_says():
    assert manifest.digest(table(lines(50))) == by_the_book(lines(50))
    assert manifest.digest(table([])) == by_the_book([])


def test_the_digest_of_known_rows_never_changes():
    assert manifest.digest(table(lines(3))) == "77322143f09b4ff63bede734e16af557cbbfb70b1b9aa0ecbd616355af35bb36"


def test_order_and_chunks_do_not_count(monkeypatch):
    made = lines(100)
    digest = manifest.digest(table(made))
    random.Random(0).shuffle(made)
    shuffled = table(made)
    assert manifest.digest(shuffled) == digest
    pieces = pa.concat_tables([shuffled.slice(0, 1), shuffled.slice(1, 60), shuffled.slice(61)])
    assert pieces["label"].num_chunks == 3
    assert manifest.digest(pieces) == digest
    monkeypatch.setattr(manifest, "ROWS", 7)
    assert manifest.digest(shuffled) == digest


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_the_kind_of_string_does_not_count(kind, tmp_path):
    plain = table(lines(40))
    other = pa.table({n: plain[n].cast(kind) if n in TEXT else plain[n] for n in plain.column_names})
    assert manifest.digest(other) == manifest.digest(plain)
    manifest.write(other, tmp_path / "manifest.parquet")
    assert manifest.read(tmp_path / "manifest.parquet").equals(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"version": "1.0", "use_dictionary": False},
        {"version": "2.6", "compression": "snappy", "row_group_size": 3},
        {"data_page_version": "2.0", "store_schema": False},
    ],
    ids=str,
)
def test_the_way_it_is_stored_does_not_count(options, tmp_path):
    rows = table(lines(40))
    pq.write_table(rows, tmp_path / "manifest.parquet", **options)
    assert manifest.digest(manifest.read(tmp_path / "manifest.parquet")) == manifest.digest(rows)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "fecal"),
        ("label", None),
        ("split", "val"),
        ("sha256", "0" * 64),
        ("sample_id", "x"),
        ("dataset_id", "y"),
    ],
)
def test_one_changed_value_counts(column, value):
    made = lines(30)
    before = manifest.digest(table(made))
    made[6][column] = value
    assert manifest.digest(table(made)) != before


def test_a_row_more_counts_even_an_equal_one():
    made = lines(5)
    digests = {manifest.digest(table(made + made[:copies])) for copies in range(4)}
    assert len(digests) == 4


def test_what_was_not_learned_does_not_count():
    made = lines(10)
    digest = manifest.digest(table(made))
    moved = [{**line, "filepath": "s3://b/k", "dataset": "renamed", "group": "g", "source_id": "e"} for line in made]
    assert manifest.digest(table(moved)) == digest
    assert manifest.digest(table([*made, {"label": "A", "used": False}, {"used": None}])) == digest
    assert manifest.digest(table(made).drop_columns("used")) == digest


texts = st.one_of(st.none(), st.text(alphabet="-:1 2,aß\x00\n", max_size=4))


@settings(deadline=None)
@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.lists(st.tuples(texts, texts), min_size=1, max_size=3)
)
def test_only_equal_rows_have_equal_digests(one, two):
    """No separator, null or empty string can be mistaken for another."""
    digests = [manifest.digest(table([{"sample_id": a, "label": b} for a, b in made])) for made in (one, two)]
    order = {"key": str}
    assert (digests[0] == digests[1]) == (sorted(one, **order) == sorted(two, **order))


def test_all_columns_and_the_order_of_rows_come_back(tmp_path):
    rows = table(lines(20), why_left_out=pa.nulls(20), pixels=pa.array(range(20)))
    manifest.write(rows, tmp_path / "manifest.parquet")
    back = manifest.read(tmp_path / "manifest.parquet")
    assert back.to_pylist() == rows.to_pylist()
    assert back.column_names == rows.column_names


def test_equal_rows_are_written_as_equal_bytes(tmp_path):
    for name in ("a", "b"):
        manifest.write(table(lines(20)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_without_a_needed_column_are_refused(tmp_path):
    rows = table(lines(3)).drop_columns(["sha256", "split"])
    with pytest.raises(InputError, match="no sha256, split"):
        manifest.digest(rows)
    manifest.write(rows, tmp_path / "other.parquet")
    with pytest.raises(StorageError, match="not a manifest of training rows"):
        manifest.read(tmp_path / "other.parquet")


@pytest.mark.parametrize("content", [None, b"", b"PAR1 but not really PAR1"])
def test_a_missing_or_damaged_file_is_said(tmp_path, content):
    path = tmp_path / "manifest.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.parquet.*fetch the model version again"):
        manifest.read(path)


def test_a_truncated_file_is_said(tmp_path):
    path = tmp_path / "manifest.parquet"
    manifest.write(table(lines(500)), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StorageError, match="cannot be read"):
        manifest.read(path)


def test_the_digest_needs_little_memory_beside_the_rows():
    rows = table(lines(2000))
    rows = pa.concat_tables([rows] * 100)
    pool = pa.default_memory_pool()
    pool.release_unused()
    tracemalloc.start()
    before = pool.bytes_allocated()
    manifest.digest(rows)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pool.bytes_allocated() - before < 1_000_000
    assert python < 60_000_000  # 200,000 rows as Python objects, with their values, would be over 150 MB
