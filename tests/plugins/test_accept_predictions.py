"""Predictions that a person has looked at become labels and corrections."""

import asyncio

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import resolve_type
from fiftyone.operators.registry import OperatorRegistry

from shared import focus_views, samples
from shared.review.focus import Item
from tests import labels
from tests.worker import form

URI = "@mbari/apply_model/accept_predictions"
LISTED = {"errors": [2, 5], "wrong labels": [3, 4]}  # kinds of items of a focus list, and their samples


@pytest.fixture
def predicted(dataset, db, monkeypatch, registry):
    """Six samples, three of them unlabelled, with predictions; the vocabulary is a file."""
    monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
    dataset.classes["ground_truth"] = ["Calanus", "Metridia", "$label"]
    dataset.save()
    labels.fill(dataset, [None, None, None, "Calanus", "Calanus", "Metridia"])
    for sample, label, confidence in zip(
        dataset.iter_samples(autosave=True),
        ["Calanus", "$label", "Nothing known", "Metridia", "Calanus", "Calanus"],
        [0.9, 0.4, 0.99, 0.8, 0.99, 0.3],
        strict=True,
    ):
        sample["pred"] = fo.Classification(label=label, confidence=confidence)
    return dataset


def accept(target, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    return foo.execute_operator(URI, {**where, "params": {"prediction_field": "pred", **params}}).result


def test_unlabelled_samples_get_labels_of_the_vocabulary(predicted):
    done = accept(predicted)
    predicted.reload()
    assert predicted.values("ground_truth.label") == ["Calanus", "$label", None, "Calanus", "Calanus", "Metridia"]
    assert done["counts"]["labelled"] == 2
    assert done["not_in_the_vocabulary"] == [{"prediction": "Nothing known", "ROIs": 1, "nearest_names": "none"}]
    # They have an id in the store, which does not know of it yet.
    assert predicted.values("tags") == [["needs-sync"], ["needs-sync"], [], [], [], []]
    (entry,) = predicted.first()["ground_truth_history"]
    assert (entry["from"], entry["to"], entry["how"], entry["predicted"]) == (None, "Calanus", "accepted", 0.9)
    assert len(set(predicted.values("ground_truth.id"))) == 6  # None among them

    undone = foo.execute_operator(
        "@mbari/sync_back/apply_corrections", {"dataset": predicted, "params": {"undo": done["run"]}}
    ).result
    predicted.reload()
    assert undone["counts"] == {"undone": 2, "left": 0}
    assert done["message"].startswith("2 ROIs without a label got the prediction in 'ground_truth'. 3 ROIs had a label")
    assert predicted.values("ground_truth.label") == [None, None, None, "Calanus", "Calanus", "Metridia"]
    assert not any(predicted.values("tags"))


def test_labelled_ones_get_corrections_where_asked(predicted):
    predicted.skip(5).limit(1).tag_samples("$label")  # somebody has said what it is
    done = accept(predicted, only_unlabelled=False, min_confidence=0.35)
    predicted.reload()
    assert predicted.values("ground_truth.label")[3:] == ["Calanus", "Calanus", "Metridia"]
    assert predicted.values("tags")[3:] == [["Metridia"], [], ["$label"]]
    counts = done["counts"]
    assert (counts["corrections"], counts["agree"], counts["below_min_confidence"]) == (1, 1, 1)
    assert sum(counts[k] for k in counts if k != "samples") == counts["samples"] == 6


def test_a_dataset_without_any_label_takes_the_names_of_the_model(predicted):
    predicted.classes = {"pred": ["Calanus", "Metridia", "$label", "Nothing known"]}
    predicted.save()
    done = accept(predicted, label_field="curated")
    predicted.reload()
    assert predicted.values("curated.label") == predicted.values("pred.label")
    assert done["counts"]["labelled"] == 6


def test_only_the_target_is_labelled_and_doing_it_twice_is_doing_it_once(predicted):
    accept(predicted.limit(1))
    done = accept(predicted.limit(1))
    predicted.reload()
    assert predicted.values("ground_truth.label")[:2] == ["Calanus", None]
    assert done["counts"]["labelled"] == 0
    assert done["message"] == "Nothing was accepted. 1 ROI had a label, which stays ('Only unlabelled')."
    assert len(predicted.first()["ground_truth_history"]) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prediction_field": "elemental_id"}, "cannot be 'elemental_id'"),
        ({"label_field": "pred"}, "in the label field itself"),
        ({"label_field": "elemental_id"}, "is not a Classification field"),
        ({"min_confidence": 2}, "min_confidence"),
    ],
)
def test_bad_input_is_one_sentence(predicted, params, message):
    with pytest.raises(Exception, match=message):
        accept(predicted, **params)


def test_the_form_warns_where_nothing_was_chosen(predicted):
    said = form(URI, predicted, prediction_field="pred")
    assert any("every ROI of the dataset" in text for text in said)


def inputs(dataset, view, selected=(), **params):
    """The form's inputs as the App draws it on a view."""
    request = {"dataset_name": dataset.name, "view": view._serialize(), "selected": selected, "params": params}
    return asyncio.run(resolve_type(OperatorRegistry(), URI, request)).to_json()["type"]["properties"]


def drawn(dataset, view):
    found = inputs(dataset, view)
    return {name: found[name]["default"] for name in ("prediction_field", "only_unlabelled")}


def warnings(*drawn_on, **params):
    return [i["view"]["label"] for i in inputs(*drawn_on, **params).values() if i["view"]["name"] == "Warning"]


def test_in_a_view_of_the_focus_list_the_form_accepts_what_the_list_was_made_of(predicted):
    for field in ("a_pred", "pred"):
        samples.prepare_label_field(predicted, field, {samples.MODEL: "m/1"}, ["Calanus", "Metridia"])
    items = [Item(kind, kind, "", np.array(rows), 1.0, 0.1, 0.1) for kind, rows in LISTED.items()]
    doubts = {predicted.values("id")[row]: (0.1, "Metridia") for row in LISTED["wrong labels"]}
    made_of = {"prediction_field": "pred"}
    names = focus_views.write(predicted, predicted.values("id"), items, "pred", doubts, made_of)
    predicted.reload()
    errors, wrong = (predicted.load_saved_view(name) for name in names)
    assert drawn(predicted, errors) == {"prediction_field": "pred", "only_unlabelled": True}
    assert drawn(predicted, wrong) == {"prediction_field": "focus_suggested", "only_unlabelled": False}
    assert drawn(predicted, predicted.view()) == {"prediction_field": "pred", "only_unlabelled": True}

    (said,) = warnings(predicted, wrong)
    assert said.startswith("Only about 1 label of this list can be expected to be wrong")
    assert "2 ROIs would get what they look like" in said
    assert warnings(predicted, wrong, wrong.values("id")[:1]) == warnings(predicted, errors) == []
    assert [
        i["view"]["label"] for i in inputs(predicted, errors).values() if "differ" in str(i["view"].get("label"))
    ] == [
        "Predictions here that differ from the label: 1 of 2. The labels stay as long as 'Only unlabelled' is ticked."
    ]
    (said,) = warnings(predicted, errors, only_unlabelled=False)
    assert "Each would correct its label" in said

    done = accept(wrong, prediction_field="focus_suggested", only_unlabelled=False)
    assert done["message"] == "2 ROIs with a label got the prediction as a correction."
    predicted.reload()
    assert [tags[:1] for tags in predicted.values("tags")] == [[], [], [], ["Metridia"], ["Metridia"], []]
    assert done["counts"] == {"samples": 2, "corrections": 2, "labelled": 0, "left": 0}
