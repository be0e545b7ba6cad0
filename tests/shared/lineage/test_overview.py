"""What the panel shows of the registry: the list, and one version as far as it can be read."""

import json
import shutil

import pytest

from shared.artifacts import open_root
from shared.lineage import focus_list, freshness, notes, overview
from shared.lineage.registry import ALIASES, VERSIONS, Registry
from shared.lineage.schema import Card, Data, Training
from tests import focus, records


def card(record, **more):
    """A card of a version, as small as the schema allows."""
    return Card(
        model=record.model,
        version=record.version,
        created_at="2026-01-01T12:00:00+00:00",
        intended_use="Sorting ROIs.",
        limitations=["Never saw the deep."],
        classes=record.classes,
        framing="pad",
        imgsz=64,
        weights_sha256="0" * 64,
        licence="AGPL-3.0",
        data=Data(digest=record.manifest_digest),
        training=Training(),
        evaluation=[],
        **more,
    ).model_dump_json()


@pytest.fixture
def carded(db, tmp_path):
    """A version whose card tells about another one (a version's files come before its name here)."""
    other = records.add(db, tmp_path / "other")
    return records.add(db, tmp_path, files={**records.files(), "card.json": card(other)}, metrics=_headline())


def _headline():
    return {"test": {key: value for key, value in records.scores().items() if key in ("n", "top1", "top5", "macro_f1")}}


def opened(db, tmp_path, record):
    return overview.open_version(db, record.name, str(tmp_path / "artifacts"), {})


# --- the list ---


def test_the_list_has_the_newest_first_with_aliases_and_the_figures_of_the_test_split(db, tmp_path):
    first = records.add(db, tmp_path, days=0, metrics={"val": {"n": 9, "top1": 0.5, "macro_f1": 0.4}})
    both = {"val": {"n": 9, "top1": 0.1, "macro_f1": 0.2}, "test": {"n": 8, "top1": 0.75, "macro_f1": 0.7}}
    second = records.add(db, tmp_path, days=1, metrics=both, base_version=first.name)
    registry = Registry(db)
    for alias in ("production", "candidate"):
        registry.set_alias("m", alias, second.version)
    listed = overview.entries(db)
    assert [entry.name for entry in listed] == [second.name, first.name]
    assert overview.row(listed[0]) == {
        "version": second.name,
        "aliases": "candidate, production",
        "trained": "2026-01-02 12:00",
        "dataset": "plankton",
        "data": second.manifest_digest[:8],
        "top1": "0.750",
        "macro_f1": "0.700",
        "judged": "8 (test)",
        "freshness": "not checked",
    }
    assert overview.row(listed[1])["judged"] == "9 (val)"
    assert listed[0].base_version == first.name


def test_the_list_says_what_the_last_look_at_the_data_found(db, tmp_path):
    looked_at, other = (records.add(db, tmp_path, days=day) for day in (0, 1))
    freshness.save(db, looked_at.name, "stale", "7% of its ROIs changed", {}, "bob")
    found = {entry.name: entry.freshness for entry in overview.with_freshness(db, overview.entries(db))}
    assert found[looked_at.name].startswith("stale (20")
    assert found[other.name] == "not checked"


def test_a_record_that_is_damaged_is_left_out_or_shown_without_what_it_lacks(db, tmp_path):
    good, bad = (records.add(db, tmp_path, days=day) for day in (0, 1))
    db[VERSIONS].insert_one({"_id": "m/nothing"})
    db[VERSIONS].update_one(
        {"_id": bad.name}, {"$set": {"metrics": {"test": {"top1": "high"}}, "manifest_digest": None}}
    )
    listed = overview.entries(db)
    assert [entry.name for entry in listed] == [bad.name, good.name]
    assert overview.row(listed[0])["top1"] == overview.row(listed[0])["data"] == ""


def test_the_list_can_be_narrowed(db, tmp_path):
    made = {name: records.add(db, tmp_path, model=name) for name in ("ptvr", "isiis")}
    later = records.add(db, tmp_path, model="ptvr", days=1)
    Registry(db).set_alias("ptvr", "candidate", made["ptvr"].version)
    listed = overview.entries(db)
    assert overview.models(listed) == ["isiis", "ptvr"]
    assert [entry.name for entry in overview.chosen(listed, "ptvr", False)] == [later.name, made["ptvr"].name]
    assert [entry.name for entry in overview.chosen(listed, None, True)] == [made["ptvr"].name]
    assert overview.chosen(listed, "isiis", True) == []


