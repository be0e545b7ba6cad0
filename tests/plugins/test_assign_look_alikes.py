"""Near-duplicates stay on one side of a split, and the effect of the similarity is shown."""

import fiftyone.operators as foo
import numpy as np
import pytest

from shared import samples, vectors
from tests import labels
from tests.worker import form

ASSIGN = "@mbari/train_classifier/assign_splits"
INFO = {"backbone": "a", "layer": "CLS token", "weights_sha256": "0" * 64, "framing": "pad", "imgsz": 224, "dim": 40}


@pytest.fixture
def frames(dataset):
    """40 animals, each in three neighbouring frames that look alike, in an order that mixes them."""
    rng = np.random.default_rng(0)
    animals = np.eye(40, dtype=np.float32)[rng.permutation(np.repeat(np.arange(40), 3))]
    labels.fill(dataset, ["Calanus" if a.argmax() % 2 else "Metridia" for a in animals])
    vectors.prepare(dataset, "embeddings", INFO)
    vectors.write(dataset, "embeddings", dataset.values("id"), animals + rng.normal(0, 0.002, animals.shape))
    dataset.add_sample_field("animal", samples.fo.IntField)
    dataset.set_values("animal", animals.argmax(1).tolist())
    return dataset


def assign(dataset, **params):
    done = foo.execute_operator(ASSIGN, {"dataset": dataset, "params": {"overwrite": True, **params}}).result
    dataset.reload()
    return done


def torn(dataset) -> int:
    """Animals that are in more than one split."""
    sides: dict[int, set] = {}
    for animal, tags in zip(*dataset.values(["animal", "tags"]), strict=True):
        sides.setdefault(animal, set()).add(samples.split_of(tags))
    return sum(len(side) > 1 for side in sides.values())


def test_look_alikes_are_never_torn_apart(frames):
    assign(frames)
    assert torn(frames) > 5
    done = assign(frames, group_embeddings="embeddings")
    assert torn(frames) == 0
    assert [done["counts"][name] for name in samples.SPLITS] == [84, 18, 18]
    chosen = [row for row in done["look_alikes"] if row["chosen"]]
    assert chosen == [{"similarity": 0.99, "chosen": True, "groups": 40, "ROIs in groups": 120, "largest group": 3}]


def test_the_similarity_decides_what_is_alike(frames):
    done = assign(frames, group_embeddings="embeddings", group_similarity=1.0)
    assert torn(frames) > 5
    assert {row["similarity"]: row["groups"] for row in done["look_alikes"]} == {
        0.95: 40,
        0.97: 40,
        0.98: 40,
        0.99: 40,
        0.995: 40,
        1.0: 0,
    }


def test_one_group_of_nearly_all_is_named(frames):
    done = assign(frames, group_embeddings="embeddings", group_similarity=1e-9)
    assert "ROIs, which all go to one split: a higher similarity makes smaller groups" in done["message"]


def test_look_alikes_join_groups_and_rois_without_a_vector_stand_alone(frames):
    ids = frames.values("id")
    frames.select(ids[:4]).set_field("embeddings", None).save()
    frames.add_sample_field("day", samples.fo.StringField)
    frames.set_values("day", [str(a // 4) for a in frames.values("animal")])
    done = assign(frames, group_embeddings="embeddings", group_field="day")
    assert torn(frames) == 0
    assert "4 ROIs have no vector" in done["message"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"group_embeddings": "nothing"}, "no field 'nothing'"),
        ({"group_embeddings": "embeddings", "group_similarity": 0}, "group_similarity"),
    ],
)
def test_bad_input_is_said(frames, params, message):
    with pytest.raises(Exception, match=message):
        assign(frames, **params)


def test_the_form_shows_the_effect_when_asked(frames):
    chosen = {"group_embeddings": "embeddings"}
    assert "Look-alikes, by similarity" not in form(ASSIGN, frames, **chosen)
    assert "Look-alikes, by similarity" in form(ASSIGN, frames, **chosen, _show_the_table_that_this_would_give=True)
