"""Predictions against labels, as FiftyOne's own evaluation, on nothing that was learned from."""

from datetime import UTC, datetime, timedelta

import fiftyone as fo
import fiftyone.core.odm as odm
import pytest
from sklearn.metrics import accuracy_score, f1_score

from shared import focus_views, samples
from shared.errors import InputError
from shared.jobs import evaluate_job
from shared.operators import Job
from shared.runs import Monitor
from shared.sync.labels import Event, Move
from shared.sync.store import LabelField
from tests.published import row, version

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


@pytest.fixture
def evaluate(registry):
    def run(dataset, secrets=None, **params):
        wanted = evaluate_job.Params(**{"prediction_field": "pred_m", **params})
        job = Job(wanted, dataset, dataset.view(), secrets or {}, Monitor(), "ann", odm.get_db_conn())
        made = evaluate_job.evaluate(job, evaluate_job.read(job))
        return {**made.result, "message": " ".join([made.result["message"], *made.remarks])}

    return run


def test_it_is_the_evaluation_of_fiftyone_on_what_was_not_learned_from(judged, evaluate):
    outcome = evaluate(judged)
    truth, said = TRUTH[:7], SAID[:7]
    assert outcome["counts"] == {"evaluated": 7, "learned_from": 1, "without_prediction": 1}
    assert outcome["top1"] == accuracy_score(truth, said)
    assert outcome["macro_f1"] == f1_score(truth, said, labels=["a", "b", "c"], average="macro", zero_division=0)
    found = judged.load_evaluation_results("eval_pred_m")
    assert found.metrics()["accuracy"] == pytest.approx(outcome["top1"])
    assert judged.values("eval_pred_m") == [True, False, True, True, False, False, True, None, None, None]


def test_evaluating_again_replaces_its_own_evaluation(judged, evaluate):
    evaluate(judged)
    judged.match(fo.ViewField("pred_m.label") == "b").set_field("pred_m.label", "a").save()
    evaluate(judged)
    assert judged.list_evaluations() == ["eval_pred_m"]
    assert judged.values("eval_pred_m")[3] is False


def test_what_is_somebody_elses_is_left_alone(judged, evaluate):
    judged.add_sample_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    judged.set_values("theirs", [fo.Classification(label="a")] * len(judged))
    judged.exists("ground_truth").evaluate_classifications("theirs", gt_field="ground_truth", eval_key="mine")
    with pytest.raises(InputError, match="none of this suite's"):
        evaluate(judged, eval_key="mine")
    with pytest.raises(InputError, match="has a field 'theirs'"):
        evaluate(judged, eval_key="theirs")
    # Of the suite's own predictions as well, if it is a person's evaluation.
    judged.evaluate_classifications("pred_m", gt_field="ground_truth", eval_key="by_hand")
    with pytest.raises(InputError, match="'by_hand' is none of this suite's"):
        evaluate(judged, eval_key="by_hand")
    assert [len(judged.load_evaluation_results(key).ytrue) for key in ("mine", "by_hand")] == [9, 10]


def test_predictions_that_are_not_of_this_suite_are_evaluated_again_and_again(judged, evaluate):
    judged.add_sample_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    judged.set_values("theirs", [fo.Classification(label="a")] * len(judged))
    assert [evaluate(judged, prediction_field="theirs")["counts"]["evaluated"] for _ in range(2)] == [8, 8]
    judged.delete_evaluation("eval_theirs")
    evaluate_job.claim_key(judged, "eval_theirs")  # all that is left when a run is killed there
    assert evaluate(judged, prediction_field="theirs")["counts"]["evaluated"] == 8


def test_where_all_was_learned_from_nothing_is_judged(judged, evaluate):
    judged.tag_samples("train")
    with pytest.raises(InputError, match="neither of the tags train and val"):
        evaluate(judged)


def test_a_missing_field_is_named(judged, evaluate):
    with pytest.raises(InputError, match="'pred_x' does not exist"):
        evaluate(judged, prediction_field="pred_x")


