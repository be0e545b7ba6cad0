"""What became of training data: each kind of change, counted as a person would, and the verdict with its rule."""

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InputError, StorageError
from shared.lineage import drift

CLASSES = ["A", "B", "C"]
THEN = ("dataset_id", "sample_id", "label", "split", "sha256")
BOTH = (*THEN, "used")


def row(number: int, label: str | None = "A", split: str | None = "train", used: bool = True, **more) -> dict:
    return {
        "dataset_id": "d",
        "sample_id": f"s{number}",
        "label": label,
        "split": split,
        "sha256": f"h{number}",
        "used": used,
        **more,
    }


def manifest(rows: list[dict]) -> pa.Table:
    columns = {name: pa.array([r[name] for r in rows], pa.string()) for name in THEN}
    return pa.table({**columns, "used": pa.array([r["used"] for r in rows], pa.bool_())})


def samples(rows: list[dict]) -> pa.Table:
    columns = {name: pa.array([r[name] for r in rows], pa.string()) for name in THEN}
    return pa.table({**columns, "unreadable": pa.array([r.get("unreadable", False) for r in rows], pa.bool_())})


def compare(then: list[dict], now: list[dict]) -> drift.Drift:
    return drift.compare(manifest(then), samples(now), CLASSES)


def changes(found: drift.Drift) -> dict:
    """The counts that are not 0, apart from how many were used."""
    return {name: count for name, count in found.counts.items() if count and name != "used"}


def test_nothing_changed():
    rows = [row(i, "ABC"[i % 3], ["train", "val", "test"][i % 3]) for i in range(30)]
    found = compare(rows, rows)
    assert (found.used, changes(found), found.verdict) == (30, {}, "fresh")
    assert found.labels == found.splits == []
    assert found.marks.num_rows == 30
    assert not any(found.marks[name].to_pylist()[i] for name in drift.FLAGS for i in range(30))


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({"label": "B"}, {"changed": 1, "relabelled": 1}),
        ({"label": "not a class of it"}, {"changed": 1, "relabelled": 1}),
        ({"label": None}, {"changed": 1, "relabelled": 1, "unlabelled": 1}),
        ({"label": ""}, {"changed": 1, "relabelled": 1, "unlabelled": 1}),
        ({"split": "test"}, {"moved": 1}),
        ({"split": None}, {"moved": 1}),
        ({"sha256": "other"}, {"changed": 1, "reimaged": 1}),
        ({"sha256": None}, {"unchecked": 1}),
        ({"sha256": None, "unreadable": True}, {"unreadable": 1}),
        ({"sample_id": "another"}, {"changed": 1, "deleted": 1, "new": 1}),
        ({"dataset_id": "another"}, {"changed": 1, "deleted": 1, "new": 1}),
        ({"label": "B", "split": "val", "sha256": "o"}, {"changed": 1, "relabelled": 1, "moved": 1, "reimaged": 1}),
    ],
    ids=str,
)
def test_one_change_is_counted_as_what_it_is(change, counted):
    rows = [row(i) for i in range(5)]
    assert changes(compare(rows, [*rows[:4], {**rows[4], **change}])) == counted


def test_what_was_relabelled_says_from_what_to_what():
    then = [row(i, "A") for i in range(6)] + [row(10, "B")]
    now = [row(i, "B" if i < 3 else "A") for i in range(4)] + [row(4, None), row(5, "Z"), row(10, "C", split="val")]
    found = compare(then, now)
    assert found.labels == [
        {"old": "A", "new": "B", "ROIs": 3},
        {"old": "A", "new": "(no label)", "ROIs": 1},
        {"old": "A", "new": "Z", "ROIs": 1},
        {"old": "B", "new": "C", "ROIs": 1},
    ]
    assert found.splits == [{"old": "train", "new": "val", "ROIs": 1}]
    rows = {r.pop("class"): r for r in found.classes}
    assert list(rows) == CLASSES
    nothing = dict.fromkeys(rows["A"], 0)
    assert rows["A"] == {**nothing, "used": 6, "relabelled from": 5}
    assert rows["B"] == {**nothing, "used": 1, "relabelled from": 1, "relabelled to": 3}
    assert rows["C"] == {**nothing, "relabelled to": 1}


