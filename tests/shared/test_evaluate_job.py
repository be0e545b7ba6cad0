"""Predictions against labels, as FiftyOne's own evaluation, on nothing that was learned from."""

import fiftyone as fo
import pytest
from sklearn.metrics import accuracy_score, f1_score

from shared import evaluate_job, samples
from shared.errors import InputError
from shared.operators import Job
from shared.runs import Monitor

TRUTH = ["a", "a", "a", "b", "b", "c", "c", "a", None, "b"]
SAID = ["a", "b", "a", "b", "a", "d", "c", "a", "a", None]
SPLIT = ["test", None, "test", "test", None, "test", None, "train", "test", "test"]


@pytest.fixture
def judged(dataset):
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png", tags=[s] if s else []) for i, s in enumerate(SPLIT)])
    dataset.set_values("ground_truth", [fo.Classification(label=name) if name else None for name in TRUTH])
    samples.prepare_label_field(dataset, "pred_m", {samples.MODEL: "m/1"}, ["a", "b", "c", "d"])
    dataset.set_values("pred_m", [fo.Classification(label=name) if name else None for name in SAID])
    return dataset


def evaluate(dataset, **params):
    wanted = evaluate_job.Params(**{"prediction_field": "pred_m", **params})
    return evaluate_job.work(Job(wanted, dataset, dataset.view(), {}, Monitor(), "ann", None))


def test_it_is_the_evaluation_of_fiftyone_on_what_was_not_learned_from(judged):
    outcome = evaluate(judged)
    truth, said = TRUTH[:7], SAID[:7]
    assert outcome["counts"] == {"evaluated": 7, "learned_from": 1}
    assert outcome["top1"] == accuracy_score(truth, said)
    assert outcome["macro_f1"] == f1_score(truth, said, labels=["a", "b", "c"], average="macro", zero_division=0)
    found = judged.load_evaluation_results("eval_pred_m")
    assert found.metrics()["accuracy"] == pytest.approx(outcome["top1"])
    assert judged.values("eval_pred_m") == [True, False, True, True, False, False, True, None, None, None]


def test_evaluating_again_replaces_its_own_evaluation(judged):
    evaluate(judged)
    judged.match(fo.ViewField("pred_m.label") == "b").set_field("pred_m.label", "a").save()
    evaluate(judged)
    assert judged.list_evaluations() == ["eval_pred_m"]
    assert judged.values("eval_pred_m")[3] is False


def test_what_is_somebody_elses_is_left_alone(judged):
    judged.add_sample_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    judged.set_values("theirs", [fo.Classification(label="a")] * len(judged))
    judged.exists("ground_truth").evaluate_classifications("theirs", gt_field="ground_truth", eval_key="mine")
    with pytest.raises(InputError, match="none of this suite's"):
        evaluate(judged, eval_key="mine")
    with pytest.raises(InputError, match="has a field 'theirs'"):
        evaluate(judged, eval_key="theirs")
    assert judged.load_evaluation_results("mine") is not None


def test_where_all_was_learned_from_nothing_is_judged(judged):
    judged.tag_samples("train")
    with pytest.raises(InputError, match="neither of the tags train and val"):
        evaluate(judged)


def test_a_missing_field_is_named(judged):
    with pytest.raises(InputError, match="'pred_x' does not exist"):
        evaluate(judged, prediction_field="pred_x")
