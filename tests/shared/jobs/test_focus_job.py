"""What the focus list is made from: logits where there are no vectors, dates, slices; and what is said of it."""

from dataclasses import replace
from datetime import datetime

import fiftyone as fo
import fiftyone.core.odm as odm
import numpy as np
import pytest

from shared import samples
from shared.errors import InputError
from shared.jobs import focus_job
from shared.operators import Job
from shared.runs import Monitor

CLASSES = ["Calanus", "Metridia", "detritus"]


class Stopped(Monitor):
    """Somebody has asked for an end."""

    def stopping(self) -> bool:
        return True


@pytest.fixture
def seasons(dataset, registry):
    """Two Julys of 90 ROIs; in the second one 45 more are called detritus; 5 labels are wrong."""
    rng, n = np.random.default_rng(3), 180
    truth = np.arange(n) % 3
    predicted = truth.copy()
    predicted[90:150] = 2
    labels = truth.copy()
    labels[:5] = (truth[:5] + 1) % 3
    logits = np.eye(3)[predicted] * 5 + rng.normal(0, 0.1, (n, 3))
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(n)])
    dataset.set_values("ground_truth", [fo.Classification(label=CLASSES[i]) if i >= 0 else None for i in labels])
    samples.prepare_label_field(dataset, "pred_m", {samples.MODEL: "m/1", "classes": CLASSES[::-1]}, CLASSES[::-1])
    found = [
        fo.Classification(label=CLASSES[p], confidence=0.9, logits=row[::-1])
        for p, row in zip(predicted, logits, strict=True)
    ]
    dataset.set_values("pred_m", found)
    dataset.set_values("taken", [datetime(2014 + i // 90, 7, 1 + i % 30, 12) for i in range(n)])
    dataset.set_values("site", ["north"] * n)
    return dataset


def evaluate(dataset, monitor=None, **params):
    wanted = focus_job.Params(**{"prediction_field": "pred_m", **params})
    return focus_job.work(Job(wanted, dataset, dataset.view(), {}, monitor or Monitor(), "ann", odm.get_db_conn()))


def said(done):
    return " ".join([done["message"], *done["remarks"]])


def looked(done):
    return [item["where to look"] for item in done["focus"]]


def test_logits_serve_where_there_are_no_vectors(seasons):
    for sample in seasons.skip(90).iter_samples(autosave=True):
        sample["ground_truth"] = None
    done = evaluate(seasons)
    assert "by the stored logits" in said(done)
    (name,) = [name for name in done["saved_views"] if "Labels that look wrong" in name]
    view = seasons.load_saved_view(name)
    assert set(view.values("id")) == set(seasons.limit(5).values("id"))
    assert view.values("focus_suggested") == view.values("pred_m.label")


def test_a_season_is_held_against_earlier_ones_where_a_field_has_dates(seasons):
    done = evaluate(seasons, slices=["taken", "site"])
    (item,) = [item for item in done["focus"] if item["where to look"].startswith("More")]
    assert item["where to look"] == "More detritus than before, site north, June to August 2015"
    assert "Class mix" not in said(done)


def test_the_only_field_of_dates_serves_unasked_and_of_several_one_is_asked_for(seasons):
    mixes = [
        [name for name in looked(evaluate(seasons, slices=slices)) if name.startswith("More")]
        for slices in (["site"], [])
    ]
    season = "June to August 2015"
    assert mixes == [[f"More detritus than before, site north, {season}"], [f"More detritus than before, {season}"]]
    assert "by 'taken', all collections together" in said(evaluate(seasons))
    seasons.set_values("archived", [datetime(2020, 1, 1)] * len(seasons))
    done = evaluate(seasons)
    assert not [name for name in looked(done) if name.startswith("More")]
    assert "earlier seasons: choose one of taken, archived to slice by" in said(done)


def test_corrections_that_are_not_applied_are_named(seasons):
    seasons.limit(3).tag_samples("detritus")
    # One of them is labelled so already.
    assert "2 have a correction that is not applied" in said(evaluate(seasons))


def test_without_vectors_and_logits_wrong_labels_are_not_looked_for(seasons):
    seasons.set_field("pred_m.logits", None).save()
    done = evaluate(seasons)
    assert "not looked for: there are no vectors; run 'Compute embeddings'" in said(done)
    assert "Calanus taken for detritus" in {item["where to look"] for item in done["focus"]}


def test_stopped_it_evaluates_and_leaves_the_list_that_is_there(seasons):
    views = evaluate(seasons)["saved_views"]
    seasons.add_sample_field("embeddings", fo.VectorField)
    seasons.set_values("embeddings", list(np.ones((180, 2), np.float32)))
    seasons.match({"pred_m.label": "detritus"}).set_field("pred_m.label", "Calanus").save()
    done = evaluate(seasons, Stopped())
    assert "stopped before all labels were looked at: the focus list is as it was" in said(done)
    assert "focus" not in done
    assert seasons.load_evaluation_results("eval_pred_m").metrics()["accuracy"] == pytest.approx(done["top1"])
    seasons.reload()
    assert [name for name in seasons.list_saved_views() if name.startswith("focus ")] == views


def test_a_view_of_the_list_is_not_evaluated_by_itself(seasons):
    first = seasons.load_saved_view(evaluate(seasons)["saved_views"][0])
    job = Job(focus_job.Params(prediction_field="pred_m"), seasons, first, {}, Monitor(), "ann", odm.get_db_conn())
    for view in (first, first.limit(2), first.select(first.first().id)):
        with pytest.raises(InputError, match="a view of the focus list, which holds little but mistakes"):
            focus_job.work(replace(job, view=view))
    assert len(seasons.load_evaluation_results("eval_pred_m").ytrue) == len(seasons)


def test_confidences_that_cannot_be_are_no_confidences(seasons):
    per_cent = [100 * confidence for confidence in seasons.values("pred_m.confidence")]
    seasons.set_values("pred_m.confidence", per_cent[:100] + [None] * 80)
    done = evaluate(seasons)
    assert "180 predictions have no confidence between 0 and 1" in said(done)
    assert "Errors at high confidence" not in looked(done)


def test_whose_list_it_replaces_is_said(seasons):
    assert "takes the place" not in said(evaluate(seasons))
    assert "takes the place" not in said(evaluate(seasons))
    seasons.clone_sample_field("pred_m", "pred_n")
    assert "It takes the place of the focus list of 'pred_m'" in said(evaluate(seasons, prediction_field="pred_n"))


def test_vectors_of_others_than_the_target_are_of_no_use_and_that_is_said(seasons):
    seasons.add_sample_field("embeddings", fo.VectorField)
    seasons.limit(5).set_values("embeddings", list(np.ones((5, 2), np.float32)))
    seasons.limit(5).set_field("ground_truth", None).save()
    assert "No labelled ROI of the target has a vector in 'embeddings': run 'Compute" in said(evaluate(seasons))
