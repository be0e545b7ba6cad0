"""What differs between two manifests, against a plain count over dicts."""

import random
from collections import Counter

import pyarrow as pa
import pytest

from shared.lineage import changes
from tests import cards


def plainly(before, after):
    """The same figures from dicts."""
    old, new = (
        {(r["dataset_id"] or "", r["sample_id"]): r for r in table.to_pylist() if r["used"]}
        for table in (before, after)
    )
    both = [(old[key], new[key]) for key in old.keys() & new.keys()]
    pairs = Counter((a["label"], b["label"]) for a, b in both if a["label"] != b["label"])
    content = [
        {(key, r["label"], r["sha256"]) for key, r in side.items() if r["split"] == split}
        for split in ("train", "val", "test")
        for side in (old, new)
    ]
    same = zip(("train", "val", "test"), content[::2], content[1::2], strict=True)
    return {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "moved": sum(a["split"] != b["split"] for a, b in both),
        "reimaged": sum(None not in (a["sha256"], b["sha256"]) and a["sha256"] != b["sha256"] for a, b in both),
        "relabelled": sorted(((a, b, n) for (a, b), n in pairs.items()), key=lambda row: (-row[2], row[0], row[1])),
        "same_splits": frozenset(split for split, a, b in same if a and a == b),
    }


def changed(table: pa.Table, seed: int) -> pa.Table:
    """Some rows with another label, split, image, sample or dataset, or not used; in another order."""
    rng = random.Random(seed)
    found = []
    for row in table.to_pylist():
        match rng.randrange(20):
            case 0:
                row["label"] = rng.choice(cards.CLASSES)
            case 1:
                row["split"] = rng.choice(cards.SPLITS)
            case 2:
                row["sha256"] = rng.choice([None, "f" * 64])
            case 3:
                row["sample_id"] += "x"
            case 4:
                row["dataset_id"] = None
            case 5:
                row["used"] = False
        found.append(row)
    rng.shuffle(found)
    return pa.Table.from_pylist(found, schema=table.schema)


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_a_plain_loop(seed):
    first = changed(cards.rows(), seed)
    second = changed(first, seed + 100)
    found = changes.between(first, second)
    assert {name: getattr(found, name) for name in plainly(first, second)} == plainly(first, second)


def test_nothing_has_changed_where_the_rows_are_the_same():
    table = cards.rows()
    found = changes.between(table, table.slice(100).combine_chunks())
    assert (found.added, found.removed, found.moved, found.reimaged, found.relabelled) == (0, 100, 0, 0, [])
    same = changes.between(table, table.take(list(reversed(range(len(table))))))
    assert same == changes.Difference(0, 0, 0, 0, [], frozenset({"train", "val", "test"}))


def test_one_other_label_in_test_and_test_is_no_longer_the_same():
    table = cards.rows()
    labels = table["label"].to_pylist()
    labels[3] = "rare"
    found = changes.between(table, cards.rows(label=labels))
    assert found.relabelled == [("Akashiwo", "rare", 1)]
    assert found.same_splits == {"train", "val"}


def test_one_sample_of_two_datasets_is_two():
    table = cards.rows()
    other = cards.rows(dataset_id=["e" * 24] * 240)
    found = changes.between(table, other)
    assert (found.added, found.removed) == (240, 240)
    assert changes.between(pa.concat_tables([table, other]), table).removed == 240


def test_a_sample_that_stands_twice_counts_once():
    table = cards.rows()
    found = changes.between(pa.concat_tables([table, table]), table)
    assert (found.added, found.removed) == (0, 0)


def test_with_nothing_before_everything_is_new():
    table = cards.rows()
    found = changes.between(table.slice(0, 0), table)
    assert (found.added, found.removed, found.same_splits) == (240, 0, frozenset())
