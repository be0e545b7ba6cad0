"""From pictures to names in FiftyOne's App: vectors, a map, a lasso, clusters; by its forms, in a real browser."""

import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from scripts.surroundings import own_database
from shared import clustered
from tests import browser, models, rois
from tests.worker import result, wait, worker

IMAGES = 16  # of each of three classes
TOTAL = 3 * IMAGES
DISC = rois.CLASSES[2]
PLUGIN = "@mbari/custom_embeddings"


@pytest.fixture(scope="module")
def plankton(tmp_path_factory):
    """Drawn ROIs; nobody has named the discs yet, and a few of them wrongly."""
    browser.chromium()
    own_database()
    dataset = fo.Dataset("plankton-on-a-map")
    dataset.persistent = True
    rois.fill(dataset, tmp_path_factory.mktemp("rois"), dict.fromkeys(rois.CLASSES, IMAGES))
    labels = [None if number % 5 else fo.Classification(label=rois.CLASSES[0]) for number in range(IMAGES)]
    dataset[2 * IMAGES :].set_values("ground_truth", labels)
    dataset.classes["ground_truth"] = list(rois.CLASSES)
    dataset.save()
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def person(plankton, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    with (
        worker(folder / "worker.log"),
        browser.app(plankton.name, folder / "app.log") as url,
        browser.person(url) as person,
    ):
        yield person


def scheduled(dataset, uri):
    """The result of the operation of this operator that was scheduled last, once a worker has executed it."""
    operations = DelegatedOperationService().list_operations(operator=uri, dataset_name=dataset.name)
    return result(wait(max(operations, key=lambda operation: operation.queued_at).id))


def test_from_pictures_to_names(person, plankton, tmp_path):
    person.open_app(TOTAL)
    _compute(person, plankton, models.tiny(tmp_path / "tiny.safetensors", seed=2))
    person.open_app(TOTAL)  # a worker cannot tell the App that there are new fields
    _visualize(person)
    _cluster(person, plankton)
    person.open_app(TOTAL)
    person.open_workspace("embeddings map")
    person.open_map("embeddings_map", TOTAL)
    person.color_by("cluster.label")
    named = _label_what_the_lasso_holds(person, plankton)
    _label_clusters_and_undo(person, plankton, named)


def _compute(person, plankton, weights):
    person.open_form("Compute embeddings")
    person.see(f"Works on all {TOTAL} ROIs.")
    person.write("Backbone", models.TINY)
    person.write("Weights", str(weights))
    person.tick("More options")
    person.write("Image size", "64")
    person.look("embeddings-compute")
    person.press("Schedule")
    person.see("successfully scheduled")
    assert scheduled(plankton, f"{PLUGIN}/compute_embeddings")["counts"]["written"] == TOTAL


def _visualize(person):
    person.open_form("Visualize embeddings")
    person.choose("Method", "pca")
    person.look("embeddings-visualize")
    person.execute_now()
    person.see(f"The map of {TOTAL} ROIs is ready")
    person.look("embeddings-visualized")
    person.press("Close")


def _cluster(person, plankton):
    person.open_form("Cluster embeddings")
    person.write("Min similarity", "0.97")
    person.look("embeddings-cluster")
    person.press("Schedule")
    person.see("successfully scheduled")
    assert scheduled(plankton, f"{PLUGIN}/cluster_embeddings")["counts"]["clusters"] > 1


def _label_what_the_lasso_holds(person, plankton):
    """Gives what is in the left part of the map a name; returns the ids of what got it."""
    chosen = person.lasso(0.02, 0.1, 0.6, 0.9, look="embeddings-lasso")
    person.look("embeddings-lassoed")
    points = _points(plankton)
    inside = sorted(points, key=points.get)[:chosen]  # those farthest to the left
    members = plankton.select(inside).exists("cluster")
    assert 0 < len(members) < TOTAL

    person.open_form("Label clusters")
    person.see(f"Works on {chosen} of {TOTAL} ROIs.")
    person.choose("Label", DISC)
    person.see(f"{len(members)} ROIs would be {DISC}")
    now = members.count_values("ground_truth.label")
    assert {label: int(n) for label, n in person.table("label now", "ROIs")} == {
        label or "none": n for label, n in now.items()
    }
    person.can_press("Execute")
    person.look("embeddings-label")
    person.press("Execute")
    person.see(f"{len(members)} of {len(members)} members are now corrected to '{DISC}'.")
    person.look("embeddings-labelled")
    person.press("Close")
    plankton.reload()
    assert set(plankton.match_tags(DISC).values("id")) == set(members.values("id"))
    return set(members.values("id"))


def _points(plankton):
    """How far to the right each sample is on the map."""
    plankton.reload()
    found = plankton.load_brain_results("embeddings_map", cache=False)
    return dict(zip(found.sample_ids.tolist(), found.points[:, 0].tolist(), strict=True))


def _label_clusters_and_undo(person, plankton, corrected):
    """Labels the largest cluster at once, by its name, and takes that back."""
    before = plankton.values("ground_truth.label")
    name, wanted = clustered.name(0), rois.CLASSES[1]
    members = plankton.match(fo.ViewField("cluster.label") == name)
    person.open_app(TOTAL)
    person.open_form("Label clusters")
    person.choose("Clusters", f"{name} (")
    person.choose("Label", wanted)
    person.choose("Write", "label")
    person.see(f"{len(members)} ROIs would be {wanted}")
    person.look("embeddings-clusters")
    person.press("Execute")
    person.see(f"{len(members)} of {len(members)} members are now labelled '{wanted}'.")
    person.look("embeddings-written")
    person.press("Close")
    plankton.reload()
    assert set(members.values("ground_truth.label")) == {wanted}

    person.open_app(TOTAL)
    person.open_form("Apply corrections")
    person.choose("Undo a run", f"Label {name} as {wanted}")
    person.press("Execute")
    person.see("are what they were before")
    person.look("embeddings-undone")
    person.press("Close")
    plankton.reload()
    assert plankton.values("ground_truth.label") == before
    assert set(plankton.match_tags(DISC).values("id")) == corrected