def test_what_a_version_or_its_ancestor_learned_from_is_left_out_whatever_its_tags_say(
    judged, registry, tmp_path, evaluate
):
    ids = judged.values("id")
    judged.add_sample_field("media_sha256", fo.StringField)
    judged.set_values("media_sha256", [None, None, "c" * 64] + [None] * 7)
    identity = str(judged._doc.id)
    parent = version(registry, tmp_path, rows=[row(ids[0], "a", "train", "a" * 64, identity)])
    rows = [row(ids[1], "a", "val", "b" * 64, identity), row("f" * 24, "a", "train", "c" * 64)]
    rows += [row(ids[3], "b", "test", "d" * 64, identity), row(ids[4], "b", "train", "e" * 64, identity, used=False)]
    child = version(registry, tmp_path, rows=rows, base_version=parent.name)
    samples.prepare_label_field(judged, "pred_m", {samples.MODEL: child.name}, ["a", "b", "c", "d"])
    secrets = {"MBARI_ARTIFACTS": str(tmp_path / "artifacts")}
    for _ in range(2):  # by id of an ancestor, by id, by the bytes of another sample
        outcome = evaluate(judged, secrets)
        assert outcome["counts"] == {"evaluated": 4, "learned_from": 4, "without_prediction": 1}
        assert judged.values("eval_pred_m") == [None, None, None, True, False, False, True, None, None, None]
    assert "known by the tags" not in outcome["message"]
    view = judged.load_evaluation_view("eval_pred_m")
    assert view.values("id") == ids[3:7]
    assert not [stage for stage in view._stages if isinstance(stage, fo.Select)]  # a list of ids would not fit

    outcome = evaluate(judged)  # without the artifact root nobody can say
    assert outcome["counts"] == {"evaluated": 7, "learned_from": 1, "without_prediction": 1}
    assert f"What {child.name} was trained on is known by the tags train and val only" in outcome["message"]


def test_a_model_that_is_not_registered_is_said_to_be_known_by_tags_only(judged, evaluate):
    assert "known by the tags train and val only: There is no model" in evaluate(judged)["message"]


def test_the_next_evaluation_says_what_a_review_won(judged, evaluate):
    assert "last evaluation" not in evaluate(judged)["message"]
    assert "last evaluation" not in evaluate(judged)["message"]
    first = judged.skip(1).first()  # labelled a, predicted b
    first["ground_truth"] = fo.Classification(label="b")
    first.save()
    said = evaluate(judged)["message"]
    assert "Of the 7 ROIs that were in the last evaluation as well, 1 have another label now; 4 were right" in said
    assert "5 are now" in said


def test_it_says_how_many_labels_were_changed_since_learned_ones_too(judged, evaluate):
    evaluate(judged)
    ids, field = judged.values("id"), LabelField(judged, "ground_truth", "elemental_id")
    field.prepare()
    early = Event("r1", "ann", datetime.now(UTC) - timedelta(days=1), "correction")
    field.move([Move(ids[0], "a", "c")], early)
    now = early._replace(run="r2", at=datetime.now(UTC))
    field.move([Move(ids[1], "a", "b"), Move(ids[7], "a", "b"), Move(ids[2], "a", "a")], now)  # the last stays
    assert "changed since the last evaluation: 2, of ROIs that were learned from 1;" in evaluate(judged)["message"]
    assert "since the last" not in evaluate(judged)["message"]


def test_a_field_of_marks_that_is_somebody_elses_is_refused(judged, evaluate):
    judged.add_sample_field(focus_views.FIELD, fo.StringField)
    with pytest.raises(InputError, match="'focus' exists and no evaluation of this suite made it"):
        evaluate(judged)


def test_a_field_is_not_held_against_itself(judged, evaluate):
    with pytest.raises(InputError, match="against itself"):
        evaluate(judged, label_field="pred_m")
