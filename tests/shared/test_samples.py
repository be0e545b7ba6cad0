"""The door to FiftyOne: what goes in comes out, in bulk, in order, and nothing else is touched."""

import fiftyone as fo
import numpy as np
import pytest

from shared import samples
from shared.errors import InputError


def test_batches_keep_the_view_s_order_and_fill_unknown_paths_with_none(five_rois):
    view = five_rois.sort_by("filepath", reverse=True)
    columns = {"path": "filepath", "label": "ground_truth.label", "nothing": "no_such_field"}
    parts = list(samples.batches(view, columns, size=2))
    assert [len(p["id"]) for p in parts] == [2, 2, 1]
    assert [path for p in parts for path in p["path"]] == [f"/images/{i}.png" for i in (4, 3, 2, 1, 0)]
    assert [label for p in parts for label in p["label"]] == ["c c/c", "a", None, "b", "a"]
    assert all(value is None for p in parts for value in p["nothing"])
    assert [i for p in parts for i in p["id"]] == view.values("id")


def test_a_sample_deleted_while_reading_is_left_out(five_rois):
    parts = samples.batches(five_rois.view(), {"path": "filepath"}, size=2)
    next(parts)
    gone = five_rois.values("id")[2]
    five_rois.delete_samples([gone])
    assert gone not in [i for p in parts for i in p["id"]]


def test_writing_labels_twice_or_in_other_parts_leaves_the_same_documents(five_rois):
    samples.prepare_label_field(five_rois, "pred", {"mbari_model": "m/1"}, ["a", "b"])
    ids = five_rois.values("id")
    logits = np.arange(10, dtype=np.float32).reshape(5, 2)
    names, confidences = ["a", "b", None, "a", "b"], np.array([0.9, 0.8, 0.1, 0.7, 0.6])
    samples.write_labels(five_rois, "pred", ids, names, confidences, logits)
    five_rois.reload()
    once = five_rois.values(["pred.id", "pred.label", "pred.confidence"])
    for part in ([3, 1], [0, 2, 4]):
        chosen = [ids[i] for i in part]
        samples.write_labels(five_rois, "pred", chosen, [names[i] for i in part], confidences[part], logits[part])
    assert five_rois.values(["pred.id", "pred.label", "pred.confidence"]) == once
    assert once[1] == names
    assert np.array_equal(five_rois.first().pred.logits, logits[0])
    assert five_rois.get_field("pred").info["mbari_model"] == "m/1"
    assert five_rois.classes["pred"] == ["a", "b"]
    # A label of None takes away what was there.
    samples.write_labels(five_rois, "pred", ids[:1], [None], [0.1])
    assert five_rois.reload() is None
    assert five_rois.values("pred.label") == [None, *names[1:]]


def test_written_labels_change_the_time_of_last_modification_and_nothing_else(five_rois):
    samples.prepare_label_field(five_rois, "pred", {}, ["a"])
    before = five_rois.values(["last_modified_at", "ground_truth.label", "tags", "elemental_id"])
    samples.write_labels(five_rois, "pred", five_rois.values("id")[:1], ["a"], [1.0])
    after = five_rois.values(["last_modified_at", "ground_truth.label", "tags", "elemental_id"])
    assert after[0][0] > before[0][0]
    assert after[0][1:] == before[0][1:]
    assert after[1:] == before[1:]


def test_the_newest_predictions_come_first(five_rois):
    assert samples.predictions(five_rois) == []
    for name in ("pred_b", "pred_c", "pred_a"):
        samples.prepare_label_field(five_rois, name, {samples.MODEL: "m/1"}, ["x"])
    samples.prepare_label_field(five_rois, "pred_b", {samples.MODEL: "m/2"}, ["x"])
    assert samples.predictions(five_rois) == ["pred_a", "pred_c", "pred_b"]


def test_a_field_of_another_type_is_refused(five_rois):
    with pytest.raises(InputError, match=r"'elemental_id' is not a Classification field.*ground_truth"):
        samples.prepare_label_field(five_rois, "elemental_id", {}, [])
    with pytest.raises(InputError, match=r"'nope' does not exist"):
        samples.require_label_field(five_rois, "nope")
    with pytest.raises(InputError, match="not one of strings"):
        samples.write_values(five_rois, "day", [], [])


