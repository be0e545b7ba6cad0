"""The plugin's operators through FiftyOne's executor: corrections made, applied, sent, pulled, reverted."""

import csv
import os
from collections import Counter
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from tests import labels
from tests.worker import delegate, error, form, result, table

NAMES = [
    "Calanus",
    "Metridia",
    "Pseudo-nitzschia",
    '{"$ne": null}',
    "$label",
    "fecal/pellet ü",
    "cafe\u0301, 'x' 100%\t",
]


@pytest.fixture
def store(db, monkeypatch, registry):
    """The collection of a label store, which the secret names; runs and journal are gone afterwards."""
    monkeypatch.setenv("MBARI_LABEL_STORE", labels.store_uri(db.name))
    monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
    yield db["rois"]
    for name in ("mbari_journal", "mbari_leases"):
        registry._versions.database[name].drop()


@pytest.fixture
def plankton(dataset, store):
    """Ten samples, five of them Calanus and five Metridia, as the store has them; the vocabulary is `NAMES`."""
    dataset.classes["ground_truth"] = NAMES
    dataset.save()
    labels.fill(dataset, ["Calanus"] * 5 + ["Metridia"] * 5, store)
    return dataset


def run(name, target, /, **params):
    """The result of an operator on a dataset or view, executed at once."""
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    executed = foo.execute_operator(f"@mbari/sync_back/{name}", {**where, "params": params})
    if isinstance(target, fo.Dataset):
        target.reload()
    return executed.result


def sync(dataset, view=None, **params):
    done = result(delegate("@mbari/sync_back/sync_back", dataset, view, **params))
    dataset.reload()
    six = ("updated", "already", "conflict", "missing", "invalid", "failed")
    assert sum(done[key] for key in six) == done["corrections"]
    return done


def label(dataset, source):
    return dataset.match(fo.ViewField("elemental_id") == source).first()


def test_corrections_by_hand_are_applied_and_undone(plankton):
    run("pull_labels", plankton, apply=True)
    some = plankton.limit(3)
    some.tag_samples("Metridia")
    plankton.skip(3).limit(1).tag_labels("Pseudo-nitzschia")
    plankton.skip(5).limit(1).tag_samples(["Calanus", "Pseudo-nitzschia"])
    plankton.skip(6).limit(1).tag_samples("calanus")
    plankton.skip(7).limit(1).tag_samples("Metridia")
    applied = run("apply_corrections", plankton)
    assert applied["counts"] == {"applied": 4, "already": 1, "left": 0, "invalid": 2, "marked": 4}
    assert applied["changes"] == [
        {"from": "Calanus", "to": "Metridia", "labels": 3},
        {"from": "Calanus", "to": "Pseudo-nitzschia", "labels": 1},
    ]
    assert applied["nearly_names"] == [{"tag": "calanus", "nearest_names": "Calanus"}]
    assert plankton.values("ground_truth.label")[:5] == ["Metridia"] * 3 + ["Pseudo-nitzschia", "Calanus"]
    assert plankton.values("tags")[:8] == [["needs-sync"]] * 4 + [
        [],
        ["Calanus", "Pseudo-nitzschia"],
        ["calanus"],
        [],
    ]
    (entry,) = plankton.first()["ground_truth_history"]
    assert (entry["from"], entry["to"], entry["how"], entry["run"]) == (
        "Calanus",
        "Metridia",
        "correction",
        applied["run"],
    )

    undone = run("apply_corrections", plankton, undo=applied["run"])
    assert undone["counts"] == {"undone": 4, "left": 0}
    assert plankton.values("ground_truth.label") == ["Calanus"] * 5 + ["Metridia"] * 5
    assert plankton.values("tags")[:4] == [["Metridia"]] * 3 + [["Pseudo-nitzschia"]]
    again = run("apply_corrections", plankton)
    assert again["counts"]["applied"] == 4


