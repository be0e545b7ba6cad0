"""Brain runs that replace one another whole, whatever happens in between."""

import inspect
import sys
from importlib import import_module

import fiftyone as fo
import fiftyone.brain as fob
import fiftyone.core.odm as odm
import numpy as np
import pytest

from shared.embeddings import layout, store
from shared.errors import InputError


class Killed(BaseException):
    """What no code can catch in earnest."""


@pytest.fixture
def embedded(dataset):
    """Twelve samples with vectors, and a map of them."""
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(12)], progress=False)
    dataset.add_sample_field("embeddings", fo.VectorField)
    dataset.set_values("embeddings", list(vectors(0)))
    register(dataset, 0)
    return dataset


def vectors(seed):
    return np.random.default_rng(seed).normal(size=(12, 5)).astype(np.float32)


def points(seed):
    return layout.points(vectors(seed), method="pca")


def register(dataset, seed, ids=None, **more):
    ids = dataset.values("id") if ids is None else ids
    return store.register_map(dataset, "here", points(seed), ids, embeddings_field="embeddings", **more)


def stored(dataset):
    """How many runs and results the database has for a dataset, named by it or not."""
    db = odm.get_db_conn()
    runs = list(db.runs.find({"_dataset_id": dataset._doc.id}))
    files = [run["results"] for run in runs if run.get("results")]
    return len(runs), db["fs.files"].count_documents({"_id": {"$in": files}})


def shown(dataset):
    """The points that someone sees who opens the map now, in a process that has not seen it before."""
    dataset.reload()
    return dataset.load_brain_results("here", cache=False).points


def test_a_map_says_what_it_is_and_replaces_the_earlier_one(embedded):
    first = embedded.get_brain_info("here")
    files = odm.get_db_conn()["fs.files"].count_documents({})
    assert register(embedded, 1, backbone="dino_vits8") == 0
    np.testing.assert_array_equal(shown(embedded), points(1).points)
    second = embedded.get_brain_info("here")
    assert second.timestamp > first.timestamp  # by which the App knows a new map
    assert (second.key, second.config.model, second.config.embeddings_field) == ("here", "dino_vits8", "embeddings")
    assert second.config.mbari["with"].startswith("scikit-learn ")
    assert stored(embedded) == (1, 1)
    assert odm.get_db_conn()["fs.files"].count_documents({}) == files  # nothing of the old one is left


def test_points_stay_with_their_samples(embedded):
    ids = embedded.values("id")
    order = [ids[i] for i in (7, 2, 11, 0, 5, 9, 1, 3, 4, 6, 8, 10)]
    embedded.delete_samples([order[1], order[4]])
    assert register(embedded, 1, order) == 2
    found = embedded.load_brain_results("here", cache=False)
    kept = [row for row in range(12) if row not in (1, 4)]
    assert list(found.sample_ids) == [order[row] for row in kept]
    np.testing.assert_array_equal(found.points, points(1).points[kept])
    embedded.delete_samples(embedded.values("id"))
    with pytest.raises(InputError, match="None of the ROIs is left"):
        register(embedded, 2, order)


STEPS = {
    "registering": ("fiftyone.core.runs.BaseRun.register_run", "before"),
    "registered": ("fiftyone.core.runs.BaseRun.register_run", "after"),
    "saving": ("fiftyone.core.brain.BrainMethod.save_run_results", "before"),
    "saved": ("fiftyone.core.brain.BrainMethod.save_run_results", "after"),
    "naming": ("fiftyone.core.odm.runs.RunDocument.save", "last"),
    "swapping": ("fiftyone.core.dataset.Dataset.save", "last"),
    "swapped": ("shared.embeddings.store._delete", "before"),
}


@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("way", ["killed", "failed"])
def test_whatever_ends_a_registration_leaves_a_whole_map(embedded, monkeypatch, step, way):
    name, when = STEPS[step]
    with monkeypatch.context() as patch:
        if way == "killed":  # then nothing is tidied up either
            tidy = [store._clear_leftovers]  # once, at the beginning
            patch.setattr(store, "_clear_leftovers", lambda *given: tidy and tidy.pop()(*given))
        _end_at(patch, name, when)
        with pytest.raises(Killed):
            register(embedded, 1)
    new = step == "swapped"
    np.testing.assert_array_equal(shown(embedded), points(1 if new else 0).points)
    if way == "failed" and not new:
        assert embedded.list_brain_runs() == ["here"]
        assert stored(embedded) == (1, 1)
    # The next run finds its way, and leaves nothing of the one that was ended.
    register(embedded, 2)
    np.testing.assert_array_equal(shown(embedded), points(2).points)
    assert embedded.list_brain_runs() == ["here"]
    assert stored(embedded) == (1, 1)