def test_images_that_nobody_looked_at_are_not_said_to_be_the_same():
    rows = [row(i) for i in range(4)]
    found = drift.compare(manifest(rows), samples(rows).drop_columns(["sha256", "unreadable"]), CLASSES)
    assert found.reimaged is None
    assert found.counts["reimaged"] == "not checked"
    assert found.unchecked == 4
    assert "images not checked" in found.rule
    partly = compare(rows, [rows[0], {**rows[1], "sha256": "o"}, *({**r, "sha256": None} for r in rows[2:])])
    assert (partly.reimaged, partly.unchecked) == (1, 2)
    assert "1 with other bytes and 2 images not checked" in partly.rule
    unknown = [{**r, "sha256": None} for r in rows]  # a manifest without hashes
    assert compare(unknown, rows).counts["reimaged"] == "not checked"


def test_new_are_labelled_rois_of_the_classes_that_it_was_not_trained_on():
    then = [row(0), row(1, None, None, used=False), row(2, "A", None, used=False), row(3, "B", "val", used=False)]
    now = [
        row(0),
        row(1, "A", None),  # had no label when it was left out
        row(2, "A", None),  # is as it was when it was left out
        row(3, "B", "train"),  # in another split than when it was left out
        row(4, "C", None),
        row(5, "a class it does not know", "train"),
        row(6, None, "train"),
    ]
    found = compare(then, now)
    assert found.new == 3
    marked = {r["sample_id"]: r for r in found.marks.to_pylist()}
    assert {name for name, r in marked.items() if r["new"]} == {"s1", "s3", "s4"}
    assert marked["s0"]["split"] == "train"
    assert marked["s4"]["split"] is None
    assert [r["new"] for r in found.classes] == [1, 1, 1]


def test_all_deleted_and_nothing_left():
    found = compare([row(i) for i in range(3)], [])
    assert (found.deleted, found.changed, found.verdict, found.marks.num_rows) == (3, 3, "stale", 0)
    assert found.counts["reimaged"] == "not checked"


@pytest.mark.parametrize(
    ("changed", "new", "verdict"),
    [
        (0, 0, "fresh"),
        (2, 20, "fresh"),  # exactly 1 % and 10 %
        (3, 0, "ageing"),
        (0, 21, "ageing"),
        (10, 100, "ageing"),  # exactly 5 % and 50 %
        (11, 0, "stale"),
        (0, 101, "stale"),
    ],
)
def test_the_verdict_follows_the_rule_to_the_row(changed, new, verdict):
    then = [row(i) for i in range(200)]
    now = [row(i, "B" if i < changed else "A") for i in range(200)] + [row(1000 + i) for i in range(new)]
    found = compare(then, now)
    assert found.verdict == verdict
    assert found.rule.startswith(f"{verdict.capitalize()}: of the 200 ROIs it was made of, {changed} (")
    assert f"{changed} relabelled" in found.rule
    assert f"new ones: {new} (" in found.rule


def test_the_rule_is_one_sentence_with_its_figures():
    then = [row(i) for i in range(1500)]
    now = [row(i, "B" if i < 7 else "A") for i in range(1490)] + [row(9000)]
    assert compare(then, now).rule == (
        "Ageing: of the 1,500 ROIs it was made of, 17 (1.13 %) have changed (10 deleted, 7 relabelled, 0 with other "
        "bytes), new ones: 1 (0.07 %); fresh is up to 1 % changed and 10 % new, stale is more "
        "than 5 % changed or more than 50 % new, ageing is between."
    )


