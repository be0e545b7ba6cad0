"""What is different between the rows of two manifests.

All in columns: a million rows take seconds.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

KEY = ["dataset_id", "sample_id"]
SAID = ["label", "split", "sha256"]


@dataclass(frozen=True)
class Difference:
    """What became of the used rows of an earlier manifest in a later one; all counts are ROIs.

    Attributes:
        added: used in the later one only
        removed: used in the earlier one only
        moved: in another split
        reimaged: with other bytes, as far as both are known
        relabelled: (label before, label after, ROIs), the most frequent first
        same_splits: the splits that have the same images with the same labels in both
    """

    added: int
    removed: int
    moved: int
    reimaged: int
    relabelled: list[tuple[str, str, int]]
    same_splits: frozenset[str]


def between(before: pa.Table, after: pa.Table) -> Difference:
    """Compares two manifests, as `manifest.read` gives them, by dataset id and sample id.

    Rows that were not used do not count: one that was left out before and is used now is added.
    """
    old, new = _used(before), _used(after)
    both = old.join(new, KEY, join_type="inner", left_suffix="_old", right_suffix="_new")
    other = {name: pc.not_equal(both[f"{name}_old"], both[f"{name}_new"]) for name in SAID}
    names = ["label_old", "label_new"]
    pairs = both.filter(other["label"]).group_by(names).aggregate([([], "count_all")]).to_pylist()
    relabelled = [(row["label_old"], row["label_new"], row["count_all"]) for row in pairs]
    differs = pc.or_(pc.or_(other["label"], other["split"]), pc.fill_null(other["sha256"], True))
    same = _counts(both.filter(pc.invert(differs))["split_new"])
    in_old, in_new = _counts(old["split"]), _counts(new["split"])
    return Difference(
        added=len(new) - len(both),
        removed=len(old) - len(both),
        moved=_true(other["split"]),
        reimaged=_true(other["sha256"]),
        relabelled=sorted(relabelled, key=lambda row: (-row[2], row[0], row[1])),
        same_splits=frozenset(split for split, n in in_new.items() if n == in_old.get(split) == same.get(split)),
    )


def _used(rows: pa.Table) -> pa.Table:
    """Key and content of the used rows, each sample once."""
    if "used" in rows.column_names:
        rows = rows.filter(rows["used"])
    rows = rows.select([*KEY, *SAID])
    for place, name in enumerate(KEY):  # a join finds no partner for null
        rows = rows.set_column(place, name, pc.fill_null(rows[name], ""))
    once = rows.group_by(KEY, use_threads=False).aggregate([(name, "first") for name in SAID])
    return once.rename_columns([*KEY, *SAID])


def _true(column: pa.ChunkedArray) -> int:
    return pc.sum(column, min_count=0).as_py()


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