def _end_at(patch, name, when):
    """Ends the registration before or after something is called, or at the last call of it: in `_swap`."""
    module, *rest = name.rsplit(".", 2 if name.split(".")[-2][0].isupper() else 1)
    owner = import_module(module)
    for part in rest[:-1]:
        owner = getattr(owner, part)
    real = getattr(owner, rest[-1])

    def ending(*args, **kwargs):
        if when == "last" and sys._getframe(1).f_code.co_name != "_swap":
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    # A method of a class is bound already.
    patch.setattr(owner, rest[-1], staticmethod(ending) if inspect.ismethod(real) else ending)


def test_what_others_made_is_not_touched(embedded):
    fob.compute_visualization(embedded, points=np.ones((12, 2)), brain_key="theirs")
    ids = embedded.values("id")
    with pytest.raises(InputError, match="'theirs' is in use, and not by this suite"):
        store.register_map(embedded, "theirs", points(1), ids, embeddings_field="embeddings")
    with pytest.raises(InputError, match="'theirs' is in use"):
        store.register_similarity(embedded, "theirs", "embeddings")
    with pytest.raises(InputError, match="'here' holds a map, which a similarity index cannot replace"):
        store.register_similarity(embedded, "here", "embeddings")
    assert embedded.load_brain_results("theirs").points.sum() == 24
    assert store.taken(embedded, "2 words", "visualization") is not None
    assert store.taken(embedded, "free", "visualization") is None
    # Who renames our run takes the mark along.
    embedded.rename_brain_run("here", "there")
    assert store.taken(embedded, "there", "visualization") is None


def test_an_index_is_whole_too(embedded, monkeypatch):
    assert store.register_similarity(embedded, "alike", "embeddings") == 12
    ids, found = embedded.values("id"), vectors(0)
    centred = found - found.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected = [ids[i] for i in np.argsort(-unit @ unit[4], kind="stable")]
    assert embedded.sort_by_similarity(ids[4], brain_key="alike").values("id") == expected
    with monkeypatch.context() as patch:
        _end_at(patch, "fiftyone.core.dataset.Dataset.save", "last")
        with pytest.raises(Killed):
            store.register_similarity(embedded, "alike", "embeddings")
    assert embedded.sort_by_similarity(ids[4], brain_key="alike").values("id") == expected
    assert embedded.list_brain_runs() == ["alike", "here"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [(np.ones(3, np.float32), "of different lengths"), (np.full(5, np.nan, np.float32), "1 vectors in 'embeddings'")],
    ids=["uneven", "nan"],
)
def test_vectors_that_make_no_index_leave_the_earlier_one(embedded, bad, said):
    store.register_similarity(embedded, "alike", "embeddings")
    ids = embedded.values("id")
    embedded.set_values("embeddings", {ids[3]: bad}, key_field="id")
    with pytest.raises(InputError, match=said):
        store.register_similarity(embedded, "alike", "embeddings")
    embedded.set_values("embeddings", {ids[3]: None}, key_field="id")  # as good as none: the index is usable again
    assert embedded.list_brain_runs() == ["alike", "here"]
    assert len(embedded.sort_by_similarity(ids[0], brain_key="alike")) == 11


def test_a_map_that_another_process_replaced_is_read_anew(embedded):
    old = embedded.load_brain_results("here")
    register(embedded, 1)
    embedded._brain_cache["here"] = old  # as the App's process has it, which heard nothing
    np.testing.assert_array_equal(embedded.load_brain_results("here").points, points(0).points)
    store.forget_replaced(embedded)
    new = embedded.load_brain_results("here")
    np.testing.assert_array_equal(new.points, points(1).points)
    store.forget_replaced(embedded)
    assert embedded.load_brain_results("here") is new