def test_correct_labels_replaces_and_clears(plankton):
    view = plankton.limit(6)
    first = run("correct_labels", view, label="Pseudo-nitzschia")
    assert first["counts"]["corrected"] == 6
    second = run("correct_labels", view, label="Metridia")
    assert second["counts"] == {"samples": 6, "replaced": 6, "corrected": 5, "already": 1}
    plankton.reload()
    assert plankton.values("tags")[:6] == [["Metridia"]] * 5 + [[]]
    cleared = run("correct_labels", view, clear=True)
    assert cleared["counts"]["replaced"] == 5
    plankton.reload()
    assert not any(plankton.values("tags"))


def test_a_form_to_correct_labels_is_not_wrong_before_anything_was_entered(plankton):
    either = "ive either a label, or 'clear' to take corrections back"
    uri = "@mbari/sync_back/correct_labels"
    assert not any(either in text for text in form(uri, plankton))
    assert any(either in text for text in form(uri, plankton, label="Calanus", clear=True))
    for params, said in (({}, "label. Reason: Required property"), ({"label": "Calanus", "clear": True}, f"G{either}")):
        with pytest.raises(Exception, match=said):
            run("correct_labels", plankton.limit(2), **params)


@pytest.mark.parametrize("name", ["apply_corrections", "preview_sync", "sync_back"])
def test_the_forms_say_how_many_corrections_there_are_and_whom_they_are_for(name, plankton, db):
    uri = f"@mbari/sync_back/{name}"
    assert any("No ROI of the target has a correction" in text for text in form(uri, plankton))
    plankton.limit(3).tag_samples("Metridia")
    plankton.skip(3).limit(1).tag_labels("Pseudo-nitzschia")
    plankton.skip(4).limit(1).tag_samples(["Metridia", "calanus", "train"])
    plankton.skip(5).limit(2).tag_samples("needs-sync")
    plankton.skip(9).limit(1).tag_samples(["Calanus", "Pseudo-nitzschia"])
    said = form(uri, plankton)
    assert any("8 ROIs of the target have a correction" in text for text in said)
    assert any("keep theirs from being used: 'calanus' (Calanus)" in text for text in said)
    assert any("The label store is mongodb://" in text and db.name in text for text in said) == ("sync" in name)
    assert table(uri, plankton) == [
        {"from": "Calanus", "to": "Metridia", "ROIs": "3"},
        {"from": "Metridia", "to": "as it is (marker tag)", "ROIs": "2"},
        {"from": "Calanus", "to": "Pseudo-nitzschia", "ROIs": "1"},
        {"from": "Calanus", "to": "cannot be said", "ROIs": "1"},
        {"from": "Metridia", "to": "cannot be said", "ROIs": "1"},
    ]
    assert any("1 ROI of the target has a correction" in text for text in form(uri, plankton.limit(1)))
    assert any("No ROI of the target" in text for text in form(uri, plankton, tag_prefix="fix:", marker_tag="mine"))


def test_a_preview_offers_the_views_of_what_it_has_found_itself(plankton, store):
    run("pull_labels", plankton, apply=True)
    store.update_one({"elemental_id": "e0"}, {"$set": {"label": "$label"}})
    plankton.limit(2).tag_samples("Metridia")
    assert set(run("preview_sync", plankton)["saved_views"]) == {"sync: would change", "sync: conflicts"}
    assert run("preview_sync", plankton.skip(1).limit(1))["saved_views"] == ["sync: would change"]
    assert plankton.load_saved_view("sync: conflicts").count() == 1


def test_a_name_outside_the_vocabulary_is_refused_with_the_nearest(plankton):
    with pytest.raises(Exception, match=r"'Calanu' is not in the vocabulary .*did you mean 'Calanus'\?"):
        run("correct_labels", plankton, label="Calanu")
    assert not any(plankton.values("tags"))


