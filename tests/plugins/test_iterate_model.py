"""Once round the loop in one scheduled run, and going on from the stage that failed."""

from pathlib import Path

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from shared import runs
from tests import rois
from tests.worker import delegate, error, form, result, schedule, wait, worker

ITERATE = "@mbari/lineage_card/iterate_model"
QUICK = {"model_name": "m", "base_weights": "yolov8n-cls.yaml", "imgsz": 32, "epochs": 1, "batch": 8}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))


@pytest.fixture
def plankton(dataset, tmp_path):
    rois.fill(dataset, tmp_path / "rois", dict.fromkeys(rois.CLASSES, 14))
    return dataset


def test_one_run_goes_round_the_loop_and_leaves_promotion_to_a_person(plankton, root, registry):
    first = result(delegate(ITERATE, plankton, **QUICK, assign_splits=True, intended_use="Testing."))
    record = registry.resolve(first["version"])
    assert [row["stage"] for row in first["stages"]] == [
        "splits",
        "training",
        "applying",
        "evaluating",
        "card",
        "comparing",
    ]
    assert registry.aliases("m") == {"candidate": record.version}
    assert "nothing to compare with" in first["stages"][-1]["result"]
    plankton.reload()
    assert len(plankton.exists(first["prediction_field"])) == len(plankton)
    assert plankton.list_evaluations() == [first["eval_key"]]
    # Judged on nothing that was learned from.
    assert plankton.count(first["eval_key"]) == len(plankton.match_tags("test"))
    assert "Testing." in Path(first["card"]).read_text()

    registry.set_alias("m", "production", record.version)
    second = result(delegate(ITERATE, plankton, **{**QUICK, "base_weights": "m@production"}, seed=1))
    assert [row["version"] for row in second["overall"]] == [first["version"], second["version"]]
    assert registry.aliases("m")["production"] == record.version
    assert second["message"].count(second["version"]) >= 1


def test_scheduled_again_it_goes_on_from_the_stage_that_failed(plankton, root, registry):
    # Somebody's labels stand where the predictions should go: found out only after training.
    plankton.add_sample_field("taken", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    plankton.set_values("taken", [fo.Classification(label="mine")] * len(plankton))
    params = {**QUICK, "assign_splits": True, "prediction_field": "taken"}
    assert "choose another name" in error(delegate(ITERATE, plankton, **params))
    version = registry.resolve("m").name
    assert set(plankton.values("taken.label")) == {"mine"}

    plankton.delete_sample_field("taken")
    done = result(delegate(ITERATE, plankton, **params))
    assert done["version"] == version
    assert [record.name for record in registry.versions("m")] == [version]
    assert "splits, training had been done" in done["message"]
    plankton.reload()
    assert len(plankton.exists("taken")) == len(plankton)

    # What is complete is begun anew; so is what was trained on other labels than there are now.
    again = result(delegate(ITERATE, plankton, **params, confidence_threshold=0.0, notes="once more"))
    assert again["version"] != version


def test_other_labels_since_then_are_trained_on(plankton, root, registry):
    plankton.add_sample_field("taken", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    plankton.set_values("taken", [fo.Classification(label="mine")] * len(plankton))
    params = {**QUICK, "assign_splits": True, "prediction_field": "taken"}
    assert "choose another name" in error(delegate(ITERATE, plankton, **params))
    version = registry.resolve("m").name
    plankton.delete_sample_field("taken")
    wrong = plankton.match_tags("train").limit(3)
    wrong.set_field("ground_truth.label", rois.CLASSES[2]).save("ground_truth")
    done = result(delegate(ITERATE, plankton, **params))
    assert done["version"] != version
    assert "Labels or splits have changed since" in done["message"]
    assert "splits had been done" in done["message"]


def test_a_stopped_one_says_where_and_keeps_what_was_done(plankton, root, registry, tmp_path):
    records = odm.get_db_conn()[runs.COLLECTION]
    with worker(tmp_path / "log"):
        scheduled = schedule(ITERATE, plankton, **{**QUICK, "epochs": 500, "patience": 0}, assign_splits=True)
        wait(scheduled, until=lambda _: list((tmp_path / "artifacts").glob("checkpoints/*/last.pt")))
        run = records.find_one({"state": "running"})
        assert run["progress"]["what"].startswith("2 of 6, training: ")
        runs.request_stop(records.database, str(run["_id"]), "ann")
        outcome = result(wait(scheduled, seconds=90))
    assert "It was stopped at training." in outcome["message"]
    assert list(records.find_one({"_id": run["_id"]})["kept"]) == ["splits"]
    assert registry.versions() == []


def test_the_form_says_what_is_missing(plankton, root, registry):
    said = form(ITERATE, plankton, **QUICK)
    assert any("has a split yet" in text for text in said)
    assert not any("has a split yet" in text for text in form(ITERATE, plankton, **QUICK, assign_splits=True))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"model": "m@candidate"}, "There is no parameter 'model'"),
        ({"train": 2}, "train"),
        ({"compare_with": "prodution"}, "no m@prodution"),
    ],
)
def test_wrong_parameters_are_refused(plankton, root, registry, params, said):
    given = {**QUICK, "assign_splits": True, **params}
    request = {"dataset": plankton, "params": given, "request_delegation": True}
    with pytest.raises(ExecutionError, match=said):
        foo.execute_operator(ITERATE, request)
