"""From vectors to clusters, and from clusters to labels: through FiftyOne's operators, on a real dataset."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest

from shared import clustered, vectors
from tests import labels
from tests.worker import code, delegate, form, result, table

CLUSTER = "@mbari/custom_embeddings/cluster_embeddings"
LABEL = "@mbari/custom_embeddings/label_clusters"
INFO = {"backbone": "a", "layer": "CLS token", "weights_sha256": "0" * 64, "framing": "pad", "imgsz": 224, "dim": 8}
SIZES = (9, 6, 4)


def bunches(extra: int = 2, noise: float = 0.01) -> np.ndarray:
    """Three bunches of vectors in three directions, and some in directions of their own, float32 (19 + extra, 8)."""
    rng = np.random.default_rng(0)
    made = np.repeat(np.eye(8)[:3], SIZES, axis=0)
    made = np.concatenate([made + rng.normal(0, noise, made.shape), np.eye(8)[4 : 4 + extra]])
    return made.astype(np.float32)


@pytest.fixture
def embedded(dataset, monkeypatch, registry, db):
    """21 samples, all unlabelled but six, with vectors in three bunches; the vocabulary is the field's classes."""
    monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
    dataset.classes["ground_truth"] = ["Calanus", "Metridia", "$label"]
    dataset.save()
    labels.fill(dataset, ["Calanus"] * 4 + ["Metridia"] * 2 + [None] * 15)
    vectors.prepare(dataset, "embeddings", INFO)
    vectors.write(dataset, "embeddings", dataset.values("id"), bunches())
    return dataset


def run(uri, target, **params):
    where = {"dataset": target} if isinstance(target, fo.Dataset) else {"view": target}
    return foo.execute_operator(uri, {**where, "params": params}).result


def members(dataset, number):
    return dataset.match(fo.ViewField("cluster.label") == clustered.name(number))


def test_bunches_become_clusters_and_what_stands_alone_does_not(embedded):
    done = run(CLUSTER, embedded)
    embedded.reload()
    names = embedded.values("cluster.label")
    assert names == ["Unknown C0"] * 9 + ["Unknown C1"] * 6 + ["Unknown C2"] * 4 + [None] * 2
    assert all(0 <= c <= 1 for c in embedded.exists("cluster").values("cluster.confidence"))
    counts = done["counts"]
    assert (counts["rois"], counts["clusters"], counts["in_clusters"], counts["noise"]) == (21, 3, 19, 2)
    assert [row["ROIs"] for row in done["largest"]] == list(SIZES)
    kept = embedded.get_field("cluster").info[clustered.INFO]
    assert kept["complete"]
    assert kept["parameters"]["alpha"] == 1.1
    assert kept["embeddings"]["backbone"] == "a"
    outliers = embedded.values("cluster_outlier")
    assert min(outliers[-2:]) > max(outliers[:-2])

    exemplars = embedded.load_saved_view("clusters: exemplars")
    assert exemplars.values("cluster.label") == ["Unknown C0", "Unknown C1", "Unknown C2"]
    assert len(embedded.load_saved_view("clusters: largest")) == 19
    assert set(embedded.load_saved_view("clusters: rare").limit(2).values("id")) == set(embedded.values("id")[-2:])


def test_a_rerun_replaces_its_own_clusters_tags_and_views(embedded):
    run(CLUSTER, embedded)
    ids = embedded.values("id")
    embedded.select(ids[:3]).set_field("embeddings", None).save()
    done = result(delegate(CLUSTER, embedded, min_cluster_size=5))
    embedded.reload()
    assert done["counts"]["without_vector"] == 3
    names = embedded.values("cluster.label")
    assert names[:3] == [None] * 3
    assert [len(set(names[3:9])), len(set(names[9:15]))] == [1, 1]
    assert {*names[3:15]} == {"Unknown C0", "Unknown C1"} == {*names[3:]} - {None}  # four are too few for a third
    assert len(embedded.match_tags("cluster-exemplar")) == 2
    assert embedded.values("cluster_outlier")[:3] == [None] * 3


def test_clusterings_of_different_targets_are_not_mixed(embedded):
    run(CLUSTER, embedded.limit(15))
    with pytest.raises(Exception, match="15 ROIs outside of the target have clusters in 'cluster'"):
        run(CLUSTER, embedded.skip(15))
    assert run(CLUSTER, embedded.skip(15), cluster_field="later")["counts"]["rois"] == 6
    assert "clusters: exemplars (later)" in embedded.list_saved_views()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"embeddings_field": "nothing"}, "no field 'nothing'"),
        ({"cluster_field": "ground_truth"}, "holds labels that no clustering of this suite made"),
        ({"cluster_field": "elemental_id"}, "is not a Classification field"),
        ({"min_cluster_size": 40}, "21 ROIs of the target have a vector, fewer than one cluster needs"),
        ({"min_cluster_size": 1}, "min_cluster_size"),
    ],
)
def test_what_cannot_be_clustered_says_why(embedded, params, message):
    with pytest.raises(Exception, match=message):
        run(CLUSTER, embedded, **params)
    embedded.reload()
    assert not embedded.has_sample_field("cluster")