def test_the_plan_and_the_sync_say_the_same_and_add_up(plankton, store):
    run("pull_labels", plankton, apply=True)
    ids = plankton.values("id")
    labels.fill(plankton, ["Calanus"], first=90)  # not in the store
    labels.fill(plankton, ["Calanus"], first=91)
    plankton.match(fo.ViewField("elemental_id") == "e91").set_field("elemental_id", None).save()
    plankton.select(ids[0:5]).tag_samples("Metridia")
    plankton.select(ids[5]).tag_samples(["Calanus", "$label"])
    plankton.select(ids[6]).tag_samples("Calanu")
    plankton.select(ids[7]).tag_samples('{"$ne": null}')
    plankton.match(fo.ViewField("elemental_id").is_in(["e90", None])).tag_samples("Metridia")
    plankton.match(~fo.ViewField("elemental_id").exists()).tag_samples("Metridia")
    store.update_one({"elemental_id": "e1"}, {"$set": {"label": "$label"}})
    store.update_one({"elemental_id": "e2"}, {"$set": {"label": "Metridia"}})
    plankton.select(ids[8]).set_values("ground_truth.label", ["Pseudo-nitzschia"])  # edited, nobody says so
    before = labels.held(store)

    preview = run("preview_sync", plankton)
    assert labels.held(store) == before
    wanted = {"updated": 4, "already": 1, "conflict": 1, "missing": 2, "invalid": 2, "failed": 0}
    planned = {"would_change": 4, "already": 1, "conflict": 1, "missing": 2, "invalid": 2}
    assert preview["counts"] == {**planned, "corrections": 10, "edited_not_tagged": 1}
    assert plankton.load_saved_view("sync: conflicts").values("elemental_id") == ["e1"]
    assert plankton.load_saved_view("sync: edited, not tagged").values("elemental_id") == ["e8"]
    assert plankton.load_saved_view("sync: missing id").count() == 1

    done = sync(plankton)
    assert {key: done[key] for key in wanted} == wanted
    expected = {**before, "e0": "Metridia", "e3": "Metridia", "e4": "Metridia", "e7": '{"$ne": null}'}
    assert labels.held(store) == expected
    assert label(plankton, "e0").tags == ["synced"]
    assert label(plankton, "e0")["ground_truth_stored"] == "Metridia"
    assert label(plankton, "e2").tags == ["synced"]
    assert label(plankton, "e2").ground_truth.label == "Metridia"
    assert label(plankton, "e1").tags == ["Metridia"]
    assert label(plankton, "e1")["ground_truth_sync"] == "conflict: the store holds '$label', not 'Calanus'"
    assert label(plankton, "e0")["ground_truth_sync"] is None
    again = sync(plankton)
    assert {key: again[key] for key in wanted} == {**wanted, "updated": 0, "already": 0}


def test_theirs_takes_the_store_s_label_and_remembers_the_correction(plankton, store):
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    store.update_one({"elemental_id": "e1"}, {"$set": {"label": "$label"}})
    done = sync(plankton, on_conflict="theirs")
    assert (done["updated"], done["conflict"]) == (1, 1)
    came = label(plankton, "e1")
    assert came.ground_truth.label == came["ground_truth_stored"] == "$label"
    assert came.tags == ["synced"]
    assert came["ground_truth_history"][-1]["dropped"] == "Metridia"
    assert sync(plankton)["corrections"] == 0


def test_a_correction_dropped_for_the_label_as_it_stands_is_remembered_and_can_be_had_back(plankton, store):
    run("pull_labels", plankton, apply=True)
    # As after a sync that the store took, and somebody took back.
    plankton.limit(1).set_values("ground_truth_stored", ["Metridia"])
    plankton.limit(1).tag_samples("Metridia")
    done = sync(plankton, on_conflict="theirs")
    assert done["conflict"] == 1
    dropped = label(plankton, "e0")
    assert (dropped.ground_truth.label, dropped["ground_truth_stored"], dropped.tags) == (
        "Calanus",
        "Calanus",
        ["synced"],
    )
    assert [entry["dropped"] for entry in dropped["ground_truth_history"]] == ["Metridia"]
    assert run("apply_corrections", plankton, undo=done["run"])["counts"] == {"undone": 1, "left": 0}
    assert label(plankton, "e0").tags == ["Metridia"]


def test_fail_sends_nothing_where_anything_conflicts(plankton, store):
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    store.update_one({"elemental_id": "e1"}, {"$set": {"label": "$label"}})
    before = labels.held(store)
    failed = error(delegate("@mbari/sync_back/sync_back", plankton, on_conflict="fail"))
    assert "1 of 2 corrections are in conflict, so nothing was sent" in failed.splitlines()[0]
    assert labels.held(store) == before


