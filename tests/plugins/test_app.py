"""The whole loop in FiftyOne's App, on the demo's plankton: one person, one browser, one real delegated worker.

The screenshots are numbered in the order of the walk.
"""

import sys
from itertools import count

import fiftyone as fo
import fiftyone.core.odm as odm
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from shared import clustered, runs
from shared.forms import SELECTED
from tests import browser, labels, models
from tests.conftest import ROOT
from tests.worker import result, wait, worker

sys.path.append(str(ROOT / "scripts"))  # where a script's own folder is when it runs

import demo
import demo_images
import demo_labels
import surroundings

ROIS = 130
UNNAMED = 30  # of them, new ones that nobody has looked at
CLASSES = tuple(sorted(demo_images.SHAPES))
HEADER = ("Version", "Alias", "Top-1", "Macro F1", "Data", "Data since", "Trained (UTC)", "Dataset", "Judged on")
FOCUS = ("number", "where to look", "what was found", "ROIs", "labels to win", "score to win")
_numbers = count(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def plankton(folder, module_registry):
    """The demo's dataset, smaller: what is wrongly labelled comes first, and what nobody has labelled last."""
    browser.chromium()
    rows = [dict(vars(roi), filepath=str(folder / "images" / roi.file)) for roi in _drawn(folder)]
    for row in rows:
        row["elemental_id"] = row["elemental_id"] or None
        del row["file"]
    rows.sort(key=lambda row: (row["label"] == row["true_label"], row["elemental_id"] is None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surroundings, "DATASET", "plankton-loop")
        dataset = demo.build_dataset(rows)
    dataset[-UNNAMED:].set_values("elemental_id", [None] * UNNAMED)
    dataset[-UNNAMED:].set_values("ground_truth", [None] * UNNAMED)
    yield dataset
    dataset.delete()


def _drawn(folder):
    return demo_images.generate(folder / "images", ROIS, seed=5)[:ROIS]


@pytest.fixture(scope="module")
def store(plankton):
    """The records of the demo's label store, which holds what the dataset does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surroundings, "LABELS", "mbari-test-loop-labels")
        demo_labels.fill(plankton)
        records = demo_labels.store()
        yield records
        records.database.client.drop_database(records.database.name)


@pytest.fixture(scope="module")
def person(plankton, store, folder):
    secrets = {"MBARI_ARTIFACTS": str(folder / "artifacts"), "MBARI_LABEL_STORE": surroundings.own_label_store()}
    (folder / "artifacts").mkdir()
    with (
        worker(folder / "worker.log", **secrets),
        browser.app(plankton.name, folder / "app.log", **secrets) as url,
        browser.person(url) as person,
    ):
        person.open_app(len(plankton))
        yield person


def look(person, name):
    """Keeps a screenshot under the next number."""
    person.look(f"loop-{next(_numbers):02d}-{name}")


def schedule(person, dataset, uri):
    """Schedules the open form's run; returns its operation."""
    person.press("Schedule")
    person.see("successfully scheduled")
    operations = DelegatedOperationService().list_operations(operator=uri, dataset_name=dataset.name)
    return max(operations, key=lambda operation: operation.queued_at).id


def scheduled(person, dataset, uri):
    """The result of the open form's run, once the worker has executed it, in an App that knows the new fields."""
    outcome = result(wait(schedule(person, dataset, uri)))
    dataset.reload()
    person.open_app(len(dataset))  # a worker cannot tell the App that there are new fields
    return outcome


@pytest.mark.timeout(1200)  # minutes of work for a person, and machines are busy
def test_the_whole_loop(person, plankton, store, folder):
    _see_clusters(person, plankton, models.tiny(folder / "tiny.safetensors", seed=2))
    named = _name_what_the_lasso_holds(person, plankton)
    _correct_and_apply(person, plankton, named)
    _undo_a_cluster(person, plankton)
    _sync(person, plankton, store)
    version = _train(person, plankton)
    field = _apply(person, plankton, version)
    _evaluate(person, plankton, field)
    _promote(person, plankton, version)


def _see_clusters(person, plankton, weights):
    person.open_form("Pull labels")
    person.tick("Take the store's labels in")
    look(person, "pull")
    pulled = scheduled(person, plankton, "@mbari/sync_back/pull_labels")
    assert pulled["counts"]["compared"] == plankton.count("elemental_id")

    person.open_form("Compute embeddings")
    person.see(f"Works on all {len(plankton)} ROIs.")
    person.write("Backbone", models.TINY)
    person.write("Weights", str(weights))
    person.tick("More options")
    person.write("Image size", "64")
    look(person, "compute-embeddings")
    embedded = scheduled(person, plankton, "@mbari/custom_embeddings/compute_embeddings")
    assert embedded["counts"]["written"] == len(plankton)

    person.open_form("Visualize embeddings")
    person.choose("Method", "pca")
    person.execute_now()
    person.see(f"The map of {len(plankton)} ROIs is ready")
    look(person, "visualized")
    person.press("Close")
    person.open_form("Cluster embeddings")
    person.write("Min similarity", "0.999")
    person.execute_now()
    person.see("'Label clusters'")
    look(person, "clustered")
    person.press("Close")
    plankton.reload()
    assert len(plankton.distinct("cluster.label")) > 1


def _name_what_the_lasso_holds(person, plankton):
    """Gives the clustered ROIs in a part of the map, as far as nobody has named them, a name; returns their ids."""
    person.open_app(len(plankton))
    person.open_workspace("embeddings map")
    person.open_map("embeddings_map", len(plankton))
    person.color_by("cluster.label")
    look(person, "workspace-map")
    chosen = person.lasso(0.02, 0.05, 0.85, 0.95, look=f"loop-{next(_numbers):02d}-lasso")
    points = _points(plankton)
    inside = sorted(points, key=points.get)[:chosen]  # those farthest to the left
    members = plankton.select(inside).exists("cluster")
    unnamed = members.exists("ground_truth", False).values("id")
    assert 0 < len(unnamed) < len(members)

    person.open_form("Label clusters")
    person.see(f"Works on {chosen} of {len(plankton)} ROIs.")
    person.choose("Label", "detritus")
    person.see(f"{len(members)} ROIs would be detritus")
    now = members.count_values("ground_truth.label")
    assert {label: int(n) for label, n in person.table("label now", "ROIs")} == {
        label or "none": n for label, n in now.items()
    }
    person.tick("Only unlabelled")
    look(person, "label-clusters")
    person.press("Execute")
    person.see("are now marked to become 'detritus'.")
    look(person, "labelled")
    person.press("Close")
    plankton.reload()
    assert sorted(plankton.match_tags("detritus").values("id")) == sorted(unnamed)
    return unnamed


def _points(plankton):
    """How far to the right each sample is on the map."""
    plankton.reload()
    found = plankton.load_brain_results("embeddings_map", cache=False)
    return dict(zip(found.sample_ids.tolist(), found.points[:, 0].tolist(), strict=True))


def _correct_and_apply(person, plankton, named):
    person.close_panels()
    person.open_app(len(plankton))
    ids, wrong = plankton.values("id"), plankton.values("ground_truth.label")[:2]
    right = next(name for name in CLASSES if name not in wrong)
    person.select(0, 1)
    person.open_form_by_button("edit_note")
    person.see(f"Works on 2 of {len(plankton)} ROIs.")
    person.choose("Correct label", right)
    look(person, "correct")
    with person.page.expect_request(lambda request: request.url.endswith("/operators/execute")) as request:
        person.press("Execute")
    # By this a run knows that there was a selection, should the App lose it meanwhile.
    assert request.value.post_data_json["params"][SELECTED] == 2
    person.see(f"2 of 2 ROIs are now marked to become '{right}'")
    look(person, "corrected")
    person.press("Close")
    person.deselect(0, 1)

    person.open_app(len(plankton))
    person.open_form("Apply corrections")
    person.see(f"Works on all {len(plankton)} ROIs.")
    person.press("Execute")
    person.see(f"{len(named) + 2} labels in 'ground_truth' were corrected.")
    look(person, "applied")
    person.press("Close")
    plankton.reload()
    assert plankton.select(ids[:2]).values("ground_truth.label") == [right, right]
    assert set(plankton.select(named).values("ground_truth.label")) == {"detritus"}


def _undo_a_cluster(person, plankton):
    """Labels the largest cluster at once, by its name, and takes that back."""
    before = plankton.values("ground_truth.label")
    name = clustered.name(0)
    members = plankton.match(fo.ViewField("cluster.label") == name)
    person.open_app(len(plankton))
    person.open_form("Label clusters")
    person.choose("Clusters", f"{name} (")
    person.choose("Label", "Acantharia")
    person.choose("Write", "label")
    person.press("Execute")
    person.see("are now labelled 'Acantharia'.")
    person.press("Close")
    plankton.reload()
    assert set(members.values("ground_truth.label")) == {"Acantharia"}

    person.open_app(len(plankton))
    person.open_form("Apply corrections")
    person.choose("Undo a run", f"Label {name} as Acantharia")
    person.press("Execute")
    person.see("are what they were before")
    look(person, "undone")
    person.press("Close")
    plankton.reload()
    assert plankton.values("ground_truth.label") == before


def _sync(person, plankton, store):
    waiting = plankton.match_tags("needs-sync").values("elemental_id")
    theirs = demo_labels.edit_outside(plankton)
    assert len(waiting) == 2
    (ours,) = set(waiting) - {theirs}
    person.open_app(len(plankton))
    person.open_form("Preview a sync")
    person.press("Execute")
    person.see("Of 2 corrections for ")
    ((status, reason, number),) = person.table("status", "reason", "labels")
    assert (status, number) == ("conflict", "1")
    assert labels.held(store)[theirs] in reason
    look(person, "preview")
    person.press("Close")

    person.open_form("Sync back")
    look(person, "sync")
    edited = labels.held(store)[theirs]
    sent = scheduled(person, plankton, "@mbari/sync_back/sync_back")
    assert (sent["updated"], sent["conflict"], sent["corrections"]) == (1, 1, 2)
    assert labels.held(store)[ours] == plankton.match({"elemental_id": ours}).first().ground_truth.label
    assert labels.held(store)[theirs] == edited

    person.open_saved_view("sync: conflicts")
    person.see("1 sample")
    person.see("ground_truth_sync")
    look(person, "conflicts")
    _take_theirs(person, plankton, theirs, edited)


def _take_theirs(person, plankton, theirs, edited):
    """Takes in what somebody else has entered, in the view of the conflicts, which is empty then and stays open."""
    person.open_form("Sync back")
    person.see(f"Works on 1 of {len(plankton)} ROIs.")
    person.see("1 ROI of the target has a correction:")
    person.choose("Where the store holds another label", "theirs")
    look(person, "theirs")
    person.execute_now()
    person.see("Of the conflicts, 1 took the store's label into FiftyOne.")
    person.press("Close")
    person.see("0 samples")
    look(person, "theirs-taken")
    plankton.reload()
    assert plankton.match({"elemental_id": theirs}).first().ground_truth.label == edited
    person.page.reload()  # at the view's own address
    person.see("0 samples")
    person.clear_view(len(plankton))


def _train(person, plankton):
    """Splits and trains, and sees how far the training is; returns the version."""
    person.open_form("Assign train, val and test")
    person.choose("Keep together by", "capture_day")
    person.tick("Show the table that this would give")
    preview = person.table("class", "train", "val", "test")
    look(person, "splits")
    person.press("Execute")
    person.see("labelled ROIs have a split")
    assert person.table("class", "train", "val", "test") == preview
    person.press("Close")

    person.open_form("Train a classifier")
    used = person.table("class", "train", "val", "test", "no split", "used")
    assert [row[:4] for row in used] == preview
    person.write("Model name", "loop")
    person.write("Start from", "yolov8n-cls.yaml")
    person.write("Epochs", "8")
    person.tick("More options")
    person.write("Image size", "32")
    look(person, "train")
    training = schedule(person, plankton, "@mbari/train_classifier/train_classifier")
    look(person, "train-scheduled")
    wait(training, until=lambda _: runs.running(odm.get_db_conn()))
    person.open_app(len(plankton))
    person.open_form("Stop a run")
    person.see("Train loop")
    look(person, "progress")
    person.press("Cancel")
    trained = result(wait(training))
    assert trained["version"].startswith("loop/")
    person.open_app(len(plankton))
    person.open_workspace("Train")
    person.see("Click a version")
    assert [row[:2] for row in person.table(*HEADER)] == [[trained["version"], "candidate"]]
    look(person, "workspace-train")
    person.close_panels()
    return trained["version"]


def _apply(person, plankton, version):
    """Applies the version to all; returns the field of predictions."""
    person.open_app(len(plankton))
    person.open_form("Apply a classifier")
    person.can_press("Schedule")  # the candidate is chosen already
    look(person, "apply")
    applied = scheduled(person, plankton, "@mbari/apply_model/apply_model")
    assert applied["model"] == version
    assert applied["counts"]["written"] == len(plankton)
    person.see(applied["prediction_field"])
    look(person, "predictions")
    assert set(plankton.values(f"{applied['prediction_field']}.label")) <= set(CLASSES)
    return applied["prediction_field"]


def _evaluate(person, plankton, field):
    """Evaluates, and opens the first view of the list by its button."""
    person.open_form("Evaluate predictions")
    look(person, "evaluate")
    person.execute_now()
    person.see("ROIs not learned from")
    rows = person.table(*FOCUS)
    plankton.reload()
    names = [name for name in plankton.list_saved_views() if name.startswith("focus ")]
    assert [f"focus {int(row[0]):02d}: {row[1]} ({row[3]})" for row in rows] == names
    look(person, "evaluated")
    person.press(f"Open '{names[0]}'")
    person.press("Close")
    person.sees_view(names[0])
    person.see(f"{plankton.load_saved_view(names[0]).count()} sample")
    look(person, "focus")
    person.clear_view(len(plankton))
    person.open_app(len(plankton))  # the App reads the list of workspaces once
    person.open_workspace("Review")
    person.see("1 Model Evaluations")
    look(person, "workspace-review")
    person.close_panels()


def _promote(person, plankton, version):
    """Reads the card in the panel, and promotes the version there: gates that fail say why, and a reason moves it."""
    person.open_app(len(plankton))
    person.open_panel("Model lineage", "Click a version")
    person.open_row(version)
    person.see("loop@candidate")
    person.press("Card")
    person.see("What it learned from")
    look(person, "card")
    person.press("Promote")
    person.write("Alias", "staging")
    person.write("Reason", "the first one")
    look(person, "promote")
    person.execute_now()
    person.see("loop@staging was not moved")
    look(person, "gates")
    person.press("Close")
    person.press("Promote")
    person.write("Alias", "staging")
    person.write("Reason", "the first one")
    person.tick("Move the alias although gates fail")
    person.execute_now()
    person.see(f"loop@staging stands for {version} now")
    look(person, "promoted")
    person.press("Close")
