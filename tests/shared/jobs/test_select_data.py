"""What a selection is made from: predictions that may be chosen, however they are read, and vectors when needed."""

import fiftyone as fo
import fiftyone.core.odm as odm
import numpy as np
import pytest

from shared import samples, vectors
from shared.errors import InputError
from shared.jobs import select_data, select_job
from shared.operators import Job
from shared.runs import Monitor
from tests.published import row, version

CLASSES = ["Calanus", "detritus"]
RARE = np.array([1])


class Stopped(Monitor):
    """Somebody has asked for an end."""

    def stopping(self) -> bool:
        return True


@pytest.fixture
def predicted(dataset, registry):
    """Nine samples with logits; the last has no prediction, the fourth no label."""
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(9)])
    ids = dataset.values("id")
    samples.ensure_label_field(dataset, "ground_truth")
    samples.write_labels(dataset, "ground_truth", ids, ["Calanus"] * 3 + [None] + ["Calanus"] * 5, [1.0] * 9)
    samples.prepare_label_field(dataset, "pred", {samples.MODEL: "a/1", "classes": CLASSES}, CLASSES)
    samples.write_labels(
        dataset, "pred", ids[:8], CLASSES * 4, [0.5] * 8, np.tile(np.float32([[3, 0], [0, 3]]), (4, 1))
    )
    return dataset


def job(dataset, run=None, secrets=None, **params):
    given = select_job.Params(prediction_field="pred", embeddings_field="embeddings", **params)
    return Job(given, dataset, dataset.view(), secrets or {}, run or Monitor(), "ann", odm.get_db_conn())


def read(work, temperature=1.0):
    return select_data.read(work, CLASSES, select_data.Scale(temperature), RARE)


@pytest.mark.parametrize("size", [2, 100])
def test_batches_of_any_size_make_the_same_table(predicted, monkeypatch, size):
    monkeypatch.setattr(select_data, "SIZE", size)
    predicted.limit(1).tag_samples("reviewed")
    table = read(job(predicted, only_unlabelled=False))
    assert table.ids_of(np.arange(7)) == predicted.values("id")[1:8]
    assert table.left_out == {"reviewed before": 1, "without a prediction": 1}
    assert table.predicted == 8
    assert table.predictions.predicted.tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert np.allclose(table.predictions.confidence, 1 / (1 + np.exp(-3)))
    rare = table.predictions.chances_of(np.arange(7))[:, 0]
    assert np.allclose(rare, np.where(table.predictions.predicted == 1, 0.9526, 0.0474), atol=1e-3)


def test_what_a_version_has_learned_from_is_left_out_whatever_its_tags_say(predicted, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(select_data, "SIZE", 2)  # it is looked up for each batch
    identity, ids = str(predicted._doc.id), predicted.values("id")
    learned = [row(ids[i], "Calanus", "train", f"{i}" * 64, identity) for i in (0, 5)]
    record = version(registry, tmp_path, rows=learned)
    samples.prepare_label_field(predicted, "pred", {samples.MODEL: record.name}, CLASSES)
    table = read(job(predicted, secrets={"MBARI_ARTIFACTS": str(tmp_path / "artifacts")}, only_unlabelled=False))
    assert table.left_out == {select_data.MODEL_KNOWS: 2, "without a prediction": 1}
    assert not {ids[0], ids[5]} & set(table.ids_of(np.arange(len(table.ids))))
    assert not table.remarks


def test_where_the_rest_has_a_label_the_run_names_the_box(predicted):
    predicted.skip(3).limit(1).tag_samples("reviewed")
    with pytest.raises(
        InputError, match=r"choose from: 7 labelled before, .* Untick 'Only unlabelled' to choose among"
    ):
        read(job(predicted))


def test_whoever_stops_gets_nothing(predicted):
    assert read(job(predicted, Stopped())) is None
    assert select_job.work(job(predicted, Stopped())) is None
    assert not predicted.has_sample_field("review_reason")


def test_vectors_are_read_as_unit_rows_and_labels_that_may_be_chosen_are_no_reference(predicted):
    given = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    info = {"backbone": "a", "layer": "-", "weights_sha256": "-", "framing": "pad", "imgsz": 224, "dim": 4}
    vectors.prepare(predicted, "embeddings", info)
    work = job(predicted, only_unlabelled=False)
    table = read(work)
    with pytest.raises(InputError, match="has a vector in 'embeddings': run 'Compute embeddings' first"):
        select_data.near(work, table)
    vectors.write(predicted, "embeddings", predicted.values("id")[:7], given[:7])
    predicted.limit(2).tag_samples("reviewed")
    near = select_data.near(work, read(work))
    assert (len(near.vectors), len(near.seen), near.missing) == (6, 2, 1)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    np.testing.assert_allclose(near.vectors[np.array([3, 0, 5])], [unit[5], unit[2], np.zeros(4)], rtol=1e-5)
    np.testing.assert_allclose(near.seen[0:2], unit[:2], rtol=1e-5)
    assert near.novelty is None  # two labels that are no candidates say nothing