def test_a_version_is_compared_with_production_else_the_candidate_else_the_one_before(db, tmp_path):
    first, second, third = (records.add(db, tmp_path, days=day) for day in range(3))
    records.add(db, tmp_path, model="another", days=1)
    assert overview.rival(overview.entries(db), third.name) == second.name
    assert overview.rival(overview.entries(db), first.name) is None
    Registry(db).set_alias("m", "production", first.version)
    listed = overview.entries(db)
    assert overview.rival(listed, third.name) == first.name
    assert overview.rival(listed, first.name) is None
    assert overview.rival(listed, "m/gone") == first.name
    Registry(db).set_alias("m", "candidate", third.version)
    listed = overview.entries(db)
    assert overview.rival(listed, first.name) == third.name
    assert overview.rival(listed, third.name) == first.name


def test_the_list_reads_only_what_it_shows(db, tmp_path):
    record = records.add(db, tmp_path)
    shutil.rmtree(tmp_path / "artifacts")
    db[ALIASES].drop()
    assert [entry.name for entry in overview.entries(db)] == [record.name]


# --- one version ---


def test_a_version_is_opened_with_figures_curves_and_its_card_with_notes(db, tmp_path, carded):
    from datetime import UTC, datetime

    note = notes.Note(at=datetime(2026, 2, 3, tzinfo=UTC), by="bob", notes="Do not use it in winter.")
    notes.add(open_root(str(tmp_path / "artifacts"), {}), carded.name, note)
    found = opened(db, tmp_path, carded)
    assert found.problems == []
    assert found.split == "test"
    assert found.metrics["n"] == 60
    assert found.training_csv == records.CSV
    assert "Do not use it in winter." in found.markdown
    assert found.markdown.lstrip().startswith("# ")  # and not with the metadata for programs


def test_what_is_known_first_is_told_in_sentences(db, tmp_path, carded):
    Registry(db).set_alias("m", "candidate", carded.version)
    freshness.save(db, carded.name, "fresh", "Fresh: 0 of 30 ROIs changed", {}, None)
    entry = next(entry for entry in overview.entries(db) if entry.name == carded.name)
    told = dict(overview.facts(opened(db, tmp_path, carded), entry))
    assert told["Known as"] == "`m@candidate`"
    assert f"top-1 **{entry.top1:.3f}** (95%: " in told["How good"]
    assert "30 ROIs of 3 classes in dataset *plankton*" in told["Learned from"]
    assert told["Data since"].startswith("Fresh: 0 of 30 ROIs changed")
    assert told["Begun with"] == "`yolov8n-cls.pt`"
    assert told["Trained"] == "2026-01-01 12:00 UTC by ann"


def test_an_older_version_says_that_it_has_no_card(db, tmp_path):
    found = opened(db, tmp_path, records.add(db, tmp_path, files=records.files()))
    assert found.card is None
    assert found.metrics
    assert len(found.problems) == 1
    assert "has no card" in found.problems[0]


def test_what_is_damaged_or_gone_is_named_and_the_rest_is_shown(db, tmp_path, carded):
    folder = tmp_path / "artifacts" / carded.key
    (folder / "card.json").write_text("{}")
    (folder / "training.csv").unlink()
    found = opened(db, tmp_path, carded)
    assert found.metrics
    assert found.card is found.markdown is found.training_csv is None
    assert len(found.problems) == 1
    assert found.problems[0].startswith("card.json and training.csv could not be read: ")


def test_a_card_that_is_none_is_a_problem_and_no_error(db, tmp_path):
    record = records.add(db, tmp_path, files={"card.json": json.dumps({"model": "m"}), "metrics.json": "[1, "})
    problems = opened(db, tmp_path, record).problems
    assert "card of this version cannot be read" in problems[0]
    assert "metrics.json of this version cannot be read" in problems[1]


def test_the_card_says_where_to_look_before_its_appendix(db, tmp_path, carded):
    shown = opened(db, tmp_path, carded)
    assert "Where to look" not in shown.markdown
    focus_list.add(open_root(str(tmp_path / "artifacts"), {}), carded.name, focus.made())
    text = opened(db, tmp_path, carded).markdown
    assert "1. a taken for" in text.partition("## Where to look")[2].partition("## What it learned from")[0]


@pytest.mark.parametrize("root", ["", "nowhere", "s3://"])
def test_an_artifact_root_that_cannot_be_used_is_said(db, tmp_path, root):
    record = records.add(db, tmp_path, files=records.files())
    found = overview.open_version(db, record.name, root, {})
    assert found.record == record
    assert len(found.problems) == 1


def test_a_root_that_is_gone_is_said_once(db, tmp_path):
    record = records.add(db, tmp_path, files=records.files())
    shutil.rmtree(tmp_path / "artifacts")
    problems = opened(db, tmp_path, record).problems
    assert len([problem for problem in problems if "could not be read" in problem]) == 1


def test_a_version_that_is_not_there_is_said(db, tmp_path):
    found = overview.open_version(db, "m/20260101T000000_abcdef", str(tmp_path), {})
    assert found.record is None
    assert len(found.problems) == 1
    assert overview.judged(found) == ""
