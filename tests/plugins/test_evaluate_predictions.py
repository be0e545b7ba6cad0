"""`evaluate_predictions` through FiftyOne: the evaluation, the focus list with its views, and what is left alone."""

import json
from datetime import date

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from shared import focus_views, samples, vectors
from shared.artifacts import open_root
from shared.lineage import focus_list
from tests import cards
from tests.published import row, version
from tests.worker import form

URI = "@mbari/apply_model/evaluate_predictions"
CLASSES = ("Calanus", "Metridia", "detritus")
EACH = 100  # of a class


@pytest.fixture
def judged(dataset, registry, tmp_path, monkeypatch):
    """300 ROIs: 25 Calanus taken for Metridia, a camera that is bad, 6 wrong labels; some were learned from."""
    monkeypatch.setenv("MBARI_ARTIFACTS", str(tmp_path / "artifacts"))
    rng, n = np.random.default_rng(4), 3 * EACH
    truth = np.repeat(np.arange(3), EACH)
    predicted, camera = truth.copy(), np.arange(n) % 2
    predicted[:25] = 1
    blurred = np.flatnonzero((camera == 1) & (truth == 2))[:30]
    predicted[blurred] = np.arange(30) % 2
    labels = truth.copy()
    labels[EACH : EACH + 6] = 2  # Metridia that somebody called detritus
    vectors_ = (np.eye(3)[truth] * 4 + rng.normal(0, 0.3, (n, 3))).astype(np.float32)
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(n)])
    dataset.set_values("ground_truth", [fo.Classification(label=CLASSES[i]) for i in labels])
    dataset.set_values("camera", ["AB"[i] for i in camera])
    dataset.set_values("day", [date(2015, 7, 1 + i % 20) for i in range(n)])
    vectors.prepare(dataset, "embeddings", {"backbone": "b", "dim": 3})
    vectors.write(dataset, "embeddings", dataset.values("id"), vectors_)
    learned = dataset.values("id")[EACH - 10 : EACH + 3]  # three of the wrong labels, and no tag says so
    rows = [row(i, "x", "train", "0" * 64, str(dataset._doc.id)) for i in learned]
    card = cards.made().model_dump_json().encode()
    record = version(registry, tmp_path, rows=rows, classes=CLASSES, more={"card.json": card})
    samples.prepare_label_field(dataset, "pred_m", {samples.MODEL: record.name}, CLASSES)
    found = [fo.Classification(label=CLASSES[p], confidence=0.95 if i < 5 else 0.6) for i, p in enumerate(predicted)]
    dataset.set_values("pred_m", found)
    return dataset


