"""The card holds what the records say, and the same records give the same bytes, in every process."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.lineage import manifest
from shared.lineage.card import Card, Context, build
from tests import cards

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def card() -> Card:
    return cards.made()


def test_what_the_records_say_is_in_the_card(card):
    table = cards.rows()
    assert card.name == "ptvr/20260301T120000_ab12cd"
    assert card.data.digest == manifest.digest(table)
    assert card.data.counts == {"train": 120, "val": 60, "test": 60}
    assert card.data.classes["rare"] == {"train": 2, "val": 0, "test": 0}
    assert card.data.provenance == {"tag": 160, "not recorded": 80}
    assert list(card.data.left_out.items()) == [("in no split", 7), ("no label", 3)]
    assert card.data.view[0]["kwargs"] == [["tags", ["good"]]]
    assert card.training.arguments["lr0"] == 0.01
    assert (card.cost.device, card.cost.seconds, card.cost.price_per_hour) == ("cpu (2 threads)", 331.0, 3.06)
    assert card.licence == "agpl-3.0"
    assert card.changes.previous is None


def test_figures_are_those_of_the_metrics_with_their_intervals(card):
    table = cards.rows()
    assert [e.split for e in card.evaluation] == ["test", "val"]
    found = cards.scores(table, "test")
    test = card.evaluation[0]
    assert (test.n, test.top1.value, test.macro_f1.value) == (60, found["top1"], found["macro_f1"])
    assert [test.macro_f1.low, test.macro_f1.high] == found["intervals"]["macro_f1"]
    assert test.top1.low < test.top1.value < test.top1.high
    row, said = test.per_class[1], found["per_class"][1]
    assert (row.label, row.n, row.recall.value, [row.f1.low, row.f1.high]) == (
        said["label"],
        said["n"],
        said["recall"],
        said["f1_interval"],
    )
    assert test.per_class[3].n == 0
    assert test.per_class[3].f1.low is None
    assert [(s.field, s.value, s.n) for s in test.slices] == [("depth", "0 to 10", 30), ("depth", "10 to 25", 30)]


def test_metrics_without_intervals_or_slices_still_make_a_card():
    found = cards.scores(cards.rows(), "test")
    del found["intervals"], found["slices"]
    for row in found["per_class"]:
        del row["recall_interval"], row["f1_interval"]
    made = cards.made(metrics={"test": found})
    assert made.evaluation[0].top1.low is None
    assert made.evaluation[0].slices == []


def test_a_manifest_of_older_kind_has_no_provenance():
    assert cards.made(cards.rows().drop(["provenance"])).data.provenance == {}


def test_the_order_of_keys_in_the_records_is_no_matter(card):
    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(one) for one in value] if isinstance(value, list) else value

    table = cards.rows()
    given = cards.context(table)
    metrics = {split: cards.scores(table, split) for split in ("test", "val")}
    other = cards.context(
        table, class_counts=turned(given.class_counts), left_out=turned(given.left_out), view=turned(given.view)
    )
    again = build(turned(cards.model()), turned(metrics), table.take(list(range(239, -1, -1))), other)
    assert again.model_dump_json() == card.model_dump_json()


PRINT = """
import hashlib
from shared.lineage import render
from tests import cards
card = cards.made()
print(hashlib.sha256((card.model_dump_json() + render.markdown(card, [])).encode()).hexdigest())
"""


def test_another_process_with_another_hash_seed_makes_the_same_bytes(card):
    from shared.lineage import render

    mine = hashlib.sha256((card.model_dump_json() + render.markdown(card, [])).encode()).hexdigest()
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT), "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", PRINT], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split()[-1] == mine, done.stderr


def test_a_card_survives_being_written_and_read(card):
    assert Card.model_validate_json(card.model_dump_json(indent=1)) == card
    newer = {**json.loads(card.model_dump_json()), "schema_version": 2, "colour": "green"}
    assert Card.model_validate(newer).name == card.name
    with pytest.raises(ValidationError):
        card.licence = "mit"


def test_values_that_json_does_not_know_are_kept_as_text():
    model = {**cards.model(), "training_args": {"project": Path("a/b"), "scale": (0.5, 1)}}
    made = build(model, {}, cards.rows(), Context())
    assert made.training.arguments == {"project": "a/b", "scale": [0.5, 1]}
    assert made.evaluation == []


def test_changes_say_what_is_new_gone_and_relabelled(card):
    before = cards.rows()
    labels = before["label"].to_pylist()
    labels[4:7] = ["Pseudo-nitzschia"] * 3  # two in train, one in val
    after = cards.rows(label=labels).slice(0, 236)
    metrics = {split: cards.scores(before, split) for split in ("val", "test")}
    classes = [*cards.CLASSES[:3], "new"]
    now = build(
        {**cards.model(version="20260302T120000_ab12cd"), "classes": classes},
        {**metrics, "val": {**metrics["val"], "top1": 1.0}},
        after,
        cards.context(after, previous=(card, metrics, before)),
    )
    found = now.changes
    assert found.previous == "ptvr/20260301T120000_ab12cd"
    assert not found.same_data
    assert (found.added, found.removed, found.moved, found.reimaged) == (0, 4, 0, 0)
    assert [(r.before, r.after, r.n) for r in found.relabelled] == [(cards.CLASSES[1], "Pseudo-nitzschia", 3)]
    assert (found.classes_added, found.classes_removed) == (["new"], ["rare"])
    changed = {(m.split, m.metric): m.after - m.before for m in found.metrics}
    assert changed[("test", "top1")] == 0
    assert changed[("val", "top1")] == 1 - metrics["val"]["top1"]
    assert not any(m.same_rois for m in found.metrics)


def test_metrics_on_the_same_test_images_are_said_to_be_comparable(card):
    before = cards.rows()
    fewer = before.take([i for i in range(240) if i % 8])  # train only: 0, 8, ... are in train
    metrics = {split: cards.scores(before, split) for split in ("val", "test")}
    found = cards.made(fewer, previous=(card, metrics, before)).changes
    assert {m.split: m.same_rois for m in found.metrics} == {"val": True, "test": True}
    assert cards.made(previous=(card, metrics, before)).changes.same_data


def test_a_split_that_was_not_measured_before_is_not_compared(card):
    table = cards.rows()
    found = cards.made(previous=(card, {"val": cards.scores(table, "val")}, table)).changes
    assert {m.split for m in found.metrics} == {"val"}


def test_why_there_is_nothing_to_compare_with_is_kept():
    assert cards.made(why_no_previous="It is damaged.").changes.why_not == "It is damaged."
