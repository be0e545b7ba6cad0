"""The loop in FiftyOne's App: a browser, the forms, and the real delegated worker."""

import fiftyone as fo
import fiftyone.core.odm as odm
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from shared.forms import SELECTED
from tests import browser, labels, rois
from tests.worker import result, wait, worker

IMAGES = 18  # of each of two classes
CLASSES = rois.CLASSES[:2]
STORE = "mbari-test-app-labels"


@pytest.fixture(scope="module")
def plankton(tmp_path_factory, module_registry):
    browser.chromium()
    dataset = fo.Dataset("plankton-in-the-app")
    dataset.persistent = True
    rois.fill(dataset, tmp_path_factory.mktemp("rois"), dict.fromkeys(CLASSES, IMAGES))
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def store(plankton):
    """The records of a label store that holds what the dataset does."""
    database = odm.get_db_conn().client[STORE]
    ids, named = plankton.values(["elemental_id", "ground_truth.label"])
    database["rois"].insert_many([{"elemental_id": i, "label": n} for i, n in zip(ids, named, strict=True)])
    yield database["rois"]
    database.client.drop_database(STORE)


@pytest.fixture(scope="module")
def person(plankton, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    secrets = {"MBARI_ARTIFACTS": str(folder / "artifacts"), "MBARI_LABEL_STORE": labels.store_uri(STORE)}
    (folder / "artifacts").mkdir()
    with (
        worker(folder / "worker.log", **secrets),
        browser.app(plankton.name, folder / "app.log", **secrets) as url,
        browser.person(url) as person,
    ):
        yield person


@pytest.fixture(autouse=True)
def _opened(person):
    person.open_app(2 * IMAGES)


def scheduled(dataset, uri):
    """The result of the operation of this operator that was scheduled last, once a worker has executed it."""
    operations = DelegatedOperationService().list_operations(operator=uri, dataset_name=dataset.name)
    return result(wait(max(operations, key=lambda operation: operation.queued_at).id))


def test_the_operator_browser_lists_the_operators_with_their_icons(person):
    person.open_browser("@mbari")
    for label in ("Assign train, val and test", "Train a classifier", "Stop a run", "Check the set-up"):
        person.see(label)
    person.see("Apply a classifier")
    icons = person.page.locator(".material-icons").all_inner_texts()
    assert {"call_split", "model_training", "stop_circle", "fact_check", "auto_awesome"} <= set(icons)
    person.look("operators")


def test_the_set_up_is_shown_as_a_table(person):
    person.open_form("Check the set-up")
    person.press("Execute")
    person.see("artifact root")
    checks = {row[0]: row[1] for row in person.table("item", "state", "detail")}
    assert checks["artifact root"] == "ok"
    assert checks["label store"] == "ok"
    assert checks["vocabulary"] == "not set"
    person.look("check-setup")


def test_forms_say_what_is_wrong_and_cannot_be_started(person, plankton):
    plankton.untag_samples(["train", "val", "test"])
    person.open_form("Train a classifier")
    person.write("Model name", "my model")
    person.see("The parameter 'model_name' cannot be 'my model'")
    person.see("No ROI has a split yet: run 'Assign train, val and test' first.")
    person.cannot_press("Schedule")
    person.look("train-refused")
    person.press("Cancel")

    person.open_form("Apply a classifier")
    person.write("Model", "nothing")
    person.see("There is no model")
    person.cannot_press("Schedule")
    person.look("apply-refused")


def test_labels_are_selected_corrected_applied_and_sent(person, plankton, store):
    person.open_form("Pull labels")
    person.tick("Take the store's labels in")
    person.look("pull-form")
    person.press("Schedule")
    person.see("successfully scheduled")
    pulled = scheduled(plankton, "@mbari/sync_back/pull_labels")
    assert pulled["counts"]["compared"] == 2 * IMAGES

    person.open_app(2 * IMAGES)
    person.select(0, 2)
    person.open_form_by_button("edit_note")
    person.see(f"Works on 2 of {2 * IMAGES} ROIs.")
    person.choose("Correct label", CLASSES[1])
    person.look("correct-form")
    with person.page.expect_request(lambda request: request.url.endswith("/operators/execute")) as request:
        person.press("Execute")
    # By this a run knows that there was a selection, should the App lose it meanwhile.
    assert request.value.post_data_json["params"][SELECTED] == 2
    person.see(f"2 of 2 ROIs are now corrected to '{CLASSES[1]}'")
    person.look("corrected")
    person.press("Close")
    plankton.reload()
    assert plankton.match_tags(CLASSES[1]).values("id") == [plankton.values("id")[i] for i in (0, 2)]

    # Meanwhile somebody else changes one of the two in the database of record.
    theirs = plankton.values("elemental_id")[2]
    store.update_one({"elemental_id": theirs}, {"$set": {"label": "Metridia"}})

    person.open_app(2 * IMAGES)
    person.open_form("Apply corrections")
    person.press("Execute")
    person.see("2 labels in 'ground_truth' were corrected.")
    assert person.table("from", "to", "labels") == [[*CLASSES, "2"]]
    person.look("applied")
    person.press("Close")

    person.open_form("Preview a sync")
    person.press("Execute")
    person.see("Of 2 corrections for mongodb://")
    assert person.table("status", "reason", "labels") == [
        ["conflict", f"the store holds 'Metridia', not '{CLASSES[0]}'", "1"]
    ]
    person.look("previewed")
    person.press("Close")

    person.open_app(2 * IMAGES)
    person.open_form("Sync back")
    person.look("sync-form")
    person.press("Schedule")
    person.see("successfully scheduled")
    sent = scheduled(plankton, "@mbari/sync_back/sync_back")
    assert (sent["updated"], sent["conflict"], sent["corrections"]) == (1, 1, 2)
    assert labels.held(store)[plankton.first().elemental_id] == CLASSES[1]
    assert labels.held(store)[theirs] == "Metridia"

    person.open_app(2 * IMAGES)
    person.open_saved_view("sync: conflicts")
    person.see("1 sample")
    person.see("ground_truth_sync")
    person.look("conflicts")
    person.clear_view(2 * IMAGES)


def test_from_splits_to_predictions(person, plankton):
    person.open_form("Assign train, val and test")
    person.see(f"Works on all {2 * IMAGES} ROIs.")
    person.choose("Keep together by", "day")
    person.tick("Also move samples")
    person.tick("Show the table that this would give")
    preview = person.table("class", "train", "val", "test")
    person.look("splits-form")
    person.press("Execute")
    person.see(f"{2 * IMAGES} labelled ROIs have a split")
    assert sorted(row[0] for row in preview) == sorted(CLASSES)
    assert person.table("class", "train", "val", "test") == preview
    person.look("splits-result")
    person.press("Close")

    person.open_form("Train a classifier")
    person.see("Few images to learn from")
    used = person.table("class", "train", "val", "test", "no split", "used")
    assert used == [[*row, "0", "yes"] for row in preview]
    person.write("Model name", "ptvr")
    person.write("Start from", "yolov8n-cls.yaml")
    person.write("Epochs", "1")
    person.tick("More options")
    person.write("Image size", "32")
    person.look("train-form")
    person.press("Schedule")
    person.see("successfully scheduled")
    person.look("train-scheduled")
    trained = scheduled(plankton, "@mbari/train_classifier/train_classifier")
    assert trained["version"].startswith("ptvr/")

    person.open_app(2 * IMAGES)  # a worker cannot tell the App that there are new fields
    person.open_form("Apply a classifier")
    person.choose("Model", "ptvr@candidate")
    person.look("apply-form")
    person.press("Schedule")
    person.see("successfully scheduled")
    applied = scheduled(plankton, "@mbari/apply_model/apply_model")
    assert applied["model"] == trained["version"]
    assert applied["counts"]["written"] == 2 * IMAGES

    person.open_app(2 * IMAGES)
    person.see(applied["prediction_field"])
    person.see(CLASSES[0])  # drawn in the grid
    person.look("predictions")
    plankton.reload()
    assert set(plankton.values(f"{applied['prediction_field']}.label")) <= set(CLASSES)

    person.open_form("Stop a run")
    person.see("No run of the suite is under way.")
    person.look("nothing-to-stop")
