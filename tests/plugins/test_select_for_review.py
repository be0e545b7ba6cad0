"""What a person should look at: through FiftyOne's operator and its worker, on a real dataset."""

import asyncio
import re
import uuid

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone import ViewField
from fiftyone.operators.executor import ExecutionError, resolve_type
from fiftyone.operators.registry import OperatorRegistry

from scripts.surroundings import own_database
from shared import samples, selected, vectors
from shared.intervals import wilson
from shared.review import calibration
from tests import worker

URI = "@mbari/apply_model/select_for_review"
CLASSES = ["Calanus", "detritus", "Tomopteris"]
INFO = {"backbone": "a", "layer": "CLS token", "weights_sha256": "0" * 64, "framing": "pad", "imgsz": 224, "dim": 8}
LABELLED, NEW = 100, 300


def logits_of(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits of a model that is too sure of itself: three times the logarithm of what is likely."""
    return (6 * (rng.normal(0, 1, (len(truth), 3)) + 2 * np.eye(3)[truth])).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    """A hundred labelled samples tagged val and 300 new ones in frames of three, with predictions and vectors."""
    own_database()
    dataset = fo.Dataset(f"test-{uuid.uuid4().hex[:12]}")
    fill(dataset)
    yield dataset
    dataset.delete()


@pytest.fixture
def predicted(made, registry):
    """A copy of it that a test may change."""
    copy = made.clone(f"test-{uuid.uuid4().hex[:12]}")
    yield copy
    copy.delete()


def fill(dataset):
    rng = np.random.default_rng(0)
    truth = np.r_[rng.choice(3, LABELLED, p=[0.3, 0.69, 0.01]), np.repeat(rng.choice(3, NEW // 3), 3)]
    logits = logits_of(truth, rng)
    made = [fo.Sample(filepath=f"/nowhere/{i}.png", depth=float(i)) for i in range(len(truth))]
    for sample, of in zip(made[:LABELLED], truth, strict=False):
        sample["ground_truth"] = fo.Classification(label=CLASSES[of])
        sample.tags = ["val"]
    dataset.add_samples(made, progress=False)
    samples.prepare_label_field(dataset, "pred", {samples.MODEL: "a/1", "classes": CLASSES}, CLASSES)
    probabilities = calibration.apply(logits, 1.0)
    best = probabilities.argmax(axis=1)
    ids = dataset.values("id")
    samples.write_labels(dataset, "pred", ids, [CLASSES[i] for i in best], probabilities.max(axis=1), logits)
    animals = rng.normal(size=(LABELLED + NEW // 3, 8))
    found = np.concatenate([animals[:LABELLED], np.repeat(animals[LABELLED:], 3, axis=0)])
    found[LABELLED:] += rng.normal(0, 0.001, (NEW, 8))
    vectors.prepare(dataset, "embeddings", INFO)
    vectors.write(dataset, "embeddings", ids, found.astype(np.float32))


def choose(target, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    done = foo.execute_operator(URI, {**where, "params": {"prediction_field": "pred", "budget": 40, **params}}).result
    target._root_dataset.reload()
    return done


def test_a_worker_chooses_tags_explains_and_saves_views(predicted, tmp_path):
    with worker.worker(tmp_path / "log"):
        scheduled = worker.schedule(URI, predicted, prediction_field="pred", budget=40, embeddings_field="embeddings")
        done = worker.result(worker.wait(scheduled))
    predicted.reload()
    chosen = predicted.match_tags("review")
    assert len(chosen) == sum(row["ROIs"] for row in done["chosen"]) == 40
    reasons = chosen.values("review_reason")
    for row in done["chosen"]:
        assert sum(reason.startswith(f"{row['kind']}: ") for reason in reasons) == row["ROIs"]
        if row["ROIs"]:
            view = predicted.load_saved_view(f"review: {row['kind']}")
            assert len(view) == row["ROIs"]
            assert not any("$in" in str(stage) and "_id" in str(stage) for stage in view._pipeline())
    assert len(predicted.load_saved_view("review: all")) == 40
    assert not set(chosen.values("id")) & set(predicted.match_tags("val").values("id"))
    assert predicted.match_tags("review", bool=False).exists("review_reason").count() == 0
    assert {row["why"]: row["ROIs"] for row in done["not_chosen"]} == {
        "learned from (train, val)": LABELLED,
        "beyond the budget": NEW - 40,
    }


def test_the_model_is_calibrated_on_val_and_that_is_said(predicted):
    done = choose(predicted)
    (row,) = done["calibration"]
    assert row["val ROIs"] == LABELLED
    assert row["temperature"] == pytest.approx(3, rel=0.25)
    assert row["after"] < row["calibration error before"]
    assert "Calibrated on 100 ROIs of val" in done["message"]
    assert "not of those in the field" in done["message"]
    assert sum(r["to choose from"] for r in done["precision_by_class"]) == NEW
    # So fewer predictions are confident than the stored confidences say.
    sure = predicted.match_tags("val", bool=False).match(ViewField("pred.confidence") >= 0.9).count()
    assert sum(r["confident"] for r in done["precision_by_class"]) < sure


def test_a_temperature_that_does_not_help_is_not_used_and_that_is_said(predicted):
    # The likeliest temperature is not the one with the smallest error: here a few are wrong, and the surest of all.
    rng = np.random.default_rng(0)
    truth = np.array([CLASSES.index(of) for of in predicted.match_tags("val").values("ground_truth.label")])
    logits = 4 * np.eye(3)[truth]
    wrong = rng.choice(LABELLED, 4, replace=False)
    logits[wrong] = 9 * np.eye(3)[(truth[wrong] + 1) % 3]
    ids = predicted.match_tags("val").values("id")
    best = logits.argmax(axis=1)
    sure = calibration.apply(logits, 1.0)
    samples.write_labels(predicted, "pred", ids, [CLASSES[i] for i in best], sure.max(axis=1), logits.astype("float32"))
    found = calibration.calibrate(logits, truth)
    assert found.after > found.before
    done = choose(predicted)
    assert f"({100 * found.before:.1f} % before, {100 * found.after:.1f} % after)" in done["message"]
    assert "left as they are" in done["message"]
    assert "Calibrated on" not in done["message"]
    (row,) = done["calibration"]
    assert (row["temperature"], row["calibration error before"]) == (1, row["after"])
    for said, label, confidence in zip(
        *predicted.match_tags("review").values(["review_reason", "pred.label", "pred.confidence"]), strict=True
    ):
        assert f"{label} ({confidence:.2f})" in said


def test_without_logits_the_confidences_are_used_and_that_is_said(predicted):
    some = predicted.match_tags("val", bool=False).limit(5)
    some.set_values("pred.logits", [None] * 5)
    done = choose(predicted, budget=60)
    assert "Not calibrated: 'pred' has logits of 395 of 400 predictions" in done["message"]
    assert not done["calibration"]
    confident = predicted.load_saved_view("review: confident")
    assert min(confident.values("pred.confidence")) >= 0.9


def test_without_labels_of_val_the_logits_are_used_as_they_are(predicted):
    predicted.untag_samples("val")
    done = choose(predicted)
    assert "no ROI that is tagged val has a label and logits" in done["message"]
    assert any(", then " in reason for reason in predicted.match_tags("review").values("review_reason"))


def says_of_classes(dataset, classes):
    field = dataset.get_field("pred")
    field.info = {samples.MODEL: "a/1"} | ({"classes": classes} if classes else {})
    field.save()
    dataset.classes = {}
    dataset.save()


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        (None, "what wrote it does not say the order of the classes"),
        (sorted(CLASSES), "are not the class with the largest logit"),
        ([*CLASSES, "Metridia"], "there are not 4 of each"),
    ],
    ids=["unknown", "another order", "length"],
)
@pytest.mark.parametrize("val", [True, False], ids=["val", "no val"])
def test_logits_are_used_only_where_their_order_is_known(predicted, classes, why, val):
    if not val:
        predicted.untag_samples("val")
    says_of_classes(predicted, classes)
    done = choose(predicted)
    assert "Not calibrated: the logits in 'pred' are not used, because " in done["message"]
    assert why in done["message"]
    assert not done["calibration"]
    for said, label, confidence in zip(
        *predicted.match_tags("review").values(["review_reason", "pred.label", "pred.confidence"]), strict=True
    ):
        assert f"{label} ({confidence:.2f})" in said


def test_fewer_classes_may_be_predicted_than_there_are_logits(predicted):
    predicted.match(ViewField("pred.label") == "detritus").set_field("pred", None).save()
    says_of_classes(predicted, None)
    choose(predicted)
    assert predicted.match_tags("review").count() == 40


def test_a_prediction_that_a_person_has_changed_does_not_put_the_logits_out_of_use(predicted):
    one = predicted.skip(LABELLED).limit(1)
    one.set_values("pred.label", [next(name for name in CLASSES if name != one.first().pred.label)])
    assert choose(predicted)["calibration"]


def test_what_has_no_usable_confidence_is_left_out_and_that_is_said(predicted):
    predicted.set_values("pred.logits", [None] * len(predicted))
    new = predicted.match_tags("val", bool=False)
    bad = [None] * 5 + [97.0, 7.0, -0.1, float("nan")]
    new.limit(9).set_values("pred.confidence", bad)
    done = choose(predicted, budget=NEW)
    why = {row["why"]: row["ROIs"] for row in done["not_chosen"]}
    assert (why["without a confidence"], why["with a confidence outside 0 to 1"]) == (5, 4)
    assert not set(predicted.match_tags("review").values("id")) & set(new.limit(9).values("id"))
    new.set_values("pred.confidence", [100 * 0.5] * NEW)
    with pytest.raises(ExecutionError, match=r"300 with a confidence outside 0 to 1.*divide percentages by 100"):
        choose(predicted)


def test_a_rerun_goes_on_where_the_reviewer_stopped(predicted):
    choose(predicted)
    first = set(predicted.match_tags("review").values("id"))
    looked_at = predicted.load_saved_view("review: confident")
    ids, said = looked_at.values(["id", "pred.label"])
    wrong = said.index("detritus")
    labels = [fo.Classification(label="Calanus" if i == wrong else name) for i, name in enumerate(said)]
    predicted.select(ids, ordered=True).set_values("ground_truth", labels)
    predicted.select(ids).tag_samples("reviewed")
    assert predicted.load_saved_view("review: confident").count() == 0  # they leave the view at once

    done = choose(predicted)
    second = set(predicted.match_tags("review").values("id"))
    assert not second & set(ids)
    assert len(second) == 40
    # What nobody looked at may be chosen again; else it is as it was.
    assert predicted.exists("review_reason").count() == 40 + len(ids)
    assert {"why": "reviewed before", "ROIs": len(ids)} in done["not_chosen"]
    of = {row["class"]: row for row in done["precision_by_class"]}
    assert of["detritus"]["checked"] - of["detritus"]["right"] == 1
    low, high = wilson(of["detritus"]["right"], of["detritus"]["checked"])
    assert of["detritus"]["interval shown"] == f"{low:.3f} to {high:.3f}"
    assert sum(row["checked"] for row in done["precision_by_class"]) == len(ids)
    assert first - set(ids) - second <= set(predicted.exists("review_reason", False).values("id"))


def test_a_correction_that_is_not_applied_yet_says_what_a_spot_check_showed(predicted):
    choose(predicted)
    looked_at = predicted.load_saved_view("review: confident")
    ids, said = looked_at.values(["id", "pred.label"])
    predicted.select(ids[:2]).tag_samples(["reviewed", next(name for name in CLASSES if name not in said[:2])])
    predicted.select(ids[2:3]).tag_samples("reviewed")  # looked at, and nothing said
    done = choose(predicted)
    assert sum(row["checked"] for row in done["precision_by_class"]) == 2
    assert sum(row["right"] for row in done["precision_by_class"]) == 0
    assert "Of the reviewed spot checks 1 without a label do not count" in done["message"]


def test_spot_checks_of_another_model_say_nothing_of_this_one(predicted):
    choose(predicted)
    predicted.load_saved_view("review: confident").tag_samples("reviewed")
    field = predicted.get_field("pred")
    field.info = {**field.info, samples.MODEL: "a/2"}
    field.save()
    done = choose(predicted)
    assert sum(row["checked"] for row in done["precision_by_class"]) == 0
    assert predicted.match_tags("reviewed").exists("review_reason").count() == 0


def test_labelled_ones_are_chosen_where_asked_but_none_that_was_learned_from(predicted):
    predicted.untag_samples("val")
    predicted.limit(50).tag_samples("train")
    with pytest.raises(ExecutionError, match="All ROIs of the target have a label"):
        choose(predicted.limit(LABELLED))
    done = choose(predicted.limit(LABELLED), only_unlabelled=False, budget=100)
    assert predicted.match_tags("review").values("id") == predicted.skip(50).limit(50).values("id")
    assert done["not_chosen"] == [{"why": "learned from (train, val)", "ROIs": 50}]
    assert "known by the tags train and val only" in done["message"]


def test_frames_of_one_animal_are_not_chosen_together(predicted):
    choose(predicted, embeddings_field="embeddings", rare_quota=0)
    others = predicted.load_saved_view("review: confusing")
    frames = [int(depth - LABELLED) // 3 for depth in others.values("depth")]
    assert len(frames) == len(set(frames)) > 3


def test_rois_in_no_cluster_are_novel(predicted):
    from shared import clustered

    samples.ensure_label_field(predicted, "cluster")
    field = predicted.get_field("cluster")
    field.info = {clustered.INFO: {}}
    field.save()
    ids = predicted.values("id")
    samples.write_labels(predicted, "cluster", ids[:-7], [clustered.name(0)] * (len(ids) - 7), [1.0] * (len(ids) - 7))
    done = choose(predicted, cluster_field="cluster", budget=100)
    assert {row["kind"]: row["of"] for row in done["chosen"]}["novel"] == 7
    assert set(ids[-7:]) <= set(predicted.match_tags("review").values("id"))


def test_rare_classes_are_named_or_found(predicted):
    assert [row["class"] for row in choose(predicted, rare_share=0.05)["rare_classes"]] == ["Tomopteris"]
    assert "No class counts as rare" in choose(predicted, rare_share=0)["message"]
    done = choose(predicted, rare_classes=["Calanus"], rare_quota=5)
    assert done["rare_classes"][0]["chosen"] == 5
    assert all("Calanus" in reason for reason in predicted.load_saved_view("review: rare").values("review_reason"))


def test_others_tags_and_views_stay(predicted):
    mine = predicted.skip(LABELLED).limit(3)
    mine.tag_samples(["review", "nice"])
    predicted.save_view("my review", predicted.limit(1))
    predicted.save_view("review: mine", predicted.limit(2))
    choose(predicted, budget=1, rare_quota=0)
    choose(predicted, budget=1, rare_quota=0)
    assert predicted.match_tags("nice").count() == 3
    assert predicted.match_tags("review").count() in (3, 4)
    assert len(predicted.load_saved_view("review: all")) == 1
    assert "my review" in predicted.list_saved_views()
    assert len(predicted.load_saved_view("review: mine")) == 2


def test_new_images_without_any_label_can_be_chosen_from(predicted):
    predicted.delete_sample_field("ground_truth")
    predicted.untag_samples("val")
    done = choose(predicted, embeddings_field="embeddings")
    assert predicted.match_tags("review").count() == 40
    assert "Too few ROIs with a label have a vector" in done["message"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prediction_field": "nothing"}, "cannot be 'nothing': there is pred"),
        ({"label_field": "pred"}, "in the label field itself"),
        ({"label_field": "depth"}, "not a Classification field"),
        ({"rare_classes": ["Tomoptris"]}, "'Tomoptris'"),
        ({"embeddings_field": "vectors"}, "no field 'vectors'"),
        ({"cluster_field": "ground_truth"}, "no clusters of this suite"),
        ({"budget": 0}, "budget"),
    ],
    ids=["predictions", "same", "labels", "class", "embeddings", "clusters", "budget"],
)
def test_bad_input_is_one_sentence_and_changes_nothing(predicted, params, message):
    with pytest.raises(ExecutionError, match=message):
        choose(predicted, **params)
    assert not predicted.has_sample_field("review_reason")


def test_nothing_to_choose_from_says_why(predicted):
    with pytest.raises(ExecutionError, match="nothing to choose from: 100 learned from"):
        choose(predicted.match_tags("val"), only_unlabelled=False)
    predicted.limit(3).set_field("pred", None).save()
    with pytest.raises(ExecutionError, match="No ROI of the target has a prediction"):
        choose(predicted.limit(3), only_unlabelled=False)


def test_without_any_vector_of_what_may_be_chosen_that_is_said(predicted):
    predicted.match_tags("val", bool=False).limit(NEW - 1).set_field("embeddings", None).save()
    done = choose(predicted, embeddings_field="embeddings")
    assert f"Without a vector: {NEW - 1}." in done["message"]
    predicted.match_tags("val", bool=False).set_field("embeddings", None).save()
    with pytest.raises(ExecutionError, match="No ROI that may be chosen has a vector in 'embeddings'"):
        choose(predicted, embeddings_field="embeddings")


def test_what_is_somebody_elses_is_refused(predicted):
    predicted.save_view("review: all", predicted.limit(1))
    with pytest.raises(ExecutionError, match="'review: all' is none of this suite's"):
        choose(predicted)
    predicted.delete_saved_view("review: all")
    predicted.save_view("Review Novel", predicted.limit(1))  # FiftyOne takes both names for one
    with pytest.raises(ExecutionError, match="'Review Novel' is none of this suite's"):
        choose(predicted)
    predicted.delete_saved_view("Review Novel")
    predicted.save_view("review: all", predicted.limit(1))
    assert any("'review: all' is none" in text for text in worker.form(URI, predicted, prediction_field="pred"))
    predicted.delete_saved_view("review: all")
    predicted.add_sample_field(selected.REASON, fo.StringField)
    with pytest.raises(ExecutionError, match="'review_reason' exists"):
        choose(predicted)


def test_the_form_takes_the_embeddings_that_are_there_and_says_what_is_not_known_without(predicted):
    request = {"dataset_name": predicted.name, "params": {"prediction_field": "pred"}}
    drawn = asyncio.run(resolve_type(OperatorRegistry(), URI, request)).to_json()
    assert drawn["type"]["properties"]["embeddings_field"]["default"] == "embeddings"
    for given, said in (({}, False), ({"embeddings_field": "embeddings"}, False), ({"embeddings_field": ""}, True)):
        texts = worker.form(URI, predicted, prediction_field="pred", **given)
        assert said == any("several frames of one animal may be chosen" in text for text in texts)


def test_the_form_knows_which_classes_cannot_be_predicted(predicted):
    texts = worker.form(URI, predicted, prediction_field="pred", rare_classes=["Tomoptris", "Calanus"])
    assert [text for text in texts if "no such class" in text] == [
        "'Tomoptris': no such class among those predicted (Calanus, Tomopteris, detritus)."
    ]
    assert not any("no such class" in t for t in worker.form(URI, predicted, prediction_field="pred"))


def test_every_class_that_is_predicted_can_be_named_as_rare_whatever_the_dataset_lists(predicted):
    says_of_classes(predicted, None)
    predicted.classes = {"pred": ["Calanus"]}
    predicted.save()
    assert choose(predicted, rare_classes=["Tomopteris"])["rare_classes"][0]["class"] == "Tomopteris"


def test_where_all_have_a_label_the_form_names_the_box(predicted):
    def said(**params):
        texts = worker.form(URI, predicted, prediction_field="pred", **params)
        return any(
            "All ROIs of the target have a label in 'ground_truth': untick 'Only unlabelled'" in t for t in texts
        )

    assert not said()
    predicted.match_tags("val", bool=False).set_values("ground_truth", [fo.Classification(label="Calanus")] * NEW)
    assert said()
    assert not said(only_unlabelled=False)
    assert not said(label_field="nothing")
    with pytest.raises(ExecutionError, match="All ROIs of the target have a label"):
        choose(predicted)
    choose(predicted.match_tags("val", bool=False), only_unlabelled=False)


def test_what_is_confusing_is_told_by_how_far_the_classes_are_apart(predicted):
    def said(done):
        return next(row["what"] for row in done["chosen"] if row["kind"] == "confusing")

    text = said(choose(predicted))
    low, high = map(float, re.findall(r"[01]\.\d\d", text))
    assert text.startswith("not confident; the two likeliest classes nearest to a tie first: ")
    reasons = predicted.load_saved_view("review: confusing").values("review_reason")
    apart = [float(a) - float(b) for a, b in (re.findall(r"\((\d\.\d\d)\)", reason) for reason in reasons)]
    assert (low, high) == pytest.approx((min(apart), max(apart)), abs=0.011)
    predicted.set_values("pred.logits", [None] * len(predicted))
    text = said(choose(predicted))
    assert text.startswith("not confident; the least confident first: ")
    low, high = map(float, re.findall(r"[01]\.\d\d", text))
    confidences = predicted.load_saved_view("review: confusing").values("pred.confidence")
    assert (low, high) == pytest.approx((min(confidences), max(confidences)), abs=0.006)