def by_hand(then: list[dict], now: list[dict]) -> dict:
    """The counts by a loop over rows, for comparison."""
    known = {(r["dataset_id"], r["sample_id"]): r for r in then}
    current = {(r["dataset_id"], r["sample_id"]): r for r in now}
    counts = dict.fromkeys(("changed", "deleted", "relabelled", "moved", "reimaged", "new"), 0)
    for key, r in known.items():
        is_now = current.get(key)
        if not r["used"]:
            continue
        if is_now is None:
            counts["deleted"] += 1
            counts["changed"] += 1
            continue
        relabelled = (r["label"] or "") != (is_now["label"] or "")
        reimaged = None not in (r["sha256"], is_now["sha256"]) and r["sha256"] != is_now["sha256"]
        counts["relabelled"] += relabelled
        counts["reimaged"] += reimaged
        counts["moved"] += (r["split"] or "") != (is_now["split"] or "")
        counts["changed"] += relabelled or reimaged
    for key, r in current.items():
        before = known.get(key)
        if r["label"] not in CLASSES or (before and before["used"]):
            continue
        if before and (before["label"], before["split"]) == (r["label"], r["split"]):
            continue
        counts["new"] += 1
    return counts


labels = st.sampled_from([None, "A", "B", "C", "Z"])
splits = st.sampled_from([None, "train", "val", "test"])
hashes = st.sampled_from([None, "h1", "h2"])
lines = st.lists(
    st.builds(
        lambda number, label, split, sha256, used: row(number, label, split, used=used, sha256=sha256),
        st.integers(0, 12),
        labels,
        splits,
        hashes,
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda r: r["sample_id"],
)


@settings(deadline=None, max_examples=60)
@given(lines, lines)
def test_it_counts_as_a_loop_over_rows_does(then, now):
    then = [*then, row(99)]
    found = compare(then, now)
    counts = {**found.counts, "reimaged": found.reimaged or 0}
    assert {name: counts[name] for name in by_hand(then, now)} == by_hand(then, now)
    assert sum(r["ROIs"] for r in found.labels) == found.relabelled
    assert found.marks.num_rows == found.used - found.deleted + found.new


def test_the_order_of_rows_and_their_chunks_do_not_count():
    then = [row(i, "ABC"[i % 3]) for i in range(300)]
    now = [row(i, "ABC"[i % 3 if i % 7 else 0]) for i in range(20, 330)]
    expected = compare(then, now)
    random.Random(0).shuffle(then)
    random.Random(1).shuffle(now)
    pieces = pa.concat_tables([manifest(then[:1]), manifest(then[1:]), manifest([])])
    found = drift.compare(pieces, samples(now), CLASSES)
    assert (found.counts, found.labels, found.classes) == (expected.counts, expected.labels, expected.classes)


def test_a_manifest_in_which_nothing_was_used_is_damaged():
    for rows in ([], [row(0, used=False)]):
        with pytest.raises(StorageError, match="no row that was used"):
            compare(rows, [row(0)])


def test_a_manifest_of_another_kind_is_damaged():
    rows = manifest([row(0)])
    with pytest.raises(StorageError, match="is damaged"):
        drift.compare(rows.drop_columns("label"), samples([row(0)]), CLASSES)
    strange = rows.set_column(rows.column_names.index("label"), "label", pa.array([{"a": 1}]))
    with pytest.raises(StorageError, match="is damaged"):
        drift.compare(strange, samples([row(0)]), CLASSES)


def test_samples_that_stand_twice_or_lack_a_column_are_refused():
    with pytest.raises(InputError, match="twice"):
        compare([row(0)], [row(0), row(0)])
    with pytest.raises(InputError, match="no label, split"):
        drift.compare(manifest([row(0)]), samples([row(0)]).drop_columns(["label", "split"]), CLASSES)


def test_a_manifest_without_the_column_used_was_used_whole():
    rows = [row(i) for i in range(3)]
    assert drift.compare(manifest(rows).drop_columns("used"), samples(rows), CLASSES).used == 3