def test_applied_labels_are_sent_by_their_marker_and_reverted(plankton, store):
    run("pull_labels", plankton, apply=True)
    plankton.limit(4).tag_samples("cafe\u0301, 'x' 100%\t")
    run("apply_corrections", plankton)
    done = sync(plankton)
    assert done["updated"] == 4
    assert Counter(labels.held(store).values()) == {"cafe\u0301, 'x' 100%\t": 4, "Calanus": 1, "Metridia": 5}
    assert all(record["modified_by"] is not None for record in store.find({"elemental_id": {"$in": ["e0", "e3"]}}))

    store.update_one({"elemental_id": "e0"}, {"$set": {"label": "Metridia"}})
    plankton.skip(1).limit(1).set_values("ground_truth.label", ["Metridia"])
    reverted = result(delegate("@mbari/sync_back/revert_sync", plankton, run=done["run"]))
    plankton.reload()
    assert reverted["counts"] == {"reverted": 2, "left": 2}
    assert {i: labels.held(store)[i] for i in ("e0", "e2", "e3")} == {
        "e0": "Metridia",
        "e2": "Calanus",
        "e3": "Calanus",
    }
    assert label(plankton, "e2").ground_truth.label == label(plankton, "e2")["ground_truth_stored"] == "Calanus"
    assert [entry["how"] for entry in label(plankton, "e2")["ground_truth_history"]] == ["correction", "sync", "revert"]


def test_pull_takes_labels_in_and_keeps_what_people_did(plankton, store):
    compared = run("pull_labels", plankton)
    assert compared["counts"]["differ"] == 0
    assert "ground_truth_stored" not in plankton.get_field_schema()
    run("pull_labels", plankton, apply=True)
    assert plankton.values("ground_truth_stored") == ["Calanus"] * 5 + ["Metridia"] * 5
    store.update_many({"elemental_id": {"$in": ["e0", "e1", "e2"]}}, {"$set": {"label": "$label"}})
    plankton.skip(1).limit(1).tag_samples("Metridia")
    plankton.skip(2).limit(1).set_values("ground_truth.label", ["Pseudo-nitzschia"])
    pulled = run("pull_labels", plankton, apply=True)
    assert pulled["counts"]["came_in"] == 1
    assert pulled["counts"]["differ"] == 3
    assert plankton.values("ground_truth.label")[:3] == ["$label", "Calanus", "Pseudo-nitzschia"]
    assert plankton.values("ground_truth_stored")[:3] == ["$label", "Calanus", "Calanus"]
    # The correction of a label that changed in the store is still a conflict.
    assert sync(plankton)["conflict"] == 1


def test_records_without_an_roi_are_counted_where_every_roi_was_compared(plankton, store):
    assert run("pull_labels", plankton)["counts"]["only_in_store"] == 0
    store.insert_many([{"elemental_id": f"x{n}", "label": "Calanus"} for n in range(2)])
    labels.fill(plankton, ["Calanus"], first=90)  # not in the store
    pulled = run("pull_labels", plankton)
    assert pulled["counts"]["only_in_store"] == 2
    assert "2 records of the store have no ROI here" in pulled["message"]
    assert "only_in_store" not in run("pull_labels", plankton.limit(3))["counts"]
    labels.fill(plankton, ["Calanus"])  # a second sample of e0: which record is whose is not clear any more
    assert "only_in_store" not in run("pull_labels", plankton)["counts"]


def test_ids_that_are_there_twice_are_left_alone(plankton, store):
    run("pull_labels", plankton, apply=True)
    labels.fill(plankton, ["Calanus"], first=3)  # a second sample with the id e3
    store.insert_one({"elemental_id": "e4", "label": "Calanus"})
    plankton.match(fo.ViewField("elemental_id").is_in(["e3", "e4"])).tag_samples("Metridia")
    before = list(store.find().sort("_id"))
    done = sync(plankton)
    assert (done["invalid"], done["updated"]) == (3, 0)
    assert list(store.find().sort("_id")) == before