def test_members_get_corrections(embedded):
    run(CLUSTER, embedded)
    done = run(LABEL, embedded, clusters=["Unknown C0"], label="Metridia")
    embedded.reload()
    # Two are labelled so already; nothing else changed.
    assert embedded.values("tags")[:9] == [
        [*(["cluster-exemplar"] if "cluster-exemplar" in tags else []), *(["Metridia"] if label != "Metridia" else [])]
        for tags, label in zip(embedded.values("tags")[:9], embedded.values("ground_truth.label")[:9], strict=True)
    ]
    assert embedded.count_sample_tags()["Metridia"] == 7
    assert embedded.values("ground_truth.label")[:6] == ["Calanus"] * 4 + ["Metridia"] * 2
    assert (done["counts"]["members"], done["counts"]["corrected"], done["counts"]["already"]) == (9, 7, 2)
    assert {row["label"]: row["ROIs"] for row in done["labels_before"]} == {"Calanus": 4, "Metridia": 2, "none": 3}

    # Another name for the same cluster replaces the correction.
    done = run(LABEL, embedded, clusters=["Unknown C0"], label="$label")
    embedded.reload()
    assert done["counts"]["replaced"] == 7
    assert embedded.count_sample_tags() == {"$label": 9, "cluster-exemplar": 3}


def test_members_become_labels_at_once_and_it_can_be_undone(embedded):
    run(CLUSTER, embedded)
    before = embedded.values("ground_truth.label")
    done = run(LABEL, embedded, clusters=["Unknown C0", "Unknown C1"], label="Metridia", write="label")
    embedded.reload()
    assert embedded.values("ground_truth.label") == ["Metridia"] * 15 + [None] * 6
    assert (done["counts"]["labelled"], done["counts"]["already"]) == (13, 2)
    (entry,) = embedded.first()["ground_truth_history"]
    assert (entry["from"], entry["to"], entry["how"], entry["run"]) == ("Calanus", "Metridia", "cluster", done["run"])
    assert embedded.count_sample_tags()["needs-sync"] == 13  # they have an id in the store
    undone = run("@mbari/sync_back/apply_corrections", embedded, undo=done["run"])
    embedded.reload()
    assert undone["counts"] == {"undone": 13, "left": 0}
    assert embedded.values("ground_truth.label") == before
    assert "needs-sync" not in embedded.count_sample_tags()


def test_names_in_a_field_of_their_own_leave_what_others_are_corrected_to_alone(embedded):
    run(CLUSTER, embedded)
    embedded.match(fo.ViewField("cluster.label") == "Unknown C2").tag_samples("Metridia")
    run("@mbari/sync_back/apply_corrections", embedded)  # so tags speak of the ground truth
    embedded.limit(2).tag_samples("needs-sync")
    embedded.skip(2).limit(3).tag_samples("Metridia")
    embedded.classes["first_pass"] = ["Calanus", "Metridia"]
    embedded.save()
    before = embedded.values("tags")
    params = {"clusters": ["Unknown C0"], "label": "Calanus", "label_field": "first_pass"}
    with pytest.raises(Exception, match="Correction tags speak of 'ground_truth' in this dataset; for 'first_pass'"):
        run(LABEL, embedded, **params)
    run(LABEL, embedded, **params, write="label")
    embedded.reload()
    assert embedded.values("first_pass.label")[:10] == ["Calanus"] * 9 + [None]
    assert embedded.values("tags") == before
    run(LABEL, embedded, **{**params, "label_field": "ground_truth"})  # the first one is spoken of still


def test_labels_and_edges_are_left_out_where_asked(embedded):
    run(CLUSTER, embedded)
    confidences = embedded.values("cluster.confidence")
    least = sorted(c for c in confidences[9:15])[3]
    done = run(LABEL, embedded, clusters=["Unknown C0"], label="Metridia", only_unlabelled=True)
    assert (done["counts"]["corrected"], done["counts"]["labelled_before"]) == (3, 6)
    done = run(LABEL, embedded, clusters=["Unknown C1"], label="Calanus", min_confidence=least)
    kept = sum(c >= least for c in confidences[9:15])
    assert (done["counts"]["corrected"], done["counts"].get("below_min_confidence", 0)) == (kept, 6 - kept)


def test_a_lasso_needs_no_clusters_and_the_whole_dataset_does(embedded):
    run(CLUSTER, embedded)
    done = run(LABEL, embedded.skip(14).limit(6), label="Metridia")
    assert done["counts"]["members"] == 5  # the one that stands alone is in no cluster
    with pytest.raises(Exception, match="Choose clusters, or select the ROIs"):
        run(LABEL, embedded, label="Metridia")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"label": "Calanu"}, r"'Calanu' is not in the vocabulary .*did you mean 'Calanus'\?"),
        ({"clusters": ["Unknown C99"]}, "There is no cluster 'Unknown C99' in 'cluster'"),
        ({"cluster_field": "ground_truth"}, "cannot be 'ground_truth'|holds no clusters"),
        ({"write": "both"}, "write"),
        ({"min_confidence": -1}, "min_confidence"),
    ],
)
def test_bad_input_is_one_sentence(embedded, params, message):
    run(CLUSTER, embedded)
    with pytest.raises(Exception, match=message):
        run(LABEL, embedded, **{"clusters": ["Unknown C0"], "label": "Calanus", **params})