def test_tags_of_a_closed_set_replace_each_other_and_leave_others_alone(five_rois):
    ids = five_rois.values("id")
    samples.set_tags(five_rois, ids, ["test", "val", None, "train", "train"], samples.SPLITS)
    assert [set(tags) for tags in five_rois.values("tags")] == [
        {"mine", "test"},
        {"mine", "val"},
        {"mine"},
        {"mine", "train"},
        {"mine", "train"},
    ]


def test_unreadable_is_tagged_and_taken_back(five_rois):
    ids = five_rois.values("id")
    samples.mark_unreadable(five_rois, ids[:2])
    assert five_rois.match_tags("unreadable").values("id") == ids[:2]
    samples.mark_unreadable(five_rois, ids[2:3], readable=ids[:1])
    assert five_rois.match_tags("unreadable").values("id") == ids[1:3]


def test_views_by_name(five_rois):
    five_rois.save_view("half", five_rois.limit(2))
    assert samples.open_view(five_rois.name).count() == 5
    assert samples.open_view(f"{five_rois.name}/half").count() == 2
    with pytest.raises(InputError, match=r"has no saved view 'other' \(it has: half\)"):
        samples.open_view(f"{five_rois.name}/other")
    with pytest.raises(InputError, match="There is no dataset"):
        samples.open_view("no such dataset")
    five_rois.save_view("groups", five_rois.group_by("filepath"))
    with pytest.raises(InputError, match="groups: This view shows groups of samples; open the samples themselves"):
        samples.open_view(f"{five_rois.name}/groups")


def test_facts_about_a_dataset_are_kept_beside_other_people_s(five_rois):
    five_rois.info["theirs"] = 1
    five_rois.save()
    samples.remember(five_rois, "group_field", "day")
    samples.remember(five_rois, "other", 2)
    five_rois.reload()
    assert samples.recall(five_rois, "group_field") == "day"
    assert five_rois.info["theirs"] == 1


def test_values_of_a_new_field(five_rois):
    ids = five_rois.values("id")
    samples.write_values(five_rois, "media_sha256", ids[:3], ["x", "y", "z"])
    five_rois.reload()
    assert five_rois.values("media_sha256") == ["x", "y", "z", None, None]


def test_the_state_of_a_view_changes_with_its_samples(dataset):
    def now():
        return samples.state(dataset.view())

    seen = [now()]
    dataset.add_samples([fo.Sample(filepath=f"{i}.png") for i in range(3)])
    seen.append(now())
    assert now() == seen[-1]
    samples.set_tags(dataset, dataset.values("id")[:1], ["train"], samples.SPLITS)
    seen.append(now())
    dataset.delete_samples(dataset.values("id")[2:])
    seen.append(now())
    seen.append(samples.state(dataset.match_tags("train")))
    assert len(set(seen)) == len(seen)
    assert samples.state(dataset.match_tags("train")) == seen[-1]  # the same view, made once more


def test_ids_as_text_are_packed_like_those_of_a_view(dataset):
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.png") for i in range(3)])
    assert samples.packed(dataset.values("id")).tolist() == samples.ids(dataset).tolist()
    assert samples.packed([]).tolist() == []


def test_what_says_something_about_a_sample_can_be_sliced_by(dataset):
    for field in ("camera", "elemental_id", "ground_truth_stored", "ground_truth_sync", "ground_truth_said"):
        dataset.add_sample_field(field, fo.StringField)
    for field in ("depth", "cluster_outlier", "other_outlier", samples.HASH_FIELD):
        dataset.add_sample_field(field, fo.FloatField)
    for field, info in (("ground_truth", {}), ("pred", {samples.MODEL: "m/1"}), ("cluster", {"mbari_clusters": {}})):
        samples.prepare_label_field(dataset, field, info, ["a"])
    assert sorted(samples.sliced_fields(dataset)) == ["camera", "depth", "ground_truth_said", "other_outlier"]
    assert samples.sliced_fields(dataset, fo.FloatField) == ["depth", "other_outlier"]
    assert samples.not_sliced(dataset, "camera") is None
    part = "it is part of a label or a prediction, not of the sample."
    for name in ("pred.confidence", "ground_truth.label", "cluster", "ground_truth"):
        assert samples.not_sliced(dataset, name) == f"The field {name!r} cannot be sliced by: {part}"
    for name in ("elemental_id", "ground_truth_sync", "cluster_outlier", "created_at"):
        assert "it is an id, or was written by" in samples.not_sliced(dataset, name)
    assert samples.not_sliced(dataset, "deep") == "The dataset has no field 'deep' to slice by."
