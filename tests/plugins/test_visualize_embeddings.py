"""Maps and similarity indexes through FiftyOne's operator: what is registered, what is refused, what a stop leaves."""

import fiftyone as fo
import fiftyone.brain as fob
import fiftyone.core.odm as odm
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from tests.worker import code, delegate, form, result

MAP = "@mbari/custom_embeddings/visualize_embeddings"


@pytest.fixture
def embedded(dataset, registry):
    """Thirty samples whose vectors lie on a line, in the order of the samples; the last two have none."""
    samples = [fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(30)]
    dataset.add_samples(samples, progress=False)
    dataset.add_sample_field("embeddings", fo.VectorField)
    give(dataset, dict(zip(dataset.values("id")[:28], line(28), strict=True)))
    return dataset


def line(count):
    return np.array([[np.cos(a), np.sin(a), 1, 0] for a in np.linspace(0, 2, count)], np.float32)


def give(dataset, vectors, field="embeddings"):
    dataset.set_values(field, vectors, key_field="id")


def visualize(dataset, view=None, **params):
    target = {"view": view} if view is not None else {"dataset": dataset}
    params = {"method": "pca", **params}
    outcome = foo.execute_operator(MAP, {**target, "params": params}).result
    dataset.reload()
    return outcome


def test_the_target_gets_a_map_that_the_panel_can_open(embedded):
    outcome = visualize(embedded)
    assert outcome["counts"] == {"samples": 28, "without_vector": 2, "deleted_meanwhile": 0}
    assert "choose the workspace 'embeddings map' at the top right, then choose 'embeddings_map'" in outcome["message"]
    assert embedded.list_workspaces() == [outcome["workspace"]]
    assert "2 have no vector" in outcome["message"]
    found = embedded.load_brain_results("embeddings_map", cache=False)
    assert found.points.shape == (28, 2)
    assert list(found.sample_ids) == embedded.values("id")[:28]
    # The vectors lie on a line, so do the points of their first component.
    assert (np.diff(found.points[:, 0]) > 0).all() or (np.diff(found.points[:, 0]) < 0).all()


def test_a_worker_makes_a_umap_of_a_selection(embedded):
    ids = embedded.values("id")[5:17]
    done = result(delegate(MAP, embedded, embedded.select(ids[::-1], ordered=True)))
    embedded.reload()
    assert done["ran"].startswith("umap-learn ")
    assert done["counts"]["samples"] == 12
    found = embedded.load_brain_results("embeddings_map", cache=False)
    assert list(found.sample_ids) == ids[::-1]
    assert found.config.method == "umap"
    assert (found.config.metric, found.config.num_neighbors, found.config.seed) == ("cosine", 11, 51)


def test_what_a_lasso_holds_is_the_target(embedded):
    from fiftyone.operators.executor import ExecutionContext

    from shared.operators import target_view

    lasso = {"fiftyone.core.stages.Select": {"sample_ids": embedded.values("id")[3:6], "ordered": False}}
    request = {"dataset_name": embedded.name, "extended": lasso, "extended_selection": {"selection": None}}
    for more in ({}, {"view_target": "CURRENT_VIEW"}):
        context = ExecutionContext(request_params={**request, "params": more})
        assert target_view(context).values("id") == embedded.values("id")[3:6]


def test_points_per_patch(embedded):
    boxes = [[fo.Detection(label="a", bounding_box=[0, 0, 0.5, 0.5]) for _ in range(2)] for _ in range(4)]
    view = embedded[:4]
    view.set_values("boxes", [fo.Detections(detections=pair) for pair in boxes])
    embedded.add_sample_field("boxes.detections.vector", fo.VectorField)
    labels = view.values("boxes.detections.id", unwind=True)
    embedded.set_label_values("boxes.detections.vector", dict(zip(labels, line(8), strict=True)))
    outcome = visualize(embedded, patches_field="boxes", embeddings_field="vector", similarity_key="alike")
    assert outcome["counts"]["samples"] == 8
    found = embedded.load_brain_results("embeddings_map", cache=False)
    assert list(found.label_ids) == labels
    assert list(found.sample_ids) == [i for i in view.values("id") for _ in range(2)]
    near = embedded.to_patches("boxes").sort_by_similarity(labels[0], brain_key="alike", k=2)
    assert near.values("id") == labels[:2]