def test_only_the_target_is_sent(plankton, store):
    run("pull_labels", plankton, apply=True)
    plankton.tag_samples("Pseudo-nitzschia")
    done = sync(plankton, plankton.match(fo.ViewField("ground_truth.label") == "Calanus").limit(2))
    assert done["updated"] == 2
    assert Counter(labels.held(store).values())["Pseudo-nitzschia"] == 2


def test_with_a_prefix_only_such_tags_count(plankton):
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("Metridia")
    run("correct_labels", plankton.skip(2).limit(2), label="Metridia", tag_prefix="fix:")
    plankton.reload()
    assert plankton.values("tags")[:4] == [["Metridia"]] * 2 + [["fix:Metridia"]] * 2
    assert sync(plankton, tag_prefix="fix:")["updated"] == 2


def test_history_goes_out_as_csv(plankton, tmp_path, monkeypatch):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path))
    run("pull_labels", plankton, apply=True)
    plankton.limit(2).tag_samples("cafe\u0301, 'x' 100%\t")
    run("apply_corrections", plankton)
    sync(plankton)
    for what, count in (("labels", 4), ("sent", 2)):
        handed = run("export_history", plankton, what=what)
        with Path(handed["csv"]).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == handed["lines"] == count
        assert {row["to"] for row in rows} == {"cafe\u0301, 'x' 100%\t"}


def test_a_name_is_added_in_one_form(plankton):
    assert any("nearly 'Calanus'" in text for text in form("@mbari/sync_back/add_label", plankton, name="Calanuss"))
    run("add_label", plankton, name="Tomopteris")
    assert run("correct_labels", plankton.limit(1), label="Tomopteris")["counts"]["corrected"] == 1
    with pytest.raises(Exception, match="already"):
        run("add_label", plankton, name="Tomopteris")


def test_a_tag_that_confirms_the_label_is_an_open_correction_for_a_pull_too(plankton, store):
    run("pull_labels", plankton, apply=True)
    plankton.limit(1).tag_samples("Calanus")  # it is Calanus, somebody says
    store.update_one({"elemental_id": "e0"}, {"$set": {"label": "$label"}})
    assert run("pull_labels", plankton, apply=True)["counts"]["came_in"] == 0
    assert sync(plankton)["conflict"] == 1
    assert labels.held(store)["e0"] == "$label"


@pytest.mark.parametrize("theirs", ["$label", None])
def test_undoing_theirs_brings_the_conflict_back_too(plankton, store, theirs):
    run("pull_labels", plankton, apply=True)
    plankton.limit(1).tag_samples("Metridia")
    store.update_one({"elemental_id": "e0"}, {"$set": {"label": theirs}})
    done = sync(plankton, on_conflict="theirs")
    assert plankton.first()["ground_truth_stored"] == (theirs or "")
    assert plankton.values("ground_truth.label")[0] == theirs
    run("apply_corrections", plankton, undo=done["run"])
    assert plankton.first().ground_truth.label == "Calanus"
    assert plankton.first().tags == ["Metridia"]
    assert sync(plankton)["conflict"] == 1
    assert labels.held(store)["e0"] == theirs


def test_a_wrong_path_of_the_label_is_no_store_without_labels(plankton, store, monkeypatch):
    uri = os.environ["MBARI_LABEL_STORE"]
    monkeypatch.setenv("MBARI_LABEL_STORE", uri.replace("label=label", "label=labl"))
    with pytest.raises(Exception, match="has a label at 'labl'"):
        run("pull_labels", plankton, apply=True)
    plankton.reload()
    assert not any(plankton.values("ground_truth_stored"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"marker_tag": "train"}, "another meaning"),
        ({"marker_tag": "Metridia"}, "is a name of the vocabulary"),
        ({"id_field": "nope"}, "has no field 'nope'"),
        ({"label_field": "nope"}, "does not exist|no Classification field"),
    ],
)
def test_parameters_that_would_mean_something_else_are_refused(plankton, params, message):
    with pytest.raises(Exception, match=message):
        run("preview_sync", plankton, **params)