def test_a_clustering_that_was_broken_off_is_not_labelled(embedded, monkeypatch):
    run(CLUSTER, embedded)
    field = embedded.get_field("cluster")
    field.info = {clustered.INFO: {**field.info[clustered.INFO], "complete": False}}
    field.save()
    with pytest.raises(Exception, match="was broken off; run 'Cluster embeddings' again"):
        run(LABEL, embedded, clusters=["Unknown C0"], label="Calanus")


def test_the_form_previews_by_current_label(embedded):
    assert any("no clusters in this dataset yet" in text for text in form(LABEL, embedded))
    run(CLUSTER, embedded)
    said = form(LABEL, embedded, clusters=["Unknown C0"], label="Metridia")
    assert any("9 ROIs would be Metridia" in text for text in said)


def test_what_is_in_no_cluster_is_left_and_said(embedded):
    run(CLUSTER, embedded)
    some = embedded.skip(17)  # two of a cluster, and two that stand alone
    said = form(LABEL, some, label="Calanus")
    assert any("2 ROIs would be Calanus" in text for text in said)
    assert any("2 ROIs of the target are in no cluster, and left" in text for text in said)
    done = run(LABEL, some, label="Calanus")
    assert "2 of the target are in no cluster and were left" in done["message"]
    assert done["counts"] == {"members": 2, "in_no_cluster": 2, "samples": 2, "corrected": 2}
    everything = form(LABEL, embedded.limit(9), label="Calanus")
    assert not any("no cluster" in text for text in everything)


def test_while_the_name_of_a_label_field_is_typed_nothing_is_labelled_in_it(embedded):
    run(CLUSTER, embedded)
    said = table(LABEL, embedded, clusters=["Unknown C0"], label="Calanus", label_field="gro")
    assert said == [{"label now": "none", "ROIs": "9"}]
    usual = table(LABEL, embedded, clusters=["Unknown C0"], label="Calanus")
    assert {row["label now"] for row in usual} == {"Calanus", "Metridia", "none"}


def test_in_a_large_dataset_edges_are_counted_on_request(embedded, monkeypatch):
    run(CLUSTER, embedded)
    asked = {"clusters": ["Unknown C0"], "label": "Calanus", "min_confidence": 1.0}
    sure = len([c for c in members(embedded, 0).values("cluster.confidence") if c == 1.0])
    assert any(f"{sure} ROI" in text and "Up to" not in text for text in form(LABEL, embedded, **asked))
    monkeypatch.setattr(code("custom_embeddings", "shared.forms"), "SLOW", 20)
    assert any("Up to 9 ROIs would be Calanus" in text for text in form(LABEL, embedded, **asked))
    box = "_show_count_without_the_clusters_edges_takes_a_few_seconds_"
    (said,) = [text for text in form(LABEL, embedded, **asked, **{box: True}) if "would be" in text]
    assert said.startswith(f"{sure} ROI")


def test_labels_given_by_corrections_and_then_by_clusters_are_taken_back_one_after_the_other(embedded):
    run(CLUSTER, embedded)
    before = embedded.values("ground_truth.label")
    embedded.limit(3).tag_samples("Metridia")
    first = run("@mbari/sync_back/apply_corrections", embedded)["run"]
    between = embedded.values("ground_truth.label")
    second = run(LABEL, embedded, clusters=["Unknown C0"], label="$label", write="label")["run"]
    for undo, expected in ((second, between), (first, before)):
        run("@mbari/sync_back/apply_corrections", embedded, undo=undo)
        embedded.reload()
        assert embedded.values("ground_truth.label") == expected
    again = run("@mbari/sync_back/apply_corrections", embedded, undo=second)
    assert again["left_alone"] == [{"reason": "it was taken back before", "labels": 9}]


def test_a_label_at_once_settles_a_correction_that_said_otherwise(embedded):
    run(CLUSTER, embedded)
    embedded.skip(4).limit(1).tag_samples("Calanus")  # it is labelled Metridia
    run(LABEL, embedded, clusters=["Unknown C0"], label="Metridia", write="label")
    embedded.reload()
    assert "Calanus" not in embedded.count_sample_tags()


def test_the_views_are_in_the_order_of_the_numbers(dataset, registry, db):
    labels.fill(dataset, [None] * 36)
    vectors.prepare(dataset, "embeddings", {**INFO, "dim": 12})
    made = np.repeat(np.eye(12), 3, axis=0) + np.random.default_rng(0).normal(0, 0.01, (36, 12))
    vectors.write(dataset, "embeddings", dataset.values("id"), made)
    run(CLUSTER, dataset)
    exemplars = dataset.load_saved_view("clusters: exemplars")
    assert exemplars.values("cluster.label") == [clustered.name(n) for n in range(12)]