def test_sort_by_similarity_gives_the_nearest_and_is_made_anew(embedded):
    ids = embedded.values("id")
    outcome = visualize(embedded, similarity_key="alike")
    assert "Sort by image similarity" in outcome["message"]
    assert embedded.sort_by_similarity(ids[0], brain_key="alike", k=3).values("id") == ids[:3]
    # Other vectors, the same names: map and index follow.
    give(embedded, dict(zip(ids[:28], line(28)[::-1], strict=True)))
    before = embedded.load_brain_results("embeddings_map", cache=False).points
    visualize(embedded, similarity_key="alike")
    assert embedded.sort_by_similarity(ids[27], brain_key="alike", k=3).values("id") == ids[27:24:-1]
    after = embedded.load_brain_results("embeddings_map", cache=False).points
    np.testing.assert_allclose(after, before[::-1], atol=1e-5)
    assert embedded.list_brain_runs() == ["alike", "embeddings_map"]


def test_keys_of_others_are_refused_by_form_and_run(embedded):
    fob.compute_visualization(embedded[:5], points=np.zeros((5, 2)), brain_key="theirs")
    embedded.reload()
    for names in ({"brain_key": "theirs"}, {"similarity_key": "theirs"}):
        with pytest.raises(ExecutionError, match="'theirs' is in use, and not by this suite"):
            visualize(embedded, **names)
        assert [said for said in form(MAP, embedded, **names) if "'theirs' is in use" in said]
    visualize(embedded)
    with pytest.raises(ExecutionError, match="'embeddings_map' holds a map"):
        visualize(embedded, brain_key="another", similarity_key="embeddings_map")
    with pytest.raises(ExecutionError, match="names that differ"):
        visualize(embedded, brain_key="one", similarity_key="one")
    with pytest.raises(ExecutionError, match="letters, digits"):
        visualize(embedded, brain_key="my map")
    assert embedded.list_brain_runs() == ["embeddings_map", "theirs"]
    assert len(embedded.load_brain_results("theirs").points) == 5


def test_input_that_cannot_be_mapped(embedded):
    with pytest.raises(ExecutionError, match="no sample in the chosen view"):
        visualize(embedded, embedded.limit(0))
    with pytest.raises(ExecutionError, match="No ROI of the target has a vector"):
        visualize(embedded, embedded.exists("embeddings", False))
    with pytest.raises(ExecutionError, match="no field 'nothing'"):
        visualize(embedded, embeddings_field="nothing")
    assert [said for said in form(MAP, embedded, embeddings_field="nothing") if "no field 'nothing'" in said]
    give(embedded, {embedded.last().id: np.ones(7, np.float32)})
    with pytest.raises(ExecutionError, match="28 of 4, 1 of 7"):
        visualize(embedded)
    # A target with vectors of one length can be mapped; the index covers the whole dataset and cannot be made.
    done = result(delegate(MAP, embedded, embedded[:20], method="pca", similarity_key="alike"))
    assert "The similarity index could not be made" in done["message"]
    assert "similarity_key" not in done or done["similarity_key"] is None
    embedded.reload()
    assert embedded.list_brain_runs() == ["embeddings_map"]


def test_few_rois_say_that_they_are_few(embedded):
    for count in (1, 2, 3):
        outcome = visualize(embedded, embedded[:count], method="umap")
        assert outcome["counts"]["samples"] == count
        assert "too few for UMAP" in outcome["message"]


def test_a_stop_leaves_the_earlier_map(embedded, monkeypatch):
    from shared.runs import request_stop

    visualize(embedded)
    before = embedded.load_brain_results("embeddings_map", cache=False).points

    def stop_while_computing(seen):
        """Somebody stops the run while it computes; it hears of it as soon as it asks."""
        import time

        module = code("custom_embeddings", "shared.embeddings.layout")
        real = module.points

        def points(vectors, *, monitor, **more):
            made = real(vectors, monitor=monitor, **more)
            request_stop(odm.get_db_conn(), monitor.id, "a test")
            end = time.monotonic() + 20
            while not monitor.stopping() and time.monotonic() < end:
                time.sleep(0.05)
            seen.append(monitor.stopping())
            return made

        monkeypatch.setattr(module, "points", points)

    seen: list[bool] = []
    stop_while_computing(seen)
    give(embedded, dict(zip(embedded.values("id")[:28], line(28) ** 2, strict=True)))
    outcome = visualize(embedded, similarity_key="alike")
    assert seen == [True]
    assert outcome["stopped"] == "stopped by a test"
    assert "is as it was" in outcome["message"]
    assert embedded.list_brain_runs() == ["embeddings_map"]
    np.testing.assert_array_equal(embedded.load_brain_results("embeddings_map", cache=False).points, before)
