"""Every operator of the suite in FiftyOne's App: found by a scientist's word, and its form has no complaint yet."""

import fiftyone as fo
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest
import yaml

from tests import browser, labels, published, rois
from tests.conftest import ROOT

EACH = 12  # ROIs of each of three classes
TOTAL = 3 * EACH
STORE = "mbari-test-app-forms"
FIELD = "pred_m"
# What a scientist types, and the operator that it is for.
WORDS = {
    "add_label": "new class",
    "accept_predictions": "accept",
    "apply_corrections": "undo",
    "apply_model": "predict",
    "assign_splits": "split",
    "check_setup": "setup",
    "cluster_embeddings": "hdbscan",
    "compare_models": "compare",
    "compute_embeddings": "dino",
    "correct_labels": "correct",
    "evaluate_predictions": "weak",
    "export_history": "csv",
    "iterate_model": "retrain",
    "label_clusters": "lasso",
    "mark_reviewed": "done",
    "preview_sync": "preview",
    "promote_model": "promote",
    "promote_to_production": "production",
    "pull_labels": "database",
    "revert_sync": "revert",
    "rollback_alias": "roll",
    "select_for_review": "rare",
    "show_runs": "runs",
    "show_training_data": "provenance",
    "stop_run": "cancel",
    "sync_back": "send",
    "train_classifier": "fine-tune",
    "verify_version": "reproducible",
    "visualize_embeddings": "umap",
    "write_card": "card",
}

REQUIRED = "Required property"  # FiftyOne's own mark of an input that has to be filled in
# What cannot be done on this dataset as it is, and why.
REASONS = {
    "compute_embeddings": ["The field 'embeddings' holds vectors that this suite did not make; choose another name."],
    "select_for_review": [
        "All ROIs of the target have a label in 'ground_truth': untick 'Only unlabelled' to choose among those as "
        "well, or choose another target."
    ],
    "stop_run": ["No run of the suite is under way."],
}


def operators():
    """Name and plugin of every operator that the manifests list."""
    manifests = [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "plugins").glob("*/fiftyone.yml"))]
    return {name: manifest["name"] for manifest in manifests for name in manifest["operators"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("forms")


@pytest.fixture(scope="module")
def secrets(folder, module_registry):
    yield {"MBARI_ARTIFACTS": str(folder / "artifacts"), "MBARI_LABEL_STORE": labels.store_uri(STORE)}
    odm.get_db_conn().client.drop_database(STORE)


@pytest.fixture(scope="module")
def plankton(folder, secrets, module_registry):
    """ROIs on which everything has been done once, so that every form has something to offer."""
    browser.chromium()
    dataset = fo.Dataset("plankton-with-everything")
    dataset.persistent = True
    rois.fill(dataset, folder / "rois", dict.fromkeys(rois.CLASSES, EACH))
    paths, named, ids = dataset.values(["filepath", "ground_truth.label", "elemental_id"])
    store = odm.get_db_conn().client[STORE]["rois"]
    store.insert_many([{"elemental_id": i, "label": n} for i, n in zip(ids, named, strict=True)])
    dataset.add_sample_field("embeddings", fo.VectorField)
    dataset.set_values("embeddings", [np.array([row // EACH, row % 3 * 0.01, 1.0]) for row in range(TOTAL)])
    weights = published.fitted(folder / "m.pt", paths, named)
    versions = [published.version(module_registry, folder, weights) for _ in range(2)]
    for alias, version in zip(("production", "candidate"), versions, strict=True):
        module_registry.set_alias("m", alias, version.version, by="ann")

    def run(uri, view=dataset, **params):
        foo.execute_operator(f"@mbari/{uri}", {"view": view.view(), "params": params})

    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        run("train_classifier/assign_splits", group_field="day")
        run("apply_model/apply_model", model="m@candidate", prediction_field=FIELD)
        run("custom_embeddings/cluster_embeddings")
        run("sync_back/pull_labels", apply=True)
        run("sync_back/correct_labels", dataset.limit(2), label=rois.CLASSES[1])
        run("sync_back/apply_corrections")
        run("sync_back/sync_back", dataset.limit(1))
        run("sync_back/correct_labels", dataset.skip(2).limit(2), label=rois.CLASSES[2])
    dataset.reload()
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def person(plankton, secrets, folder):
    with browser.app(plankton.name, folder / "app.log", **secrets) as url, browser.person(url) as person:
        person.open_app(TOTAL)
        yield person


def test_every_operator_is_found_by_a_word_and_its_form_has_no_complaint(person):
    manifested, complaints = operators(), {}
    assert sorted(WORDS) == sorted(manifested)
    for name, plugin in manifested.items():
        person.open_form(foo.get_operator(f"{plugin}/{name}").spec.label, WORDS[name])
        person.look(f"form-{name}")
        complaints[name] = [said for said in person.complaints() if said != REQUIRED]
        person.press("Cancel")
    assert {name: said for name, said in complaints.items() if said} == REASONS


def test_the_set_up_is_shown_as_a_table(person):
    person.open_form("Check the set-up")
    person.press("Execute")
    person.see("artifact root")
    checks = {row[0]: row[1] for row in person.table("item", "state", "detail")}
    assert checks["artifact root"] == "ok"
    assert checks["label store"] == "ok"
    assert checks["vocabulary"] == "not set"
    person.look("check-setup")
    person.press("Close")


def test_forms_say_what_is_wrong_and_cannot_be_started(person, plankton):
    plankton.untag_samples(["train", "val", "test"])
    person.open_form("Train a classifier")
    person.write("Model name", "my model")
    person.see("The parameter 'model_name' cannot be 'my model'")
    assert any("cannot be 'my model'" in said for said in person.complaints())
    person.see("No ROI has a split yet: run 'Assign train, val and test' first.")
    person.cannot_press("Schedule")
    person.look("train-refused")
    person.press("Cancel")

    person.open_form("Apply a classifier")
    person.write("Model", "nothing")
    person.see("There is no model")
    person.cannot_press("Schedule")
    person.look("apply-refused")
    person.press("Cancel")