def evaluate(target, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    return foo.execute_operator(URI, {**where, "params": {"prediction_field": "pred_m", **params}}).result


def views(dataset) -> list[str]:
    dataset.reload()
    return [name for name in dataset.list_saved_views() if name.startswith("focus ")]


def test_the_list_is_a_table_and_views_that_open_what_they_say(judged, tmp_path):
    done = evaluate(judged, slices=["camera", "day"])
    names = views(judged)
    assert done["saved_views"] == names == sorted(names)
    assert len(names) == len(done["focus"])
    assert done["counts"] == {"evaluated": 287, "learned_from": 13, "without_prediction": 0}
    assert done["top1"] == pytest.approx(judged.load_evaluation_results("eval_pred_m").metrics()["accuracy"])
    kinds = {name.split(": ", 1)[1].rpartition(" (")[0] for name in names}
    assert kinds >= {"Calanus taken for Metridia", "Labels that look wrong", "Weak where camera B"}
    for number, (name, item) in enumerate(zip(names, done["focus"], strict=True), start=1):
        view = judged.load_saved_view(name)
        assert view.count() == item["ROIs"]
        assert name == f"focus {number:02d}: {item['where to look']} ({item['ROIs']})"
        assert not [stage for stage in view._stages if isinstance(stage, fo.Select)]

    (confused,) = [name for name in names if "Calanus taken" in name]
    view = judged.load_saved_view(confused)
    assert set(view.values("ground_truth.label")) == {"Calanus"}
    assert view.values("pred_m.confidence") == sorted(view.values("pred_m.confidence"), reverse=True)
    assert view.count() == 25
    json.dumps(done)  # FiftyOne keeps it


def test_wrong_labels_are_looked_for_in_what_was_learned_from_as_well(judged):
    done = evaluate(judged)
    (name,) = [name for name in done["saved_views"] if "Labels that look wrong" in name]
    judged.reload()
    view = judged.load_saved_view(name)
    wrong = judged.values("id")[EACH : EACH + 6]
    assert set(view.values("id")) == set(wrong)
    assert view.values("focus_suggested") == ["Metridia"] * 6
    assert view.values("focus_quality") == sorted(view.values("focus_quality"))
    others = [judged.load_saved_view(other) for other in done["saved_views"] if other != name]
    learned = set(judged.values("id")[EACH - 10 : EACH + 3])
    assert not learned & {i for view in others for i in view.values("id")}

    judged.select(wrong[:2]).tag_samples("reviewed")  # a person has seen that these two are right
    again = evaluate(judged)
    (name,) = [name for name in again["saved_views"] if "Labels that look wrong" in name]
    judged.reload()
    assert set(judged.load_saved_view(name).values("id")) == set(wrong[2:])
    assert judged.exists("focus_suggested").count() == 4


def test_a_rerun_replaces_its_own_views_and_no_one_elses(judged):
    first = evaluate(judged, slices=["camera"])
    taken = next(name for name in first["saved_views"] if "Weak where" in name)
    judged.reload()
    judged.save_view("focus 99: mine", judged.limit(3), description="of my own")
    judged.delete_saved_view(taken)
    judged.save_view(taken, judged.limit(2))  # a person's view of the very name
    judged.set_values("pred_m.label", judged.values("ground_truth.label"))
    judged.set_values("pred_m.confidence", [0.5] * len(judged))
    second = evaluate(judged, slices=["camera"])
    assert set(views(judged)) == {*second["saved_views"], "focus 99: mine", taken}
    assert judged.load_saved_view("focus 99: mine").count() == 3
    assert judged.load_saved_view(taken).count() == 2
    assert [name.split(": ")[1] for name in second["saved_views"]] == ["Labels that look wrong (6)"]
    marked = [mark for marks in judged.values("focus") for mark in marks or () if mark.isdigit()]
    assert marked == ["01"] * 6
    assert "25 were" not in second["message"]


def test_the_list_is_kept_beside_the_version_and_is_on_its_card(judged, registry, tmp_path):
    done = evaluate(judged)
    (record,) = registry.versions("m")
    kept = focus_list.newest(open_root(str(tmp_path / "artifacts"), {}), record.name)
    assert [item.name for item in kept.items] == [item["where to look"] for item in done["focus"]]
    assert (kept.evaluated, kept.learned_from, kept.top1) == (287, 13, done["top1"])
    card = (tmp_path / "artifacts" / "notes" / record.name / "card.md").read_text()
    assert f"1. {done['focus'][0]['where to look']} (" in card.partition("## Where to look")[2]
    assert f"on the card of {record.name} as well" in done["remarks"][-1]


def test_bad_input_is_one_sentence_before_anything_is_written(judged):
    judged.add_sample_field("pixels", fo.ListField)
    with pytest.raises(ExecutionError, match="'pixels' cannot be sliced by: it has no value"):
        evaluate(judged, slices=["pixels"])
    with pytest.raises(ExecutionError, match="no field 'deep' to slice by"):
        evaluate(judged, slices=["deep"])
    with pytest.raises(
        ExecutionError, match=r"'pred_m.confidence' cannot be sliced by: it is part of a label or a pred"
    ):
        evaluate(judged, slices=["camera", "pred_m.confidence"])
    with pytest.raises(ExecutionError, match="'camera' is not a Classification field"):
        evaluate(judged, prediction_field="camera")
    with pytest.raises(ExecutionError, match="no parameter 'slice'; did you mean 'slices'"):
        evaluate(judged, slice=["camera"])
    judged.add_sample_field(focus_views.SUGGESTED, fo.StringField)
    with pytest.raises(ExecutionError, match="'focus_suggested' exists and no evaluation"):
        evaluate(judged)
    judged.reload()
    assert judged.list_evaluations() == judged.list_saved_views() == []
    assert not judged.has_sample_field("focus")


def test_the_form_says_what_the_run_would(judged):
    assert not any("cannot" in text for text in form(URI, judged, prediction_field="pred_m"))
    said = form(URI, judged, prediction_field="pred_m", slices=["deep"])
    assert any("no field 'deep'" in text for text in said)
